"""How commands write what history is about: by name, also where it was removed since."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from coxswain.cli.client import Client
from coxswain.errors import CoxswainError

__all__ = ["Names", "called", "ids_called", "marked", "whole"]

_ID = re.compile(r"[a-z]+_[a-z0-9_]+")
_FEW = {"nod": "nodes", "srv": "servers", "rly": "relays", "pth": "paths", "cpath": "control-paths"}
"""Prefixes of ids, and where the API lists what they belong to."""
_MANY = {"dev": "devices", "usr": "users"}
"""Of these there may be thousands, and each is asked for alone."""
_HISTORIC = ("nod", "dev", "usr")
"""Their names are kept when they are removed."""
_NOT_FOUND = 404


class Names:
    """The names of what has ids, for people: each is asked for once. An id without a name stays what it is."""

    def __init__(self, asking: Client) -> None:
        self.known: dict[str, str] = {}
        self._asking = asking

    def of(self, key: str) -> str:
        """The name, once it was learnt."""
        return self.known.get(key, key)

    def learn(self, ids: Iterable[str]) -> None:
        """Asks for those that are not known yet. Where it is not told, the id has to do: a name is an ornament."""
        new = [key for key in dict.fromkeys(ids) if key not in self.known and _prefix(key) in _FEW | _MANY]
        for prefix in dict.fromkeys(map(_prefix, new)):
            wanted = [key for key in new if _prefix(key) == prefix]
            with suppress(CoxswainError):
                named = self._named(prefix, wanted)
                self.known |= {key: named.get(key, key) for key in wanted}

    def _named(self, prefix: str, wanted: list[str]) -> dict[str, str]:
        if prefix in _FEW:
            found = {each["id"]: each["name"] for each in self._asking.get(f"/api/{_FEW[prefix]}")}
        else:
            found = {}
            for key in wanted:
                one = _one(self._asking, f"/api/{_MANY[prefix]}/{key}")
                found |= {} if one is None else {key: one["name"]}
        gone = [key for key in wanted if key not in found]
        if gone and prefix in _HISTORIC:
            for each in self._asking.get(f"/api/removed?ids={','.join(gone)}"):
                found[each["id"]] = marked(each["name"], removed=True)
        return found


def ids_called(asking: Client, word: str) -> list[str]:
    """The ids of whatever has this name: an operator sees names, and types what was seen. Of an id, none."""
    if _prefix(word) in _FEW | _MANY:
        return []
    found = [each["id"] for what in _FEW.values() for each in asking.get(f"/api/{what}") if each["name"] == word]
    for what in _MANY.values():
        asked = asking.get(f"/api/{what}?{urlencode({'q': word})}")
        found += [each["id"] for each in asked if each["name"] == word]
    return found


def _prefix(key: str) -> str:
    """Empty: it is no id."""
    return key.partition("_")[0] if _ID.fullmatch(key) else ""


def _one(asking: Client, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = asking.get(path)
    except CoxswainError as error:
        if getattr(error, "status", None) == _NOT_FOUND:
            return None
        raise
    return found


def called(row: dict[str, Any], word: str) -> str:
    """The name of its ``node``, ``device`` or ``user``; the id where nobody knows that any more; empty: there is none."""
    return marked(row.get(f"{word}_name") or row.get(f"{word}_id") or "", removed=word in row.get("removed", ()))


def whole(row: dict[str, Any], word: str) -> str:
    """The same with its id, which is what other commands take in any case."""
    name, key = called(row, word), row.get(f"{word}_id") or ""
    return name if name == key else f"{name} {key}"


def marked(name: str, *, removed: bool) -> str:
    return f"{name} (removed)" if removed else name
