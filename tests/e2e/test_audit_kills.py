"""Writers at work while the parts between them and the log are killed, one after the other.

Nothing that was answered is lost, nothing is chained twice, and the log extends everything that was signed.
"""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from actors.supervision.signals import Harm
from coxswain import audit
from coxswain.cli.client import Client
from coxswain.errors import CoxswainError
from tests.fleet import Controller
from tests.support import an_addr, eventually

VICTIMS = ("audit_writer", "event_hub", "web_server", "audit_reader", "control_socket")


@pytest.mark.timeout(240)
def test_no_acknowledged_action_is_lost_or_doubled(fresh_where, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    controller = Controller(tmp_path / "state", database=fresh_where(), web=True)
    controller.start()
    answered: list[str] = []
    enough = threading.Event()

    def write(hand: int) -> None:
        client = Client(controller.home / "control.sock", timeout=30.0)
        number = 0
        while not enough.is_set():
            number += 1
            name = f"h{hand}-{number}"
            try:
                client.post("/api/nodes", {"name": name, "control_addr": an_addr()})
            except CoxswainError:
                continue  # it may be made or not; only what was answered counts
            answered.append(name)
        client.close()

    hands = [threading.Thread(target=write, args=(hand,)) for hand in range(3)]
    for thread in hands:
        thread.start()
    try:
        for victim in VICTIMS:
            before = len(answered)
            eventually(lambda before=before: len(answered) > before + 5, timeout=60)
            incarnation = of(controller, victim)
            assert controller.system.harm(victim, Harm.RAISE, 3)
            eventually(lambda i=incarnation, v=victim: of(controller, v) > i, timeout=30)
    finally:
        enough.set()
        for thread in hands:
            thread.join(60)
    report = eventually(lambda: verified(controller), timeout=60)
    assert report["ok"], report
    with controller.store.read() as tx:
        added = [e for _, e in audit.list_entries(tx, limit=10**6) if e.action == "node.add" and e.result == "ok"]
        nodes = {row[0]: row[1] for row in tx.execute("SELECT id, name FROM nodes")}
    recorded = Counter(nodes[entry.target_id] for entry in added)
    assert set(answered) <= set(recorded)
    assert max(recorded.values()) == 1
    assert set(recorded) == set(nodes.values()), "what was made and not answered has its record, too"
    controller.stop()


def of(controller: Controller, name: str) -> int:
    for child in controller.system.tree().children:
        if child.id == name:
            return child.incarnation
    raise AssertionError(f"there is no {name}")


def verified(controller: Controller):
    try:
        return controller.client.get("/api/audit/verify")
    except CoxswainError:
        return None
