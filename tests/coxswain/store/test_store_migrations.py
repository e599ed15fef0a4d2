"""Migrations: complete, safe to race, refused where they are not ours to run; and one daemon to a database."""

import os
import re
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import coxswain
from coxswain.errors import LoosePermissions, StateDirectoryHeld, StoreTooNew
from coxswain.store import migrate, open_store
from coxswain.store.sqlite import SqliteStore
from tests.support import eventually


def noted(store):
    with store.read() as tx:
        return dict(tx.execute("SELECT key, value FROM meta WHERE key <> 'holder'"))


def tables(store):
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }[store.kind]
    with store.read() as tx:
        return {row[0] for row in tx.execute(query)}


def test_a_fresh_store_has_the_schema_of_this_release(store):
    assert noted(store) == {"schema_version": str(migrate.SCHEMA_VERSION), "compat_version": str(migrate.SCHEMA_VERSION)}
    assert tables(store) >= {"nodes", "users", "devices", "peers", "audit_outbox", "audit_log", "node_certs", "meta"}


def test_a_second_opening_changes_nothing(fresh_where):
    where = fresh_where()
    open_store(where).close()
    store = open_store(where)
    assert migrate.migrate(store) == migrate.SCHEMA_VERSION
    store.close()


def test_each_migration_has_a_number_of_its_own():
    names = [entry.name for entry in Path(migrate.__file__).parent.joinpath("migrations").iterdir()]
    assert sum(name.endswith(".sql") for name in names) == len(migrate._files())


def test_starters_that_race_each_find_a_whole_schema(fresh_where):
    where = fresh_where()
    with ThreadPoolExecutor(6) as pool:
        stores = [f.result() for f in [pool.submit(open_store, where) for _ in range(6)]]
    for store in stores:
        assert noted(store)["schema_version"] == str(migrate.SCHEMA_VERSION)
        store.close()


def test_starters_that_race_for_a_new_file_all_get_it(tmp_path):
    """A dozen at once, many times: SQLite refuses a change to WAL at once, without its busy timeout, in about one of 150."""
    with ThreadPoolExecutor(12) as pool:
        for n in range(100):
            for opened in [pool.submit(SqliteStore, tmp_path / f"{n}.db") for _ in range(12)]:
                opened.result().close()


def open_with(where, monkeypatch, files, schema_version, *, exclusive=False):
    monkeypatch.setattr(migrate, "_files", lambda: files)
    monkeypatch.setattr(migrate, "SCHEMA_VERSION", schema_version)
    return open_store(where, exclusive=exclusive)


OLD = {1: "CREATE TABLE a (id BIGINT, b BLOB);\n"}
STRICT = {
    **OLD,
    2: "ALTER TABLE a ADD COLUMN x TEXT NOT NULL DEFAULT ''; \nCREATE TABLE c (id INTEGER PRIMARY KEY AUTOINCREMENT);\n",
}
GENTLE = {**OLD, 2: "-- Only adds an index.\n-- compat: 1\nCREATE INDEX a_id ON a (id);\n"}


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(fresh_where, monkeypatch):
    where = fresh_where()
    open_with(where, monkeypatch, STRICT, 2).close()
    with pytest.raises(StoreTooNew, match=r"schema 2.*up to 1") as caught:
        open_with(where, monkeypatch, OLD, 1)
    assert "release" in caught.value.remedy
    store = open_with(where, monkeypatch, STRICT, 2)
    assert noted(store) == {"schema_version": "2", "compat_version": "2"}
    store.close()


def test_a_newer_schema_that_declares_itself_compatible_is_served(fresh_where, monkeypatch):
    where = fresh_where()
    open_with(where, monkeypatch, GENTLE, 2).close()
    store = open_with(where, monkeypatch, OLD, 1)
    assert noted(store) == {"schema_version": "2", "compat_version": "1"}
    store.close()


def test_a_newer_store_without_a_compat_note_is_refused(fresh_where, monkeypatch):
    where = fresh_where()
    store = open_with(where, monkeypatch, GENTLE, 2)
    with store.write() as tx:
        tx.execute("DELETE FROM meta WHERE key = 'compat_version'")
    store.close()
    with pytest.raises(StoreTooNew):
        open_with(where, monkeypatch, OLD, 1)


def test_devices_that_were_revoked_before_let_go_of_nodes_and_paths_as_those_do_that_are_now(fresh_where, monkeypatch):
    where, all_files = fresh_where(), migrate._files()
    store = open_with(where, monkeypatch, {number: text for number, text in all_files.items() if number < 75}, 74)
    with store.write() as tx:
        tx.execute("INSERT INTO users (id, name, created_at, updated_at) VALUES ('usr_1', 'Anna', 0, 0)")
        for device, status in (("dev_1", "revoked"), ("dev_2", "suspended")):
            tx.execute(
                "INSERT INTO devices (id, user_id, name, status, created_at, updated_at) VALUES (?, 'usr_1', '', ?, 0, 0)",
                (device, status),
            )
            tx.execute(
                "INSERT INTO profile_specs (id, device_id, name, path_id, protocol, created_at, updated_at) "
                "VALUES (?, ?, 'home', 'pth_1', 'both', 0, 0)",
                (f"prf_{device}", device),
            )
            tx.execute("INSERT INTO device_exits (device_id, created_at, updated_at) VALUES (?, 0, 0)", (device,))
    store.close()
    store = open_with(where, monkeypatch, all_files, max(all_files))
    with store.read() as tx:
        for table in ("profile_specs", "device_exits"):
            assert tx.execute(f"SELECT device_id FROM {table}") == [("dev_2",)]
    store.close()


def test_a_migration_that_fails_leaves_the_schema_before_it(fresh_where, monkeypatch):
    where = fresh_where()
    broken = {**OLD, 2: "CREATE TABLE d (id BIGINT);\nINSERT INTO nowhere VALUES (1);\n"}
    with pytest.raises(Exception, match="nowhere"):
        open_with(where, monkeypatch, broken, 2)
    store = open_with(where, monkeypatch, OLD, 1)
    assert tables(store) == {"meta", "a"}
    assert noted(store)["schema_version"] == "1"
    store.close()


def test_migrations_are_found_inside_a_zip(tmp_path):
    package = Path(coxswain.__file__).parent
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*"):
            if path.suffix in {".py", ".sql"}:
                file.write(path, path.relative_to(package.parent))
    script = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "from coxswain.store import migrate\n"
        "print(migrate.__file__, migrate.SCHEMA_VERSION)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path)
    found_in, version = done.stdout.split()
    assert found_in.startswith(str(archive))
    assert int(version) == migrate.SCHEMA_VERSION


# -- one daemon to a database


HOLDER = """
import sys
from coxswain.store import open_store

store = open_store(sys.argv[1], exclusive=True)
print(1, flush=True)
input()
"""


def test_a_second_daemon_is_refused_by_name_until_the_first_is_gone(fresh_where):
    where = fresh_where()
    with subprocess.Popen([sys.executable, "-c", HOLDER, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"1\n"
            with pytest.raises(StateDirectoryHeld, match=rf"pid {other.pid}\b"):
                open_store(where, exclusive=True)
            open_store(where).close()  # who claims nothing may look
        finally:
            other.send_signal(signal.SIGKILL)

    def free():
        try:
            return open_store(where, exclusive=True)
        except StateDirectoryHeld:
            return None

    store = eventually(free)
    store.hold_exclusively()  # it is ours already
    with store.write() as tx:
        tx.execute("SELECT 1")
    store.close()
    open_store(where, exclusive=True).close()


def test_no_migration_runs_under_another_daemon(fresh_where, monkeypatch):
    where = fresh_where()
    holder = open_with(where, monkeypatch, OLD, 1)
    holder.hold_exclusively()
    with pytest.raises(StateDirectoryHeld):
        open_with(where, monkeypatch, STRICT, 2, exclusive=True)
    assert noted(holder)["schema_version"] == "1"
    holder.close()
    upgraded = open_with(where, monkeypatch, STRICT, 2, exclusive=True)
    assert noted(upgraded)["schema_version"] == "2"
    upgraded.close()


def test_the_holder_of_a_postgres_database_is_named_with_its_host(postgres_server):
    where = postgres_server.create_database()
    holder = open_store(where, exclusive=True)
    with pytest.raises(StateDirectoryHeld, match=re.escape(f"pid {os.getpid()} on {os.uname().nodename}"[:40])):
        open_store(where, exclusive=True)
    other = open_store(postgres_server.create_database(), exclusive=True)  # another database is nobody's business
    other.close()
    holder.close()


def test_a_database_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "app.db"
    open_store(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(LoosePermissions, match="0640") as caught:
        open_store(path)
    assert caught.value.remedy == f"chmod 600 {path}"


def test_opening_sqlite_needs_no_postgres_driver(tmp_path):
    opened = "import sys; from coxswain.store import open_store; open_store(sys.argv[1]).close()"
    script = f"{opened}; assert 'psycopg' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "app.db")], check=True)
