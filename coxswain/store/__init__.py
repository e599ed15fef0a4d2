"""Where the fleet's state is kept: one interface, SQLite or Postgres behind it, one set of migrations for both."""

from __future__ import annotations

from pathlib import Path

from coxswain.store.api import Durability, MissingReference, Row, Store, Tx, UniqueViolation, Value

__all__ = [
    "Durability",
    "MissingReference",
    "Row",
    "Store",
    "Tx",
    "UniqueViolation",
    "Value",
    "is_postgres",
    "open_store",
]


def is_postgres(dsn: str) -> bool:
    """True for ``postgres://…`` and ``postgresql://…``, in any case, trimmed (management-plane.md 1.2)."""
    return dsn.strip().lower().startswith(("postgres://", "postgresql://"))


def open_store(where: str | Path, *, exclusive: bool = False) -> Store:
    """Opens and migrates a store.

    Args:
        where: a Postgres DSN, or the path of a SQLite file.
        exclusive: claims it first (``Store.hold_exclusively``), so that no migration runs under another daemon.

    Raises:
        InvalidInput: the DSN cannot be read.
        LoosePermissions: others can read the SQLite file.
        StateDirectoryHeld: only with ``exclusive``: another daemon works on it.
        StoreTooNew: a newer release wrote it.
        StoreUnavailable: the server does not answer, or the file is no database.
    """
    from coxswain.store.migrate import migrate  # noqa: PLC0415 - commands that open no store must not pay for drivers

    store: Store
    if is_postgres(str(where)):
        from coxswain.store.postgres import PostgresStore  # noqa: PLC0415

        store = PostgresStore(str(where).strip())
    else:
        from coxswain.store.sqlite import SqliteStore  # noqa: PLC0415

        store = SqliteStore(Path(where))
    try:
        if exclusive:
            store.hold_exclusively()
        migrate(store)
    except BaseException:
        store.close()
        raise
    return store
