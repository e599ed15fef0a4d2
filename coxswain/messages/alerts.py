"""Messages to ``alert_engine``. Changes carry a ``Caller`` and reply ``Committed[Alert]``; they raise ``NotFound`` and,
where a version is given, ``StaleVersion``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coxswain.messages.audit import Caller
from coxswain.messages.fleet import NodeView

__all__ = [
    "AckAlert",
    "AnalyticsState",
    "CountOpen",
    "CountOpened",
    "DescribeAnalytics",
    "GetAlert",
    "ListAlerts",
    "NodeGone",
    "NodeSeen",
    "ResolveAlert",
    "SnoozeAlert",
    "SweepNow",
]


@dataclass(frozen=True, slots=True)
class ListAlerts:
    """Asked by doors. Reply: list of ``coxswain.alerts.model.Alert``, newest first, at most ``limit``.

    Texts must be equal; empty ones and None let everything through. ``since``, ``until``: epoch microseconds. ``after``:
    time and id of the last one of the page before.
    """

    status: str = ""
    kind: str = ""
    severity: str = ""
    device_id: str = ""
    user_id: str = ""
    node_id: str = ""
    unresolved: bool = False
    snoozed: bool | None = None
    since: int | None = None
    until: int | None = None
    after: tuple[int, str] | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class GetAlert:
    """Asked by doors. Reply: the ``Alert``. Raises ``NotFound``."""

    id: str


@dataclass(frozen=True, slots=True)
class CountOpen:
    """Asked by doors. Reply: how many alerts wait for somebody, by severity: open, and not snoozed."""


@dataclass(frozen=True, slots=True)
class CountOpened:
    """Asked by doors: how many alerts were opened when. Reply: as ``coxswain.store.alert_counts.opened`` returns it."""

    since: int
    step: int


@dataclass(frozen=True, slots=True)
class AckAlert:
    """Somebody takes care of it. Raises ``Conflict``: it is resolved."""

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ResolveAlert:
    """It is over; what it was built on opens no other one."""

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class SnoozeAlert:
    """Nobody is reminded of it before ``until`` (epoch seconds; None: it is not snoozed any more). Raises ``InvalidInput``,
    ``Conflict``.
    """

    caller: Caller
    id: str
    until: float | None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """Told by ``fleet`` whenever the link or the status of a node became another one."""

    view: NodeView


@dataclass(frozen=True, slots=True)
class NodeGone:
    """Told by ``fleet`` when a node was removed."""

    node_id: str


@dataclass(frozen=True, slots=True)
class SweepNow:
    """Asked by tests and by whoever does not want to wait for the interval. Reply: None, when a whole sweep is done."""


@dataclass(frozen=True, slots=True)
class DescribeAnalytics:
    """Asked by doors. Reply: ``AnalyticsState``."""


@dataclass(frozen=True, slots=True)
class AnalyticsState:
    """How the rules are doing. Times are epoch seconds, 0: never.

    Attributes:
        enabled: False: ``analytics.disabled``.
        sweeps: since the start.
        swept_at: when the last sweep ended.
        took_s: how long the last sweep worked.
        opened: alerts since the start, by kind.
        failing: rules whose last run came to nothing, and why.
        counts: alerts that are not resolved, by status and severity.
        dropped: what was dropped on its way since the start, by place (``coxswain.losses``).
        rules: kinds that are on.
    """

    enabled: bool
    sweeps: int = 0
    swept_at: float = 0.0
    took_s: float = 0.0
    opened: dict[str, int] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
