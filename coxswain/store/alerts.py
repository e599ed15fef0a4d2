"""Rows of alerts. Plain functions of a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coxswain.alerts.model import CONDITIONS, Alert, AlertStatus, Handled, Severity
from coxswain.clock import to_micros
from coxswain.messages.alerts import ListAlerts
from coxswain.store.api import Row, Tx, Value, in_lists

__all__ = [
    "counts",
    "forget_handled",
    "get",
    "handled",
    "insert",
    "left_alone",
    "list_alerts",
    "note_handled",
    "note_progress",
    "open_keys",
    "owners",
    "progress",
    "purge",
    "snoozes_over",
    "update",
]

_CHANGEABLE = (
    *("at", "severity", "status", "evidence", "device_id", "user_id", "node_id", "source_ips", "detail"),
    *("snoozed_until", "handled_by", "updated_at"),
)
_COLUMNS = ("id", "kind", "dedup_key", "created_at", "version", *_CHANGEABLE)
_LISTED = ", ".join(_COLUMNS)
_SELECT = f"SELECT {_LISTED} FROM alerts"  # noqa: S608 - our own names
_MOST_DETAIL = 16_384
_ORDERED = "ORDER BY at DESC, id DESC"

_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def insert(tx: Tx, alert: Alert) -> None:
    """Raises ``UniqueViolation``: its key has an owner."""
    tx.execute(f"INSERT INTO alerts ({_LISTED}) VALUES ({', '.join('?' * len(_COLUMNS))})", _values(alert))  # noqa: S608


def update(tx: Tx, alert: Alert) -> Alert:
    """Writes all that may change; returns it with its new version."""
    values = dict(zip(_COLUMNS, _values(alert), strict=True))
    sets = ", ".join(f"{name} = ?" for name in _CHANGEABLE)
    rows = tx.execute(
        f"UPDATE alerts SET {sets}, version = version + 1 WHERE id = ? RETURNING {_LISTED}",  # noqa: S608
        (*(values[name] for name in _CHANGEABLE), alert.id),
    )
    return _alert(rows[0]) if rows else alert


def get(tx: Tx, alert_id: str) -> Alert | None:
    rows = tx.execute(f"{_SELECT} WHERE id = ?", (alert_id,))
    return _alert(rows[0]) if rows else None


def owners(tx: Tx, keys: Sequence[str]) -> dict[str, Alert]:
    """The alerts that are not resolved, by key."""
    found = {}
    for part, marks in in_lists(keys):
        for row in tx.execute(f"{_SELECT} WHERE dedup_key IN ({marks}) AND status <> 'resolved'", part):
            alert = _alert(row)
            found[alert.key] = alert
    return found


def open_keys(tx: Tx, kinds: Sequence[str]) -> set[str]:
    """Keys of the alerts of these kinds that are not resolved, and of conditions that were resolved and have not ended."""
    marks = ", ".join("?" * len(kinds))
    found = tx.execute(f"SELECT dedup_key FROM alerts WHERE kind IN ({marks}) AND status <> 'resolved'", kinds)  # noqa: S608
    found += tx.execute(f"SELECT dedup_key FROM alert_handled WHERE kind IN ({marks})", kinds)  # noqa: S608
    return {row[0] for row in found}


def list_alerts(tx: Tx, query: ListAlerts) -> list[Alert]:
    """Newest first, by time and then by id."""
    wheres, values = ["1 = 1"], list[Value]()
    asked = (
        ("status", query.status),
        ("kind", query.kind),
        ("severity", query.severity),
        ("device_id", query.device_id),
        ("user_id", query.user_id),
        ("node_id", query.node_id),
    )
    for column, value in asked:
        if value:
            wheres.append(f"{column} = ?")
            values.append(value)
    if query.snoozed is not None:
        wheres.append("snoozed_until > 0" if query.snoozed else "snoozed_until = 0")
    if query.unresolved:
        wheres.append("status <> 'resolved'")
    if query.since is not None:
        wheres.append("at >= ?")
        values.append(query.since)
    if query.until is not None:
        wheres.append("at <= ?")
        values.append(query.until)
    if query.after is not None:
        wheres.append("(at, id) < (?, ?)")
        values += query.after
    where = " AND ".join(wheres)
    return [_alert(row) for row in tx.execute(f"{_SELECT} WHERE {where} {_ORDERED} LIMIT ?", (*values, query.limit))]


def counts(tx: Tx) -> dict[tuple[str, str], int]:
    """How many there are by status and severity, of those that are not resolved."""
    rows = tx.execute("SELECT status, severity, COUNT(*) FROM alerts WHERE status <> 'resolved' GROUP BY status, severity")
    return {(str(status), str(severity)): int(count) for status, severity, count in rows}


def snoozes_over(tx: Tx, now: float) -> list[Alert]:
    """Those that were snoozed until now."""
    rows = tx.execute(
        f"{_SELECT} WHERE snoozed_until > 0 AND snoozed_until <= ? AND status <> 'resolved'", (to_micros(now),)
    )
    return [_alert(row) for row in rows]


def left_alone(tx: Tx, before: float, most: int) -> list[Alert]:
    """Alerts about what happened before ``before`` (epoch seconds) that nobody did anything about since, oldest first.
    Critical ones are not among them, nor what is still snoozed, nor conditions, which end by themselves.
    """
    lasting = sorted(CONDITIONS)
    marks = ", ".join("?" * len(lasting))
    rows = tx.execute(
        f"{_SELECT} WHERE status <> 'resolved' AND severity <> ? AND snoozed_until = 0 AND at < ? AND updated_at < ? "
        f"AND kind NOT IN ({marks}) ORDER BY at, id LIMIT ?",
        (Severity.CRITICAL.value, *(to_micros(before),) * 2, *lasting, most),
    )
    return [_alert(row) for row in rows]


def purge(tx: Tx, before: float) -> int:
    """Deletes resolved alerts from before ``before`` (epoch seconds), and what was handled before; returns how many alerts.

    One that is not resolved stays, however old it is; and what was handled of conditions, which ends with them.
    """
    limit = to_micros(before)
    gone = tx.execute(
        "DELETE FROM alerts WHERE at < ? AND updated_at < ? AND status = 'resolved' RETURNING id", (limit,) * 2
    )
    lasting = sorted(CONDITIONS)
    marks = ", ".join("?" * len(lasting))
    tx.execute(
        f"DELETE FROM alert_handled WHERE at < ? AND evidence < ? AND kind NOT IN ({marks})",  # noqa: S608 - marks
        (limit, limit, *lasting),
    )
    return len(gone)


def handled(tx: Tx, keys: Sequence[str]) -> dict[str, Handled]:
    """What is handled, by key."""
    found: dict[str, Handled] = {}
    for part, marks in in_lists(keys):
        rows = tx.execute(
            f"SELECT dedup_key, evidence, severity FROM alert_handled WHERE dedup_key IN ({marks})",  # noqa: S608
            part,
        )
        found.update((key, Handled(evidence / 1e6, Severity(severity))) for key, evidence, severity in rows)
    return found


def note_handled(tx: Tx, kind: str, key: str, made: Handled, *, now: float) -> None:
    tx.execute(
        "INSERT INTO alert_handled (dedup_key, kind, evidence, severity, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (dedup_key) "
        "DO UPDATE SET evidence = excluded.evidence, severity = excluded.severity, at = excluded.at",
        (key, kind, to_micros(made.until), made.severity.value, to_micros(now)),
    )


def forget_handled(tx: Tx, keys: Iterable[str]) -> None:
    """Of conditions that have ended."""
    tx.executemany("DELETE FROM alert_handled WHERE dedup_key = ?", [(key,) for key in keys])


def progress(tx: Tx) -> dict[str, int]:
    """How far the rules have read."""
    return {str(name): int(value) for name, value in tx.execute("SELECT name, value FROM alert_progress")}


def note_progress(tx: Tx, made: Mapping[str, int]) -> None:
    tx.executemany(
        "INSERT INTO alert_progress (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        list(made.items()),
    )


def _values(a: Alert) -> list[Value]:
    detail = _json(a.detail)
    return [
        a.id,
        a.kind,
        a.key,
        to_micros(a.created_at),
        a.version,
        to_micros(a.at),
        a.severity.value,
        a.status.value,
        to_micros(a.evidence),
        a.device_id,
        a.user_id,
        a.node_id,
        _json(a.source_ips),
        detail if len(detail) <= _MOST_DETAIL else "{}",
        to_micros(a.snoozed_until),
        a.handled_by,
        to_micros(a.updated_at),
    ]


def _alert(row: Row) -> Alert:
    named: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    named["key"] = named.pop("dedup_key")
    for name in ("at", "evidence", "snoozed_until", "created_at", "updated_at"):
        named[name] /= 1e6
    named["severity"] = Severity(named["severity"])
    named["status"] = AlertStatus(named["status"])
    named["source_ips"] = tuple(json.loads(named["source_ips"]))
    named["detail"] = json.loads(named["detail"])
    return Alert(**named)
