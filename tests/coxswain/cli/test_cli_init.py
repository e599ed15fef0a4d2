"""``cox init`` in a process of its own: what it makes, and that it makes all of it or nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coxswain.config import load
from tests.postgres import PostgresServer


class Init:
    """Runs ``cox`` in an empty directory."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def cox(self, *arguments: str, code: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "actors.main", *arguments],
            cwd=self.where,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[3]), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        if code:
            assert not done.stdout and done.stderr.startswith("cox: ")
        return done

    def files(self) -> set[str]:
        return {str(p.relative_to(self.where)) for p in self.where.rglob("*")}

    def fingerprint(self, *arguments: str) -> str:
        found = re.search(r"^root CA +([0-9a-f]{64}) \(SHA-256\)", self.cox("init", *arguments).stdout, re.MULTILINE)
        assert found
        return found[1]


@pytest.fixture
def empty(tmp_path: Path) -> Init:
    return Init(tmp_path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_it_makes_is_private_and_sound(empty: Init) -> None:
    out = empty.cox("init", "--personal").stdout
    state = empty.where / "state"
    assert mode(empty.where / "cox.yaml") == 0o600
    assert mode(state) == 0o700
    assert {mode(p) for p in state.iterdir()} == {0o600}
    assert (state / "ca.key").exists() and (state / "app.db").exists()
    for said in ("cox.yaml", str(state), "ca.key", "cox serve", "cox nodes add"):
        assert said in out
    assert load(empty.where / "cox.yaml", {})["retention.audit_days"] == 30
    assert "fine" in empty.cox("config", "check").stdout


def test_it_needs_no_options(empty: Init) -> None:
    empty.cox("init")
    assert load(empty.where / "cox.yaml", {})["posture"] == "personal"


def test_it_never_writes_over_a_configuration_unless_forced_and_keeps_the_ca(empty: Init) -> None:
    first = empty.fingerprint("--personal")
    before = (empty.where / "cox.yaml").read_text()
    assert "there is a configuration cox.yaml already" in empty.cox("init", "--enterprise", code=5).stderr
    assert (empty.where / "cox.yaml").read_text() == before
    assert empty.fingerprint("--enterprise", "--force") == first
    assert load(empty.where / "cox.yaml", {})["posture"] == "enterprise"
    assert "reused" in empty.cox("init", "--personal", "--force").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--personal", "--enterprise"), 2, "exclude each other"),
        (("--personal", "--database-dsn", "mysql://h/x"), 2, "database.dsn"),
        (("--personal", "--database-dsn", "postgres://u:hunter2@127.0.0.1:9/x?connect_timeout=2"), 7, ""),
        (("--personal", "--state-dir", ""), 2, "state_dir"),
        (("--personal", "--state-dir", "x" * 120), 2, "control.socket"),
        (("--personal", "--state-dir", "new/deep/state", "--key-source", "passphrase"), 6, "passphrase"),
        (("--personal", "--key-source", "credential"), 6, "CREDENTIALS_DIRECTORY"),
        (("--personal", "--config", "new/cox.yaml", "--key-source", "passphrase"), 6, "passphrase"),
    ],
)
def test_what_fails_leaves_nothing_behind(empty: Init, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = empty.cox("init", *arguments, code=code)
    assert says in done.stderr
    assert "hunter2" not in done.stderr
    assert empty.files() == set()


def test_the_key_of_what_a_postgres_already_holds_is_kept(empty: Init, postgres_server: PostgresServer) -> None:
    database = postgres_server.create_database()
    (empty.where / "taken.yaml").mkdir()  # noticed last of all, when the CA is committed
    taken = ("--force", "--config", "taken.yaml", "--database-dsn", database)
    assert "taken.yaml" in empty.cox("init", *taken, code=2).stderr
    assert "taken.yaml.new" not in empty.files()
    assert "reused" in empty.cox("init", "--database-dsn", database).stdout


def test_what_others_have_in_the_same_places_stays(empty: Init) -> None:
    (empty.where / "state").mkdir(mode=0o700)
    (empty.where / "state/mine").write_text("mine")
    (empty.where / "other").write_text("other")
    empty.cox("init", "--personal", "--key-source", "passphrase", code=6)
    assert empty.files() == {"state", "state/mine", "other"}


def test_a_state_whose_key_is_gone_is_not_given_another(empty: Init) -> None:
    empty.cox("init", "--personal")
    (empty.where / "state/ca.key").unlink()
    assert "sealed under another key" in empty.cox("init", "--personal", "--force", code=6).stderr
    assert not (empty.where / "state/ca.key").exists()
    assert (empty.where / "state/app.db").exists()


def test_a_state_directory_that_others_can_read_is_refused(empty: Init) -> None:
    (empty.where / "state").mkdir(mode=0o755)
    assert "chmod 700" in empty.cox("init", "--personal", code=6).stderr
    assert empty.files() == {"state"}


def test_a_passphrase_is_asked_for_in_the_configuration_and_not_written(empty: Init) -> None:
    empty.cox("init", "--personal", "--key-source", "passphrase", COX_CA_PASSPHRASE="hunter2 hunter2")
    config = load(empty.where / "cox.yaml", {})
    assert config["ca.key_source"] == "passphrase"
    assert "state/ca.key" not in empty.files()
    for path in empty.where.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_a_state_elsewhere_and_with_strange_names(empty: Init) -> None:
    empty.cox("init", "--enterprise", "--config", "etc/my cox.yaml", "--state-dir", '../var/l "q" é')
    assert mode(empty.where / 'var/l "q" é') == 0o700
    shown = empty.cox("config", "show", "--config", "etc/my cox.yaml", COX_CONFIG="not this").stdout
    assert 'l "q" é' in shown


def test_serve_says_why_it_does_not_start(empty: Init) -> None:
    assert "cannot be read" in empty.cox("serve", code=2).stderr
    empty.cox("init", "--personal")
    (empty.where / "state/ca.key").chmod(0o644)
    assert "chmod 600" in empty.cox("serve", code=6).stderr
    (empty.where / "state/ca.key").chmod(0o600)
    with (empty.where / "cox.yaml").open("a") as file:
        file.write("sate_dir: x\n")
    assert "did you mean state_dir?" in empty.cox("serve", code=2).stderr


def test_no_daemon(empty: Init) -> None:
    empty.cox("init", "--personal")
    for command in (("nodes", "list"), ("status",), ("tree",), ("sessions", "--json"), ("watch", "--json")):
        done = empty.cox(*command, code=3)
        assert re.fullmatch(r"cox: no daemon answers on \S+control\.sock\n +Start it with: cox serve\n", done.stderr)


def test_config_check_tells_everything(empty: Init) -> None:
    (empty.where / "cox.yaml").write_text("posture: none\nlog: {level: loud}\nadmin: {password: [hunter2]}\n")
    done = empty.cox("config", "check", code=2)
    assert "has 3 problems" in done.stderr and "hunter2" not in done.stderr
    assert "(line 2)" in done.stderr
