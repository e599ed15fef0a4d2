"""What one part's trouble must not do to the others: a slow or lost database, lost hints, ends in the middle of a change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.event_funnel import EventFunnel
from actors.node_links import LINK_HANG_S
from actors.reconcile_clock import ReconcileClock
from actors.supervision import Harm
from coxswain.cli.client import RemoteError
from coxswain.messages.sessions import EventKind, NodeEvent, StreamItem
from coxswain.wire.node_control import Deadlines
from tests.fleet import LiveFleet, database, live_fleet, peers_body
from tests.postgres import PostgresServer
from tests.support import eventually

BASE_PORT = 13_300
DEADLINES = Deadlines(read=2.0, list=2.0, change=6.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    home = tmp_path_factory.mktemp("outages")
    options: dict[str, Any] = {"deadlines": DEADLINES, "interval_s": 2.0, "options": ("--record",)}
    with live_fleet(home, 2, BASE_PORT, before_start=lambda f: f.add_peers(2), **options) as running:
        yield running


@pytest.fixture
def fleet(shared: LiveFleet) -> Iterator[LiveFleet]:
    yield shared
    store = shared.controller.store
    store.refuse_reads, store.slow_reads_s, store.lost_commits = False, 0.0, 0
    shared.nodes.do("clear", node="all")
    shared.controller.all_in_sync(2)


def node(fleet: LiveFleet, key: str = "n0") -> dict[str, Any]:
    return fleet.controller.node(key)


def called(fleet: LiveFleet, method: str, since: float) -> bool:
    """Whether such a call has reached node 0; ``since``: of ``time.monotonic``."""
    return any(call["method"] == method and call["at"] >= since for call in fleet.nodes.do("calls", node=0)["calls"])


def push_peer(fleet: LiveFleet, number: int) -> str:
    body = peers_body([fleet.ids[0]], 1, first=number)
    fleet.controller.client.post("/api/peers", body)
    return str(body["add"][0]["public_key"])


def configured(fleet: LiveFleet) -> set[str]:
    """Keys that node 0 knows: whoever is configured can connect."""
    fleet.nodes.do("inject", node=0, connect=1000)
    keys = set(fleet.nodes.do("sessions", node=0)["sessions"]["0"])
    fleet.nodes.do("inject", node=0, disconnect=1000)
    return keys


def test_a_change_is_made_although_the_intent_was_not_to_be_had_when_it_was_told(fleet: LiveFleet) -> None:
    fleet.controller.store.refuse_reads = True
    key = push_peer(fleet, 100)
    for _ in range(5):  # looks meanwhile must not make the link forget that it has something to read
        fleet.controller.client.post("/api/nodes/n0/look")
        time.sleep(0.3)  # what is shown is that nothing happens
    assert key not in configured(fleet)
    fleet.controller.store.refuse_reads = False
    eventually(lambda: key in configured(fleet), timeout=30)


def test_a_slow_database_costs_no_link(fleet: LiveFleet) -> None:
    since = node(fleet)["link_since"]
    fleet.controller.store.slow_reads_s = 4.0  # longer than a link may take for a message
    key = push_peer(fleet, 200)
    time.sleep(5.0)  # the outage
    fleet.controller.store.slow_reads_s = 0.0
    eventually(lambda: key in configured(fleet))
    assert node(fleet)["link_since"] == since
    assert "hung" not in str(fleet.controller.client.get("/api/events/recent?after=0&limit=1000"))


def test_a_node_that_is_enabled_again_is_looked_at_again(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    client.post("/api/nodes/n0/disable")
    fleet.controller.until("n0", link_state="disabled")
    find = fleet.controller.system.directory.find
    before = find("reconcile_clock")
    fleet.controller.system.harm("reconcile_clock", Harm.RAISE)  # its successor reads which nodes there are to look at
    eventually(lambda: isinstance(c := find("reconcile_clock"), ReconcileClock) and c is not before and not c._is_stale)
    client.post("/api/nodes/n0/enable")
    first = fleet.controller.until("n0", link_state="live", in_sync=True)["last_seen"]
    for _ in range(2):
        seen = first
        eventually(lambda seen=seen: node(fleet)["last_seen"] > seen, timeout=30)
        first = node(fleet)["last_seen"]


def test_a_commit_whose_answer_is_lost_is_read_back(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    fleet.controller.store.lost_commits = 1
    with pytest.raises(RemoteError, match="lost during the commit"):
        client.post("/api/nodes/n0/disable")
    fleet.controller.until("n0", link_state="disabled", status="stopped")  # it was made, so it holds
    client.post("/api/nodes/n0/enable")
    fleet.controller.until("n0", link_state="live", in_sync=True)
    fleet.controller.store.lost_commits = 1
    body = peers_body([fleet.ids[0]], 1, first=300)
    with pytest.raises(RemoteError, match="lost during the commit"):
        client.post("/api/peers", body)
    eventually(lambda: body["add"][0]["public_key"] in configured(fleet))
    fleet.controller.store.lost_commits = 1
    with pytest.raises(RemoteError, match="lost during the commit"):
        client.post("/api/nodes", {"name": "n2", "control_addr": "127.0.0.1:9"})
    eventually(lambda: [n["name"] for n in client.get("/api/nodes")] == ["n0", "n1", "n2"])
    client.call("DELETE", "/api/nodes/n2")


def test_an_operators_push_never_carries_a_revoked_peer(fleet: LiveFleet) -> None:
    """Even where the link is in the middle of a look when both come."""
    key = push_peer(fleet, 400)
    eventually(lambda: key in configured(fleet))
    fleet.nodes.do("delay", node=0, method="GetStatus", seconds=1.0)
    began = time.monotonic()
    fleet.controller.client.post("/api/nodes/n0/look")
    eventually(lambda: called(fleet, "GetStatus", began))
    removal = {"node_id": fleet.ids[0], "public_key": key}
    fleet.controller.client.post("/api/peers", {"remove": [removal]})
    fleet.controller.client.post("/api/nodes/n0/push")
    assert key not in configured(fleet)


def test_a_change_is_finished_although_the_stream_ends(fleet: LiveFleet) -> None:
    """A cancelled call kills the agent's tools halfway (node-contract.md 4.1)."""
    fleet.nodes.do("inject", node=0, connect=1)  # where everybody has just left, a push mends the silence
    fleet.nodes.do("delay", node=0, method="PushConfig", seconds=1.5)
    since = node(fleet)["link_since"]
    began = time.time()
    asked = time.monotonic()
    push_peer(fleet, 500)
    eventually(lambda: called(fleet, "PushConfig", asked))
    fleet.nodes.do("cut", node=0)
    fleet.controller.until("n0", link_state="live", in_sync=True, link_since=lambda s: s != since)
    pushes = fleet.nodes.do("pushes", node=0, since=0)["pushes"]
    applied = [push for push in pushes if push["wall"] > began]
    assert len(applied) == 1, "the first one was let finish, so there was nothing to repeat"


def test_a_policy_in_doubt_is_set_again(fleet: LiveFleet) -> None:
    fleet.nodes.do("fail", node=0, method="SetNetworkConfig", code="UNAVAILABLE", times=1, after=True)
    before = node(fleet)
    policy = {"forwarding": True, "masquerade": False, "isolation": True}
    fleet.controller.client.call("PATCH", "/api/nodes/n0", {"version": before["version"], **policy})
    fleet.controller.until("n0", link_state="live", in_sync=True, link_reason="")
    assert fleet.controller.client.get("/api/nodes/n0/plan")["steps"] == []


def test_what_a_push_did_is_in_the_audit_log(fleet: LiveFleet) -> None:
    """Under the names of its answer (management-plane.md 3.2)."""
    done = fleet.controller.client.post("/api/nodes/n0/push")
    detail = next(r for r in fleet.controller.client.get("/api/audit?limit=5") if r["action"] == "node.push")["detail"]
    told = ("PushedRevision", "AppliedRevision", "AmneziaPeers", "Reloaded")
    assert detail == {"name": "n0"} | {name: done[name] for name in told}


def test_a_failed_push_is_in_the_audit_log(fleet: LiveFleet) -> None:
    fleet.nodes.do("fail", node=0, method="PushConfig", code="INTERNAL", times=1)
    with pytest.raises(RemoteError):
        fleet.controller.client.post("/api/nodes/n0/push")
    record = next(r for r in fleet.controller.client.get("/api/audit?limit=5") if r["action"] == "node.push")
    assert record["result"] == "error"
    assert "PushConfig" in record["error"]


def test_what_was_heard_before_an_orderly_stop_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live_fleet(tmp_path, 2, BASE_PORT + 10, before_start=lambda f: f.add_peers(50)) as fleet:
        link: Any = fleet.controller.system.directory.find(fleet.link(0))
        funnel: EventFunnel = link._funnel
        connects: list[NodeEvent] = []
        put = funnel.put_nowait

        def hear(item: StreamItem) -> None:
            put(item)
            if isinstance(item, NodeEvent) and item.kind is EventKind.PEER_CONNECTED:
                connects.append(item)

        monkeypatch.setattr(funnel, "put_nowait", hear)
        fleet.nodes.do("inject", node="all", connect=50)
        # All are heard; the last of them wait for company on their way to the store.
        eventually(lambda: len(connects) == 100, timeout=30, every=0.001)
    with database(tmp_path / "state") as db:
        assert list(db.execute("SELECT count(*) FROM peer_sessions")) == [(100,)]


def test_postgres_may_go_away_under_live_links(tmp_path: Path, own_postgres: PostgresServer) -> None:
    database = own_postgres.create_database()
    options: dict[str, Any] = {"interval_s": 2.0, "database": database}
    with live_fleet(tmp_path, 2, BASE_PORT + 20, before_start=lambda f: f.add_peers(1), **options) as fleet:
        since = [node(fleet, f"n{i}")["link_since"] for i in range(2)]
        own_postgres.stop()
        began = time.monotonic()
        while time.monotonic() - began <= LINK_HANG_S:  # a link that waited for the database would fall
            with pytest.raises(RemoteError):
                push_peer(fleet, 10)
        own_postgres.start()
        eventually(lambda: pushed(fleet), timeout=30, every=0.5)
        assert [node(fleet, f"n{i}")["link_since"] for i in range(2)] == since


def pushed(fleet: LiveFleet) -> bool:
    try:
        key = push_peer(fleet, 20)
    except RemoteError:
        return False
    eventually(lambda: key in configured(fleet))
    return True
