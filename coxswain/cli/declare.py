"""``cox plan``, ``cox apply`` and ``cox export``: the fleet as a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from coxswain.cli.accounts import every
from coxswain.cli.client import Client, RemoteError
from coxswain.cli.files import written
from coxswain.cli.output import clean, client, colour, config_option, confirm, json_option, print_json, yes_option
from coxswain.errors import InvalidInput, Refused, Unavailable, door_of
from coxswain.words import counted

__all__ = ["apply", "export", "plan"]

_MARKS = {"add": ("+", "green"), "edit": ("~", "yellow"), "remove": ("-", "red"), "keep": ("·", "bright_black")}
file_option = click.option("-f", "--file", "file", required=True, metavar="FILE", help="The fleet file; - reads stdin.")
prune_option = click.option("--prune", is_flag=True, help="Remove what the file does not have, of the kinds it speaks of.")


@click.command("plan")
@config_option
@json_option
@file_option
@prune_option
def plan(config: str | None, file: str, *, prune: bool, as_json: bool) -> None:
    """Show what cox apply would change, and which nodes are not as they should be. Changes nothing."""
    changes, _, drift = _compared(client(config), file, prune=prune)
    if as_json:
        print_json({"changes": [_view(change) for change in changes], "drift": drift})
        return
    _print(changes, drift)


@click.command("apply")
@config_option
@json_option
@file_option
@prune_option
@yes_option
def apply(config: str | None, file: str, *, prune: bool, yes: bool, as_json: bool) -> None:
    """Make the fleet what a file says. What is done stays done if it is interrupted; running it again does the rest."""
    from coxswain.declare.apply import Stopped, exit_code_of  # noqa: PLC0415 - takes time to import
    from coxswain.declare.apply import apply as carry_out  # noqa: PLC0415

    api = client(config)
    changes, present, drift = _compared(api, file, prune=prune)
    todo = [change for change in changes if change.action.value != "keep"]
    if not as_json:
        _print(changes, drift)
    if todo and not yes:
        if file == "-" or as_json:
            raise InvalidInput("apply: nobody can be asked here", remedy="Look at it with cox plan, then give --yes.")
        click.echo()
        confirm("Apply these changes?")

    def done(change: Any) -> None:
        if not as_json:
            click.echo(clean(f"{_MARKS[change.action.value][0]} {change.item.title}"))

    def say(text: str) -> None:
        if not as_json:
            click.echo(clean(f"> {text}"))

    if todo and not as_json:
        click.echo()
    try:
        applied = carry_out(api, todo, present, done, say)
    except KeyboardInterrupt:
        click.echo("\ncox: what was begun on machines goes on without you", err=True)
        click.echo("     See: cox operations list. Applied again, the file has the rest done.", err=True)
        raise
    except Stopped as stopped:
        if not as_json:
            _print_rest(stopped.notes, stopped.waiting)
        code = exit_code_of(stopped.cause)
        raise RemoteError(str(stopped), status=0, exit_code=code, remedy=stopped.remedy) from None
    if as_json:
        print_json({"applied": applied.count, "notes": list(applied.notes), "waiting": [_waits(w) for w in applied.waiting]})
    elif todo:
        click.echo(f"\n{applied.count} applied")
    if not as_json:
        _print_rest(applied.notes, applied.waiting)
    if applied.waiting:
        waits = door_of(Unavailable("")).exit_code  # unless somebody has to decide something
        raise RemoteError(
            f"{counted(len(applied.waiting), 'change waits', 'changes wait')} for what is not ready yet",
            status=0,
            exit_code=next((left.exit_code for left in applied.waiting if left.exit_code != waits), waits),
            remedy="When it is, apply the file again.",
        )


@click.command("export")
@config_option
@json_option
@click.option("--out", metavar="FILE", help="Where to write it; default: standard output.")
def export(config: str | None, out: str | None, *, as_json: bool) -> None:
    """Write the present fleet as a file for cox apply: servers, nodes, paths, users, devices, profiles; no secrets."""
    from coxswain.declare.items import told_apart  # noqa: PLC0415
    from coxswain.declare.present import read_present  # noqa: PLC0415
    from coxswain.declare.write import document, write  # noqa: PLC0415

    api = client(config)
    present = read_present(partial(every, api))
    items = present.items
    told_apart(items, ((item.kind, item.key) for item in items))
    found = document(items)
    for line in present.unsaid:
        click.echo(clean(f"not in the file: {line}"), err=True)
    if as_json:
        print_json(found)
        return
    with written(out) as file:
        file.write(write(found))
    if out is not None:
        click.echo(clean(out))


def _compared(api: Client, file: str, *, prune: bool) -> tuple[list[Any], list[Any], list[str]]:
    from coxswain.declare.compare import compare  # noqa: PLC0415
    from coxswain.declare.present import read_present, with_login  # noqa: PLC0415
    from coxswain.declare.schema import read  # noqa: PLC0415

    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidInput(f"file: {file} cannot be read: {error.strerror}") from None
    wanted, spoken = read(raw, "stdin" if file == "-" else file)
    present = read_present(partial(every, api))
    wanted = with_login(wanted, present.items, partial(_login, api))
    return compare(wanted, spoken, present.items, prune=prune), present.items, present.drift


def _login(api: Client) -> dict[str, Any]:
    """How machines are logged in to of which nothing else is said; nothing: this credential may not see it."""
    try:
        values = api.get("/api/config")["values"]
    except RemoteError as error:
        if error.exit_code != door_of(Refused("")).exit_code:
            raise
        return {}
    return {name: values[f"node.{name}"]["value"] for name in ("ssh_user", "ssh_port") if values[f"node.{name}"]["value"]}


def _print_rest(notes: Sequence[str], waiting: Sequence[Any]) -> None:
    for note in notes:
        click.echo(clean(note))
    for left in waiting:
        why = left.reason if left.failed else f"waits for {left.reason}"
        click.echo(clean(f"not yet: {left.change.action.value} {left.change.item.title}: {why}"))
        if left.remedy:
            click.echo(clean(f"    {left.remedy}"))


def _waits(left: Any) -> dict[str, Any]:
    item = left.change.item
    view = {"kind": item.kind, "key": list(item.key), "for": left.reason}
    return view | ({"failed": True} if left.failed else {}) | ({"remedy": left.remedy} if left.remedy else {})


def _view(change: Any) -> dict[str, Any]:
    fields = {name: {"before": before, "after": after} for name, (before, after) in change.fields.items()}
    item = change.item
    view = {"action": change.action.value, "kind": item.kind, "key": list(item.key), "where": item.where, "fields": fields}
    return view | ({"note": change.note} if change.note else {})


def _print(changes: list[Any], drift: list[str]) -> None:
    from coxswain.declare.schema import FIELDS  # noqa: PLC0415 - takes time to import

    counts = dict.fromkeys(_MARKS, 0)
    for change in changes:
        counts[change.action.value] += 1
        mark, shade = _MARKS[change.action.value]
        click.echo(colour(clean(f"{mark} {change.item.title}"), shade))
        for name, (before, after) in change.fields.items():
            if change.action.value == "edit":
                click.echo(clean(f"    {name}: {_shown(before)} → {_shown(after)}"))
            elif after not in (None, "", [], False) or after != FIELDS[change.item.kind][name].default:
                click.echo(clean(f"    {name}: {_shown(after)}"))
        if change.note:
            click.echo(clean(f"    {change.note}"))
    for line in drift:
        click.echo(clean(f"! {line}"))
    if not any(counts.values()):
        click.echo("The fleet is as the file says.")
        return
    kept = f", {counts['keep']} not in the file (kept; --prune removes them)" if counts["keep"] else ""
    click.echo(f"\n{counts['add']} to add, {counts['edit']} to change, {counts['remove']} to remove{kept}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value) if value not in (None, "") else "none"
