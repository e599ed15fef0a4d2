"""Rows of sessions, and how far the event stream is in the store. Plain functions of a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from coxswain.clock import to_micros
from coxswain.messages.sessions import ListSessions, SessionView
from coxswain.model import Protocol
from coxswain.sessions.session import OpenSession
from coxswain.store.api import Row, Tx, Value

__all__ = ["Progress", "find_session", "list_sessions", "load_open", "next_id", "note_progress", "progress", "purge", "save"]

_CHANGEABLE = (
    *("device_id", "user_id", "closed_at", "closed_seen_at", "last_at", "event_at", "endpoint"),
    *("rx_base", "tx_base", "rx_last", "tx_last", "reason"),
    *("endpoints", "roams", "told_rx", "told_tx"),
)
_COLUMNS = ("id", "node_id", "protocol", "peer_key", "opened_at", "opened_seen_at", *_CHANGEABLE)
_LISTED = ", ".join((*_COLUMNS, "country"))

_json = json.JSONEncoder(separators=(",", ":")).encode

_SAVE = (
    f"INSERT INTO peer_sessions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608 - our own names
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _CHANGEABLE)}"
)


def save(tx: Tx, sessions: Iterable[OpenSession]) -> None:
    """Writes sessions, new ones and changed ones. Writing one again changes nothing. Countries hardly ever change, and
    are in indexes that would be written anew each time: so they are written by themselves.
    """
    saved = list(sessions)
    tx.executemany(_SAVE, (_values(session) for session in saved))
    moved = [(session.country, session.id) for session in saved if session.country_is_new]
    if moved:
        tx.executemany("UPDATE peer_sessions SET country = ? WHERE id = ?", moved)


def load_open(tx: Tx) -> list[OpenSession]:
    """The sessions that were open when they were last written."""
    rows = tx.execute(f"SELECT {_LISTED} FROM peer_sessions WHERE closed_at IS NULL ORDER BY id")  # noqa: S608
    return [_session(row) for row in rows]


def next_id(tx: Tx) -> int:
    """The number of the next session."""
    newest: int = tx.execute("SELECT coalesce(max(id), 0) FROM peer_sessions")[0][0]
    return newest + 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the batches of one run of the daemon are in the store, and what they brought."""

    number: int = 0
    opened: int = 0
    closed: int = 0
    events: int = 0


def progress(tx: Tx, epoch: str) -> Progress:
    """All zero: no batch of ``epoch`` is in the store."""
    rows = tx.execute("SELECT number, opened, closed, events FROM ingest_progress WHERE epoch = ?", (epoch,))
    return Progress(*rows[0]) if rows else Progress()


def note_progress(tx: Tx, epoch: str, made: Progress, *, now: float) -> None:
    """In the transaction that writes the batch's sessions. Earlier epochs are forgotten: nobody sends for them again."""
    tx.execute(
        "INSERT INTO ingest_progress (epoch, number, opened, closed, events, at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (epoch) DO UPDATE SET number = excluded.number, opened = excluded.opened, closed = excluded.closed, "
        "events = excluded.events, at = excluded.at",
        (epoch, made.number, made.opened, made.closed, made.events, to_micros(now)),
    )
    tx.execute("DELETE FROM ingest_progress WHERE epoch <> ?", (epoch,))


def list_sessions(tx: Tx, query: ListSessions) -> list[SessionView]:
    """Newest first."""
    wheres = ["id < ?"]
    values: list[Value] = [query.before if query.before is not None else 2**62]
    if query.active is not None:
        wheres.append("closed_at IS NULL" if query.active else "closed_at IS NOT NULL")
    protocol = None if query.protocol is None else int(query.protocol)
    asked: tuple[tuple[str, Value], ...] = (
        ("node_id", query.node_id),
        ("device_id", query.device_id),
        ("user_id", query.user_id),
        ("protocol", protocol),
        ("reason", query.reason),
    )
    for column, value in asked:
        if value is not None:
            wheres.append(f"{column} = ?")
            values.append(value)
    if query.country is not None:
        # A device or a user has few sessions, and a country may have all: their index is the better one.
        is_of_one = query.device_id is not None or query.user_id is not None
        wheres.append("(country || '') = ?" if is_of_one else "country = ?")
        values.append(query.country)
    rows = tx.execute(
        f"SELECT {_LISTED} FROM peer_sessions WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT ?",  # noqa: S608
        (*values, query.limit),
    )
    return [_view(_session(row)) for row in rows]


def find_session(tx: Tx, session_id: int) -> SessionView | None:
    """One session, open or closed."""
    rows = tx.execute(f"SELECT {_LISTED} FROM peer_sessions WHERE id = ?", (session_id,))  # noqa: S608
    return _view(_session(rows[0])) if rows else None


def purge(tx: Tx, before: float, most: int) -> int:
    """Deletes up to ``most`` of the sessions that ended before ``before`` (epoch seconds); returns how many that were."""
    rows = tx.execute(
        "SELECT id FROM peer_sessions WHERE closed_at IS NOT NULL AND closed_at < ? ORDER BY closed_at LIMIT ?",
        (to_micros(before), most),
    )
    tx.executemany("DELETE FROM peer_sessions WHERE id = ?", rows)
    return len(rows)


def _view(session: OpenSession) -> SessionView:
    node_id, protocol, peer_key = session.key
    return SessionView(
        id=session.id,
        node_id=node_id,
        protocol=protocol,
        peer_key=peer_key,
        device_id=session.device_id,
        user_id=session.user_id,
        opened_at=session.opened_at,
        closed_at=session.closed_at,
        endpoint=session.endpoint,
        rx_bytes=session.rx_bytes,
        tx_bytes=session.tx_bytes,
        reason=session.reason,
        endpoints=session.endpoints,
        roams=session.roams,
        last_at=session.last_at,
        country=session.country or "",
    )


def _values(session: OpenSession) -> tuple[Value, ...]:
    node_id, protocol, peer_key = session.key
    return (
        session.id,
        node_id,
        int(protocol),
        peer_key,
        to_micros(session.opened_at),
        to_micros(session.opened_seen_at),
        session.device_id,
        session.user_id,
        _micros(session.closed_at),
        _micros(session.closed_seen_at),
        to_micros(session.last_at),
        _micros(session.event_at),
        session.endpoint,
        session.rx_base,
        session.tx_base,
        session.rx_last,
        session.tx_last,
        session.reason,
        _json([[to_micros(at), endpoint] for at, endpoint in session.endpoints]),
        session.roams,
        session.told_rx,
        session.told_tx,
    )


def _session(row: Row) -> OpenSession:
    session = OpenSession(row[0], (row[1], Protocol(row[2]), row[3]), row[4] / 1e6, row[5] / 1e6)
    session.device_id, session.user_id = row[6], row[7]
    session.closed_at, session.closed_seen_at = _seconds(row[8]), _seconds(row[9])
    session.last_at = row[10] / 1e6
    session.event_at = _seconds(row[11])
    session.endpoint = row[12]
    session.rx_base, session.tx_base, session.rx_last, session.tx_last = row[13:17]
    session.reason = row[17]
    session.endpoints = tuple((at / 1e6, endpoint) for at, endpoint in json.loads(row[18] or "[]"))
    session.roams, session.told_rx, session.told_tx, session.country = row[19:23]
    session.totalled_rx, session.totalled_tx = session.rx_bytes or 0, session.tx_bytes or 0
    return session


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else to_micros(seconds)


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1e6
