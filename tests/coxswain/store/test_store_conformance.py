"""What every store promises, on each backend."""

import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import apsw
import psycopg
import pytest

from coxswain.errors import AlreadyExists, InvalidInput, NotFound, StoreUnavailable
from coxswain.store import Durability, MissingReference, UniqueViolation, open_store
from coxswain.store.guards import WriterTurns
from coxswain.store.postgres import to_postgres

BOTH = [Durability.ACKNOWLEDGED, Durability.BATCHED]


@pytest.fixture
def table(store):
    with store.write() as tx:
        tx.execute("CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT UNIQUE, n BIGINT NOT NULL DEFAULT 0)")
        tx.execute("INSERT INTO things (id, name) VALUES (?, ?)", (1, "one"))
    return store


def run(store, *statements, then=None, durability=Durability.ACKNOWLEDGED):
    """All in one transaction, which may then raise."""
    with store.write(durability) as tx:
        for statement in statements:
            tx.execute(statement)
        if then is not None:
            raise then


def names(store):
    with store.read() as tx:
        return [row[0] for row in tx.execute("SELECT name FROM things ORDER BY id")]


@pytest.mark.parametrize("durability", BOTH)
def test_a_block_that_ends_is_committed(table, durability):
    with table.write(durability) as tx:
        tx.execute("INSERT INTO things (id, name) VALUES (2, 'two')")
    assert names(table) == ["one", "two"]


@pytest.mark.parametrize("durability", BOTH)
def test_a_block_that_raises_changes_nothing(table, durability):
    with pytest.raises(KeyError):
        run(table, "INSERT INTO things (id, name) VALUES (2, 'two')", then=KeyError(), durability=durability)
    assert names(table) == ["one"]
    with table.write(durability) as tx:  # and the connection is fit for the next
        tx.execute("INSERT INTO things (id, name) VALUES (3, 'three')")
    assert names(table) == ["one", "three"]


def test_values_come_back_as_they_went_in(store):
    values = [(1, 2**62, 0.5, "ü ✓ '?' %s", b"\x00\xff", None), (2, -1, -1e300, "", b"", "x")]
    with store.write() as tx:
        blob = "BYTEA" if store.kind == "postgres" else "BLOB"
        tx.execute(f"CREATE TABLE kinds (id BIGINT PRIMARY KEY, i BIGINT, f DOUBLE PRECISION, t TEXT, b {blob}, n TEXT)")
        tx.executemany("INSERT INTO kinds VALUES (?, ?, ?, ?, ?, ?)", values)
    with store.read() as tx:
        assert tx.execute("SELECT * FROM kinds ORDER BY id") == values
        assert tx.execute("SELECT count(*) FROM kinds WHERE t LIKE '%?%' AND i = ?", (2**62,)) == [(1,)]


def test_returning_and_upsert_are_the_shared_dialect(table):
    with table.write() as tx:
        upsert = (
            "INSERT INTO things (id, name, n) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, n = things.n + excluded.n RETURNING id, name, n"
        )
        assert tx.execute(upsert, (1, "uno", 5)) == [(1, "uno", 5)]
        assert tx.execute(upsert, (1, "eins", 2)) == [(1, "eins", 7)]
        assert tx.execute("DELETE FROM things WHERE id = ?", (99,)) == []


def test_a_taken_key_is_a_typed_error_inside_the_block(table):
    with pytest.raises(RuntimeError), table.write() as tx, pytest.raises(AlreadyExists, match="name"):
        tx.execute("INSERT INTO things (id, name) VALUES (2, 'one')")
    with pytest.raises(UniqueViolation):
        run(table, "INSERT INTO things (id, name) VALUES (2, 'one')")
    with pytest.raises(UniqueViolation), table.write() as tx:
        tx.executemany("INSERT INTO things (id, name) VALUES (?, ?)", [(5, "five"), (1, "again")])
    assert names(table) == ["one"]


def test_a_dangling_reference_is_a_typed_error(store):
    with store.write() as tx:
        tx.execute("CREATE TABLE parents (id BIGINT PRIMARY KEY)")
        tx.execute("CREATE TABLE children (id BIGINT PRIMARY KEY, parent BIGINT NOT NULL REFERENCES parents (id))")
        tx.execute("INSERT INTO parents VALUES (1)")
        tx.execute("INSERT INTO children VALUES (1, 1)")
    with pytest.raises(MissingReference) as caught, store.write() as tx:
        tx.execute("INSERT INTO children VALUES (2, 9)")
    assert isinstance(caught.value, NotFound)
    with pytest.raises(MissingReference), store.write() as tx:
        tx.execute("DELETE FROM parents")


def test_a_number_beyond_64_bits_is_refused(table):
    with pytest.raises(InvalidInput), table.write() as tx:
        tx.execute("UPDATE things SET n = ?", (2**70,))


def test_a_swallowed_failure_commits_nothing_and_says_so(table):
    def careless():
        with table.write() as tx:
            tx.execute("INSERT INTO things (id, name) VALUES (2, 'two')")
            with pytest.raises(UniqueViolation):
                tx.execute("INSERT INTO things (id, name) VALUES (1, 'again')")
            with pytest.raises(RuntimeError, match="failed before"):
                tx.execute("INSERT INTO things (id, name) VALUES (3, 'three')")

    with pytest.raises(RuntimeError, match="nothing was committed"):
        careless()
    assert names(table) == ["one"]


def test_a_transaction_ends_with_its_block(table):
    with table.write() as writing:
        pass
    with table.read() as reading:
        pass
    for tx in (writing, reading):
        with pytest.raises(RuntimeError, match="over"):
            tx.execute("SELECT 1")


def test_a_transaction_that_is_over_waits_for_no_garbage_collector(table):
    gc.disable()
    try:
        with table.write() as tx:
            tx.execute("UPDATE things SET n = 2")
        written = weakref.ref(tx)
        with table.read() as tx:
            tx.execute("SELECT n FROM things")
        read = weakref.ref(tx)
        del tx
        assert (written(), read()) == (None, None)
    finally:
        gc.enable()


def test_a_read_cannot_write(table):
    with pytest.raises((apsw.ReadOnlyError, psycopg.errors.ReadOnlySqlTransaction, StoreUnavailable)), table.read() as tx:
        tx.execute("INSERT INTO things (id, name) VALUES (2, 'two')")
    assert names(table) == ["one"]


def test_a_write_inside_a_write_is_refused_at_once(table):
    with table.write() as tx:
        with pytest.raises(RuntimeError, match="wait for itself"), table.write(Durability.BATCHED):
            pass
        tx.execute("INSERT INTO things (id, name) VALUES (2, 'two')")
    assert names(table) == ["one", "two"]


def test_a_turn_that_does_not_come_is_unavailable():
    turns = WriterTurns(wait_s=0.0)
    with turns.taken(), ThreadPoolExecutor(1) as pool, pytest.raises(StoreUnavailable, match="busy"):
        pool.submit(turns.taken().__enter__).result()
    with turns.taken():
        pass


def test_writers_take_turns(table):
    def add(durability):
        for _ in range(25):
            with table.write(durability) as tx:
                before = tx.execute("SELECT n FROM things WHERE id = 1")[0][0]
                tx.execute("UPDATE things SET n = ? WHERE id = 1", (before + 1,))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(add, BOTH[i % 2]) for i in range(8)]:
            done.result()
    with table.read() as tx:
        assert tx.execute("SELECT n FROM things") == [(200,)]


def test_readers_are_not_blocked_by_a_writer_and_see_what_was_committed(table):
    with table.write() as tx:
        tx.execute("INSERT INTO things (id, name) VALUES (2, 'two')")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(names, table).result(timeout=30) == ["one"]
    assert names(table) == ["one", "two"]


def test_a_read_is_one_picture(table):
    with table.read() as reading:
        count = "SELECT count(*) FROM things"
        assert reading.execute(count) == [(1,)]
        with table.write() as tx:
            tx.execute("INSERT INTO things (id, name) VALUES (2, 'two')")
        assert reading.execute(count) == [(1,)]
    assert len(names(table)) == 2


def test_many_more_threads_than_connections(table):
    gate = threading.Barrier(60)

    def both(number):
        gate.wait(30)
        with table.write(Durability.BATCHED) as tx:
            tx.execute("INSERT INTO things (id, name) VALUES (?, ?)", (number, str(number)))
        return len(names(table))

    with ThreadPoolExecutor(60) as pool:
        assert max(pool.map(both, range(100, 160))) == 61


def test_a_closed_store_is_unavailable(table):
    table.close()
    with pytest.raises(StoreUnavailable), table.write():
        pass
    with pytest.raises(StoreUnavailable), table.read():
        pass
    table.close()  # twice does no harm


def test_what_was_committed_is_there_after_a_reopening(fresh_where):
    where = fresh_where()
    first = open_store(where)
    with first.write() as tx:
        tx.execute("CREATE TABLE kept (id BIGINT)")
        tx.execute("INSERT INTO kept VALUES (7)")
    first.close()
    second = open_store(where)
    with second.read() as tx:
        assert tx.execute("SELECT id FROM kept") == [(7,)]
    second.close()


def test_sqlite_enforces_what_it_can(tmp_path):
    store = open_store(tmp_path / "app.db")
    for durability in BOTH:
        with store.write(durability) as tx:
            assert tx.execute("PRAGMA synchronous") == [(1,)], "NORMAL; tests of syncs are in test_store_sync"
            assert tx.execute("PRAGMA foreign_keys") == [(1,)]
            assert tx.execute("PRAGMA journal_mode") == [("wal",)]
            assert tx.execute("PRAGMA busy_timeout") == [(5000,)]
    store.close()


def test_sqlite_waits_for_another_process_and_then_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("coxswain.store.sqlite._BUSY_MS", 50)
    store = open_store(tmp_path / "app.db")
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "app.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(StoreUnavailable, match="locked"), store.write():
            pass
        other.communicate(b"\n")
    with store.write() as tx:
        tx.execute("CREATE TABLE t (id BIGINT)")
    store.close()


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    path = tmp_path / "app.db"
    path.write_text("this is no database, but long enough to look like a header of one" * 20)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable):
        open_store(path)


def test_postgres_keeps_its_word_although_the_server_is_set_up_not_to(postgres_server):
    dsn = postgres_server.create_database()
    store = open_store(f"{dsn}&options=-c%20synchronous_commit%3Doff")
    for durability, level in ((Durability.ACKNOWLEDGED, "on"), (Durability.BATCHED, "off"), (Durability.ACKNOWLEDGED, "on")):
        with store.write(durability) as tx:
            assert tx.execute("SHOW synchronous_commit") == [(level,)]
    store.close()


@pytest.mark.parametrize("dsn", ["postgres://[broken", "postgresql:///?nonsense=1"])
def test_a_dsn_that_cannot_be_read_is_bad_input(dsn):
    with pytest.raises(InvalidInput, match=r"database\.dsn"):
        open_store(dsn)


def test_a_server_that_refuses_is_named_without_the_password(postgres_server):
    dsn = postgres_server.dsn("no_such_database") + "&password=hunter2secret"
    with pytest.raises(StoreUnavailable, match="no_such_database") as caught:
        open_store(dsn)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ?", "SELECT %s"),
        ("SELECT '?' , ?", "SELECT '?' , %s"),
        ("SELECT 'it''s ?', ?", "SELECT 'it''s ?', %s"),
        ('SELECT "a?""?" FROM t WHERE a = ?', 'SELECT "a?""?" FROM t WHERE a = %s'),
        ("SELECT ? -- why?\n, ?", "SELECT %s -- why?\n, %s"),
        ("SELECT /* ?\n? */ ?", "SELECT /* ?\n? */ %s"),
        ("SELECT $$ ? $$, $a$ ? $b$ ? $a$, ?", "SELECT $$ ? $$, $a$ ? $b$ ? $a$, %s"),
        ("SELECT 5 % 2, 'a%' LIKE ?", "SELECT 5 %% 2, 'a%%' LIKE %s"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_placeholders_are_rewritten_outside_of_text(sql, expected):
    assert to_postgres(sql) == expected.encode()
