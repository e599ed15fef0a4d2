"""The store on a Postgres server, through psycopg and its pool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg
import psycopg.errors
import psycopg_pool
from psycopg import conninfo

from coxswain.errors import InvalidInput, StoreUnavailable
from coxswain.store.api import Durability, MissingReference, Row, Tx, Value, taken
from coxswain.store.guards import SharedSync, TxGuard, WriterTurns
from coxswain.store.hold import DatabaseHold, application_name

__all__ = ["PostgresStore", "to_postgres"]

_KEY = re.compile(r"Key \((.*?)\)=")
_TURN_S = 5.0
_POOL_S = 3.0
"""Together below the 10 s after which an actor counts as hung: a server that is away must not look like that."""

_OPEN_S = 5.0
_MIN_CONNECTIONS = 2
_MAX_CONNECTIONS = 8
_MAX_WAITING = 2_000
"""Threads that may queue for a connection before further ones are refused at once."""

_CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""So that a server that vanished without a word is noticed in seconds. What the DSN itself says goes first. Seconds, but for
the last, which is milliseconds."""

_TOKENS = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|(?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)|\?|%", re.DOTALL
)


@lru_cache(maxsize=1024)
def to_postgres(sql: str) -> bytes:
    """Turns ``?`` outside of strings, quoted names and comments into ``%s``, and doubles every ``%``."""

    def replace(match: re.Match[str]) -> str:
        token = match[0]
        return "%s" if token == "?" else token.replace("%", "%%")  # noqa: S105 - a placeholder, no password

    return _TOKENS.sub(replace, sql).encode()


class _Transaction(TxGuard):
    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        super().__init__()
        self._connection = connection

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        with self._statement(), _translated():
            cursor = self._connection.execute(to_postgres(sql), tuple(params))
            return cursor.fetchall() if cursor.description is not None else []

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        with self._statement(), _translated(), self._connection.cursor() as cursor:
            cursor.executemany(to_postgres(sql), [tuple(row) for row in rows])


class PostgresStore:
    """See ``coxswain.store.api.Store``. A lost server is ``StoreUnavailable`` until it is back; nothing need be done."""

    kind = "postgres"

    def __init__(self, dsn: str) -> None:
        self.location = dsn
        self._turns = WriterTurns(_TURN_S)
        self._syncs = SharedSync(self._sync)
        self._hold: DatabaseHold | None = None
        try:
            self._settings: dict[str, Any] = {
                "application_name": application_name(),
                **_CONNECTION,
                **conninfo.conninfo_to_dict(dsn),
            }
        except psycopg.ProgrammingError as error:
            raise InvalidInput(f"database.dsn: cannot be read: {_first_line(error)}") from None
        self._pool: psycopg_pool.ConnectionPool[psycopg.Connection[Row]] = psycopg_pool.ConnectionPool(
            kwargs=self._settings,
            min_size=_MIN_CONNECTIONS,
            max_size=_MAX_CONNECTIONS,
            max_waiting=_MAX_WAITING,
            timeout=_POOL_S,
            reconnect_timeout=_POOL_S,
            open=False,
            check=psycopg_pool.ConnectionPool.check_connection,
            configure=self._configure,
        )
        with _translated():
            psycopg.connect(**self._settings).close()  # says why, where the pool only says that it waited
            self._pool.open()
            try:
                self._pool.wait(_OPEN_S)
            except BaseException:
                self._pool.close()
                raise

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
        with self._turns.taken():
            with self._transaction(durability) as tx:
                yield tx
            self._syncs.note_commit(synced=durability is Durability.ACKNOWLEDGED)

    @contextmanager
    def _transaction(self, durability: Durability) -> Iterator[Tx]:
        with _translated(), self._pool.connection() as connection:
            if self._hold is not None:
                self._hold.check()
            if durability is Durability.BATCHED:
                connection.execute("SET LOCAL synchronous_commit = off")
            tx = _Transaction(connection)
            try:
                yield tx
            finally:
                tx.finish()
            tx.check_unfailed()

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with _translated(), self._pool.connection() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            tx = _Transaction(connection)
            try:
                yield tx
            finally:
                tx.finish()

    def hold_exclusively(self) -> None:
        if self._hold is not None:
            return
        with _translated():
            self._hold = DatabaseHold(self._settings)

    def close(self) -> None:
        self._pool.close()
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def _sync(self) -> None:
        """A commit that is waited for; the server's log is one, so all before it are on disk with it. It needs something to
        commit, or it is none.
        """
        with self.write() as tx:
            tx.execute("SELECT pg_logical_emit_message(true, 'coxswain', 'sync')")

    def _configure(self, connection: psycopg.Connection[Row]) -> None:
        """On each new connection of the pool. New ones are made when the server was away, and the hold with it."""
        if self._hold is not None:
            self._hold.renew()
        row = connection.execute("SELECT current_setting('synchronous_commit')").fetchone()
        if row is not None and row[0] == "off":  # the server's default must not make ACKNOWLEDGED a lie
            connection.execute("SET synchronous_commit = on")
        connection.commit()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        found = _KEY.search(error.diag.message_detail or "")
        raise taken(error.diag.table_name or "", (found[1] if found else error.diag.constraint_name) or "") from None
    except psycopg.errors.ForeignKeyViolation as error:
        raise MissingReference(
            f"a record that this one refers to is not there, or others still refer to it ({error.diag.constraint_name})"
        ) from None
    except psycopg.DataError as error:
        raise InvalidInput(f"a value does not fit its column: {_first_line(error)}") from None
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,
        psycopg_pool.PoolTimeout,
        psycopg_pool.PoolClosed,
        psycopg_pool.TooManyRequests,
    ) as error:
        raise StoreUnavailable(f"the database does not answer: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    """What to show of an error of the driver."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
