"""What the commands about users, devices and profiles have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import click

from coxswain.cli.client import Client
from coxswain.cli.output import clean
from coxswain.errors import InvalidInput, NotFound
from coxswain.words import counted

__all__ = ["changes", "device_of", "every", "place", "say_arrival", "wait_option", "with_query"]

_PAGE = 1_000
_CURSORS = {"/api/nodes": "name", "/api/paths": "name", "/api/bindings": "device_id"}
"""Lists whose cursor is no id of their own."""

wait_option = click.option(
    "--wait", type=click.IntRange(0, 30), default=5, show_default=True, help="Seconds to wait for nodes to acknowledge."
)


def place(kind: str, key: str, action: str = "") -> str:
    """The place of one user, device or profile in the API."""
    return f"/api/{kind}/{quote(key, safe='')}" + (f"/{action}" if action else "")


def changes(given: dict[str, Any]) -> dict[str, Any]:
    """What an edit was given, by the names of its options. Raises ``InvalidInput``: nothing."""
    found = {key: value for key, value in given.items() if value is not None}
    if not found:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise InvalidInput(f"nothing to change: one of {options} is needed")
    return found


def with_query(path: str, **query: Any) -> str:
    """``path`` with those parameters that are not None."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def every(api: Client, path: str, **query: Any) -> Iterator[dict[str, Any]]:
    """All pages of a list."""
    after = None
    while True:
        page = api.get(with_query(path, limit=_PAGE, after=after, **query))
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1][_CURSORS.get(path, "id")]


def device_of(api: Client, device: str, user: str | None) -> dict[str, Any]:
    """A device by its id; or by its name, among those of ``user``; or the only one of ``user``, if it has no name."""
    if device.startswith("dev_"):
        found: dict[str, Any] = api.get(place("devices", device))
        return found
    if not user:
        wrong = f"{device[:80]!r} is not an id (dev_…)" if device else "which one is not said"
        raise InvalidInput(f"device: {wrong}", remedy="Give its id, or its name together with --user.")
    named = [d for d in every(api, place("users", user, "devices")) if device in ("", d["name"])]
    if not named and not device:
        raise NotFound(f"device: {user} has no device yet", remedy=f"Add one with: cox devices add {user} NAME")
    if not named:
        raise NotFound(f"device: {user} has no device {device!r}", remedy=f"See: cox devices list --user {user}")
    if len(named) > 1:
        raise InvalidInput(f"device: {user} has {len(named)} devices; give one by its id", remedy="See: cox devices list")
    return named[0]


def say_arrival(changed: dict[str, Any]) -> None:
    """Which nodes follow, and what could not be done."""
    pushed, pending = changed.get("pushed_nodes", []), changed.get("pending_nodes", [])
    if pushed:
        click.echo(f"acknowledged by {counted(len(pushed), 'node')}")
    if pending:
        click.echo(f"pending on {len(pending)}, which follow by themselves: {' '.join(pending[:5])}")
    for skipped in changed.get("skipped", []):
        click.echo(clean(f"not served: {skipped['name']}: {skipped['reason']}"), err=True)
