"""Rows of the contract's boundary events (management-plane.md 6.2): one for each connect and each disconnect.

A page of them takes the same time whatever is filtered for and however many there are. What may be filtered for besides a
node, a device, a user, an address or a country (protocol, event type, reason) is one small number, the *kind*, and each
index has it before the time. So a page is the merge of at most a few dozen short runs of one index. Nodes and countries may
both be everybody's: for the two together there is an index of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from coxswain.clock import to_micros
from coxswain.messages.sessions import REASONS, ListRecords, SessionRecord
from coxswain.model import Protocol
from coxswain.sessions import Boundary, source_ip
from coxswain.store.api import Row, Tx, Value

__all__ = ["KINDS", "add", "kind_of", "last_seq", "list_records", "purge", "reason_of", "records_after"]

_PER_PROTOCOL = 32
_CONNECT = 0
_OF_KIND = {
    int(protocol) * _PER_PROTOCOL + code: (protocol, reason)
    for protocol in Protocol
    for code, reason in enumerate((None, *REASONS))
}
KINDS = tuple(_OF_KIND)
"""Every kind there is."""

_COLUMNS = (
    *("seq", "at", "received_at", "kind", "session_id", "node_id", "peer_key", "device_id", "user_id"),
    *("source_ip", "source_endpoint", "rx_bytes", "tx_bytes", "country"),
)
_LISTED = ", ".join(_COLUMNS)
_ADD = f"INSERT INTO connection_events ({_LISTED}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - our names

_BEYOND = 2**62


def kind_of(protocol: Protocol, reason: str | None) -> int:
    """The number that stands for a protocol and a reason (None: a connect)."""
    return int(protocol) * _PER_PROTOCOL + (_CONNECT if reason is None else 1 + REASONS.index(reason))


def reason_of(kind: int) -> str | None:
    """Of an event of this kind; None: it is a connect."""
    return _OF_KIND[kind][1]


def last_seq(tx: Tx) -> int:
    """The number of the newest row, 0: there is none."""
    found: int = tx.execute("SELECT coalesce(max(seq), 0) FROM connection_events")[0][0]
    return found


def records_after(tx: Tx, seq: int, limit: int) -> list[SessionRecord]:
    """In the order in which they were written: those after the one with the number ``seq``."""
    rows = tx.execute(f"SELECT {_LISTED} FROM connection_events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))  # noqa: S608
    return [_record(row) for row in rows]


def add(tx: Tx, boundaries: Iterable[Boundary]) -> None:
    """Writes numbered boundaries. Called by ``session_tracker``, in the transaction that writes their sessions."""
    tx.executemany(_ADD, (_values(boundary) for boundary in boundaries))


def list_records(tx: Tx, query: ListRecords) -> list[SessionRecord]:
    """Newest first, by time and then by number."""
    kinds = _kinds(query)
    if not kinds or query.limit <= 0:
        return []
    conditions, values = _conditions(query)
    run = f"SELECT * FROM (SELECT at, seq FROM connection_events WHERE {conditions} ORDER BY at DESC, seq DESC LIMIT ?) AS r"  # noqa: S608
    rows = tx.execute(
        f"SELECT {_LISTED} FROM connection_events WHERE seq IN ("  # noqa: S608 - our own names
        f"SELECT seq FROM ({' UNION ALL '.join([run] * len(kinds))}) AS runs ORDER BY at DESC, seq DESC LIMIT ?"
        ") ORDER BY at DESC, seq DESC",
        (*(value for kind in kinds for value in (*values, kind, query.limit)), query.limit),
    )
    return [_record(row) for row in rows]


def purge(tx: Tx, before: float, most: int) -> int:
    """Deletes up to ``most`` of the oldest rows from before ``before`` (epoch seconds); returns how many that were."""
    limit = to_micros(before)
    run = "SELECT seq FROM (SELECT at, seq FROM connection_events WHERE kind = ? AND at < ? ORDER BY at LIMIT ?) AS r"
    rows = tx.execute(
        " UNION ALL ".join([run] * len(_OF_KIND)),
        tuple(value for kind in _OF_KIND for value in (kind, limit, most)),
    )
    chosen = rows[:most]
    tx.executemany("DELETE FROM connection_events WHERE seq = ?", chosen)
    return len(chosen)


def _kinds(query: ListRecords) -> Sequence[int]:
    protocols = tuple(Protocol) if query.protocol is None else (query.protocol,)
    reasons: tuple[str | None, ...] = (None, *REASONS) if query.reason is None else (query.reason,)
    if query.event_type is not None:
        reasons = tuple(reason for reason in reasons if (reason is None) == (query.event_type == "connect"))
    return [kind_of(protocol, reason) for protocol, reason in product(protocols, reasons)]


def _conditions(query: ListRecords) -> tuple[str, list[Value]]:
    """The one condition that chooses the index comes first: the rarest thing asked for. Others are written so that no index
    serves them, because without statistics a database may take the wrong one.
    """
    wheres: list[str] = []
    values: list[Value] = []
    asked = (
        ("device_id", query.device_id),
        ("source_ip", query.source_ip),
        ("user_id", query.user_id),
        ("country", query.country),
        ("node_id", query.node_id),
    )
    for column, value in asked:
        if value is not None:
            chosen = not wheres or (column == "node_id" and wheres == ["country = ?"])
            wheres.append(f"{column} = ?" if chosen else f"({column} || '') = ?")
            values.append(value)
    wheres.append("at BETWEEN ? AND ?")
    values += [
        0 if query.since is None else to_micros(query.since),
        _BEYOND if query.until is None else to_micros(query.until),
    ]
    if query.after is not None:
        wheres.append("(at, seq) < (?, ?)")
        values += query.after
    wheres.append("kind = ?")
    return " AND ".join(wheres), values


def _values(boundary: Boundary) -> tuple[Value, ...]:
    session = boundary.session
    node_id, protocol, peer_key = session.key
    return (
        boundary.seq,
        to_micros(boundary.at),
        to_micros(boundary.received_at),
        kind_of(protocol, boundary.reason),
        session.id,
        node_id,
        peer_key,
        session.device_id,
        session.user_id,
        source_ip(boundary.endpoint) or None,
        boundary.endpoint,
        boundary.rx_bytes,
        boundary.tx_bytes,
        boundary.country,
    )


def _record(row: Row) -> SessionRecord:
    (
        seq,
        at,
        received_at,
        kind,
        session_id,
        node_id,
        peer_key,
        device_id,
        user_id,
        ip,
        endpoint,
        rx_bytes,
        tx_bytes,
        country,
    ) = row
    protocol, reason = _OF_KIND[kind]
    return SessionRecord(
        seq=seq,
        at_us=at,
        received_at=received_at / 1e6,
        session_id=session_id,
        node_id=node_id,
        protocol=protocol,
        peer_key=peer_key,
        device_id=device_id,
        user_id=user_id,
        source_ip=ip or "",
        source_endpoint=endpoint,
        rx_bytes=rx_bytes,
        tx_bytes=tx_bytes,
        reason=reason,
        country=country or "",
    )
