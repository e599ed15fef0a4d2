"""What a consumer of the SIEM stream wants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coxswain.live.frames import ADMIN_CLASSES, CLASSES, class_of

__all__ = ["CONTRACT", "Wanted"]

CONTRACT = ("connect", "disconnect", "alert")
"""The kinds of existing consumers (management-plane.md 5). Who names none gets these."""

_ALERTS = frozenset({"alert", "alert_updated"})
_CLASSES = frozenset(CLASSES) - {"session", "alert"}
_SESSIONS = {"PEER_CONNECTED": "connect", "PEER_DISCONNECTED": "disconnect"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """``kinds``: those asked for that there are; ``unknown``: those that match nothing."""

    kinds: frozenset[str]
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, asked: Iterable[str]) -> Wanted:
        """Matches exactly; no names, or only empty ones, are the contract's three."""
        names = [name for name in asked if name]
        if not names:
            return cls(frozenset(CONTRACT))
        known = {*CONTRACT, *_ALERTS, *_CLASSES}
        return cls(frozenset(names) & known, tuple(sorted(set(names) - known)))

    @property
    def for_admins(self) -> frozenset[str]:
        """Kinds that a token below admin may not have."""
        return self.kinds & ADMIN_CLASSES

    @property
    def from_ring(self) -> bool:
        """Whether anything is wanted that is in the live stream only."""
        return not self.kinds <= frozenset(_SESSIONS.values())

    @property
    def sessions(self) -> bool:
        return not self.kinds.isdisjoint(_SESSIONS.values())

    def wants(self, kind: str) -> bool:
        """Whether an event of the live stream, of this ``Publish.kind``, is to be sent."""
        return (kind in _SESSIONS and _SESSIONS[kind] in self.kinds) or self.wants_from_ring(kind)

    def wants_from_ring(self, kind: str) -> bool:
        """The same, for what is in the live stream only: what is missed there comes from nowhere else."""
        return kind in self.kinds if kind in _ALERTS else class_of(kind) in self.kinds & _CLASSES
