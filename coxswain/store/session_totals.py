"""Rows of what sessions moved: one for each UTC day, node, device, user and protocol that had any.

Kept up with every write of sessions, in its transaction, so totals are exact and never take a walk over sessions. Bytes
count for the day on which they were counted, not for the day on which their session was opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coxswain.messages.sessions import ListTotals, Total
from coxswain.sessions import Changes, OpenSession
from coxswain.store.api import Row, Tx, Value

__all__ = ["add", "list_totals", "purge", "totalled"]

_DAY_S = 86_400
_MOST = 2**53
"""Beyond this no count goes: a node that lies must not make a number that no database takes, nor one that JSON rounds."""

_COUNTS = ("opened", "closed", "unknown", "rx_bytes", "tx_bytes", "seconds")
_ADD = (
    f"INSERT INTO session_totals (day, node_id, device_id, user_id, protocol, {', '.join(_COUNTS)}) "  # noqa: S608
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, node_id, device_id, user_id, protocol) DO UPDATE SET "
    + ", ".join(
        f"{name} = CASE WHEN session_totals.{name} > {_MOST} - excluded.{name} THEN {_MOST} "
        f"ELSE session_totals.{name} + excluded.{name} END"
        for name in _COUNTS
    )
)
_GROUPS = {"user": "user_id", "device": "device_id", "node": "node_id"}


@dataclass(slots=True)
class _Sum:
    opened: int = 0
    closed: int = 0
    unknown: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    seconds: int = 0

    def counts(self) -> tuple[int, ...]:
        """In the order of ``_COUNTS``; only bytes can be a lie of that size."""
        moved = min(_MOST, self.rx_bytes), min(_MOST, self.tx_bytes)
        return self.opened, self.closed, self.unknown, *moved, min(_MOST, self.seconds)


def add(tx: Tx, changes: Changes, *, now: float) -> None:
    """Adds what is new in ``changes``; call ``totalled`` when the transaction is committed."""
    sums: dict[tuple[str, str, str, int], _Sum] = {}

    def of(session: OpenSession) -> _Sum:
        node_id, protocol, _ = session.key
        key = (node_id, session.device_id or "", session.user_id or "", int(protocol))
        return sums.setdefault(key, _Sum())

    for session in changes.dirty.values():
        rx, tx_ = _unseen(session.rx_bytes, session.totalled_rx), _unseen(session.tx_bytes, session.totalled_tx)
        if rx or tx_:
            total = of(session)
            total.rx_bytes += rx
            total.tx_bytes += tx_
    for session in changes.opened:
        of(session).opened += 1
    for session in changes.closed:
        total = of(session)
        total.closed += 1
        total.unknown += session.rx_bytes is None
        total.seconds += max(0, round((session.closed_at or 0.0) - session.opened_at))
    day = int(now // _DAY_S)
    tx.executemany(
        _ADD,
        ((day, *key, *total.counts()) for key, total in sorted(sums.items())),
    )


def totalled(sessions: Iterable[OpenSession]) -> None:
    """Notes that their bytes are in the totals."""
    for session in sessions:
        session.totalled_rx, session.totalled_tx = session.rx_bytes or 0, session.tx_bytes or 0


def list_totals(tx: Tx, query: ListTotals) -> list[Total]:
    """The largest first, by bytes and then by id."""
    column = _GROUPS[query.by]
    wheres, values = ["day BETWEEN ? AND ?"], _days(query)
    for name, value in (("user_id", query.user_id), ("device_id", query.device_id), ("node_id", query.node_id)):
        if value is not None:
            wheres.append(f"{name} = ?")
            values.append(value)
    sums = ", ".join(f"SUM({name} * 1.0) AS {name}" for name in _COUNTS)
    after: str = ""
    skipped: list[Value] = []
    if query.after is not None:
        after = "WHERE (moved < ? OR (moved = ? AND id > ?))"
        skipped = [query.after[0], *query.after]
    rows = tx.execute(
        f"SELECT * FROM (SELECT {column} AS id, {sums}, SUM((rx_bytes + tx_bytes) * 1.0) AS moved FROM session_totals "  # noqa: S608
        f"WHERE {' AND '.join(wheres)} GROUP BY {column}) AS t {after} ORDER BY moved DESC, id LIMIT ?",
        (*values, *skipped, query.limit),
    )
    return [_total(row) for row in rows]


def purge(tx: Tx, before: float) -> None:
    """Deletes the days that were over at ``before`` (epoch seconds)."""
    tx.execute("DELETE FROM session_totals WHERE day < ?", (int(before // _DAY_S),))


def _unseen(now: int | None, before: int) -> int:
    return 0 if now is None else max(0, now - before)


def _days(query: ListTotals) -> list[Value]:
    since = 0 if query.since is None else int(query.since // _DAY_S)
    until = 2**40 if query.until is None else int(query.until // _DAY_S)
    return [since, until]


def _total(row: Row) -> Total:
    opened, closed, unknown, rx_bytes, tx_bytes, seconds = (int(value) for value in row[1:7])
    return Total(row[0], opened, closed, unknown, rx_bytes, tx_bytes, seconds, float(row[7]))
