"""Pictures of a database that others write to meanwhile: one state, from beginning to end."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path
from typing import Self

import apsw
import pytest

from coxswain.audit import record
from coxswain.backup.postgres_copy import PostgresPicture, PostgresTarget
from coxswain.backup.sqlite_copy import Picture
from coxswain.errors import Conflict, StoreUnavailable
from coxswain.messages.audit import Caller
from coxswain.store import Store, open_store
from coxswain.store.migrate import SCHEMA_VERSION, migrate
from tests.postgres import PostgresServer


def fill(store: Store, rows: int) -> None:
    with store.write() as tx:
        tx.executemany(
            "INSERT INTO users (id, name, email, created_at, updated_at) VALUES (?, ?, ?, 1, 1)",
            ((f"usr_{n}", f"tab\tnewline\nback\\slash {n}", None if n % 3 else f"{n}@example.org") for n in range(rows)),
        )
        tx.executemany(
            "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, ?, 'd', 1, 1)",
            ((f"dev_{n}", f"usr_{n}") for n in range(rows)),
        )
        record(tx, Caller("test", "cli"), "test.fill", ("test", "x"), {"é": "\u2028 \U0001f6f6"}, now=1.0)


class Writer:
    """Adds pairs of rows, a user and its device, in one transaction each, as fast as it can."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.count = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            name = f"late{self.count}"
            with self._store.write() as tx:
                tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES (?, 1, 1)", (f"usr_{name}",))
                tx.execute(
                    "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, ?, 'd', 1, 1)",
                    (f"dev_{name}", f"usr_{name}"),
                )
            self.count += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


def paste(picture: Picture, path: Path) -> None:
    with path.open("wb") as file:
        for offset, content in picture.pages():
            os.pwrite(file.fileno(), content, offset)


def test_sqlite_is_one_state_while_others_write(tmp_path: Path) -> None:
    store = open_store(tmp_path / "app.db")
    fill(store, 20_000)
    with Writer(store) as writer:
        while writer.count < 5:
            pass
        picture = Picture(tmp_path / "app.db")
        seen = picture.rows("SELECT count(*) FROM users")[0][0]
        before = writer.count
        paste(picture, tmp_path / "copy.db")
        assert picture.rows("SELECT count(*) FROM users")[0][0] == seen
        picture.close()
        while writer.count < before + 5:  # they were not kept waiting, nor were we
            pass
    store.close()
    copy = apsw.Connection(str(tmp_path / "copy.db"))
    assert list(copy.execute("PRAGMA integrity_check")) == [("ok",)]
    assert list(copy.execute("SELECT count(*) FROM users")) == [(seen,)]
    assert list(copy.execute("SELECT count(*) FROM devices")) == [(seen,)], "a user and its device come together"
    copy.close()
    (tmp_path / "copy.db").chmod(0o600)
    opened = open_store(tmp_path / "copy.db")
    with opened.read() as tx:
        assert tx.execute("SELECT name FROM users WHERE id = 'usr_7'") == [("tab\tnewline\nback\\slash 7",)]
    opened.close()


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_sqlite_of_any_page_size(tmp_path: Path, page_size: int) -> None:
    source = apsw.Connection(str(tmp_path / "a.db"))
    source.execute(f"PRAGMA page_size = {page_size}")
    list(source.execute("PRAGMA journal_mode = WAL"))
    list(source.execute("CREATE TABLE t (a BLOB)"))
    with source:
        source.executemany("INSERT INTO t VALUES (?)", ((os.urandom(300),) for _ in range(5_000)))
    list(source.execute("DELETE FROM t WHERE rowid % 3 = 0"))
    picture = Picture(tmp_path / "a.db")
    paste(picture, tmp_path / "b.db")
    picture.close()
    copy = apsw.Connection(str(tmp_path / "b.db"))
    assert list(copy.execute("PRAGMA integrity_check")) == [("ok",)]
    assert list(copy.execute("SELECT * FROM t")) == list(source.execute("SELECT * FROM t"))
    source.close()
    copy.close()


def test_sqlite_takes_little_memory(tmp_path: Path) -> None:
    source = apsw.Connection(str(tmp_path / "a.db"))
    list(source.execute("CREATE TABLE t (a BLOB)"))
    with source:
        source.executemany("INSERT INTO t VALUES (?)", ((os.urandom(4_000),) for _ in range(10_000)))
    source.close()
    picture = Picture(tmp_path / "a.db")
    tracemalloc.start()
    size = sum(len(content) for _, content in picture.pages())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    picture.close()
    assert size > 40_000_000 and peak < 12_000_000


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 100)
    for name in ("text", "absent"):
        with pytest.raises(StoreUnavailable):
            Picture(tmp_path / name)


def test_postgres_goes_over_into_an_empty_database(postgres_server: PostgresServer) -> None:
    old, new = postgres_server.create_database(), postgres_server.create_database()
    store = open_store(old)
    fill(store, 5_000)
    with Writer(store) as writer:
        while writer.count < 5:
            pass
        picture = PostgresPicture(old)
        seen = picture.rows("SELECT count(*) FROM users")[0][0]
        content = {name: list(picture.table(name)) for name in picture.tables}
        columns, counters = picture.tables, picture.counters()
        picture.close()
    target_store = open_store(new)
    PostgresTarget.require_empty(new, force=False)
    target_store.close()
    empty = open_store(new)
    broken = PostgresTarget(new)
    with pytest.raises(StoreUnavailable):  # it refers to a table that has not come
        broken.take("devices", columns["devices"], content["devices"])
    broken.close()
    target = PostgresTarget(new)
    for name in columns:
        target.take(name, columns[name], content[name])
    target.commit("bak_x", counters)
    target.close()
    with empty.write() as tx:
        assert tx.execute("SELECT count(*) FROM users") == [(seen,)]
        assert tx.execute("SELECT count(*) FROM devices") == [(seen,)]
        assert tx.execute("SELECT name FROM users WHERE id = 'usr_7'") == [("tab\tnewline\nback\\slash 7",)]
        assert tx.execute("SELECT value FROM meta WHERE key = 'restoring'") == [("bak_x",)]
        # counters go on behind what was put in
        assert record(tx, Caller("test", "cli"), "test.on", ("test", "x"), {}, now=2.0) > 1
    with pytest.raises(Conflict, match="holds a state already"):
        PostgresTarget.require_empty(new, force=False)
    empty.close()
    PostgresTarget.require_empty(new, force=True)
    again = open_store(new)
    with again.read() as tx:
        assert tx.execute("SELECT count(*) FROM users") == [(0,)]
    again.close()
    store.close()


def test_the_schema_can_be_brought_to_an_older_release(store: Store) -> None:
    assert migrate(store) == SCHEMA_VERSION


def test_migrations_stop_where_they_are_told(postgres_server: PostgresServer) -> None:
    from coxswain.store.postgres import PostgresStore  # noqa: PLC0415

    store = PostgresStore(postgres_server.create_database())
    migrate(store, upto=4)
    with store.read() as tx:
        assert tx.execute("SELECT value FROM meta WHERE key = 'schema_version'") == [("4",)]
    migrate(store)
    with store.read() as tx:
        assert tx.execute("SELECT value FROM meta WHERE key = 'schema_version'") == [(str(SCHEMA_VERSION),)]
    store.close()
