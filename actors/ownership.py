"""Which nodes this controller holds links to.

A seam: several controllers on one Postgres will share the fleet through advisory locks; one controller alone owns it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["Ownership", "SoloOwnership"]


class Ownership(Protocol):
    """Asked by ``node_links`` each time the set of nodes changes."""

    def owned(self, node_ids: Iterable[str]) -> frozenset[str]:
        """Returns those of ``node_ids`` that are this controller's."""
        ...


class SoloOwnership:
    """The only controller: everything is its own."""

    def owned(self, node_ids: Iterable[str]) -> frozenset[str]:
        return frozenset(node_ids)
