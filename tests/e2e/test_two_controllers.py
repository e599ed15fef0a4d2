"""A copy of a controller's state is started beside it, and both drive the same nodes: both say so, and it ends with one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coxswain.reconcile import plan
from tests.cascade import CascadeFleet, cascade_fleet
from tests.fleet import Controller, database, peers_body
from tests.support import eventually

BASE_PORT = 13_700
TOLD = "another controller pushes to it as well"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[CascadeFleet]:
    with cascade_fleet(tmp_path, 2, BASE_PORT, interval_s=1.0) as made:
        made.device(0)
        made.path("p", 0, 1)
        yield made


@pytest.fixture
def second(fleet: CascadeFleet, tmp_path: Path) -> Iterator[Controller]:
    """Its clock is a day ahead, as far as the revisions of links show."""
    first = fleet.fleet.controller
    first.stop()
    shutil.copytree(first.home, tmp_path / "copy")
    first.start()
    with database(tmp_path / "copy") as copy:
        copy.execute("UPDATE nodes SET link_revision = link_revision + 86400 WHERE link_revision > 0")
    made = Controller(tmp_path / "copy", interval_s=1.0)
    made.start()
    yield made
    made.stop()


def link_revision(controller: Controller) -> int:
    with database(controller.home) as db:
        return int(next(db.execute("SELECT max(link_revision) FROM nodes"))[0])


def test_a_copy_beside_the_original_is_told_of_on_both_and_uses_nothing_up(
    fleet: CascadeFleet, second: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fleet.fleet.controller
    first.all_in_sync(2)
    second.all_in_sync(2)  # while they want the same, nobody is disturbed
    monkeypatch.setattr(plan, "_RIVAL_HOLDS_S", 5.0)
    first.client.post("/api/peers", peers_body([fleet.fleet.ids[0]], 3, first=100))
    for controller in (first, second):
        controller.until("n0", link_state="degraded", status="active", link_reason=lambda reason: TOLD in reason)
    fought = first.node("n0")["applied_revision"]
    first.until("n0", applied_revision=lambda revision: revision > fought + 4)
    assert max(link_revision(first), link_revision(second)) < 1.5 * time.time(), "not doubled to overtake the other"
    second.stop()
    try:
        first.until("n0", link_state="live", in_sync=True, peers_configured=4)
        network = fleet.network()
        assert len(network[0]["peers"]) == 4 and list(network[0]["links"]) == ["awg1"]
        eventually(lambda: first.client.get("/api/paths")[0]["status"] == "active", timeout=10)
    finally:
        second.start()


def test_a_path_may_leave_at_a_node_that_two_controllers_drive(tmp_path: Path) -> None:
    """Better than at one that is gone. The second one here is more patient, and moves nothing itself."""
    hasty = "posture: personal\nfleet:\n  failover:\n    after_seconds: 5\n"
    (tmp_path / "first").mkdir()
    with cascade_fleet(tmp_path / "first", 3, BASE_PORT, interval_s=2.0, config=hasty) as fleet:
        device = fleet.device(0)
        fleet.client.post("/api/paths", {"name": "p", "node_ids": ["n0", "n1"], "fallback_ids": ["n2"]})
        fleet.bind(device, "p")
        first = fleet.fleet.controller
        first.all_in_sync(3)
        first.stop()
        shutil.copytree(first.home, tmp_path / "second" / "state")
        first.start()
        second = Controller(tmp_path / "second" / "state", interval_s=2.0)
        second.start()
        try:
            first.client.post("/api/peers", peers_body([fleet.fleet.ids[2]], 3, first=100))
            first.until("n2", link_state="degraded", status="active", link_reason=lambda reason: TOLD in reason)
            fleet.fleet.nodes.do("kill", node=1)
            eventually(lambda: first.client.get("/api/paths/p")["exit"]["node"] == "n2", timeout=60, every=0.2)
        finally:
            second.stop()
        fleet.until_follows(device, 0, 2)


def test_a_copy_that_differs_in_a_policy_alone_is_told_of_on_both_and_leaves_nothing_behind(
    fleet: CascadeFleet, tmp_path: Path
) -> None:
    """No revision counts it; agents of ours name the policy that they hold."""
    first = fleet.fleet.controller
    first.all_in_sync(2)
    first.stop()
    shutil.copytree(first.home, tmp_path / "copy")
    first.start()
    with database(tmp_path / "copy") as copy:
        copy.execute("UPDATE nodes SET isolation = 1 WHERE name = 'n1'")
    second = Controller(tmp_path / "copy", interval_s=1.0)
    second.start()
    try:
        for controller in (first, second):
            controller.until("n1", link_state="degraded", status="active", link_reason=lambda reason: TOLD in reason)
        heals = [r for r in first.client.get("/api/audit?limit=50") if r["action"] == "node.heal"]
        assert len(heals) == 1, "and not at every look"
        assert "another network policy than intended" in str(heals[0]["detail"])
    finally:
        second.stop()
    eventually(lambda: not fleet.network()[1]["policy"]["isolation"])
    first.client.post("/api/nodes/n1/look")
    eventually(lambda: first.client.get("/api/nodes/n1/plan")["steps"] == [])
    assert not fleet.network()[1]["policy"]["isolation"]
