"""What the commands about users, devices and profiles have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import click

from coxswain.cli.client import Client
from coxswain.cli.names import Names
from coxswain.cli.output import clean
from coxswain.errors import InvalidInput, NotFound
from coxswain.words import counted

__all__ = [
    "changes",
    "device_id_of",
    "device_of",
    "every",
    "place",
    "profile_id_of",
    "say_arrival",
    "user_key_of",
    "wait_option",
    "with_query",
]

_PAGE = 1_000
_CURSORS = {"/api/nodes": "name", "/api/paths": "name", "/api/bindings": "device_id"}
"""Lists whose cursor is no id of their own."""

_LONGEST = 100
"""Of what lists can be searched for."""

_FEW = 5
"""Things of one name that are told apart in an error."""

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


def user_key_of(api: Client, user: str) -> str:
    """What the API knows a user by, who is given by id, e-mail address or name. Raises ``NotFound``; ``InvalidInput`` where
    several have the name.
    """
    if not user or user.startswith("usr_") or "@" in user:  # of an empty one the client says so
        return user
    named = [u for u in every(api, "/api/users", q=user[:_LONGEST]) if u["name"] == user]
    if not named:
        raise NotFound(
            f"user: there is no user with the id, e-mail address or name {user[:80]!r}", remedy="See: cox users list"
        )
    return str(_only("user", user, named, lambda u: u["email"] or u["phone"])["id"])


def device_id_of(api: Client, device: str) -> str:
    """The id of a device that is given by it, or by its name. Raises as ``user_key_of`` does."""
    return device if not device or device.startswith("dev_") else str(_device_named(api, device)["id"])


def profile_id_of(api: Client, profile: str) -> str:
    """The same of a profile."""
    if not profile or profile.startswith("pspec_"):
        return profile
    named = [p for p in every(api, "/api/profiles") if p["name"] == profile]
    if not named:
        raise NotFound(f"profile: there is none with the id or name {profile[:80]!r}", remedy="See: cox profiles list")
    return str(_only("profile", profile, named, lambda p: f"of {_name(api, 'devices', p['device_id'])}")["id"])


def device_of(api: Client, device: str, user: str | None) -> dict[str, Any]:
    """A device by its id; or by its name, among those of ``user`` if one is said; or the only one of ``user``, if it has no
    name.
    """
    if device.startswith("dev_"):
        found: dict[str, Any] = api.get(place("devices", device))
        return found
    if not user:
        if not device:
            raise InvalidInput("device: which one is not said", remedy="Give its id or name, or its user.")
        return _device_named(api, device)
    named = [d for d in every(api, place("users", user_key_of(api, user), "devices")) if device in ("", d["name"])]
    if not named and not device:
        raise NotFound(f"device: {user} has no device yet", remedy=f"Add one with: cox devices add {user} NAME")
    if not named:
        raise NotFound(f"device: {user} has no device {device!r}", remedy=f"See: cox devices list --user {user}")
    if len(named) > 1:
        raise InvalidInput(
            f"device: {user} has {len(named)} devices; give one by its id: {_told(named, lambda d: d['name'])}",
            remedy="See: cox devices list",
        )
    return named[0]


def _device_named(api: Client, device: str) -> dict[str, Any]:
    named = [d for d in every(api, "/api/devices", q=device[:_LONGEST]) if d["name"] == device]
    if not named:
        raise NotFound(f"device: there is no device with the id or name {device[:80]!r}", remedy="See: cox devices list")
    return _only("device", device, named, lambda d: f"of {_name(api, 'users', d['user_id'])}")


def _only(what: str, word: str, named: list[dict[str, Any]], says: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """``says``: what tells one from the others. Raises ``InvalidInput``."""
    if len(named) > 1:
        raise InvalidInput(
            f"{what}: {len(named)} have the name {word[:80]!r}: {_told(named, says)}", remedy="Give the id of one."
        )
    return named[0]


def _few(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join([*known[:_FEW], f"{len(known) - _FEW} more"] if len(known) > _FEW else known)


def _told(named: list[dict[str, Any]], says: Callable[[dict[str, Any]], str]) -> str:
    words = [f"{each['id']} ({says(each)})" if says(each) else str(each["id"]) for each in named[:_FEW]]
    return _few([*words, *(each["id"] for each in named[_FEW:])])


def _name(api: Client, kind: str, key: str) -> str:
    return str(api.get(place(kind, key))["name"])


def say_arrival(api: Client, changed: dict[str, Any]) -> None:
    """Which nodes follow, and what could not be done."""
    pushed, pending = changed.get("pushed_nodes", []), changed.get("pending_nodes", [])
    if pushed:
        click.echo(f"acknowledged by {counted(len(pushed), 'node')}")
    if pending:
        names = Names(api)
        names.learn(pending[:_FEW])
        click.echo(clean(f"pending on {len(pending)}, which follow by themselves: {_few(map(names.of, pending))}"))
    for skipped in changed.get("skipped", []):
        click.echo(clean(f"not served: {skipped['name']}: {skipped['reason']}"), err=True)
