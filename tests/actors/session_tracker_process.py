"""A process with a store and a session tracker, for tests that kill it. Not a test.

Arguments: the store. Batches come on stdin, one a line, pickled in base64; ``ack NUMBER`` goes to stdout when one is
durable.
"""

from __future__ import annotations

import base64
import pickle
import random
import sys

from actors.event_hub import EventHub
from actors.session_tracker import SessionTracker
from actors.supervision import ChildSpec, System
from coxswain.clock import SystemClock
from coxswain.live.ring import EventRing
from coxswain.messages.sessions import GetSessionCounts
from coxswain.store import open_store


def main() -> None:
    store = open_store(sys.argv[1])

    def acknowledge(epoch: str, number: int) -> None:
        del epoch
        sys.stdout.write(f"ack {number}\n")
        sys.stdout.flush()

    kwargs = {"store": store, "epoch": "e", "acknowledge": acknowledge}
    system = System(
        children=(
            ChildSpec("event_hub", EventHub, {"store": store, "ring": EventRing()}),
            ChildSpec("session_tracker", SessionTracker, kwargs),
        ),
        clock=SystemClock(),
        rng=random.Random(1),
    )
    system.start()
    system.ask("session_tracker", GetSessionCounts(), deadline=30)  # it is up
    for line in sys.stdin:
        system.tell("session_tracker", pickle.loads(base64.b64decode(line)))


if __name__ == "__main__":
    main()
