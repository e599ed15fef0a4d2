"""SIGKILL at random moments of a load of writes: what was acknowledged is in the log, once, and extends what was signed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from coxswain import audit
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import load_audit_key
from coxswain.audit.settings import AuditPaths
from coxswain.audit.verify import verify
from coxswain.store import open_store

CHILD = Path(__file__).with_name("audit_writer_process.py")
KILLS = 12


def live(where: str, directory: Path, first: int, until: int) -> list[int]:
    """One life: killed when so many were acknowledged. Returns them."""
    command = [sys.executable, str(CHILD), where, str(directory), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = []
        for line in process.stdout:
            word, number = line.split()
            if word == "findings":
                assert number == "0", "the log does not extend what was signed in the life before"
                continue
            acknowledged.append(int(number))
            if len(acknowledged) == until:
                process.kill()
        return acknowledged


def test_no_acknowledged_record_is_lost_or_chained_twice(fresh_where, tmp_path):
    where, rng = fresh_where(), random.Random(5)
    acknowledged: list[int] = []
    for life in range(KILLS):
        acknowledged += live(where, tmp_path, life * 100_000, rng.randrange(1, 60))
    paths = AuditPaths.in_state(tmp_path)
    store = open_store(where)
    with store.write() as tx:
        while audit.append_outbox(tx):
            pass
    with store.read() as tx:
        found = Counter(int(entry.target_id) for _, entry in audit.list_entries(tx, limit=10**6))
        notes = tuple(CheckpointFile(paths.checkpoints).notes())
        report = verify(tx, load_audit_key(paths.key).verifier, notes)
    assert set(acknowledged) <= set(found)
    assert max(found.values()) == 1
    assert report.ok, report.findings
    assert report.checked >= KILLS, "each life signed something"
    store.close()
