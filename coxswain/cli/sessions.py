"""``cox sessions``: who is, and was, connected, and how much they moved."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import click

from coxswain.cli.client import Client
from coxswain.cli.files import written
from coxswain.cli.moments import Moment
from coxswain.cli.names import called, marked, whole
from coxswain.cli.output import ago, client, config_option, duration, facts, json_option, print_json, size, table
from coxswain.words import counted

__all__ = ["sessions"]

_LIMIT = click.IntRange(1, 1000)
_PROTOCOLS = click.Choice(["amneziawg", "xray-reality"])


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which sessions."""
    for option in reversed(
        (
            click.option("--active", is_flag=True, help="Only those that are open now."),
            click.option("--node", metavar="NODE", help="Only on this node (name or id, also of a removed one)."),
            click.option("--device", metavar="DEVICE", help="Only of this device (name or id, also of a removed one)."),
            click.option("--user", metavar="USER", help="Only of this user (name, e-mail or id, also of a removed one)."),
            click.option("--protocol", type=_PROTOCOLS, help="Only of this protocol."),
            click.option("--reason", metavar="WORD", help="Only those that ended so, such as idle or stream-lost."),
            click.option("--country", metavar="CODE", help="Only from this country, such as DE; needs a GeoIP database."),
        )
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@config_option
@json_option
@_which
@click.option("--limit", type=_LIMIT, default=50, show_default=True)
@click.pass_context
def sessions(ctx: click.Context, /, config: str | None, *, as_json: bool, active: bool, **query: Any) -> None:
    """Who is, and was, connected; newest first."""
    if ctx.invoked_subcommand is not None:
        return
    found = client(config).get(_path("/api/sessions/history", active="true" if active else None, **query))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no such sessions.")
        return
    rows = [
        [
            s["id"],
            called(s, "node"),
            called(s, "device") or s["peer_key"][:12],
            called(s, "user"),
            _from(s["endpoint"], s) + (f" (moved {counted(s['roams'], 'time')})" if s["roams"] else ""),
            ago(s["opened_at"]),
            "open" if s["closed_at"] is None else s["reason"],
            size(s["rx_bytes"]),
            size(s["tx_bytes"]),
        ]
        for s in found
    ]
    table(["ID", "NODE", "DEVICE", "USER", "FROM", "OPENED", "STATE", "RX", "TX"], rows)


def _from(endpoint: str, found: dict[str, Any]) -> str:
    country = found.get("country", "")
    return f"{endpoint} {country}" if country else endpoint


@sessions.command("show")
@click.argument("session")
@config_option
@json_option
def show(session: str, config: str | None, *, as_json: bool) -> None:
    """One session, with the addresses it came from."""
    found = client(config).get(f"/api/sessions/history/{quote(session, safe='')}")
    if as_json:
        print_json(found)
        return
    facts(
        [
            ("id", found["id"]),
            ("node", whole(found, "node")),
            ("protocol", found["protocol"]),
            ("peer", found["peer_key"]),
            ("device", whole(found, "device")),
            ("user", whole(found, "user")),
            ("opened", found["opened_at"]),
            ("closed", found["closed_at"] or "still open"),
            ("reason", found["reason"]),
            ("last seen", found["last_at"]),
            ("received", size(found["rx_bytes"])),
            ("sent", size(found["tx_bytes"])),
            ("country", found["country"] or "not known"),
            ("moved", counted(found["roams"], "time")),
        ]
    )
    click.echo()
    table(["SINCE", "FROM"], [[e["since"], e["endpoint"]] for e in found["endpoints"]])


@sessions.command("events")
@config_option
@json_option
@click.option("--node", metavar="NODE", help="Only on this node (name or id, also of a removed one).")
@click.option("--device", metavar="DEVICE", help="Only of this device (name or id, also of a removed one).")
@click.option("--user", metavar="USER", help="Only of this user (name, e-mail or id, also of a removed one).")
@click.option("--from", "source_ip", metavar="ADDRESS", help="Only from this address.")
@click.option("--since", type=Moment(), help="Not older: 30m, 24h, 7d, or a time.")
@click.option("--until", type=Moment(), help="Not younger.")
@click.option("--protocol", type=_PROTOCOLS, help="Only of this protocol.")
@click.option("--reason", metavar="WORD", help="Only stays that ended so, such as roamed or idle.")
@click.option("--country", metavar="CODE", help="Only from this country, such as DE; needs a GeoIP database.")
@click.option("--limit", type=_LIMIT, default=50, show_default=True)
def events(config: str | None, *, as_json: bool, **query: Any) -> None:
    """Connects and disconnects, newest first: one line for each stay at one address."""
    found = client(config).get(_path("/api/sessions", **query))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There were no such connects and disconnects.")
        return
    rows = [
        [
            e["at"][:19],
            e["event_type"],
            called(e, "node"),
            called(e, "device") or e.get("peer_id", "")[:12],
            called(e, "user"),
            _from(e.get("source_endpoint", ""), e),
            e.get("reason"),
            size(e["rx_bytes"]) if e["event_type"] == "disconnect" else "",
            size(e["tx_bytes"]) if e["event_type"] == "disconnect" else "",
        ]
        for e in found
    ]
    table(["TIME (UTC)", "EVENT", "NODE", "DEVICE", "USER", "FROM", "REASON", "RX", "TX"], rows)


@sessions.command("export")
@config_option
@click.option("--json", "as_json", is_flag=True, help="JSON, one session a line, instead of CSV.")
@click.option("--out", metavar="FILE", help="There, when it is complete; default: the standard output.")
@_which
def export(config: str | None, out: str | None, *, as_json: bool, active: bool, **query: Any) -> None:
    """All sessions as CSV (RFC 4180), newest first. What is not known is empty, and never 0."""
    asking = client(config)
    with written(out) as file:
        lines = csv.writer(file)
        if not as_json:
            lines.writerow(_COLUMNS)
        for session in _all(asking, active="true" if active else None, **query):
            if as_json:
                file.write(json.dumps(session) + "\n")
            else:
                lines.writerow(_row(session))


_COLUMNS = (
    *("id", "node_id", "node", "protocol", "peer_key", "device_id", "user_id", "opened_at", "closed_at", "last_at"),
    *("endpoint", "roams", "rx_bytes", "tx_bytes", "reason", "device", "user", "removed", "country"),
)
_PAGE = 1_000


def _all(asking: Client, **query: Any) -> Iterator[dict[str, Any]]:
    """Page after page. What begins meanwhile is newer than all of them, and not among them."""
    after = None
    while True:
        page = asking.get(_path("/api/sessions/history", limit=_PAGE, after=after, **query))
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_KEY = re.compile("[A-Za-z0-9+/]{43}=")


def _row(session: dict[str, Any]) -> list[Any]:
    names = {word: session[f"{word}_name"] for word in ("node", "device", "user")}
    whole = session | names | {"removed": " ".join(session["removed"])}
    return [_text(whole[name]) for name in _COLUMNS]


def _text(cell: Any) -> Any:
    """Spreadsheets take text that begins like a formula for one, and some of it is whatever a node says. A key stays as it
    is: with no bracket in it, it can do nothing.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) and not _KEY.fullmatch(cell) else cell


@sessions.command("totals")
@config_option
@json_option
@click.option("--by", type=click.Choice(["user", "device", "node"]), default="user", show_default=True, help="Of whom.")
@click.option("--since", type=Moment(), help="Not before the day (UTC) of this time: 24h, 7d, or a date.")
@click.option("--until", type=Moment(), help="Not after the day (UTC) of this time.")
@click.option("--node", metavar="NODE", help="Only on this node (name or id, also of a removed one).")
@click.option("--device", metavar="DEVICE", help="Only of this device (name or id, also of a removed one).")
@click.option("--user", metavar="USER", help="Only of this user (name, e-mail or id, also of a removed one).")
@click.option("--limit", type=_LIMIT, default=50, show_default=True)
def totals(config: str | None, *, as_json: bool, by: str, **query: Any) -> None:
    """What users, devices or nodes moved; the largest first."""
    found = client(config).get(_path("/api/sessions/totals", by=by, **query))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("Nobody was connected then.")
        return
    rows = [
        [
            marked(t["name"] or t["id"], removed=t["removed"]) or "(nobody known)",
            t["opened"],
            t["closed"],
            t["unknown"],
            size(t["rx_bytes"]),
            size(t["tx_bytes"]),
            duration(t["seconds"]),
        ]
        for t in found
    ]
    table([by.upper(), "OPENED", "CLOSED", "OF UNKNOWN SIZE", "RX", "TX", "CONNECTED"], rows)


def _path(path: str, **query: Any) -> str:
    return f"{path}?{urlencode({name: value for name, value in query.items() if value is not None})}"
