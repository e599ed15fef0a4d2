"""Brings a database to the schema of this release, and refuses one that it cannot serve.

Migrations are numbered SQL files, never changed once released. Each runs in a transaction of its own together with the
note that it ran; two processes that start at once wait for each other.

A migration that older releases can live with says so in a line of its own: ``-- compat: 7`` means that a release whose
newest migration is 7 can work on the result. Without such a line only releases that know the migration can.
"""

from __future__ import annotations

import re
from importlib import resources

from coxswain.errors import StoreTooNew
from coxswain.store.api import Durability, Store, Tx

__all__ = ["MIGRATION_LOCK", "SCHEMA_VERSION", "migrate", "schema_of", "table_names"]

MIGRATION_LOCK = 0x636F786D
"""Key of the advisory lock that makes starters take turns: "coxm" in ASCII."""

_FILE = re.compile(r"^(\d{4})_[a-z_]+\.sql$")
_COMPAT = re.compile(r"^-- compat: (\d+)$", re.MULTILINE)


def _files() -> dict[int, str]:
    found = {}
    for entry in resources.files("coxswain.store").joinpath("migrations").iterdir():
        match = _FILE.match(entry.name)
        if match:
            found[int(match[1])] = entry.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


SCHEMA_VERSION = max(_files())
"""The newest migration of this release."""


_TABLE = re.compile(r"^CREATE TABLE (?:IF NOT EXISTS )?([a-z_]+)", re.MULTILINE | re.IGNORECASE)


def table_names() -> frozenset[str]:
    """Every table that a migration of this release makes."""
    return frozenset({"meta"}.union(*(_TABLE.findall(text) for text in _files().values())))


def schema_of(tx: Tx) -> tuple[int, int]:
    """The newest migration that this database had, and the oldest release (by its newest migration) that can serve it."""
    version = _noted(tx, "schema_version")
    return version, _noted(tx, "compat_version") or version


def migrate(store: Store, *, upto: int | None = None) -> int:
    """Applies what is missing. Returns the version that the database had before (0: it was empty).

    Args:
        store: where.
        upto: the last migration to apply, for rows of an older schema that are to be put in; None: all.

    Raises:
        StoreTooNew: a newer release wrote it.
    """
    with store.write(Durability.ACKNOWLEDGED) as tx:
        if store.kind == "postgres":
            tx.execute("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
        tx.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        before = _noted(tx, "schema_version")
        oldest = _noted(tx, "compat_version") or before
    if before > SCHEMA_VERSION and oldest > SCHEMA_VERSION:
        raise StoreTooNew(
            f"the database has schema {before}, which needs a release that knows schema {oldest}; "
            f"this release knows schemas up to {SCHEMA_VERSION}"
        )
    for number, text in _files().items():
        if number > before and (upto is None or number <= upto):
            _apply(store, number, text)
    return before


def _apply(store: Store, number: int, text: str) -> None:
    with store.write(Durability.ACKNOWLEDGED) as tx:
        if store.kind == "postgres":
            tx.execute("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
        if _noted(tx, "schema_version") >= number:
            return
        for statement in _statements(text, store.kind):
            tx.execute(statement)
        compat = _COMPAT.search(text)
        oldest = max(int(compat[1]) if compat else number, _noted(tx, "compat_version"))
        tx.executemany(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (("schema_version", str(number)), ("compat_version", str(oldest))),
        )


def _noted(tx: Tx, key: str) -> int:
    rows = tx.execute("SELECT value FROM meta WHERE key = ?", (key,))
    return int(rows[0][0]) if rows else 0


def _statements(text: str, kind: str) -> list[str]:
    bare = re.sub(r"--[^\n]*", "", text)
    if kind == "postgres":
        bare = re.sub(r"\bINTEGER PRIMARY KEY AUTOINCREMENT\b", "BIGSERIAL PRIMARY KEY", bare)
        bare = re.sub(r"\bBLOB\b", "BYTEA", bare)
    return [part.strip() for part in re.split(r";\s*(?:\n|$)", bare) if part.strip()]
