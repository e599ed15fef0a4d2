"""``cox paths``: paths over two or three nodes, and whose traffic goes over which."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from coxswain.cli.accounts import device_of
from coxswain.cli.client import Client
from coxswain.cli.names import Names
from coxswain.cli.operations import finish, wait_option
from coxswain.cli.output import Group, ago, clean, client, config_option, facts, json_option, paint, print_json, table
from coxswain.errors import InvalidInput

__all__ = ["paths"]

_user_option = click.option("--user", help="Whose device it is, if it is given by its name.")
_patience_option = click.option(
    "--patience", type=click.IntRange(1, 3600), metavar="SECONDS", help="How long each stage waits for its nodes (45)."
)


@click.group(cls=Group)
def paths() -> None:
    """Build paths over two or three nodes, and move devices onto them without cutting them off."""


@paths.command("add")
@config_option
@json_option
@click.argument("name")
@click.option("--hops", required=True, metavar="A,B[,C]", help="The nodes, the entry first.")
@click.option("--color", default="", metavar="#RRGGBB", help="For the map; default: the dashboard chooses.")
@click.option("--fallback", default="", metavar="A[,B]", help="Other exits, used in this order when the exit is gone.")
@_patience_option
@wait_option
def add(
    config: str | None,
    name: str,
    hops: str,
    *,
    color: str,
    fallback: str,
    patience: int | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Build a path. It moves nobody; what cannot be built is taken back."""
    if not name:  # its plan needs none
        raise InvalidInput("name: is empty", remedy="Say how the path is to be called.")
    asking = client(config)
    body = {"name": name, "node_ids": _hops(hops), "color": color, "fallback_ids": _hops(fallback)}
    if wait and not as_json:
        _print_path_plan(asking.post("/api/paths/plan", {k: body[k] for k in ("name", "node_ids", "fallback_ids")}))
    operation = asking.begin(_query("/api/paths", patience), body)
    finish(asking, operation, wait=wait, as_json=as_json)


@paths.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All paths."""
    found = client(config).get("/api/paths")
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no paths yet. Build one with: cox paths add NAME --hops A,B")
        return
    rows = [
        [
            p["id"],
            p["name"],
            " → ".join(p["nodes"]),
            p["status"],
            p["exit"]["node"],
            p["devices"],
            p["profiles"],
            p["mtu"],
            p["color"],
        ]
        for p in found
    ]
    table(["ID", "NAME", "CHAIN", "STATUS", "LEAVES AT", "DEVICES", "PROFILES", "MTU", "COLOR"], rows, styles={3: paint})


@paths.command("show")
@config_option
@json_option
@click.argument("path")
def show(config: str | None, path: str, *, as_json: bool) -> None:
    """One path: its links, who is bound to it, what is wrong."""
    asking = client(config)
    found = asking.get(_path(path))
    bound = asking.get(f"/api/bindings?path={quote(found['id'], safe='')}")
    if as_json:
        print_json(found | {"bindings": bound})
        return
    facts(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("chain", " → ".join(found["nodes"])),
            ("status", paint(found["status"])),
            ("leaves at", _leaves_at(found)),
            ("fallbacks", ", ".join(found["fallback_nodes"]) or "none"),
            ("color", found["color"]),
            ("MTU for clients", found["mtu"]),
            ("devices", found["devices"]),
            ("profiles", found["profiles"]),
            ("version", found["version"]),
        ]
    )
    click.echo()
    names = dict(zip(found["hops"] + found["fallbacks"], found["nodes"] + found["fallback_nodes"], strict=True))
    rows = [
        [
            f"{names[k['entry_node_id']]} → {names[k['exit_node_id']]}",
            k["status"],
            k["interface"],
            k["endpoint"],
            k["listen_port"],
            k["mtu"],
            k["health"],
            ago(k["last_handshake"]),
            k["waiting"],
        ]
        for k in found["links"]
    ]
    table(
        ["LINK", "STATUS", "INTERFACE", "ENDPOINT", "PORT", "MTU", "HEALTH", "HANDSHAKE", "WAITING"], rows, styles={1: paint}
    )
    known = Names(asking)
    known.learn([*(b["device_id"] for b in bound), *_ids_of(found["problems"])])
    if bound:
        click.echo()
        rows = [[_whole(known, b["device_id"]), b["phase"], "; ".join(b["waiting"])] for b in bound]
        table(["DEVICE", "PHASE", "WAITING"], rows)
    for problem in found["problems"]:
        about, mark, text = problem.partition(": ")
        click.echo(f"! {clean(_whole(known, about) + mark + text)}")


@paths.command("plan")
@config_option
@json_option
@click.option("--hops", metavar="A,B[,C]", help="What building this path would do.")
@click.option("--fallback", default="", metavar="A[,B]", help="With these other exits.")
@click.option("--device", help="What moving this device would do.")
@click.option("--path", "path", default="", help="Where to; without it: off its path.")
@_user_option
def plan(
    config: str | None,
    hops: str | None,
    *,
    fallback: str,
    device: str | None,
    path: str,
    user: str | None,
    as_json: bool,
) -> None:
    """What a change would do, stage by stage. Changes nothing."""
    if (hops is None) == (device is None):
        raise InvalidInput("either --hops (a new path) or --device (with --path, or off its path) is needed")
    asking = client(config)
    if hops is not None:
        found = asking.post("/api/paths/plan", {"node_ids": _hops(hops), "fallback_ids": _hops(fallback)})
        print_json(found) if as_json else _print_path_plan(found)
        return
    found = _binding_plan(asking, device_of(asking, device or "", user)["id"], path)
    print_json(found) if as_json else _print_binding_plan(found)


@paths.command("provision")
@config_option
@json_option
@click.argument("path")
@_patience_option
@wait_option
def provision(config: str | None, path: str, patience: int | None, *, wait: bool, as_json: bool) -> None:
    """Have the nodes of a path looked at now, and wait until it is in place."""
    asking = client(config)
    finish(asking, asking.begin(_query(_path(path, "provision"), patience), {}), wait=wait, as_json=as_json)


@paths.command("edit")
@config_option
@json_option
@click.argument("path")
@click.option("--name", help="Another name.")
@click.option("--color", metavar="#RRGGBB", help="Another colour; an empty one lets the dashboard choose.")
@click.option("--fallback", metavar="A[,B]", help="Its other exits, in the order in which they are tried; empty: none.")
def edit(config: str | None, path: str, name: str | None, color: str | None, fallback: str | None, *, as_json: bool) -> None:
    """Change what is given of a path. Moves nobody."""
    given = {"name": name, "color": color, "fallback_ids": None if fallback is None else _hops(fallback)}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise InvalidInput("nothing to change: one of --name, --color, --fallback is needed")
    asking = client(config)
    found = asking.get(_path(path))
    changed = asking.call("PATCH", _path(found["id"]), {"version": found["version"]} | body)
    print_json(changed) if as_json else click.echo(f"{clean(changed['name'])}: changed")


@paths.command("exit")
@config_option
@json_option
@click.argument("path")
@click.argument("node", default="")
@_patience_option
@wait_option
def exit_(config: str | None, path: str, node: str, patience: int | None, *, wait: bool, as_json: bool) -> None:
    """Have a path leave at one of its fallbacks; without NODE at its own exit again. Everybody on it goes along."""
    asking = client(config)
    operation = asking.begin(_query(_path(path, "exit"), patience), {"node": node})
    if "steps" not in operation:
        print_json(operation) if as_json else click.echo(f"{clean(operation['name'])}: leaves there already")
        return
    finish(asking, operation, wait=wait, as_json=as_json)


@paths.command("rm")
@config_option
@json_option
@click.argument("path")
def remove(config: str | None, path: str, *, as_json: bool) -> None:
    """Remove a path that nobody uses, and the links that only it needed."""
    asking = client(config)
    found = asking.get(_path(path))
    asking.call("DELETE", _path(found["id"]))
    print_json(found) if as_json else click.echo(f"{clean(found['name'])}: removed")


@paths.command("bind")
@config_option
@json_option
@click.argument("device")
@click.argument("path")
@_user_option
@click.option("--yes", is_flag=True, help="Do not ask, even if traffic stops for a moment.")
@_patience_option
@wait_option
def bind(
    config: str | None,
    device: str,
    path: str,
    user: str | None,
    patience: int | None,
    *,
    yes: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Move a device's traffic to a path. The new one carries before the old one is cut."""
    asking = client(config)
    _move(asking, device_of(asking, device, user)["id"], path, patience, yes=yes, wait=wait, as_json=as_json)


@paths.command("unbind")
@config_option
@json_option
@click.argument("device")
@_user_option
@click.option("--yes", is_flag=True, help="Do not ask, even if traffic stops for a moment.")
@_patience_option
@wait_option
def unbind(
    config: str | None, device: str, user: str | None, patience: int | None, *, yes: bool, wait: bool, as_json: bool
) -> None:
    """Take a device's traffic off its path; it then leaves at the entry."""
    asking = client(config)
    _move(asking, device_of(asking, device, user)["id"], "", patience, yes=yes, wait=wait, as_json=as_json)


@paths.command("color")
@config_option
@json_option
@click.argument("path")
@click.argument("color")
def color(config: str | None, path: str, color: str, *, as_json: bool) -> None:
    """Give a path another colour, #rrggbb; an empty one lets the dashboard choose."""
    asking = client(config)
    found = asking.get(_path(path))
    changed = asking.call("PATCH", _path(found["id"]), {"version": found["version"], "color": color})
    print_json(changed) if as_json else click.echo(f"{clean(found['name'])}: {color or 'no colour of its own'}")


def _move(asking: Client, device: str, path: str, patience: int | None, *, yes: bool, wait: bool, as_json: bool) -> None:
    if not as_json and not _is_there(asking, device, path):
        found = _binding_plan(asking, device, path)
        _print_binding_plan(found)
        if found["interrupts"] and not yes and sys.stdin.isatty():
            click.confirm("Go on?", abort=True, err=True)
    place = _query(f"/api/devices/{quote(device, safe='')}/bind", patience)
    operation = asking.begin(place, {"path_id": path}) if path else asking.begin(place, None, "DELETE")
    if operation is None:
        if as_json:
            print_json(asking.get(f"/api/devices/{quote(device, safe='')}/bind"))
        else:
            click.echo(f"{clean(device)}: nothing to do")
        return
    finish(asking, operation, wait=wait, as_json=as_json)


def _is_there(asking: Client, device: str, path: str) -> bool:
    """Whether there is nothing to plan; that it was asked for is recorded all the same."""
    now = asking.get(f"/api/devices/{quote(device, safe='')}/bind")
    wanted = asking.get(_path(path))["id"] if path else ""
    return bool(now["phase"] == "settled" and now["path_id"] == wanted)


def _binding_plan(asking: Client, device: str, path: str) -> Any:
    return asking.post(f"/api/devices/{quote(device, safe='')}/bind/plan", {"path_id": path})


def _print_path_plan(found: dict[str, Any]) -> None:
    for number, step in enumerate(found["steps"], 1):
        click.echo(f"{number}. {clean(step)}")
    click.echo(f"MTU for clients: {found['mtu']}")
    _print_notes(found["notes"])


def _print_binding_plan(found: dict[str, Any]) -> None:
    for number, stage in enumerate(found["stages"], 1):
        click.echo(f"{number}. {clean(stage['title'])}")
        for change in stage["changes"]:
            click.echo(f"   - {clean(change)}")
    _print_notes([found["interrupts"], *found["notes"]])


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        if note:
            click.echo(f"! {clean(note)}")


def _ids_of(problems: list[str]) -> list[str]:
    """What they are about, which comes first in each."""
    return [problem.partition(": ")[0] for problem in problems]


def _whole(known: Names, key: str) -> str:
    """Its name with its id, which is what scripts take."""
    name = known.of(key)
    return name if name == key else f"{name} {key}"


def _leaves_at(found: dict[str, Any]) -> str:
    here, way = found["exit"], found["exit"]["phase"]
    words = [here["node"]]
    if here["fallback"]:
        words.append(f"a fallback, since {ago(here['since'])}: {here['reason']}")
    if way != "settled":
        words.append(f"on its way to another ({way})")
    return clean(", ".join(words))


def _hops(text: str) -> list[str]:
    return [hop.strip() for hop in text.split(",") if hop.strip()]


def _path(path: str, action: str = "") -> str:
    return f"/api/paths/{quote(path, safe='')}" + (f"/{action}" if action else "")


def _query(place: str, patience: int | None) -> str:
    return place + (f"?patience={patience}" if patience is not None else "")
