"""``cox operations``: changes of several steps, followed as they happen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from coxswain.cli.client import Client
from coxswain.cli.names import Names, ids_called
from coxswain.cli.output import Painted, ago, clean, client, config_option, facts, json_option, paint, print_json, table
from coxswain.errors import DaemonNotRunning, InvalidInput

__all__ = [
    "ask_password",
    "begin",
    "check_binary",
    "finish",
    "follow",
    "operations",
    "source_body",
    "source_options",
    "wait_option",
]

_POLL_S = 0.25
_OVER = ("done", "failed", "undone", "cancelled", "waiting")
_MARKS = {"running": "▸", "done": "✓", "failed": "✗", "undoing": "◂", "undone": "↶", "kept": "·"}
_PLAIN = {"running": ">", "done": "+", "failed": "x", "undoing": "<", "undone": "-", "kept": "."}
_FAILED_EXIT = 8

wait_option = click.option("--wait/--no-wait", default=True, help="Follow it to its end (default), or only start it.")


@click.group()
def operations() -> None:
    """Show, follow, retry and cancel operations: onboarding, upgrades, rollouts, path changes."""


@operations.command("list")
@config_option
@json_option
@click.option("--all", "every", is_flag=True, help="Those that are over as well.")
@click.option("--kind", help="Only of this kind, e.g. node.add.")
@click.option("--target", help="Only about the thing with this name or id.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
def list_(config: str | None, kind: str | None, target: str | None, limit: int, *, every: bool, as_json: bool) -> None:
    """Operations that are not over, or failed; newest first."""
    asking = client(config)
    query = {"kind": kind, "target": target, "limit": limit, "open": None if every else "true"}
    found = _listed(asking, query)
    if target:  # of several things that have that name
        found += [o for key in ids_called(asking, target) for o in _listed(asking, query | {"target": key})]
        found = sorted(found, key=lambda o: str(o["created_at"]), reverse=True)[:limit]
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo(
            "There are none." if every else "None is under way, and none failed. See all with: cox operations list --all"
        )
        return
    names = Names(asking)
    names.learn(o["target_id"] for o in found)
    rows = []
    for o in found:
        about = names.of(o["target_id"])
        rows.append([o["id"], o["kind"], about, _state(o), _where(o), ago(o["created_at"]), o["actor"], _what_is_wrong(o)])
    table(["ID", "KIND", "TARGET", "STATE", "STEP", "AGE", "BY", "ERROR"], rows, styles={3: paint})


def _listed(asking: Client, query: dict[str, Any]) -> list[dict[str, Any]]:
    given = {key: value for key, value in query.items() if value is not None}
    found: list[dict[str, Any]] = asking.get(f"/api/operations?{urlencode(given)}")
    return found


@operations.command("show")
@config_option
@json_option
@click.argument("operation")
@click.option("--follow", "following", is_flag=True, help="Stay until it is over.")
def show(config: str | None, operation: str, *, following: bool, as_json: bool) -> None:
    """One operation: its steps, what they said, what went wrong."""
    asking = client(config)
    found = asking.get(_path(operation))
    if following and not as_json:
        _end(follow(asking, found))
        return
    while following and found["state"] not in _OVER:
        time.sleep(_POLL_S)
        found = asking.get(_path(operation))
    if as_json:
        print_json(found)
        return
    names = Names(asking)
    names.learn([found["target_id"]])
    _print(found, names)


@operations.command("retry")
@config_option
@json_option
@click.argument("operation")
@click.option("--password", is_flag=True, help="Ask for the one-time password that it needs again.")
@wait_option
def retry(config: str | None, operation: str, *, password: bool, wait: bool, as_json: bool) -> None:
    """Go on where it failed; begin anew what was taken back."""
    body = {"password": ask_password()} if password else {}
    asking = client(config)
    found = asking.post(_path(operation, "retry"), body)
    good = ("done", "cancelled") if found["direction"] == "back" else ("done",)  # cancelled before, it goes on with that
    finish(asking, found, wait=wait, as_json=as_json, good=good)


@operations.command("cancel")
@config_option
@json_option
@click.argument("operation")
@wait_option
def cancel(config: str | None, operation: str, *, wait: bool, as_json: bool) -> None:
    """Stop it, and take back what it changed."""
    asking = client(config)
    finish(asking, asking.post(_path(operation, "cancel")), wait=wait, as_json=as_json, good=("cancelled",))


def ask_password() -> str:
    """A one-time password: from the terminal without echo, else the first line of standard input; never from the arguments,
    which every user of the machine can read.
    """
    if sys.stdin.isatty():
        given: str = click.prompt("One-time password", hide_input=True, err=True)
        return given
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise InvalidInput("password: there is nobody to ask, and standard input is empty")
    return line


def source_options(command: Any) -> Any:
    """``--binary``, ``--url``, ``--sha256``: what is installed; default: what the configuration says."""
    for option in (
        click.option("--sha256", default="", help="SHA-256 of what is behind --url; nothing else is installed."),
        click.option("--url", default="", help="Where the host fetches the program (https)."),
        click.option("--binary", default="", metavar="FILE", help="The program to upload, a file of the daemon's machine."),
    ):
        command = option(command)
    return command


def source_body(binary: str, url: str, sha256: str) -> dict[str, str]:
    """What ``source_options`` gave, for a request."""
    path = os.path.abspath(binary) if binary else ""  # noqa: PTH100 - a file of the daemon's machine: not resolved here
    return {key: value for key, value in (("binary_path", path), ("url", url), ("sha256", sha256)) if value}


def check_binary(asking: Client, binary: str) -> None:
    """Before a host is dialled for it; the daemon looks itself, but only when the host is known. Raises ``InvalidInput``:
    the file is not there. Where even its folder is not here, the daemon may see others than we do, as in a container.
    """
    path = Path(os.path.abspath(binary))  # noqa: PTH100 - as source_body has it
    if binary and asking.is_here and path.parent.is_dir() and not path.exists():
        raise InvalidInput(f"binary: {path} is not there", remedy="Give the file of the program that is to be uploaded.")


def begin(config: str | None, path: str, body: dict[str, Any], *, wait: bool, as_json: bool) -> dict[str, Any]:
    """Starts an operation and follows it to its end; ends the command if it did not come to what was wanted."""
    asking = client(config)
    operation = asking.begin(path, body)
    if not wait:
        finish(asking, operation, wait=False, as_json=as_json)
        sys.exit(0)
    over = wait_for(asking, operation) if as_json else follow(asking, operation)
    if over["state"] != "done":
        if as_json:
            print_json(over)
        _end(over, quiet=as_json)
    return over


def finish(
    asking: Client, operation: dict[str, Any], *, wait: bool, as_json: bool, good: tuple[str, ...] = ("done",)
) -> None:
    """Follows an operation that a command has started to its end, or only says how to."""
    if not wait:
        if as_json:
            print_json(operation)
        else:
            click.echo(f"{operation['id']}: {clean(operation['kind'])} is {operation['state']}")
            click.echo(f"Follow it with: cox operations show --follow {operation['id']}")
        return
    over = wait_for(asking, operation) if as_json else follow(asking, operation)
    if as_json:
        print_json(over)
    _end(over, good, quiet=as_json)


def wait_for(asking: Client, operation: dict[str, Any]) -> dict[str, Any]:
    """Without a word, to its end."""
    with _going_on(operation):
        while operation["state"] not in _OVER:
            time.sleep(_POLL_S)
            operation = asking.get(_path(operation["id"]))
        return operation


def follow(asking: Client, operation: dict[str, Any]) -> dict[str, Any]:
    """Prints each step when it begins, what it says, and how it ends; returns the operation when it is over or waits."""
    with _going_on(operation):
        return _follow(asking, operation)


@contextmanager
def _going_on(operation: dict[str, Any]) -> Iterator[None]:
    """Who stops looking (Ctrl-C) may think to have stopped it; so may who sees the daemon end."""
    try:
        yield
    except DaemonNotRunning:
        click.echo(
            f"\ncox: {clean(operation['kind'])} was not over; it is resumed or undone when the daemon runs again", err=True
        )
        click.echo(f"     Which of the two, is said there: cox operations show --follow {operation['id']}", err=True)
        raise
    except KeyboardInterrupt:
        click.echo(f"\ncox: {clean(operation['kind'])} goes on without you", err=True)
        click.echo(f"     See: cox operations show --follow {operation['id']}; or stop it: cox operations cancel", err=True)
        raise


def _follow(asking: Client, operation: dict[str, Any]) -> dict[str, Any]:
    marks = _MARKS if (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "") == "utf8" else _PLAIN
    told: dict[int, tuple[str, int]] = {}
    notes = len(operation["notes"])
    while True:
        for number, step in enumerate(operation["steps"]):
            state, lines = told.get(number, ("pending", 0))
            output = step["output"].splitlines()
            begins = step["state"] != state and step["state"] in ("running", "undoing")
            ends = step["state"] != state and step["state"] not in ("running", "undoing", "pending")
            at_once = ends and state not in ("running", "undoing")  # its beginning was not seen
            if begins or at_once:
                click.echo(f"{marks.get(step['state'], ' ')} {clean(step['title'])}{_took(step) if ends else ''}")
            if len(output) < lines:
                lines = 0
            for line in output[lines:]:
                click.echo(f"    {clean(line)}")
            if ends and not at_once:
                click.echo(f"{marks.get(step['state'], ' ')} {clean(step['title'])}{_took(step)}")
            told[number] = (step["state"], len(output))
        for note in operation["notes"][notes:]:  # they may say what became of a step
            click.echo(f"! {clean(note)}")
        notes = len(operation["notes"])
        if operation["state"] in _OVER:
            return operation
        time.sleep(_POLL_S)
        operation = asking.get(_path(operation["id"]))


def _end(operation: dict[str, Any], good: tuple[str, ...] = ("done",), *, quiet: bool = False) -> None:
    """The last line, and the exit code: 0 only if it came to what was wanted."""
    state = operation["state"]
    if not quiet:
        if state in good:
            click.echo(f"{clean(operation['kind'])}: {paint(state)}")
        else:
            why = operation["error"] or (f"it needs: {', '.join(operation['needs'])}" if operation["needs"] else "")
            is_now = state if state == "failed" else f"is {state}"
            click.echo(f"cox: {clean(operation['kind'])} {is_now}{': ' + clean(why) if why else ''}", err=True)
            for remedy in _remedies(operation):
                click.echo(f"     {clean(remedy)}", err=True)
    if state not in good:
        sys.exit(_FAILED_EXIT)


def _remedies(operation: dict[str, Any]) -> list[str]:
    """Against the cause, and then for the operation."""
    found = ("" if operation.get("overtaken_by") else operation["remedy"], _way_out(operation))
    return [remedy for remedy in found if remedy]


def _way_out(operation: dict[str, Any]) -> str:
    if operation.get("overtaken_by"):
        done = f"Nothing has to be done: {operation['overtaken_by']} was done on the same since."
        return f"{done} Closed with: cox operations cancel {operation['id']}"
    if operation["state"] == "waiting":
        return f"Give it with: cox operations retry {operation['id']} --password"
    if operation["state"] == "failed":
        return f"When the cause is gone: cox operations retry {operation['id']} (or cancel, to take it back)"
    return ""


def _print(o: dict[str, Any], names: Names) -> None:
    about = names.of(o["target_id"])
    facts(
        [
            ("id", o["id"]),
            ("kind", o["kind"]),
            ("target", f"{o['target_type']} {about}{'' if about == o['target_id'] else ' ' + o['target_id']}".strip()),
            (
                "state",
                Painted(
                    paint(o["state"])
                    + (" (being taken back)" if o["direction"] == "back" and not o["finished_at"] else "")
                    + (", overtaken since" if o.get("overtaken_by") else "")
                ),
            ),
            ("by", o["actor"]),
            ("begun", o["created_at"]),
            ("ended", o["finished_at"]),
            ("error", o["error"]),
            ("remedy", " ".join(_remedies(o))),
            ("needs", o["needs"]),
        ]
    )
    click.echo()
    for step in o["steps"]:
        click.echo(f"{paint(step['state']):<10} {clean(step['title'])}{_took(step)}")
        for line in step["output"].splitlines():
            click.echo(f"           | {clean(line)}")
        if step["error"]:
            click.echo(f"           ! {clean(step['error'])}")
    for note in o["notes"]:
        click.echo(f"! {clean(note)}")


def _took(step: dict[str, Any]) -> str:
    import datetime as dt  # noqa: PLC0415

    if not step["started_at"] or not step["finished_at"]:
        return ""
    began, ended = (dt.datetime.fromisoformat(step[key]) for key in ("started_at", "finished_at"))
    return f" ({(ended - began).total_seconds():.1f} s)"


def _state(o: dict[str, Any]) -> str:
    """In one word, for a list."""
    return "overtaken" if o.get("overtaken_by") else str(o["state"])


def _what_is_wrong(o: dict[str, Any]) -> str:
    if o.get("overtaken_by"):
        return f"nothing any more: {o['overtaken_by']} was done since"
    return str(o["error"])[:60]


def _where(o: dict[str, Any]) -> str:
    total = len(o["steps"])
    done = sum(step["state"] == "done" for step in o["steps"])
    at = next((s["name"] for s in o["steps"] if s["state"] in ("running", "failed", "undoing")), "")
    return f"{done}/{total} {at}".strip()


def _path(operation: str, action: str = "") -> str:
    return f"/api/operations/{quote(operation, safe='')}" + (f"/{action}" if action else "")
