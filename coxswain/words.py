"""Words for people."""

from __future__ import annotations

__all__ = ["counted", "ended"]


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 node``, ``2 nodes``. ``plural``: where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def ended(text: str) -> str:
    """With a full stop, where another sentence follows; errors have none of their own."""
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."
