"""The version of a record that the author of a change saw, for changes that do not go through the record's own row."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """``kind``: ``node``, ``path``, ``server``, ``relay``, ``operation`` or ``binding`` (of a device; 0: there is none).
    ``name``: for the sentence of a refusal.
    """

    kind: str
    id: str
    version: int
    name: str = ""
