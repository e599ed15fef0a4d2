"""SIGKILL in the middle of a backup and of a restore: nothing half-done is ever taken for a whole."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coxswain.audit.keys import load_audit_key
from coxswain.audit.verify import verify as verify_log
from coxswain.backup.revocations import read_file
from coxswain.errors import CoxswainError
from coxswain.store import open_store
from tests.fleet import ROOT, Daemon, killed_at_work

KILLS = 6
PHRASE = "five random words are enough"


def environment(dsn: str) -> dict[str, str]:
    return os.environ | {"COX_BACKUP_PASSPHRASE": PHRASE} | ({"COX_DATABASE__DSN": dsn} if dsn else {})


def run(*arguments: str, dsn: str = "", code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "actors.main", *arguments],
        cwd=ROOT, env=environment(dsn), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stdout


def kills(rng: random.Random, *arguments: str, dsn: str = "", whole_s: float) -> Iterator[None]:
    """Runs a command again and again and kills it in the midst of its work. Where one was faster than it ever was,
    the next one is hit earlier.
    """
    hit = 0
    while hit < KILLS:
        if killed(rng.uniform(0.3 * whole_s, whole_s), *arguments, dsn=dsn):
            hit += 1
        else:
            whole_s *= 0.8
        yield


def killed(delay_s: float, *arguments: str, dsn: str = "") -> bool:
    """Runs a command and kills it after so long. Returns whether it was still running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "actors.main", *arguments],
        cwd=ROOT, env=environment(dsn), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def took(*arguments: str, dsn: str = "") -> float:
    started = time.monotonic()
    run(*arguments, dsn=dsn)
    return time.monotonic() - started


@pytest.mark.timeout(300)  # a score of programs, on a machine that may be crowded
def test_killed_while_it_is_made_and_while_it_is_put_back(tmp_path: Path, dsns: tuple[str, str]) -> None:
    rng = random.Random(11)
    old, new = tmp_path / "old/cox.yaml", tmp_path / "new/cox.yaml"
    run("init", "--config", str(old), dsn=dsns[0])
    store = open_store(dsns[0] or old.parent / "state/app.db")
    with store.write() as tx:
        tx.executemany(
            "INSERT INTO users (id, name, created_at, updated_at) VALUES (?, ?, 1, 1)",
            ((f"usr_{n}", rng.randbytes(40).hex()) for n in range(60_000)),
        )
    store.close()
    backup = tmp_path / "kept/b.coxbak"
    backup.parent.mkdir()
    create = ("backup", "create", "--config", str(old), "--out", str(backup))
    whole = took(*create, dsn=dsns[0])
    backup.unlink()
    for _ in kills(rng, *create, dsn=dsns[0], whole_s=whole):
        if backup.exists():  # it was faster; then it is whole
            run("backup", "verify", str(backup))
            backup.unlink()
    run(*create, dsn=dsns[0])
    assert json.loads(run("backup", "verify", str(backup), "--full", "--json"))["ok"]

    restore = ("backup", "restore", str(backup), "--config", str(new), "--force")
    whole = took(*restore, dsn=dsns[1])
    before = json.loads(run("config", "show", "--config", str(new), "--json", dsn=dsns[1]))
    for _ in kills(rng, *restore, dsn=dsns[1], whole_s=whole):
        state = new.parent / "state"
        if state.exists() and not dsns[1]:  # the old one or the new one, whole
            opened = open_store(state / "app.db")
            with opened.read() as tx:
                assert tx.execute("SELECT count(*) FROM users WHERE role = 'user'") == [(60_000,)]
            opened.close()
    run(*restore, dsn=dsns[1])
    opened = open_store(dsns[1] or new.parent / "state/app.db")
    with opened.read() as tx:
        assert tx.execute("SELECT count(*) FROM users WHERE role = 'user'") == [(60_000,)]
        assert tx.execute("SELECT 1 FROM meta WHERE key = 'restoring'") == []
        report = verify_log(tx, load_audit_key(new.parent / "state/audit.key").verifier)
        assert report.ok, report
    opened.close()
    assert json.loads(run("config", "show", "--config", str(new), "--json", dsn=dsns[1])) == before


@pytest.mark.timeout(300)
def test_every_revocation_that_was_acknowledged_is_in_the_file(daemon: Daemon) -> None:
    rng = random.Random(3)
    file = daemon.state / "revocations.log"
    acknowledged: set[str] = set()
    lock = threading.Lock()

    def revoke() -> None:
        client = daemon.client()
        while True:
            try:
                made = client.post("/api/tokens", {"name": "short-lived", "scope": "readonly"})
                client.call("DELETE", f"/api/tokens/{made['id']}")
            except (CoxswainError, OSError):
                return  # killed; whether this one was revoked is open
            with lock:
                acknowledged.add(made["id"])

    for _ in range(KILLS):
        killed_at_work(daemon, revoke, 3, acknowledged, rng, 0.7)
        assert acknowledged <= {entry.target_id for entry in read_file(file)}, "as it lies there, with nobody to mend it"
        daemon.start()
    assert daemon.stop() == 0
    store = open_store(daemon.store)
    with store.read() as tx:
        revoked = [row[0] for row in tx.execute("SELECT id FROM audit_log WHERE action = 'token.revoke' ORDER BY seq")]
    store.close()
    noted = [entry.id for entry in read_file(file) if entry.action == "token.revoke"]
    assert noted == revoked, "all of them, in order, once"
