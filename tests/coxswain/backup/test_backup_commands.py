"""``cox backup`` on a stopped installation: secrets, files in the way, backups that are not sound, and where things go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain.backup.revocations import RevocationLog
from coxswain.config import load
from coxswain.keyring import make_key_file
from coxswain.store import open_store

PHRASE = "five random words are enough"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COX_CONFIG", "COX_URL", "COX_BACKUP_PASSPHRASE_FILE", "COX_STATE_DIR", "COX_DATABASE__DSN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COX_BACKUP_PASSPHRASE", PHRASE)
    monkeypatch.setattr("coxswain.cli.backup._be_humble", lambda: None)  # the test goes on in this process
    monkeypatch.setattr("coxswain.backup.envelope._ARGON2", {"memory_kib": 64, "passes": 1, "lanes": 1})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    run("init", "--config", str(home / "cox.yaml"))
    return home


def run(*arguments: str, code: int = 0, **environ: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments), env=environ)
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def create(home: Path, out: Path, *options: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        run("backup", "create", "--config", str(home / "cox.yaml"), "--out", str(out), "--json", *options).stdout
    )
    return told


def test_there_and_back_by_passphrase_and_by_key(home: Path, tmp_path: Path) -> None:
    (home / "state/extra").mkdir(mode=0o700)
    (home / "state/extra/note").write_text("kept")
    create(home, tmp_path / "a.coxbak")
    key = tmp_path / "backup.key"
    nowhere = ("--out", str(tmp_path / "no/b.coxbak"), "--key-file", str(key), "--make-key")
    assert "no directory" in run("backup", "create", "--config", str(home / "cox.yaml"), *nowhere, code=2).output
    assert not key.exists(), "the same once more would find one in its way"
    create(home, tmp_path / "b.coxbak", "--key-file", str(key), "--make-key")
    assert key.stat().st_mode & 0o777 == 0o600
    for name, options in (("a", ()), ("b", ("--key-file", str(key)))):
        run("backup", "verify", str(tmp_path / f"{name}.coxbak"), "--full", *options)
        where = tmp_path / f"new-{name}" / "cox.yaml"
        run("backup", "restore", str(tmp_path / f"{name}.coxbak"), "--config", str(where), *options)
        new = where.parent / "state"
        assert (new / "extra/note").read_text() == "kept"
        assert (new / "ca.key").read_bytes() == (home / "state/ca.key").read_bytes()
        assert (new / "audit.key").read_bytes() != (home / "state/audit.key").read_bytes(), (
            "the log goes on under a new name"
        )
        assert not (new / "daemon.pid").exists() and not (new / "app.db.lock").exists()
        loose = [path for path in (new, *new.rglob("*")) if path.stat().st_mode & 0o077]
        assert loose == []
        assert "0 wrong" in run("doctor", "--config", str(where)).stdout


def test_wrong_and_missing_secrets(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.coxbak"
    create(home, out)
    assert "does not open" in run("backup", "verify", str(out), code=6, COX_BACKUP_PASSPHRASE="another passphrase").stderr
    assert "there is none" in run("backup", "verify", str(out), code=2, COX_BACKUP_PASSPHRASE="").stderr
    assert "at least 12" in run("backup", "verify", str(out), code=2, COX_BACKUP_PASSPHRASE="short").stderr
    file = tmp_path / "phrase"
    file.write_text(PHRASE + "\n")
    file.chmod(0o644)
    assert "0644" in run("backup", "verify", str(out), "--passphrase-file", str(file), code=6).stderr
    file.chmod(0o600)
    run("backup", "verify", str(out), "--passphrase-file", str(file), COX_BACKUP_PASSPHRASE="")
    run("backup", "verify", str(out), COX_BACKUP_PASSPHRASE_FILE=str(file), COX_BACKUP_PASSPHRASE="")
    make_key_file(tmp_path / "key")
    assert "opens with a passphrase" in run("backup", "verify", str(out), "--key-file", str(tmp_path / "key"), code=2).stderr
    (tmp_path / "key").write_text("no key")
    assert "64 hex digits" in run("backup", "verify", str(out), "--key-file", str(tmp_path / "key"), code=2).stderr
    run("backup", "verify", str(out), "--key-file", "a", "--passphrase-file", "b", code=2)


def test_files_in_the_way(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.coxbak"
    create(home, out)
    before = out.read_bytes()
    config = ("--config", str(home / "cox.yaml"))
    assert "is there already" in run("backup", "create", *config, "--out", str(out), code=2).stderr
    assert "cannot be written" in run("backup", "create", *config, "--out", str(tmp_path / "no/b"), code=2).stderr
    assert out.read_bytes() == before
    (tmp_path / "link.partial").symlink_to(tmp_path / "target")
    assert "cannot be written" in run("backup", "create", *config, "--out", str(tmp_path / "link"), code=2).stderr
    assert "there is a state" in run("backup", "restore", str(out), *config, code=5).stderr
    assert "no directory" in run("backup", "restore", str(out), *config, "--beside", str(tmp_path / "no"), code=2).stderr
    assert not list(tmp_path.glob("*.partial-*")) and not list(home.glob("state.restore-*"))


def test_a_damaged_backup_changes_nothing(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.coxbak"
    create(home, out)
    raw = out.read_bytes()
    for bad in (raw[:-1], raw[:200], raw[:-20] + bytes(20), raw + b"x", b"", b"text"):
        out.write_bytes(bad)
        assert "cox: " in run("backup", "verify", str(out), code=6).stderr
        where = tmp_path / "new" / "cox.yaml"
        run("backup", "restore", str(out), "--config", str(where), code=6)
        assert not where.exists() and not (tmp_path / "new/state").exists()
        assert not list(tmp_path.glob("new/*"))
        run("backup", "restore", str(out), "--config", str(home / "cox.yaml"), "--force", code=6)
        assert load(home / "cox.yaml").state_dir.is_dir()
        assert sorted(path.name for path in home.iterdir()) == ["cox.yaml", "state"]


def test_a_database_that_is_not_sound_is_found_by_a_full_look(home: Path, tmp_path: Path) -> None:
    database = home / "state/app.db"
    with apsw.Connection(str(database)) as connection:
        connection.execute("UPDATE audit_outbox SET actor = 'x'")  # what waits may still be changed
    create(home, tmp_path / "a.coxbak")
    run("backup", "verify", str(tmp_path / "a.coxbak"), "--full")
    with apsw.Connection(str(database)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES ('d', 'gone', 'd', 1, 1)")
    create(home, tmp_path / "b.coxbak")
    run("backup", "verify", str(tmp_path / "b.coxbak"))
    assert "not there" in run("backup", "verify", str(tmp_path / "b.coxbak"), "--full", code=1).stdout


def test_an_audit_log_that_was_changed_is_found_by_a_full_look(home: Path, tmp_path: Path) -> None:
    from coxswain.audit import append_outbox  # noqa: PLC0415

    store = open_store(home / "state/app.db")
    with store.write() as tx:
        assert append_outbox(tx)
        tx.execute("UPDATE audit_log SET actor = 'somebody else'")
    store.close()
    create(home, tmp_path / "a.coxbak")
    assert "audit log: record 1" in run("backup", "verify", str(tmp_path / "a.coxbak"), "--full", code=1).stdout


def test_keys_elsewhere_go_back_to_where_the_configuration_wants_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    elsewhere = tmp_path / "keys"
    environ = {
        "COX_CA__KEY_FILE": str(elsewhere / "ca.key"),
        "COX_AUDIT__KEY_FILE": str(elsewhere / "audit.key"),
        "COX_AUDIT__CHECKPOINT_FILE": str(elsewhere / "signed"),
    }
    elsewhere.mkdir(mode=0o700)
    run("init", "--config", str(home / "cox.yaml"), **environ)
    out = tmp_path / "a.coxbak"
    run("backup", "create", "--config", str(home / "cox.yaml"), "--out", str(out), **environ)
    moved = {key: value.replace("/keys/", "/other/") for key, value in environ.items()}
    run("backup", "restore", str(out), "--config", str(tmp_path / "new/cox.yaml"), **moved)
    assert (tmp_path / "other/ca.key").read_bytes() == (elsewhere / "ca.key").read_bytes()
    assert (tmp_path / "other/audit.key").exists() and not (tmp_path / "new/state/ca.key").exists()
    assert "0 wrong" in run("doctor", "--config", str(tmp_path / "new/cox.yaml"), **moved).stdout
    # and into the state directory, where the configuration says nothing of keys
    run("backup", "restore", str(out), "--config", str(tmp_path / "plain/cox.yaml"))
    assert (tmp_path / "plain/state/ca.key").exists() and (tmp_path / "plain/state/audit.key").exists()
    assert "0 wrong" in run("doctor", "--config", str(tmp_path / "plain/cox.yaml")).stdout


def test_a_changed_file_of_revocations_is_not_believed(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept/a.coxbak"
    out.parent.mkdir()
    create(home, out)
    (out.parent / "revocations.log").write_text('{"seq": 1, "prev": "x"}\n')
    where = tmp_path / "new" / "cox.yaml"
    refused = run("backup", "restore", str(out), "--config", str(where), code=6).stderr
    assert "revocations.log, line 1" in refused and "copy that you keep elsewhere" in refused
    assert not (tmp_path / "new/state").exists() and not where.exists()


def test_the_file_goes_on_after_a_restore(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.coxbak"
    create(home, out)
    where = tmp_path / "new" / "cox.yaml"
    told = json.loads(run("backup", "restore", str(out), "--config", str(where), "--json").stdout)
    line = json.loads((where.parent / "state/revocations.log").read_text().splitlines()[-1])
    assert (line["mark"], line["seq"], line["backup"]) == ("restored", told["audit_seq"], told["manifest"]["id"])
    store = open_store(where.parent / "state/app.db")
    with store.read() as tx:
        assert RevocationLog(where.parent / "state/revocations.log").catch_up(tx) == 0
        assert tx.execute("SELECT action FROM audit_log ORDER BY seq DESC LIMIT 1") == [("backup.restore",)]
    store.close()


def test_no_secret_is_in_what_is_printed_or_left_open(home: Path, tmp_path: Path) -> None:
    result = run("backup", "create", "--config", str(home / "cox.yaml"), "--out", str(tmp_path / "a.coxbak"))
    assert PHRASE not in result.output
    raw = (tmp_path / "a.coxbak").read_bytes()
    assert (home / "state/ca.key").read_bytes()[:32] not in raw and b"SQLite" not in raw and b"posture" not in raw
    assert os.stat(tmp_path / "a.coxbak").st_mode & 0o777 == 0o600  # noqa: PTH116
