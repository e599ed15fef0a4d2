"""A process with a store and an audit writer, for tests that kill it. Not a test.

Arguments: the store, the directory of the audit key, the first number. Four threads make changes without end; ``ack
NUMBER`` goes to stdout when the record of one is in the log.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
from pathlib import Path

from actors.audit_writer import AuditWriter
from actors.supervision import ChildSpec, System
from coxswain import audit
from coxswain.audit.settings import AuditPaths, AuditSettings
from coxswain.clock import SystemClock
from coxswain.messages.audit import AwaitAudited, Caller, GetAuditFindings
from coxswain.store import open_store


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    store = open_store(sys.argv[1])
    paths = AuditPaths.in_state(Path(sys.argv[2]))
    numbers = itertools.count(int(sys.argv[3]))
    lock = threading.Lock()
    arguments = {"store": store, "paths": paths, "settings": lambda: AuditSettings(checkpoint_records=7)}
    system = System(children=(ChildSpec("audit_writer", AuditWriter, arguments),), clock=SystemClock(), rng=random.Random(1))
    system.start()
    findings = system.ask("audit_writer", GetAuditFindings(), deadline=30)
    say(f"findings {len(findings)}")

    def door() -> None:
        while True:
            with lock:
                number = next(numbers)
            with store.write() as tx:
                outbox_id = audit.record(tx, Caller("ci", "token"), "node.add", ("node", str(number)), {}, now=1.0)
            system.ask("audit_writer", AwaitAudited(outbox_id), deadline=30)
            with lock:
                say(f"ack {number}")

    doors = [threading.Thread(target=door, daemon=True) for _ in range(4)]
    for thread in doors:
        thread.start()
    for thread in doors:
        thread.join()


if __name__ == "__main__":
    main()
