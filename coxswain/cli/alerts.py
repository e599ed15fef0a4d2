"""``cox alerts``: what the rules found, and what is done about it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from urllib.parse import quote, urlencode

import click

from coxswain.cli.accounts import device_id_of
from coxswain.cli.names import called, whole
from coxswain.cli.output import (
    Group,
    clean,
    client,
    config_option,
    facts,
    json_option,
    node_path,
    paint,
    print_json,
    table,
)
from coxswain.errors import InvalidInput

__all__ = ["about", "alerts"]

_SPAN = re.compile(r"([0-9]{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _filters(command: Any) -> Any:
    for option in (
        json_option,
        click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True),
        click.option("--all", "every", is_flag=True, help="Those that are resolved as well."),
        click.option("--node", help="Only about this node: name or id."),
        click.option("--device", help="Only about this device: id or name."),
        click.option("--severity", type=click.Choice(["info", "warning", "critical"])),
        click.option("--kind", help="Only of this rule, e.g. fleet_health."),
        click.option("--status", type=click.Choice(["open", "acknowledged", "resolved"])),
        config_option,
    ):
        command = option(command)
    return command


@click.group(cls=Group, invoke_without_command=True)
@_filters
@click.pass_context
def alerts(context: click.Context, /, **options: Any) -> None:
    """Alerts that are not resolved, newest first; acknowledge, resolve and snooze them."""
    if context.invoked_subcommand is None:
        _print_list(**options)


@alerts.command("list")
@_filters
def list_(**options: Any) -> None:
    """As cox alerts."""
    _print_list(**options)


def _print_list(
    *,
    config: str | None,
    status: str | None,
    kind: str | None,
    severity: str | None,
    device: str | None,
    node: str | None,
    limit: int,
    every: bool,
    as_json: bool,
) -> None:
    unresolved = None if every or status else "true"
    asking = client(config)
    device = device_id_of(asking, device) if device else device
    if node and not node.startswith("nod_"):  # of an id nobody is asked: alerts are kept of nodes that were removed
        node = asking.get(node_path(node))["id"]
    query = {"status": status, "kind": kind, "severity": severity, "device": device, "node": node, "limit": limit}
    query["unresolved"] = unresolved
    asked = urlencode({key: value for key, value in query.items() if value is not None})
    found = asking.get(f"/api/alerts?{asked}")
    if as_json:
        print_json(found)
        return
    if not found["alerts"]:
        click.echo("There are none." if every or status else "Nothing needs you. See all with: cox alerts --all")
    else:
        rows = [[a["id"], a["at"], a["kind"], a["severity"], _state(a), *about(a)] for a in found["alerts"]]
        head = ["ID", "TIME", "KIND", "SEVERITY", "STATUS", "DEVICE", "SOURCE-IPS", "ABOUT"]
        table(head, rows, styles={3: paint, 4: paint})
    if found.get("backend_warning"):
        click.echo(f"note: {clean(found['backend_warning'])}", err=True)


@alerts.command("show")
@config_option
@json_option
@click.argument("alert")
def show(config: str | None, alert: str, *, as_json: bool) -> None:
    """One alert with its evidence."""
    _print(client(config).get(_path(alert)), as_json=as_json)


@alerts.command("ack")
@config_option
@json_option
@click.argument("alert")
def ack(config: str | None, alert: str, *, as_json: bool) -> None:
    """Somebody takes care of it."""
    _done(client(config).post(_path(alert, "ack")), "acknowledged", as_json=as_json)


@alerts.command("resolve")
@config_option
@json_option
@click.argument("alert")
def resolve(config: str | None, alert: str, *, as_json: bool) -> None:
    """It is over; only newer evidence opens another one."""
    _done(client(config).post(_path(alert, "resolve")), "resolved", as_json=as_json)


@alerts.command("snooze")
@config_option
@json_option
@click.argument("alert")
@click.argument("span", metavar="SPAN")
def snooze(config: str | None, alert: str, span: str, *, as_json: bool) -> None:
    """Not to be told of it for a SPAN such as 30m, 4h or 7d; off: now again."""
    until = None if span == "off" else _until(span, dt.datetime.now(dt.UTC))
    found = client(config).post(_path(alert, "snooze"), {"until": until})
    _done(found, f"snoozed until {found.get('snoozed_until')}" if until else "not snoozed any more", as_json=as_json)


def _until(span: str, now: dt.datetime) -> str:
    match = _SPAN.fullmatch(span)
    if match is None:
        raise InvalidInput(f"span: {span[:40]!r} is not a number of minutes, hours or days such as 30m, 4h or 7d, or off")
    return (now + dt.timedelta(**{_UNITS[match[2]]: int(match[1])})).isoformat()


def _done(alert: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(alert)
    else:
        click.echo(f"{alert['id']} ({clean(alert['kind'])}): {what}")


def _print(a: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(a)
        return
    facts(
        [
            ("id", a["id"]),
            ("alert", f"{a['title']} ({a['kind']})"),
            ("severity", a["severity"]),
            ("status", _state(a)),
            ("at", a["at"]),
            ("device", whole(a, "device")),
            ("user", whole(a, "user")),
            ("node", whole(a, "node")),
            ("from", a["source_ips"]),
            ("handled by", a.get("handled_by", "")),
        ]
    )
    click.echo()
    facts([(line["label"], line["text"]) for line in a["facts"]])


def _state(a: dict[str, Any]) -> str:
    return f"{a['status']}, snoozed" if a.get("snoozed_until") else str(a["status"])


def about(a: dict[str, Any]) -> tuple[str, str, str]:
    detail = a.get("detail") or {}
    names = (detail.get(key) for key in ("holder", "username", "email", "name", "where"))
    path = detail.get("path_name")
    words = (path and f"path {path}", detail.get("node_name"), called(a, "node"), *names)
    found = next((word for word in words if word), "")
    return called(a, "device"), ", ".join(a["source_ips"][:4]), str(found)


def _path(alert: str, action: str = "") -> str:
    return f"/api/alerts/{quote(alert, safe='')}" + (f"/{action}" if action else "")
