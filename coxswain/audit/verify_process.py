"""Verifying in a process of its own: a long log is a minute's work, and the daemon must not notice.

The parent sends one line of JSON on the standard input (the database's address may hold a password, so it is no
argument) and reads one line from the standard output. Long logs are checked by several processes at once.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import coxswain
from coxswain.audit.checkpoint import Checkpoint
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.chunks import CHUNK, BrokenAt, Chunk, check_chunk, strays
from coxswain.audit.note import Verifier
from coxswain.audit.verify import Finding, Report, conclude, known_of, marks_of
from coxswain.errors import CoxswainError, StoreUnavailable
from coxswain.store import Store, open_store

__all__ = ["main", "run", "verify_store"]

_MOST_PROCESSES = 4
_STORES: dict[str, Store] = {}


def run(location: str, public_key: str, checkpoints: Path, against: tuple[str, ...], *, timeout_s: float) -> Report:
    """Starts the process and waits for it. On a thread that may wait.

    Args:
        location: of the store (``Store.location``).
        public_key: ``name+id+key``.
        checkpoints: the append-only file.
        against: notes that were kept elsewhere.
        timeout_s: seconds after which it is given up.

    Raises:
        CoxswainError: it could not be done.
    """
    order = {"location": location, "public_key": public_key, "checkpoints": str(checkpoints), "against": list(against)}
    code = "from coxswain.audit.verify_process import main; main()"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(coxswain.__file__).resolve().parents[1]), *sys.path])}
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-c", code],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            env=environ,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreUnavailable(f"verifying the audit log took more than {timeout_s:g} seconds, and was given up") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise CoxswainError(f"verifying the audit log failed: {done.stderr.strip()[-300:]}") from None
    if "error" in answer:
        raise StoreUnavailable(answer["error"])
    return _report_from(answer)


def main() -> None:
    """The process itself."""
    order = json.loads(sys.stdin.readline())
    os.nice(5)
    gc.disable()  # hundreds of thousands of rows, and not one cycle among them
    try:
        report = verify_store(
            order["location"],
            order["public_key"],
            Path(order["checkpoints"]),
            tuple(order["against"]),
            processes=_processes(),
        )
        answer = _report_to(report)
    except CoxswainError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


def verify_store(
    location: str, public_key: str, checkpoints: Path, against: tuple[str, ...] = (), *, processes: int = 1
) -> Report:
    """Verifies the log of a store. Raises ``CoxswainError``."""
    store = open_store(location)
    try:
        with store.read() as tx:
            known = known_of(tx, Verifier.parse(public_key))
            stray = strays(tx)
    finally:
        store.close()
    ours = (*known.checkpoints, *CheckpointFile(checkpoints).notes())
    marks = sorted(marks_of((*ours, *against), known))
    jobs = [
        (location, first, min(first + CHUNK - 1, known.size), [m for m in marks if first <= m < first + CHUNK])
        for first in range(1, known.size + 1, CHUNK)
    ]
    if processes > 1 and len(jobs) > 2:
        import multiprocessing  # noqa: PLC0415 - the daemon, which only starts such processes, needs none of it
        from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415

        # Forked before any thread or connection is there; "spawn" would import everything again in each.
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
            chunks = list(pool.map(_check, jobs))
    else:
        chunks = [_check(job) for job in jobs]
        _close_all()
    report = conclude(known, chunks, ours, against)
    if stray is not None:
        report.good, report.broken = 0, stray
    return report


def _check(job: tuple[str, int, int, list[int]]) -> Chunk:
    location, first, last, marks = job
    store = _STORES.get(location)
    if store is None:
        store = _STORES[location] = open_store(location)
    with store.read() as tx:
        return check_chunk(tx, first, last, marks)


def _close_all() -> None:
    for location in list(_STORES):
        _STORES.pop(location).close()


def _processes() -> int:
    return max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0))))


def _report_to(report: Report) -> dict[str, Any]:
    found = dataclasses.asdict(report)
    found["root"] = report.root.hex()
    if report.newest is not None:
        found["newest"]["root"] = report.newest.root.hex()
    return found


def _report_from(found: dict[str, Any]) -> Report:
    newest = found["newest"]
    return Report(
        good=found["good"],
        broken=BrokenAt(**found["broken"]) if found["broken"] else None,
        findings=[Finding(**finding) for finding in found["findings"]],
        size=found["size"],
        root=bytes.fromhex(found["root"]),
        purged=found["purged"],
        checked=found["checked"],
        newest=Checkpoint(**{**newest, "root": bytes.fromhex(newest["root"])}) if newest else None,
        notes=found["notes"],
    )
