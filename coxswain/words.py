"""Words for people."""

from __future__ import annotations

import re

__all__ = ["counted", "ended", "plain"]

_ORDINARY = re.compile(r"[ -~]*")


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 node``, ``2 nodes``. ``plural``: where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def plain(text: str, keep: str = "") -> str:
    """What somebody else sent, as text that does nothing where it is shown or kept: what would move a cursor, turn a line
    round, begin another one or end a string is replaced, but for the characters of ``keep``.
    """
    if _ORDINARY.fullmatch(text):
        return text
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def ended(text: str) -> str:
    """With a full stop, where another sentence follows; errors have none of their own."""
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."
