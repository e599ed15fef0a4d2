"""One daemon at a time on one Postgres database.

A session-level advisory lock on a connection of its own: it ends with the process, wherever that runs. When the server
restarts, the lock is gone and another daemon may have come in between; the mark in the ``meta`` table tells.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Mapping
from typing import Any

import psycopg

from coxswain.errors import StateDirectoryHeld
from coxswain.store.api import Row
from coxswain.store.migrate import MIGRATION_LOCK

__all__ = ["DatabaseHold", "application_name"]

_DAEMON_LOCK = 0x636F7873
"""Key of the advisory lock that one daemon holds on its database: "coxs" in ASCII."""


def application_name() -> str:
    """What the server shows of this process; cut to what it keeps (63 bytes)."""
    return f"coxswain pid {os.getpid()} on {socket.gethostname()}"[:63]


class DatabaseHold:
    """Held from construction until ``close``. Thread-safe.

    Raises on construction ``StateDirectoryHeld``, naming the other daemon's pid and host, or ``psycopg.Error``.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {**settings, "application_name": application_name()}
        self._lock = threading.Lock()
        self._mark = secrets.token_hex(16)
        self._lost: str | None = None
        self._session = self._claim()
        self._write_mark()

    def check(self) -> None:
        """Raises ``StateDirectoryHeld`` if another daemon has taken the database over."""
        if self._lost is not None:
            raise StateDirectoryHeld(
                f"the database was taken over by another daemon ({self._lost}) while the server was away",
                remedy="Stop one of the two, then start this one again.",
            )

    def renew(self) -> None:
        """Looks whether the session still stands, and claims the database again if not. Raises ``psycopg.Error``."""
        with self._lock:
            if self._lost is not None:
                return
            try:
                self._session.execute("SELECT 1")
            except psycopg.Error:
                self._session.close()
            else:
                return
            try:
                self._session = self._claim()
            except StateDirectoryHeld as error:
                self._lost = str(error)
                return
            row = self._session.execute("SELECT value FROM meta WHERE key = 'holder'").fetchone()
            if row is None or row[0] != self._mark:
                self._lost = "gone again meanwhile"
                self._session.close()

    def close(self) -> None:
        """Lets others in."""
        with self._lock:
            self._session.close()

    def _claim(self) -> psycopg.Connection[Row]:
        session: psycopg.Connection[Row] = psycopg.connect(autocommit=True, **self._settings)
        try:
            row = session.execute("SELECT pg_try_advisory_lock(%s)", (_DAEMON_LOCK,)).fetchone()
            if row is not None and row[0]:
                session.execute("SET idle_session_timeout = 0")
                return session
            holder = session.execute(
                "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
                "WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = %s AND l.objsubid = 1 AND l.granted "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (_DAEMON_LOCK,),
            ).fetchone()
        except BaseException:
            session.close()
            raise
        session.close()
        raise StateDirectoryHeld(
            f"the database is held by another daemon ({holder[0] if holder else 'unknown'})",
            remedy="Stop that one first, or give this one a database of its own.",
        )

    def _write_mark(self) -> None:
        """Under the lock that migrations take turns with, because two processes that make a table at once collide."""
        with self._session.transaction():
            self._session.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            self._session.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._session.execute(
                "INSERT INTO meta (key, value) VALUES ('holder', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (self._mark,),
            )
