"""What a fleet file is made of: items of a kind, each with a key that names it and fields that say how it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Item", "Key"]

KINDS = ("server", "node", "path", "user", "device", "profile")
"""In the order in which they are made; they are removed in the reverse one."""

Key = tuple[str, ...]
"""Names, the owner's first: ``("ann@example.org", "phone", "home")`` is a profile."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of the fleet.

    Attributes:
        fields: what is said of it; what is left out is as it is, or takes the default where it is new.
        where: its place in the file, as ``12: nodes[0]``; empty for what was read from a controller.
        id, version: of what was read from a controller.
    """

    kind: str
    key: Key
    fields: dict[str, Any]
    where: str = ""
    id: str = ""
    version: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        return f"{self.kind} {' / '.join(self.key)}"
