"""What the rules about one device are given, and how they say what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coxswain.alerts.history import Event, History, Place
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.stays import OpenStay, Stay

__all__ = ["DeviceCase", "Seen", "finding_about"]


@dataclass(frozen=True, slots=True)
class DeviceCase:
    """All that is known of one device.

    Attributes:
        events: its boundary events in the window, by time.
        still_open: its open sessions.
        history: what was before the window.
        places: of source addresses, where known.
        status: of the device, or of its user where that is what keeps it out; ``active``; empty: it was deleted.
        status_since: since when, at the latest; epoch seconds.
        handled: until when evidence under a key was handled, where it was.
        claimed_at: when it joined; epoch seconds, 0: before the window.
        others: countries in which other devices of its user are known to have been.
    """

    device_id: str
    events: Sequence[Event]
    still_open: Sequence[OpenStay] = ()
    history: History = field(default_factory=History)
    places: Mapping[str, Place] = field(default_factory=dict)
    status: str = "active"
    status_since: float = 0.0
    handled: Mapping[str, float] = field(default_factory=dict)
    claimed_at: float = 0.0
    others: frozenset[str] = frozenset()

    @property
    def user_id(self) -> str:
        return next((event.user_id for event in reversed(self.events) if event.user_id), "")


class Seen(NamedTuple):
    """What all rules make of the events. PERF: once for all of them."""

    connects: list[Event]
    stays: list[Stay]


def finding_about(
    kind: str,
    case: DeviceCase,
    severity: Severity,
    *,
    at: float,
    evidence: float | None = None,
    about: str = "",
    node_id: str = "",
    source_ips: tuple[str, ...] = (),
    detail: dict[str, Any],
) -> Finding:
    """``evidence``: when the newest of it was, if not ``at``. ``about``: tells its alert from others of the kind."""
    key = f"{kind}:{case.device_id}" + (f":{about}" if about else "")
    return Finding(
        kind,
        key,
        severity,
        at,
        at if evidence is None else evidence,
        device_id=case.device_id,
        user_id=case.user_id,
        node_id=node_id,
        source_ips=source_ips,
        detail=detail,
    )
