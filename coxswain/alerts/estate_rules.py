"""The rules about the controller itself: certificates, tokens, the audit log, the disk, peers that nobody made. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import rfc3339

__all__ = ["Expiring", "Stranger", "audit_broken", "expiring", "storage_low", "strangers"]

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
            evidence=thing.until - early,
            node_id=thing.node_id,
            detail={"holder": thing.holder, "expires_at": rfc3339(thing.until), "expired": left <= 0},
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
