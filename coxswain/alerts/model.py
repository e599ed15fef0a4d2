"""What a rule finds, and the alert that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["CONDITIONS", "GATHERED", "KINDS", "Alert", "AlertStatus", "Finding", "Handled", "Severity"]


class Severity(StrEnum):
    """As the contract names them, mildest first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class AlertStatus(StrEnum):
    """``open → acknowledged → resolved``. One that is acknowledged and becomes worse is open again."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


KINDS = (
    "leaked_profile",
    "impossible_travel",
    "concurrent_sessions",
    "new_geo",
    "revoked_profile_active",
    "dormant_then_active",
    "off_hours_access",
    "data_volume_exfil",
    "auth_failure_spike",
    "fleet_health",
    "node_degraded",
    "unknown_peer",
    "login_after_failures",
    "admin_created",
    "token_created",
    "certificate_expiring",
    "token_expiring",
    "audit_broken",
    "storage_low",
    "exit_failover",
    "events_dropped",
    "claimed_elsewhere",
    "link_reused",
)
"""Every rule; the first ten are those of management-plane.md 7.3."""

CONDITIONS = frozenset(
    {
        "fleet_health",
        "node_degraded",
        "unknown_peer",
        "certificate_expiring",
        "token_expiring",
        "audit_broken",
        "storage_low",
        "exit_failover",
    }
)
"""Kinds that say what is, not what happened."""

GATHERED = frozenset({"certificate_expiring:devices"})
"""Keys of conditions about many things at once. One that joins them is something new, and one that leaves is told."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found just now.

    Attributes:
        key: what it is about; there is at most one alert that is not resolved with the same key (management-plane.md 7.3).
        at: epoch seconds of what happened.
        evidence: epoch seconds of the newest thing that it builds on; a finding with no newer evidence says nothing new.
        source_ips: sorted.
        detail: plain JSON values.
    """

    kind: str
    key: str
    severity: Severity
    at: float
    evidence: float
    device_id: str = ""
    user_id: str = ""
    node_id: str = ""
    source_ips: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handled:
    """What somebody resolved under a key: evidence until ``until`` (epoch seconds) that is no worse than ``severity``."""

    until: float
    severity: Severity

    def covers(self, finding: Finding) -> bool:
        return finding.evidence <= self.until and finding.severity.rank <= self.severity.rank


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, as the store has it. Times are epoch seconds.

    Attributes:
        key: see ``Finding``.
        evidence: of the newest finding that went into it.
        snoozed_until: nobody is reminded of it before; 0: not snoozed.
        handled_by: who acknowledged or resolved it last; ``system``: it ended by itself.
        version: for optimistic concurrency.
    """

    id: str
    at: float
    kind: str
    severity: Severity
    status: AlertStatus
    key: str
    evidence: float
    device_id: str = ""
    user_id: str = ""
    node_id: str = ""
    source_ips: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    snoozed_until: float = 0.0
    handled_by: str = ""
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0
