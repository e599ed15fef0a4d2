"""``fleet_health`` and ``node_degraded``: nodes that should be up and are not, or are up and cannot be mended. Pure.

A link counts missed polls itself and calls a node unreachable after three in a row (``actors/node_link.py``); a node that
the operator stopped, or that is being set up, is nobody's alarm. An alert ends when the node has been well for a while, and
that takes twice as long for each time that it fell within the last ten minutes: a node that comes and goes has one alert,
not many.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import rfc3339
from coxswain.messages.fleet import NodeView
from coxswain.model import LinkState, NodeStatus

__all__ = ["Health", "Judgement", "Watched", "degraded_key", "fleet_key", "judge", "judge_degraded"]

_FALLS_WITHIN_S = 600.0
_LONGEST_RECOVERY_S = 300.0
_UP = frozenset({LinkState.LIVE, LinkState.DEGRADED})
_NOT_WATCHED = frozenset({NodeStatus.STOPPED, NodeStatus.PENDING, NodeStatus.PROVISIONING, NodeStatus.ENROLLING})


class Health(Enum):
    """``UNSURE``: what was thought before goes on."""

    WELL = auto()
    UNSURE = auto()
    BAD = auto()


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered of a node between two looks. Times are epoch seconds; 0: not so."""

    bad_since: float = 0.0
    well_since: float = 0.0
    degraded_since: float = 0.0
    falls: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """``due``: seconds until the answer may be another one although nothing was reported; None: it will not."""

    health: Health
    watched: Watched
    finding: Finding | None = None
    due: float | None = None


def fleet_key(node_id: str) -> str:
    return f"fleet_health:{node_id}"


def degraded_key(node_id: str) -> str:
    return f"node_degraded:{node_id}"


def judge(view: NodeView, before: Watched, now: float, settings: RuleSettings) -> Judgement:
    """Whether a node is down or wrong.

    Args:
        view: as ``fleet`` has it now.
        before: what the last look remembered.
        now: epoch seconds.
        settings: thresholds.
    """
    node = view.node
    falls = tuple(at for at in before.falls if now - at < _FALLS_WITHIN_S)
    if not node.enabled or node.status in _NOT_WATCHED:
        return Judgement(Health.WELL, Watched())
    if node.status is NodeStatus.ACTIVE and view.link_state in _UP:
        well_since = before.well_since or now
        wait = settings.recovery_s * 2.0 ** max(0, len(falls) - 1)
        left = well_since + min(wait, _LONGEST_RECOVERY_S) - now
        watched = Watched(well_since=well_since, degraded_since=before.degraded_since, falls=falls)
        return Judgement(Health.UNSURE, watched, due=left) if left > 0 else Judgement(Health.WELL, watched)
    # One whose agent nobody ever spoke to is not down: it is just being set up.
    down = node.status is NodeStatus.UNREACHABLE and bool(node.agent_version)
    if view.link_state is LinkState.CONNECTING or not (down or node.status is NodeStatus.ERROR):
        # It was just started, or has missed a poll or two: what was thought of it before still goes.
        return Judgement(Health.UNSURE, Watched(bad_since=before.bad_since, falls=falls))
    bad_since = before.bad_since or now
    watched = Watched(bad_since=bad_since, falls=falls if before.bad_since else (*falls, now)[-16:])
    left = 0.0 if down else bad_since + settings.error_s - now
    if left > 0:
        return Judgement(Health.UNSURE, watched, due=left)
    return Judgement(Health.BAD, watched, _bad(view, bad_since, len(watched.falls)))


def judge_degraded(view: NodeView, before: Watched, now: float, settings: RuleSettings) -> Judgement:
    """Whether a node answers, but has been something else than it should be for long: drift that healing does not mend."""
    degraded = view.node.enabled and view.node.status is NodeStatus.ACTIVE and view.link_state is LinkState.DEGRADED
    since = (before.degraded_since or now) if degraded else 0.0
    watched = Watched(before.bad_since, before.well_since, since, before.falls)
    if not degraded:
        return Judgement(Health.WELL, watched)
    left = since + settings.degraded_s - now
    if left > 0:
        return Judgement(Health.UNSURE, watched, due=left)
    node = view.node
    detail = {
        "node_id": node.id,
        "node_name": node.name,
        "region": node.region,
        "since": rfc3339(since),
        "reason": view.link_reason[:300],
        "findings": [text[:200] for text in view.findings[:10]],
    }
    finding = Finding("node_degraded", degraded_key(node.id), Severity.WARNING, since, since, node_id=node.id, detail=detail)
    return Judgement(Health.BAD, watched, finding)


def _bad(view: NodeView, since: float, falls: int) -> Finding:
    node = view.node
    return Finding(
        kind="fleet_health",
        key=fleet_key(node.id),
        severity=Severity.CRITICAL if node.status is NodeStatus.ERROR else Severity.WARNING,
        at=since,
        evidence=since,
        node_id=node.id,
        detail={
            "node_id": node.id,
            "node_name": node.name,
            "node_status": node.status.value,
            "region": node.region,
            "since": rfc3339(since),
            "reason": view.link_reason[:300],
            "falls": falls,
        },
    )
