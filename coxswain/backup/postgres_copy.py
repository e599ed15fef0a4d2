"""A consistent picture of a Postgres database, by COPY of each of our tables within one transaction, and the way back.

Only the rows are taken: the schema is that of the migration with the number in the manifest, which every later release can
make again. Tables of others in the same database are left alone.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from coxswain.backup.envelope import Damaged
from coxswain.errors import Conflict, StoreUnavailable
from coxswain.store.api import Row
from coxswain.store.migrate import table_names

__all__ = ["PostgresPicture", "PostgresTarget"]

_NOT_COPIED = "key NOT IN ('holder', 'restoring')"
"""Of ``meta``: which process works on the database is no part of its state."""


_BLOCK = 128 * 1024


class PostgresPicture:
    """One state of the database, until ``close``. For one thread. Raises ``StoreUnavailable``."""

    def __init__(self, dsn: str) -> None:
        with _translated():
            self._connection: psycopg.Connection[Row] = psycopg.connect(dsn.strip(), application_name="coxswain backup")
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
            self.tables = _columns(self._connection)

    def rows(self, query: str) -> list[Row]:
        with _translated():
            return self._connection.execute(query.encode()).fetchall()

    @property
    def size(self) -> int:
        """Bytes that the tables take in the database; a dump of them is smaller."""
        names = ", ".join(f"'{name}'" for name in self.tables)
        found = f"SELECT sum(pg_table_size(c::regclass)) FROM unnest(ARRAY[{names}]::text[]) c"  # noqa: S608 - our own names
        return int(self.rows(found)[0][0] or 0)

    def counters(self) -> dict[str, int]:
        """The last number that each counter has given, by table.column. Some are ahead of every row that is there."""
        found: dict[str, int] = {}
        with _translated():
            for table, columns in self.tables.items():
                for column in columns:
                    row = self._connection.execute("SELECT pg_get_serial_sequence(%s, %s)", (table, column)).fetchone()
                    if row is not None and row[0] is not None:
                        last = self._connection.execute(f"SELECT last_value FROM {row[0]}".encode()).fetchone()  # noqa: S608
                        found[f"{table}.{column}"] = int(last[0]) if last else 0
        return found

    def table(self, name: str) -> Iterator[bytes]:
        """The rows of one table, in the text form of COPY, many of them at a time."""
        where = f" WHERE {_NOT_COPIED}" if name == "meta" else ""
        query = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT").format(
            sql.SQL(", ").join(map(sql.Identifier, self.tables[name])), sql.Identifier(name), sql.SQL(where)
        )
        waiting = bytearray()
        with _translated(), self._connection.cursor() as cursor, cursor.copy(query) as rows:
            for row in rows:
                waiting += row
                if len(waiting) >= _BLOCK:
                    yield bytes(waiting)
                    waiting.clear()
        if waiting:
            yield bytes(waiting)

    def close(self) -> None:
        self._connection.close()


class PostgresTarget:
    """An empty database of ours that takes rows in, all or nothing. For one thread."""

    def __init__(self, dsn: str) -> None:
        with _translated():
            self._connection: psycopg.Connection[Row] = psycopg.connect(dsn.strip(), application_name="coxswain restore")
            self._columns = _columns(self._connection)

    @staticmethod
    def require_empty(dsn: str, *, force: bool) -> None:
        """Looks whether the database holds a state already; with ``force``, takes it away.

        Raises:
            Conflict: it does, without ``force``.
        """
        with _translated(), psycopg.connect(dsn.strip(), application_name="coxswain restore") as connection:
            there = list(_columns(connection))
            telling = [name for name in ("authorities", "nodes", "users", "audit_log") if name in there]
            full = [
                n
                for n in telling
                if connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(n))).fetchone()
            ]
            if full and not force:
                raise Conflict(
                    f"the database holds a state already ({', '.join(full)})",
                    remedy="Give an empty database, or replace what is there with --force.",
                )
            for name in there:
                if name != "meta":
                    connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.Identifier(name)))
            if "meta" in there:
                connection.execute(f"DELETE FROM meta WHERE {_NOT_COPIED}")  # noqa: S608 - a constant

    def take(self, name: str, columns: list[str], blocks: Iterable[bytes]) -> None:
        """Rows of one table. Those that others refer to come first, as a picture has them."""
        known = self._columns.get(name)
        if known is None or not set(columns) <= set(known):
            raise Damaged(f"the backup holds a table {name[:60]!r} that its schema does not have")
        if name == "meta":
            self._connection.execute(f"DELETE FROM meta WHERE {_NOT_COPIED}")  # noqa: S608
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with _translated(), self._connection.cursor() as cursor, cursor.copy(query) as copy:
            for block in blocks:
                copy.write(block)

    def commit(self, backup: str, counters: dict[str, int]) -> None:
        """Sets the counters where they were, and makes all of it count.

        Leaves the mark ``restoring`` in ``meta``: until that is taken away, no daemon starts on it.
        """
        with _translated():
            self._connection.execute(
                "INSERT INTO meta (key, value) VALUES ('restoring', %s) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (backup,),
            )
            for column, value in counters.items():
                table, _, name = column.partition(".")
                self._connection.execute(
                    "SELECT setval(pg_get_serial_sequence(%s, %s), %s, true)", (table, name, max(1, value))
                )
            self._connection.commit()
            self._connection.autocommit = True
            self._connection.execute("ANALYZE")

    def close(self) -> None:
        """Without ``commit`` before, nothing has changed."""
        self._connection.close()


def _columns(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Our tables that there are, with their columns; those that others refer to go first."""
    rows = connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() "
        "ORDER BY table_name, ordinal_position"
    ).fetchall()
    ours = table_names()
    found: dict[str, list[str]] = {}
    for table, column in rows:
        if table in ours:
            found.setdefault(table, []).append(column)
    order = _referenced_first(connection, list(found))
    return {name: found[name] for name in order}


def _referenced_first(connection: psycopg.Connection[Any], tables: list[str]) -> list[str]:
    rows = connection.execute(
        "SELECT DISTINCT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    ).fetchall()
    graph: dict[str, set[str]] = {name: set() for name in sorted(tables)}
    for table, referenced in rows:
        if table in graph and referenced in graph and table != referenced:
            graph[table].add(referenced)
    return list(graphlib.TopologicalSorter(graph).static_order())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise StoreUnavailable(f"the database does not answer as it should: {text}") from None
