"""``session_archive``: answers questions about sessions and names of what is in them, and forgets what is too old.

Apart from ``session_tracker``, so that a long answer never holds back what nodes report, and a flood of events no answer. It
reads what the tracker has committed; a reader never waits for the writer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from actors.supervision import Actor, Context
from coxswain.errors import NotFound, StoreUnavailable
from coxswain.messages.names import FindNamed, ListRemoved, NamesOf
from coxswain.messages.sessions import (
    GetSession,
    LastRecord,
    ListRecords,
    ListSessions,
    ListTotals,
    RecordsAfter,
    SessionView,
)
from coxswain.store import Durability, Store, names
from coxswain.store import session_records as records
from coxswain.store import session_totals as totals
from coxswain.store import sessions as rows

__all__ = ["SessionArchive"]

_MOST = 1_001
"""A page of the API, and one more, by which it sees that another page follows."""
_DAY_S = 86_400.0
_PURGE_EVERY_S = 60.0
_PURGE_ROWS = 500
_PURGE_NAMES_EVERY_S = 3_600.0
_PURGE_PAUSE_S = 0.1
"""A little at a time: whoever wants to write, or to ask, waits some milliseconds for a purge and not for all of it."""

_List = TypeVar("_List", ListSessions, ListRecords, ListTotals, ListRemoved)


class _Purge:
    """To itself: look for what is too old."""


class SessionArchive(Actor):
    """Everything here is in the store; after a crash nothing has to be made up for.

    Args:
        context: its place in the system.
        store: where sessions are.
        keep_days: asked before each purge: for how many days sessions are kept; 0 or less: for ever.
    """

    mailbox_capacity = 2_000

    def __init__(self, context: Context, *, store: Store, keep_days: Callable[[], int] = lambda: 0) -> None:
        super().__init__(context)
        self._store = store
        self._keep_days = keep_days
        self._names_due = 0.0

    def started(self) -> None:
        self.context.after(_PURGE_PAUSE_S, _Purge())

    def receive(self, message: Any) -> Any:
        match message:
            case ListRecords():
                with self._store.read() as tx:
                    return records.list_records(tx, _limited(message))
            case LastRecord():
                with self._store.read() as tx:
                    return records.last_seq(tx)
            case RecordsAfter(seq, limit):
                with self._store.read() as tx:
                    return records.records_after(tx, seq, min(limit, _MOST))
            case ListSessions():
                with self._store.read() as tx:
                    return rows.list_sessions(tx, _limited(message))
            case ListTotals():
                with self._store.read() as tx:
                    return totals.list_totals(tx, _limited(message))
            case GetSession(session_id):
                return self._find(session_id)
            case NamesOf(ids):
                with self._store.read() as tx:
                    return names.names_of(tx, ids)
            case FindNamed():
                with self._store.read() as tx:
                    return names.find_named(tx, message)
            case ListRemoved():
                with self._store.read() as tx:
                    return names.list_removed(tx, _limited(message))
            case _Purge():
                self.context.after(_PURGE_PAUSE_S if self._purge() else _PURGE_EVERY_S, message)
        return None

    def _find(self, session_id: int) -> SessionView:
        with self._store.read() as tx:
            found = rows.find_session(tx, session_id)
        if found is None:
            raise NotFound(f"session: there is none with the id {session_id}", remedy="See: cox sessions")
        return found

    def _purge(self) -> bool:
        """True: there may be more. A database that is away has nothing forgotten, this time."""
        days = self._keep_days()
        if days <= 0:
            return False
        before = self.context.clock.now() - days * _DAY_S
        try:
            with self._store.write(Durability.BATCHED) as tx:
                gone = records.purge(tx, before, _PURGE_ROWS)
                gone += rows.purge(tx, before, _PURGE_ROWS)
                totals.purge(tx, before)
            if gone < _PURGE_ROWS:
                self._purge_names(before)
        except StoreUnavailable as error:
            self.context.log.warning("old sessions stay for now: %s", error)
            return False
        return gone >= _PURGE_ROWS

    def _purge_names(self, before: float) -> None:
        """Only of what no history mentions, which is looked for beside the writers and not before every minute's purge."""
        now = self.context.clock.monotonic()
        if now < self._names_due:
            return
        with self._store.read() as tx:
            ids = names.outlived(tx, before, _PURGE_ROWS)
        if ids:
            with self._store.write(Durability.BATCHED) as tx:
                names.purge(tx, ids)
        if len(ids) < _PURGE_ROWS:
            self._names_due = now + _PURGE_NAMES_EVERY_S


def _limited(query: _List) -> _List:
    return dataclasses.replace(query, limit=max(0, min(query.limit, _MOST)))
