"""What the alert rules read, and the histories that they keep. Plain functions of a transaction, all of them bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coxswain.alerts.claim_rules import CLAIM
from coxswain.alerts.estate_rules import DeviceCertificate, Expiring, Stranger
from coxswain.alerts.history import Event, History, decode, encode
from coxswain.alerts.login_rules import ACTIONS, AuditFact
from coxswain.alerts.stays import OpenStay
from coxswain.clock import to_micros
from coxswain.model import Protocol
from coxswain.sessions import source_ip
from coxswain.store.api import Row, Tx, in_lists
from coxswain.store.session_records import KINDS, reason_of

__all__ = [
    "audit_facts",
    "claim_facts",
    "device_certificates",
    "events_between",
    "events_of",
    "expirings",
    "first_event",
    "forget_histories",
    "gone_strangers",
    "histories",
    "joined",
    "lingering",
    "open_stays",
    "save_histories",
    "siblings",
    "statuses",
    "strangers",
    "touched",
]

_KINDS = ", ".join(str(kind) for kind in KINDS)
_EVENT = "seq, at, session_id, node_id, device_id, user_id, source_ip, kind, rx_bytes"
_REASONS = {kind: reason_of(kind) for kind in KINDS}
_MOST_FACTS = 20_000
_MOST_STRANGERS = 200
_MOST_SIBLINGS = 50


def touched(tx: Tx, after: int, limit: int) -> tuple[int, set[str]]:
    """Devices of the next ``limit`` events after number ``after``, and the number of the last of these events."""
    rows = tx.execute("SELECT seq, device_id FROM connection_events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return (int(rows[-1][0]) if rows else after), {row[1] for row in rows if row[1]}


def events_of(tx: Tx, device_ids: Sequence[str], since: float) -> dict[str, list[Event]]:
    """Of these devices, not before ``since`` (epoch seconds), by time."""
    found: dict[str, list[Event]] = {device_id: [] for device_id in device_ids}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            f"SELECT {_EVENT} FROM connection_events "  # noqa: S608 - our own names and numbers
            f"WHERE device_id IN ({marks}) AND kind IN ({_KINDS}) AND at >= ?",
            (*part, to_micros(since)),
        )
        for row in rows:
            found[row[4]].append(_event(row))
    for events in found.values():
        events.sort(key=lambda event: (event.at, event.seq))
    return found


def first_event(tx: Tx, since: int) -> int | None:
    """When the first event not before ``since`` was; epoch microseconds."""
    run = "SELECT MIN(at) FROM connection_events WHERE kind = {} AND at >= ?"
    rows = tx.execute(" UNION ALL ".join(run.format(kind) for kind in KINDS), (since,) * len(KINDS))
    return min((int(row[0]) for row in rows if row[0] is not None), default=None)


def events_between(tx: Tx, since: int, until: int) -> dict[str, list[Event]]:
    """Of all devices, from ``since`` up to before ``until`` (epoch microseconds), by device and time."""
    rows = tx.execute(
        f"SELECT {_EVENT} FROM connection_events "  # noqa: S608 - our own names and numbers
        f"WHERE kind IN ({_KINDS}) AND at >= ? AND at < ? AND device_id IS NOT NULL",
        (since, until),
    )
    found: dict[str, list[Event]] = {}
    for row in rows:
        found.setdefault(row[4], []).append(_event(row))
    for events in found.values():
        events.sort(key=lambda event: (event.at, event.seq))
    return found


def open_stays(tx: Tx, device_ids: Sequence[str]) -> dict[str, list[OpenStay]]:
    """The open sessions of these devices, at the address where each is now."""
    found: dict[str, list[OpenStay]] = {}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            "SELECT device_id, id, node_id, endpoint, endpoints, opened_at FROM peer_sessions "  # noqa: S608
            f"WHERE closed_at IS NULL AND device_id IN ({marks})",
            part,
        )
        for device_id, number, node_id, endpoint, endpoints, opened_at in rows:
            since = _here_since(endpoints, opened_at / 1e6)
            found.setdefault(device_id, []).append(OpenStay(number, node_id, source_ip(endpoint), since))
    return found


def statuses(tx: Tx, device_ids: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Of these devices, what each is, or what its user is where that is what keeps it out, and when that row changed last.
    Deleted ones are left out.
    """
    found: dict[str, tuple[str, float]] = {}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            "SELECT d.id, d.status, d.updated_at, u.status, u.updated_at FROM devices d JOIN users u ON u.id = d.user_id "  # noqa: S608
            f"WHERE d.id IN ({marks})",
            part,
        )
        for device_id, status, since, user_status, user_since in rows:
            kept_out = status == "active" and user_status != "active"
            found[device_id] = (f"user {user_status}", user_since / 1e6) if kept_out else (status, since / 1e6)
    return found


def joined(tx: Tx, device_ids: Sequence[str], since: float) -> dict[str, float]:
    """Of these devices, those that joined (or joined anew) after ``since``, and when; epoch seconds."""
    found: dict[str, float] = {}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            f"SELECT device_id, enrolled_at FROM device_identities WHERE device_id IN ({marks}) AND enrolled_at > ?",  # noqa: S608
            (*part, to_micros(since)),
        )
        found.update((device_id, at / 1e6) for device_id, at in rows)
    return found


def siblings(tx: Tx, device_id: str) -> list[str]:
    """Other devices of the same user."""
    rows = tx.execute(
        "SELECT o.id FROM devices d JOIN devices o ON o.user_id = d.user_id "
        "WHERE d.id = ? AND o.id <> d.id ORDER BY o.id LIMIT ?",
        (device_id, _MOST_SIBLINGS),
    )
    return [row[0] for row in rows]


def claim_facts(tx: Tx, since: float) -> list[AuditFact]:
    """Claims not before ``since`` (epoch seconds), the newest ones where there are too many, in the order of the log: those
    that were made, and those that were refused although their link is known. Strangers make none of these.
    """
    rows = tx.execute(
        "SELECT seq, at, actor, action, target_id, source_ip, detail, result FROM audit_log "
        "WHERE action = ? AND at >= ? AND target_id <> '' ORDER BY seq DESC LIMIT ?",
        (CLAIM, to_micros(since), _MOST_FACTS),
    )
    return [_fact(row) for row in reversed(rows)]


def lingering(tx: Tx) -> set[str]:
    """Devices that have an open session and must not."""
    rows = tx.execute(
        "SELECT DISTINCT s.device_id FROM peer_sessions s JOIN devices d ON d.id = s.device_id "
        "JOIN users u ON u.id = d.user_id "
        "WHERE s.closed_at IS NULL AND (d.status <> 'active' OR u.status <> 'active') LIMIT 1000"
    )
    return {row[0] for row in rows}


def histories(tx: Tx, device_ids: Sequence[str]) -> dict[str, History]:
    """Those that there are."""
    found: dict[str, History] = {}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(f"SELECT device_id, doc FROM alert_histories WHERE device_id IN ({marks})", part)  # noqa: S608
        found.update((device_id, decode(doc)) for device_id, doc in rows)
    return found


def save_histories(tx: Tx, changed: Mapping[str, History], now: float) -> None:
    tx.executemany(
        "INSERT INTO alert_histories (device_id, doc, updated_at) VALUES (?, ?, ?) "
        "ON CONFLICT (device_id) DO UPDATE SET doc = excluded.doc, updated_at = excluded.updated_at",
        [(device_id, encode(history), to_micros(now)) for device_id, history in changed.items()],
    )


def forget_histories(tx: Tx) -> None:
    """Of devices that were deleted."""
    tx.execute("DELETE FROM alert_histories WHERE device_id NOT IN (SELECT id FROM devices)")


def audit_facts(tx: Tx, since: float, after: int) -> list[AuditFact]:
    """Records that the login rules want to see, after number ``after`` and not before ``since`` (epoch seconds); the
    newest ones where there are too many.
    """
    marks = ", ".join("?" * len(ACTIONS))
    rows = tx.execute(
        "SELECT seq, at, actor, action, target_id, source_ip, detail, result FROM audit_log "  # noqa: S608
        f"WHERE action IN ({marks}) AND actor_kind <> 'system' AND seq > ? AND at >= ? ORDER BY seq DESC LIMIT ?",
        (*ACTIONS, after, to_micros(since), _MOST_FACTS),
    )
    return [_fact(row) for row in reversed(rows)]


def strangers(tx: Tx) -> list[Stranger]:
    """Open sessions of peers that are in no inventory."""
    return _strangers(tx, "s.closed_at IS NULL AND s.device_id IS NULL AND p.id IS NULL ORDER BY s.id", ())


def gone_strangers(tx: Tx, since: float) -> list[Stranger]:
    """The last session of each peer that is in no inventory, of those that were closed after ``since`` (epoch seconds)."""
    last = "SELECT MAX(id) FROM peer_sessions WHERE closed_at > ? AND device_id IS NULL GROUP BY node_id, protocol, peer_key"
    return _strangers(tx, f"s.id IN ({last}) AND p.id IS NULL ORDER BY s.closed_at DESC", (to_micros(since),))


def _strangers(tx: Tx, chosen: str, values: tuple[int, ...]) -> list[Stranger]:
    rows = tx.execute(
        "SELECT s.node_id, s.protocol, s.peer_key, s.endpoint, s.opened_seen_at, s.closed_at FROM peer_sessions s "  # noqa: S608
        "LEFT JOIN peers p ON p.node_id = s.node_id AND p.protocol = s.protocol AND p.public_key = s.peer_key "
        f"WHERE {chosen} LIMIT ?",
        (*values, _MOST_STRANGERS),
    )
    return [
        Stranger(node_id, Protocol(protocol).name, key, endpoint, source_ip(endpoint), since / 1e6, (closed or 0) / 1e6)
        for node_id, protocol, key, endpoint, since, closed in rows
    ]


def expirings(tx: Tx, now: float, before: float) -> list[Expiring]:
    """What ends before ``before`` (epoch seconds): the newest certificate of each enabled node, of each relay, of the
    controller, of each authority, also if it has ended; tokens that have not, and are not revoked.
    """
    limit = to_micros(before)
    found: list[Expiring] = []
    rows = tx.execute(
        "SELECT c.serial, c.node_id, n.name, c.not_before, c.not_after FROM node_certs c JOIN nodes n ON n.id = c.node_id "
        "WHERE c.not_after < ? AND c.revoked_at IS NULL AND n.enabled = 1 AND NOT EXISTS (SELECT 1 FROM node_certs x "
        "WHERE x.node_id = c.node_id AND x.revoked_at IS NULL AND x.not_after > c.not_after)",
        (limit,),
    )
    for serial, node_id, name, since, until in rows:
        found.append(Expiring("certificate_expiring", serial, f"node {name}", since / 1e6, until / 1e6, node_id))
    rows = tx.execute(
        "SELECT c.serial, r.name, c.not_before, c.not_after FROM relay_certs c JOIN relays r ON r.id = c.relay_id "
        "WHERE c.not_after < ? AND c.revoked_at IS NULL AND NOT EXISTS (SELECT 1 FROM relay_certs x "
        "WHERE x.relay_id = c.relay_id AND x.revoked_at IS NULL AND x.not_after > c.not_after)",
        (limit,),
    )
    for serial, name, since, until in rows:
        found.append(Expiring("certificate_expiring", serial, f"relay {name}", since / 1e6, until / 1e6))
    newest = "SELECT serial, not_before, not_after FROM controller_certs ORDER BY not_after DESC LIMIT 1"
    for serial, since, until in tx.execute(newest):
        if until < limit:
            found.append(Expiring("certificate_expiring", serial, "the controller", since / 1e6, until / 1e6))
    for role, since, until in tx.execute(
        "SELECT role, not_before, not_after FROM authorities WHERE not_after < ?", (limit,)
    ):
        found.append(Expiring("certificate_expiring", f"ca-{role}", f"authority {role}", since / 1e6, until / 1e6))
    rows = tx.execute(
        "SELECT id, name, created_at, expires_at FROM api_tokens WHERE expires_at > ? AND expires_at < ? "
        "AND revoked_at IS NULL ORDER BY expires_at LIMIT 1000",
        (to_micros(now), limit),
    )
    for token_id, name, since, until in rows:
        found.append(Expiring("token_expiring", token_id, f"token {name}", since / 1e6, until / 1e6))
    return found


def device_certificates(tx: Tx, after: float, before: float) -> list[DeviceCertificate]:
    """What ends between these times (epoch seconds), of devices that may connect."""
    rows = tx.execute(
        "SELECT d.id, d.user_id, d.name, i.enrolled_at, i.not_after FROM device_identities i "
        "JOIN devices d ON d.id = i.device_id JOIN users u ON u.id = d.user_id "
        "WHERE i.not_after > ? AND i.not_after < ? AND d.status = 'active' AND u.status = 'active'",
        (to_micros(after), to_micros(before)),
    )
    return [DeviceCertificate(key, user, name, since / 1e6, until / 1e6) for key, user, name, since, until in rows]


def _event(row: Row) -> Event:
    seq, at, session_id, node_id, device_id, user_id, ip, kind, rx_bytes = row
    reason = _REASONS[kind]
    return Event(seq, at / 1e6, session_id, node_id, device_id, user_id or "", ip or "", reason, rx_bytes)


def _here_since(endpoints: str, opened_at: float) -> float:
    """Since when a session is at its present address; ``endpoints`` as ``store.sessions`` writes them."""
    places: Iterable[Any] = json.loads(endpoints) if endpoints else ()
    return max((float(place[0]) / 1e6 for place in places), default=opened_at)


def _fact(row: Row) -> AuditFact:
    seq, at, actor, action, target_id, ip, detail, result = row
    try:
        found = json.loads(detail) if detail else {}
    except ValueError:
        found = {}
    return AuditFact(seq, at / 1e6, actor, action, target_id, ip, found if isinstance(found, dict) else {}, result == "ok")
