"""The audit log: how fast a long one is verified. How fast actions get into it is in ``benches.api``."""

from __future__ import annotations

import time

from rig import RigError, scratch

from benches.fleet import Bench
from coxswain import audit as log
from coxswain.audit.keys import ensure_audit_key
from coxswain.audit.settings import AuditPaths
from coxswain.audit.verify_process import run
from coxswain.messages.audit import Caller
from coxswain.store import Store, open_store

_PAGE = 1_000


def audit(bench: Bench) -> None:
    """A long log is verified, every record and the tree over them."""
    records = 400_000 if bench.scale.nodes >= 1_000 else 100_000
    with scratch("bench") as home:
        home.mkdir(exist_ok=True)
        paths = AuditPaths.in_state(home)
        signer, _ = ensure_audit_key(paths.key)
        store = open_store(home / "app.db")
        _fill(store, records)
        bench.say(f"a log of {records} records")
        for _ in range(bench.scale.runs):
            began = time.monotonic()
            report = run(store.location, str(signer.verifier), paths.checkpoints, (), timeout_s=600)
            took = time.monotonic() - began
            if not report.ok or report.good != records:
                raise RigError("the log does not verify")
            bench.report.note("audit verify: records per second", records / took)
        store.close()


def _fill(store: Store, records: int) -> None:
    callers = (Caller("root", "cli"), Caller("ops@example.com", "session", "192.0.2.77"), Caller("ci", "token", "192.0.2.4"))
    actions = ("node.edit", "device.provision", "auth.login", "node.push")
    tree = log.CompactRange()
    for first in range(0, records, _PAGE):
        with store.write() as tx:
            for i in range(first, first + _PAGE):
                detail = {"name": f"node-{i}", "region": "ams", "revision": i}
                log.record(tx, callers[i % 3], actions[i % 4], ("node", f"nod_{i % 1000:016d}"), detail, now=1.77e9 + i)
            log.append_outbox(tx, tree)
