"""How commands write what history is about: by name, also where it was removed since."""

from __future__ import annotations

from typing import Any

__all__ = ["called", "marked", "whole"]


def called(row: dict[str, Any], word: str) -> str:
    """The name of its ``node``, ``device`` or ``user``; the id where nobody knows that any more; empty: there is none."""
    return marked(row.get(f"{word}_name") or row.get(f"{word}_id") or "", removed=word in row.get("removed", ()))


def whole(row: dict[str, Any], word: str) -> str:
    """The same with its id, which is what other commands take in any case."""
    name, key = called(row, word), row.get(f"{word}_id") or ""
    return name if name == key else f"{name} {key}"


def marked(name: str, *, removed: bool) -> str:
    return f"{name} (removed)" if removed else name
