"""``cox control-paths``: the relays by which the controller reaches its nodes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import click

from coxswain.cli.output import (
    Group,
    clean,
    client,
    config_option,
    confirm,
    facts,
    json_option,
    print_json,
    table,
    yes_option,
)
from coxswain.errors import InvalidInput

__all__ = ["control_paths"]

_direct = click.option("--allow-direct", is_flag=True, help="Dial directly from now on; every node sees this machine.")


@click.group(cls=Group)
def control_paths() -> None:
    """The relays by which the controller reaches its nodes and machines."""


@control_paths.command("add")
@config_option
@json_option
@click.argument("name")
@click.option("--via", default="", metavar="RELAYS", help="Ids or names of relays, in order, comma-separated.")
@click.option("--activate", is_flag=True, help="Probe it, and take it at once.")
def add(config: str | None, name: str, via: str, *, activate: bool, as_json: bool) -> None:
    """Make a control path. It is not active before it is activated."""
    asking = client(config)
    found = asking.post("/api/control-paths", {"name": name, "hops": _relays(via)})
    if activate:
        try:
            found = asking.post(_path(found["id"], "activate"), {"version": found["version"]})
        except Exception:
            click.echo(f"{clean(found['name'])} ({found['id']}) is made, and not active.", err=True)
            raise
    if as_json:
        print_json(found)
        return
    facts([("id", found["id"]), ("name", found["name"]), ("route", _chain(found)), ("active", "yes" if activate else "no")])


@control_paths.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All control paths; the active one is marked."""
    found = client(config).get("/api/control-paths")
    if as_json:
        print_json(found)
        return
    if found:
        rows = [["●" if p["active"] else "", p["id"], p["name"], _chain(p), p["route"] or p["problem"]] for p in found]
        table(["", "ID", "NAME", "ROUTE", "KIND"], rows, styles={})
    if not any(path["active"] for path in found):
        click.echo("No control path is active: the controller dials directly.")


@control_paths.command("edit")
@config_option
@json_option
@click.argument("path")
@click.option("--name", help="Its new name.")
@click.option("--via", metavar="RELAYS", help="Its relays from now on, in order, comma-separated; not of the active path.")
def edit(config: str | None, path: str, name: str | None, via: str | None, *, as_json: bool) -> None:
    """Rename a control path, or give one that is not active other relays."""
    if name is None and via is None:
        raise InvalidInput("name, via: one of them is needed")
    asking = client(config)
    body: dict[str, Any] = {"version": asking.get(_path(path))["version"]}
    if name is not None:
        body["name"] = name
    if via is not None:
        body["hops"] = _relays(via)
    found = asking.call("PATCH", _path(path), body)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{clean(found['name'])}: {_chain(found)}")


@control_paths.command("activate")
@config_option
@json_option
@click.argument("path")
@click.option("--force", is_flag=True, help="Without a probe.")
@_direct
def activate(config: str | None, path: str, *, force: bool, allow_direct: bool, as_json: bool) -> None:
    """Move every connection to a control path. First its hops have to answer, and a node through them."""
    body = {name: True for name, said in (("force", force), ("allow_direct", allow_direct)) if said}
    found = client(config).post(_path(path, "activate"), body)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{clean(found['name'])}: active, by way of {_chain(found)}")


@control_paths.command("deactivate")
@config_option
@json_option
@_direct
def deactivate(config: str | None, *, allow_direct: bool, as_json: bool) -> None:
    """Go back to dialling directly, on purpose."""
    found = client(config).post("/api/control-paths/deactivate", {"allow_direct": allow_direct})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{clean(found['name'])}: not active any more; the controller dials directly")


@control_paths.command("rm")
@config_option
@json_option
@click.argument("path")
@yes_option
@_direct
def remove(config: str | None, path: str, *, yes: bool, allow_direct: bool, as_json: bool) -> None:
    """Remove a control path. The active one only with --allow-direct."""
    asking = client(config)
    found = asking.get(_path(path))
    if not yes:
        confirm(f"Remove {found['name']}?", scripts_may=True)
    query = urlencode({"version": found["version"]} | ({"allow_direct": "true"} if allow_direct else {}))
    asking.call("DELETE", f"{_path(found['id'])}?{query}")
    if as_json:
        print_json({"removed": found["id"]})
        return
    click.echo(f"{clean(found['name'])}: removed")
    if found["active"]:
        click.echo("It was the active one: the controller dials directly now.")


def _relays(via: str) -> list[str]:
    return [relay.strip() for relay in via.split(",") if relay.strip()]


def _chain(path: dict[str, Any]) -> str:
    return " → ".join(clean(hop["name"] or hop["id"]) for hop in path["chain"]) or "direct"


def _path(path: str, action: str = "") -> str:
    return f"/api/control-paths/{quote(path, safe='')}" + (f"/{action}" if action else "")
