"""Doors and their authority are killed in the middle of a load of writes: what was acknowledged is there, once."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from actors.supervision import Harm
from coxswain.audit.verify import verify
from tests.fleet import Controller, lone_controller
from tests.support import an_addr, eventually
from tests.web import Web


@pytest.fixture
def controller() -> Iterator[Controller]:
    with lone_controller(web=True) as running:
        yield running


@pytest.mark.parametrize("victim", ["web_server", "access", "audit_writer", "event_hub", "fleet"])
def test_no_acknowledged_action_is_lost_or_recorded_twice(controller: Controller, victim: str) -> None:
    secret = controller.client.post("/api/tokens", {"name": "writer", "scope": "admin"})["secret"]
    stop, acknowledged, failed = threading.Event(), list[str](), Counter[int]()

    def write(who: int) -> None:
        web, number = Web(controller.listen, token=secret, timeout=30.0), 0
        while not stop.is_set():
            number += 1
            name = f"w{who}-{number}"
            try:
                answer = web.post("/api/nodes", {"name": name, "control_addr": an_addr()})
            except (OSError, http.client.HTTPException):
                failed[0] += 1
                time.sleep(0.02)  # not so fast
                continue
            if answer.status == 201:
                acknowledged.append(name)
            else:
                failed[answer.status] += 1

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    try:
        for kill in range(3):
            reached = len(acknowledged) + 5
            eventually(lambda reached=reached: len(acknowledged) >= reached, timeout=60)  # type: ignore[misc]
            assert controller.system.harm(victim, Harm.RAISE, 1.0), kill
            time.sleep(0.05)  # those who were answered before it fell do not count as answered after it
        reached = len(acknowledged) + 5
        eventually(lambda: len(acknowledged) >= reached, timeout=60)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    there = {node["name"] for node in controller.client.get("/api/nodes")}
    assert set(acknowledged) <= there
    controller.client.get("/api/audit/head")
    with controller.store.read() as tx:
        recorded = Counter(row[0] for row in tx.execute("SELECT detail FROM audit_log WHERE action = 'node.add'"))
        report = verify(tx)
    assert report.broken is None
    assert not [detail for detail, times in recorded.items() if times > 1], "nothing twice"
    missing = [name for name in acknowledged if not any(f'"name":"{name}"' in detail for detail in recorded)]
    assert not missing
