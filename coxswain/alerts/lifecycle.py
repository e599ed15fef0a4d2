"""What becomes of a finding, and of an alert that somebody handles. Pure.

A key belongs to one alert until that is resolved, whether it is acknowledged or not. When it is resolved, the evidence that
it was built on is *handled*: only newer evidence opens another one. Of a condition (``model.CONDITIONS``) that somebody
resolved while it holds, everything is handled until it has ended once. Neither covers what is worse than what was handled:
a certificate whose last days somebody knows of has not ended yet.
"""

from __future__ import annotations

import dataclasses

from coxswain.alerts.model import CONDITIONS, GATHERED, Alert, AlertStatus, Finding, Handled
from coxswain.clock import rfc3339
from coxswain.errors import Conflict, InvalidInput, StaleVersion

__all__ = [
    "FOREVER",
    "LONGEST_SNOOZE_S",
    "acknowledge",
    "escalates",
    "handled_with",
    "resolve",
    "snooze",
    "take",
    "wake",
]

FOREVER = 4_102_444_800.0
"""Handled until: a condition that has to end first (the year 2100)."""

LONGEST_SNOOZE_S = 30 * 86_400.0
_MOST_ADDRESSES = 64


def take(finding: Finding, owner: Alert | None, handled: Handled | None, *, new_id: str, now: float) -> Alert | None:
    """The alert that a finding opens or adds to; None: it says nothing new.

    Args:
        finding: just found.
        owner: the alert that has its key and is not resolved.
        handled: what is handled under this key.
        new_id: for an alert that is opened.
        now: epoch seconds.
    """
    if owner is not None:
        return _add(finding, owner, now)
    if handled is not None and handled.covers(finding):
        return None
    return Alert(
        id=new_id,
        at=finding.at,
        kind=finding.kind,
        severity=finding.severity,
        status=AlertStatus.OPEN,
        key=finding.key,
        evidence=finding.evidence,
        device_id=finding.device_id,
        user_id=finding.user_id,
        node_id=finding.node_id,
        source_ips=tuple(sorted(set(finding.source_ips)))[:_MOST_ADDRESSES],
        detail=dict(finding.detail),
        created_at=now,
        updated_at=now,
    )


def escalates(before: Alert | None, after: Alert) -> bool:
    """Whether ``after`` is to be told like a new alert."""
    return before is None or after.severity.rank > before.severity.rank


def _add(finding: Finding, owner: Alert, now: float) -> Alert | None:
    worse = finding.severity.rank > owner.severity.rank
    others = finding.key in GATHERED and any(owner.detail.get(name) != value for name, value in finding.detail.items())
    if not worse and not others and finding.evidence <= owner.evidence:
        return None
    addresses = sorted({*owner.source_ips, *finding.source_ips})
    return dataclasses.replace(
        owner,
        at=max(owner.at, finding.at),
        severity=finding.severity if worse else owner.severity,
        status=AlertStatus.OPEN if worse else owner.status,
        snoozed_until=0.0 if worse else owner.snoozed_until,
        evidence=max(owner.evidence, finding.evidence),
        device_id=owner.device_id or finding.device_id,
        user_id=owner.user_id or finding.user_id,
        node_id=finding.node_id or owner.node_id,
        source_ips=tuple(addresses[:_MOST_ADDRESSES]),
        detail={**owner.detail, **finding.detail, "last_seen": rfc3339(now)},
        updated_at=now,
    )


def acknowledge(alert: Alert, by: str, *, version: int | None, now: float) -> Alert:
    """Somebody takes care of it. Raises ``StaleVersion``, ``Conflict`` (it is resolved)."""
    _check(alert, version)
    if alert.status is AlertStatus.RESOLVED:
        raise Conflict(f"alert {alert.id} is resolved; there is nothing to acknowledge")
    return dataclasses.replace(alert, status=AlertStatus.ACKNOWLEDGED, snoozed_until=0.0, handled_by=by, updated_at=now)


def resolve(alert: Alert, by: str, *, version: int | None = None, now: float) -> Alert:
    """It is over. One that is resolved already stays as it is. Raises ``StaleVersion``."""
    _check(alert, version)
    if alert.status is AlertStatus.RESOLVED:
        return alert
    return dataclasses.replace(alert, status=AlertStatus.RESOLVED, snoozed_until=0.0, handled_by=by, updated_at=now)


def snooze(alert: Alert, until: float | None, by: str, *, version: int | None, now: float) -> Alert:
    """Nobody is reminded of it before ``until`` (None: it is not snoozed any more).

    Raises:
        InvalidInput: ``until`` is in the past, or too far away.
        Conflict: it is resolved.
        StaleVersion: somebody else changed it.
    """
    _check(alert, version)
    if alert.status is AlertStatus.RESOLVED:
        raise Conflict(f"alert {alert.id} is resolved; there is nothing to snooze")
    if until is not None and not now < until <= now + LONGEST_SNOOZE_S:
        raise InvalidInput(f"until: {rfc3339(until)} is not within the next {LONGEST_SNOOZE_S / 86_400:g} days")
    return dataclasses.replace(alert, snoozed_until=until or 0.0, handled_by=by, updated_at=now)


def wake(alert: Alert, *, now: float) -> Alert:
    """It was snoozed until now: whoever snoozed it wants to see it again."""
    return dataclasses.replace(alert, snoozed_until=0.0, status=AlertStatus.OPEN, updated_at=now)


def handled_with(alert: Alert) -> Handled:
    """What is handled under the key of an alert that somebody resolved."""
    lasts = alert.kind in CONDITIONS and alert.key not in GATHERED
    return Handled(FOREVER if lasts else alert.evidence, alert.severity)


def _check(alert: Alert, version: int | None) -> None:
    if version is not None and version != alert.version:
        raise StaleVersion.of(f"alert {alert.id}", version, alert.version)
