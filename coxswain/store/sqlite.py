"""The embedded store: one SQLite file, through apsw, in WAL mode.

Writers take turns, and none waits for the disk in its turn: in WAL mode a commit appends to one file, and with
``synchronous = NORMAL`` SQLite leaves it to the operating system when that gets to the disk. Whoever promises it
(``ACKNOWLEDGED``) syncs that file after the turn, together with all others who wait for that just then. What SQLite itself
has to have on disk in order not to break (checkpoints, the head of the log) it still syncs by itself.

Readers come from a small pool, because there may be thousands of threads.
"""

from __future__ import annotations

import fcntl
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from coxswain.errors import InvalidInput, LoosePermissions, StateDirectoryHeld, StoreUnavailable
from coxswain.store.api import Durability, MissingReference, Row, Tx, Value, taken
from coxswain.store.guards import SharedSync, TxGuard, WriterTurns

__all__ = ["SqliteStore"]

_BUSY_MS = 5_000
"""How long to wait for another *process*; 100 ms, apsw's recommended practice, is too short for a checkpoint."""

_WAIT_S = 5.0
_WAL_RETRY_S = 0.01
_READERS = 6
_COLUMNS = re.compile(r"failed: (.*)$")
_DUPLICATE = (apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_ROWID)
_AWAY = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.NotADBError,
    apsw.CorruptError,
    apsw.ConnectionClosedError,
)


class _Transaction(TxGuard):
    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__()
        self._connection = connection

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        with self._statement(), _translated():
            return list(self._connection.execute(sql, tuple(params)))

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        with self._statement(), _translated():
            for _ in self._connection.executemany(sql, map(tuple, rows)):
                pass


class SqliteStore:
    """See ``coxswain.store.api.Store``. ``path`` is created, 0600, if it is not there, and refused if it is looser."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turns = WriterTurns(_WAIT_S)
        self._holder: int | None = None
        self._closed = False
        _create_private(path)
        self._readers: queue.LifoQueue[apsw.Connection] = queue.LifoQueue()
        self._all_readers: list[apsw.Connection] = []
        self._reader_slots = threading.Semaphore(_READERS)
        self._log: int | None = None
        self._syncs = SharedSync(self._sync_log)
        with _translated():
            self._writer = self._open()

    @property
    def location(self) -> str:
        return str(self._path)

    @property
    def committed(self) -> int:
        return self._syncs.committed

    @property
    def synced(self) -> int:
        return self._syncs.synced

    def sync(self) -> None:
        self._syncs.wait()

    @contextmanager
    def write(self, durability: Durability = Durability.ACKNOWLEDGED) -> Iterator[Tx]:
        connection = self._writer
        with self._turns.taken():
            with _translated():
                connection.execute("BEGIN IMMEDIATE")
            tx = _Transaction(connection)
            try:
                yield tx
                tx.check_unfailed()
                with _translated():
                    connection.execute("COMMIT")
                self._syncs.note_commit()
            finally:
                tx.finish()
                _roll_back(connection)
        if durability is Durability.ACKNOWLEDGED:
            self._syncs.wait()

    @contextmanager
    def read(self) -> Iterator[Tx]:
        if not self._reader_slots.acquire(timeout=_WAIT_S):
            raise StoreUnavailable(f"the database is busy: all {_READERS} readers were taken for {_WAIT_S:g} seconds")
        try:
            connection = self._take_reader()
            try:
                with _translated():
                    connection.execute("BEGIN")
                tx = _Transaction(connection)
                try:
                    yield tx
                finally:
                    tx.finish()
            finally:
                _roll_back(connection)
                self._readers.put(connection)
        finally:
            self._reader_slots.release()

    def hold_exclusively(self) -> None:
        """The lock is on a file beside the database: it ends with the process, and a stale file means nothing."""
        if self._holder is not None:
            return
        holder = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(holder, 32, 0).decode(errors="replace").strip()
            os.close(holder)
            raise StateDirectoryHeld(
                f"the database {self._path} is held by another daemon (pid {pid or 'unknown'})",
                remedy="Stop that one first, or give this one a state directory of its own.",
            ) from None
        os.ftruncate(holder, 0)
        os.pwrite(holder, f"{os.getpid()}\n".encode(), 0)
        self._holder = holder

    def close(self) -> None:
        self._closed = True
        with suppress(StoreUnavailable), self._turns.taken(), suppress(apsw.Error):
            self._writer.execute("PRAGMA optimize")
        for connection in (*self._all_readers, self._writer):
            with suppress(apsw.Error):
                connection.close()
        if self._log is not None:
            os.close(self._log)
            self._log = None
        if self._holder is not None:
            os.close(self._holder)
            self._holder = None

    def _take_reader(self) -> apsw.Connection:
        if self._closed:
            raise StoreUnavailable("the database was closed")
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            with _translated():
                connection = self._open()
                connection.execute("PRAGMA query_only = 1")
            self._all_readers.append(connection)
            return connection

    def _sync_log(self) -> None:
        """The file stays the same for as long as a connection is open, and SQLite has no locks on it that closing it would
        drop (https://sqlite.org/walformat.html; locks are on the ``-shm`` file).
        """
        try:
            if self._log is None:
                self._log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            os.fdatasync(self._log)
        except OSError as error:
            raise StoreUnavailable(f"the database {self._path} cannot be synced: {error.strerror}") from None

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(_BUSY_MS)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        return connection


def _create_private(path: Path) -> None:
    """Makes the file, or looks at its mode without opening it: closing *any* descriptor of a database drops all POSIX locks
    that this process has on it (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise LoosePermissions(
                f"{path} can be used by others (mode {mode:04o}); it holds secrets", remedy=f"chmod 600 {path}"
            ) from None
    except OSError as error:
        raise StoreUnavailable(f"the database {path} cannot be made: {error.strerror}") from None


def _use_wal(connection: apsw.Connection) -> None:
    """The change to WAL needs the file for itself, and SQLite fails at once where two starters ask together: its busy
    timeout does not hold there (https://sqlite.org/c3ref/busy_handler.html, on deadlocks).
    """
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except apsw.BusyError:
            if time.monotonic() >= until:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return


def _roll_back(connection: apsw.Connection) -> None:
    """Ends what is left of a transaction. After some failures (disk full, I/O) SQLite has done so by itself."""
    with suppress(apsw.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class _Translation:
    """Around whatever calls SQLite: its errors as ours. PERF: see ``TxGuard``."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            _raise_translated(error)


_TRANSLATION = _Translation()


def _translated() -> _Translation:
    return _TRANSLATION


def _constraint(text: str) -> tuple[str, str]:
    """Table and columns of ``UNIQUE constraint failed: paths.a, paths.b``; of an index over an expression, only its name."""
    found = _COLUMNS.search(text)
    names = [name.partition(".") for name in (found[1] if found else text).split(", ")]
    return names[0][0], ", ".join(column or table for table, _, column in names)


def _raise_translated(error: BaseException) -> None:
    """Raises what stands for ``error``; returns if nothing else does."""
    if isinstance(error, apsw.ConstraintError):
        kind = getattr(error, "extendedresult", 0)
        if kind in _DUPLICATE:
            table, columns = _constraint(str(error))
            raise taken(table, columns) from None
        if kind == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise MissingReference("a record that this one refers to is not there, or others still refer to it") from None
    elif isinstance(error, OverflowError):
        raise InvalidInput("a number is beyond 64 bits") from None
    elif isinstance(error, _AWAY):
        raise StoreUnavailable(f"the database does not answer: {error}") from None
