"""What every store can do, whichever database is behind it.

SQL is written once, in the dialect that SQLite and Postgres share, with ``?`` for parameters. Times are epoch microseconds
(BIGINT), booleans are 0 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import Enum, auto
from typing import Any, Protocol

from coxswain.errors import AlreadyExists, NotFound

__all__ = ["Durability", "MissingReference", "Row", "Store", "Tx", "UniqueViolation", "Value", "in_lists", "taken"]

Value = int | float | str | bytes | None
Row = tuple[Any, ...]


class Durability(Enum):
    """What a commit promises.

    ``ACKNOWLEDGED``: on disk when the commit returns; for everything that somebody is told was done. ``BATCHED``: the commit
    is atomic, but a power cut may lose the last ones (a crash of the process does not); for what comes in streams.
    """

    ACKNOWLEDGED = auto()
    BATCHED = auto()


class UniqueViolation(AlreadyExists):
    """A row with this key is there already. The text names the constraint or columns."""


_OWNERS = {
    "control_paths": "control path",
    "nodes": "node",
    "paths": "path",
    "profile_specs": "profile of this device",
    "relays": "relay",
    "users": "user",
}


def taken(table: str, columns: str) -> UniqueViolation:
    """What a person is told of a row that is there already, whichever database noticed.

    Args:
        table: the table's name.
        columns: of the constraint, comma-separated; the last one is the field that somebody gave.
    """
    field = columns.rpartition(",")[2].strip()
    if table in _OWNERS and field in {"email", "name", "phone"}:
        return UniqueViolation(f"{field}: another {_OWNERS[table]} has it already", remedy=f"Choose another {field}.")
    return UniqueViolation(f"there is such a row already: {table} ({columns})")


class MissingReference(NotFound):
    """A row refers to one that is not there, or one was to be deleted that others refer to."""


class Tx(Protocol):
    """One transaction, for the thread that opened it. After a failed statement nothing more can be done in it."""

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """Runs one statement; returns its rows, if it has any.

        Raises:
            UniqueViolation: a row with this key is there already.
            MissingReference: a foreign key points nowhere.
            InvalidInput: a value does not fit its column.
            StoreUnavailable: the database does not answer.
        """
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Runs one statement for each row of parameters."""
        ...


class Store(Protocol):
    """Thread-safe."""

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgres``."""
        ...

    @property
    def location(self) -> str:
        """What ``open_store`` takes to open it again, in another process. It may hold a password: not to be shown."""
        ...

    def write(self, durability: Durability = Durability.ACKNOWLEDGED) -> AbstractContextManager[Tx]:
        """A transaction that may change things: committed at the end of the block, rolled back if it raises.

        Writers of this process wait for each other, so a block must not wait for anything else, nor begin another write.
        The disk is waited for together, so what is committed may be read a moment before it is on disk.
        When ``StoreUnavailable`` comes out of the commit itself, the change may or may not have been made.

        Raises:
            StoreUnavailable: the database does not answer, or the turn did not come within seconds.
            StateDirectoryHeld: this process held the database exclusively, and lost it to another one.
        """
        ...

    @property
    def committed(self) -> int:
        """How many transactions were committed. What has committed lately has at most this number."""
        ...

    @property
    def synced(self) -> int:
        """The number of the last commit that is on disk, and with it each one before."""
        ...

    def sync(self) -> None:
        """Returns when all that was committed before is on disk; at once, if it is. So several ``BATCHED`` transactions can
        be made good together. Not in the block of a write.

        Raises:
            StoreUnavailable: nobody knows whether it is.
        """
        ...

    def read(self) -> AbstractContextManager[Tx]:
        """A consistent picture; never waits for writers."""
        ...

    def hold_exclusively(self) -> None:
        """Claims the database for this process until it ends or ``close``. Before anything is read, see ``open_store``.

        Raises:
            StateDirectoryHeld: another daemon holds it; names its pid (and host).
        """
        ...

    def close(self) -> None:
        """Ends all connections."""
        ...


_IN_LIST = 500
"""Parameters in one IN list; both backends take far more."""


def in_lists(values: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Cuts ``values`` into parts that fit one IN list; yields each part with its placeholders."""
    for start in range(0, len(values), _IN_LIST):
        part = values[start : start + _IN_LIST]
        yield part, ", ".join("?" * len(part))


def containing(columns: Sequence[str], wanted: str) -> tuple[str, tuple[Value, ...]]:
    """A condition, and its parameters, for rows in one of whose ``columns`` the text ``wanted`` is.

    Case does not matter in ASCII, on both backends; elsewhere it may. What LIKE gives a meaning of its own means itself.
    """
    folds = {wanted.lower(), "".join(c.lower() if c.isascii() else c for c in wanted)}
    patterns = ["%" + re.sub(r"([\\%_])", r"\\\1", fold) + "%" for fold in sorted(folds)]
    parts = [f"LOWER({column}) LIKE ? ESCAPE '\\'" for column in columns for _ in patterns]
    return f"({' OR '.join(parts)})", tuple(pattern for _ in columns for pattern in patterns)
