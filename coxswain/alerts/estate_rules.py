"""The rules about the controller itself: certificates, tokens, the audit log, the disk, peers that nobody made, exits of
paths, what was dropped on its way. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import rfc3339
from coxswain.losses import CONTROLLER, LIVE, NODES, SIEM, WEBHOOK, Loss
from coxswain.messages.exits import ExitTrouble

__all__ = [
    "DeviceCertificate",
    "Expiring",
    "Stranger",
    "audit_broken",
    "devices_expiring",
    "dropped",
    "exits",
    "expiring",
    "storage_low",
    "strangers",
]

_FIRST = 5
"""Devices that are named; the list of them says the rest."""

_ENOUGH_PERCENT = 2
"""Of a disk, beyond the threshold: one that is at it all the time is one alert, not many."""


class Expiring(NamedTuple):
    """A certificate or a token. Epoch seconds. ``holder``: whose it is, for people."""

    kind: str
    id: str
    holder: str
    since: float
    until: float
    node_id: str = ""


class DeviceCertificate(NamedTuple):
    """Of a device that may connect. Epoch seconds."""

    device_id: str
    user_id: str
    name: str
    since: float
    until: float


class Stranger(NamedTuple):
    """The last session of a peer that is in no inventory. Epoch seconds; ``gone_at`` 0: it is open."""

    node_id: str
    protocol: str
    peer_key: str
    endpoint: str
    source_ip: str
    since: float
    gone_at: float = 0.0


def expiring(things: Iterable[Expiring], now: float, settings: RuleSettings) -> Iterator[Finding]:
    """What ends within days. Of what lives shortly, only the last sixth counts: by then it should have been renewed."""
    for thing in things:
        early = min(settings.expiry_s, (thing.until - thing.since) / 6)
        left = thing.until - now
        if left > early:
            continue
        is_token = thing.kind == "token_expiring"
        if is_token and left <= 0:
            continue  # it is of no use to anybody any more, and nobody missed it
        severity = Severity.INFO if is_token else Severity.CRITICAL if left < early / 3 else Severity.WARNING
        yield Finding(
            thing.kind,
            f"{thing.kind}:{thing.id}",
            severity,
            at=now,
            evidence=_whole(thing.until - early),
            node_id=thing.node_id,
            detail={"holder": thing.holder, "expires_at": rfc3339(thing.until), "expired": left <= 0},
        )


def devices_expiring(things: Iterable[DeviceCertificate], now: float, settings: RuleSettings) -> Iterator[Finding]:
    """As ``expiring``, for all devices at once. Existing clients cannot renew: somebody has to send each of them a link."""
    due: list[DeviceCertificate] = []
    newest = 0.0
    for thing in things:
        begins = thing.until - min(settings.device_expiry_s, (thing.until - thing.since) / 6)
        if not begins <= now < thing.until + settings.device_expiry_s:
            continue  # of what ended long ago, nobody missed it
        about = Finding("certificate_expiring", "", Severity.WARNING, now, now, thing.device_id, thing.user_id)
        if settings.lets_pass(about):
            due.append(thing)
            newest = max(newest, _whole(begins))
    if not due:
        return
    due.sort(key=lambda thing: (thing.until, thing.device_id))
    yield Finding(
        "certificate_expiring",
        "certificate_expiring:devices",
        Severity.WARNING,
        at=now,
        evidence=newest,
        detail={
            "holder": "devices",
            "devices": len(due),
            "ended": sum(thing.until <= now for thing in due),
            "first": [f"{thing.name[:60]} ({thing.device_id}), {rfc3339(thing.until)}" for thing in due[:_FIRST]],
        },
    )


def audit_broken(findings: Iterable[str], now: float) -> Iterator[Finding]:
    """``findings``: what the audit writer found wrong with the log."""
    found = [text[:300] for text in findings]
    if found:
        yield Finding("audit_broken", "audit_broken", Severity.CRITICAL, now, 0.0, detail={"findings": found[:10]})


def storage_low(
    free: int, total: int, database: int, now: float, settings: RuleSettings, *, was_low: bool = False
) -> Iterator[Finding]:
    """Bytes that are free on the disk of the state directory, and that it has; how large the database is (0: elsewhere).

    ``was_low``: the last look found so; then a little more has to be free until it is over.
    """
    percent = 100.0 * free / total if total else 100.0
    if percent >= settings.disk_free_percent + (_ENOUGH_PERCENT if was_low else 0):
        return
    detail = {"free_percent": round(percent, 1), "free_bytes": free} | ({"database_bytes": database} if database else {})
    severity = Severity.CRITICAL if percent < settings.disk_free_percent / 3 else Severity.WARNING
    yield Finding("storage_low", "storage_low", severity, now, 0.0, detail=detail)


def exits(found: Iterable[ExitTrouble], now: float) -> Iterator[Finding]:
    """Paths that the controller led to another exit, and those whose exit is gone while no other is fit. One that an
    operator moved is nobody's alarm.
    """
    for one in found:
        if one.automatic or one.stuck:
            yield Finding(
                "exit_failover",
                f"exit_failover:{one.path_id}",
                Severity.CRITICAL if one.stuck else Severity.WARNING,
                at=now,
                evidence=_whole(one.since),
                node_id=one.exit_node_id,
                detail={
                    "path_id": one.path_id,
                    "path_name": one.name,
                    "own_exit": one.own_exit,
                    "exit": one.exit,
                    "reason": one.reason,
                    "stuck": one.stuck,
                    "since": rfc3339(one.since),
                },
            )


def dropped(losses: Iterable[Loss], settings: RuleSettings) -> Iterator[Finding]:
    """What was dropped within ``settings.dropped_window_s``, at each place and, of events of nodes, for each of them. Whose
    browser does not read is told itself, and misses nothing that it could not look up: that is no warning.
    """
    for one in losses:
        if one.count < settings.dropped_events:
            continue
        last = _whole(one.last_at)
        yield Finding(
            "events_dropped",
            f"events_dropped:{one.where}{one.node_id and ':'}{one.node_id}",
            Severity.INFO if one.where == LIVE else Severity.WARNING,
            at=last,
            evidence=last,
            node_id=one.node_id,
            detail={
                "where": _PLACES.get(one.where, one.where),
                "dropped": one.count,
                "window": f"{round(settings.dropped_window_s / 60)}m0s",
                "first_dropped": rfc3339(one.first_at),
                "last_dropped": rfc3339(one.last_at),
            },
        )


_PLACES = {
    NODES: "events of a node that cannot be read",
    CONTROLLER: "more events than can be told live",
    LIVE: "clients of the live stream",
    SIEM: "consumers of the SIEM stream",
    WEBHOOK: "the webhook",
}


def _whole(seconds: float) -> float:
    """What the store can keep: a sixth of a life would be newer with each sweep than the microseconds that are there."""
    return float(int(seconds))


def strangers(
    found: Iterable[Stranger], now: float, settings: RuleSettings, *, known: Collection[str] = ()
) -> Iterator[Finding]:
    """Peers on nodes that the controller did not put there, and that a reconcile did not take away.

    ``known``: keys of what the last look found. That is over when it has been gone for a while: one that comes and goes is
    one alert, not many.
    """
    for one in found:
        key = f"unknown_peer:{one.node_id}:{one.peer_key[:64]}"
        if key in known:
            if one.gone_at and now - one.gone_at >= settings.unknown_gone_s:
                continue
        elif one.gone_at or now - one.since < settings.unknown_s:
            continue
        yield Finding(
            "unknown_peer",
            key,
            Severity.WARNING,
            at=one.since,
            evidence=one.since,
            node_id=one.node_id,
            source_ips=(one.source_ip,) if one.source_ip else (),
            detail={
                "peer_id": one.peer_key[:64],
                "protocol": one.protocol,
                "endpoint": one.endpoint,
                "since": rfc3339(one.since),
            },
        )
