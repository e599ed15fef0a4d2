"""Control paths over relays as existing ones are: every connection goes over them, and none beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from actors import link_outage, servers
from actors.supervision import Harm
from coxswain.cli.client import RemoteError
from tests.control_paths import Hop, Sea, sea
from tests.fleet import live_fleet
from tests.support import eventually

NODES = 4


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sea]:
    home = tmp_path_factory.mktemp("sea")
    with live_fleet(home, NODES, 23_800) as fleet, sea(fleet, home) as made:
        yield made


@pytest.fixture(autouse=True)
def _direct_again(there: Sea) -> Iterator[None]:
    there.forget_sources()
    yield
    there.forget_sources()
    paths = there.client.get("/api/control-paths")
    for path in paths:
        there.client.call("DELETE", f"/api/control-paths/{path['id']}?allow_direct=true")
    if any(path["active"] for path in paths):
        there.all_come_from(None)
    there.fleet.controller.all_in_sync(NODES)


@pytest.mark.parametrize("ours", [False, True], ids=["existing", "ours"])
@pytest.mark.parametrize("onion", [False, True], ids=["egress", "onion"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_link_comes_over_and_nothing_goes_beside(there: Sea, count: int, onion: bool, ours: bool) -> None:
    kind = f"{'o' if onion else 'e'}{'u' if ours else 'x'}{count}"
    hops = [there.hop(f"{kind}{place}", onion=onion, ours=ours) for place in range(count)]
    if ours:  # which do not dial from the address that they listen at: so they are told apart by what is killed
        there.path("way", hops)
        there.activate("way")
        _only_by_way_of(there, hops)
        return
    made = there.path("way", hops)
    before = there.client.get("/api/status")["control_path"]
    assert (before["route"], before["hops"]) == ("direct", [])
    assert (made["active"], made["route"]) == (False, "onion" if onion else "egress")
    assert there.activate("way")["active"]
    there.all_come_from(hops[-1])
    assert there.sources == {hops[-1].address}, "and from nobody else, since it was activated"
    now = there.client.get("/api/status")["control_path"]
    assert (now["route"], now["hops"]) == ("onion" if onion else "egress", [hop.name for hop in hops])
    assert now["connections"] >= NODES and (onion or now["relay_sessions"] == count)
    figures = "\n".join(there.client.lines("/metrics", {}, 10.0))
    assert f'coxswain_control_path{{route="{now["route"]}"}} 1.0' in figures
    assert f"coxswain_control_path_hops {count}.0" in figures


def _only_by_way_of(there: Sea, hops: list[Hop]) -> None:
    """All links are live, and end with one of the hops."""
    there.fleet.controller.all_in_sync(NODES)
    hop = hops[len(hops) // 2]
    hop.kill()
    for index in range(NODES):
        there.fleet.controller.until(f"n{index}", link_state="backing_off")
    hop.start()
    there.fleet.controller.all_in_sync(NODES)


def test_where_relays_may_connect_follows_the_inventory_and_whoever_else_asks_gets_nothing(there: Sea) -> None:
    """A7, with the program as it is installed: the last hop of circuits leads to the fleet's nodes, and to nothing else."""
    first, last = (there.hop(f"told{place}", onion=True, ours=True) for place in range(2))
    there.path("told", [first, last])
    there.activate("told")
    there.fleet.controller.all_in_sync(NODES)
    nodes = {f"127.0.0.1:{front.port}" for front in there.fronts}
    eventually(lambda: first.allowed == {f"{last.address}:{port}" for port in last.ports.values()}, timeout=30)
    eventually(lambda: nodes <= last.allowed, timeout=30)
    elsewhere = f"127.0.0.1:{there.fleet.base_port}"  # an agent itself, which answers: only its front is of the inventory
    assert last.leads_to(f"127.0.0.1:{there.fronts[0].port}") and not last.leads_to(elsewhere)

    there.client.post("/api/nodes", {"name": "late", "control_addr": elsewhere})
    eventually(lambda: elsewhere in last.allowed, timeout=30)
    assert last.leads_to(elsewhere) and elsewhere not in first.allowed
    there.client.call("DELETE", "/api/nodes/late")
    eventually(lambda: elsewhere not in last.allowed, timeout=30)
    assert not last.leads_to(elsewhere)
    there.fleet.controller.all_in_sync(NODES)


def test_one_session_serves_all_nodes_and_what_changes_the_route_moves_all(there: Sea) -> None:
    first, second = there.hop("first"), there.hop("second")
    there.path("one", [first])
    there.path("two", [first, second])
    there.activate("one")
    there.all_come_from(first)
    assert len(first.events("session")) == 1, "an existing relay serves one at a time (relay-contract.md 5.4)"
    there.forget_sources()
    there.activate("two")
    there.all_come_from(second)
    assert there.sources == {second.address}
    assert len(first.events("session")) == 1, "the session with the shared hop stays"
    there.forget_sources()
    there.activate("one")
    there.all_come_from(first)
    assert there.sources == {first.address}
    eventually(lambda: second.events("session ended"))


def test_a_relay_that_is_busy_by_another_way_is_taken_over(there: Sea) -> None:
    first, second = there.hop("alpha"), there.hop("beta")
    there.path("ab", [first, second])
    there.path("ba", [second, first])
    for name, last in (("ab", second), ("ba", first), ("ab", second)):
        there.forget_sources()
        there.activate(name)
        there.all_come_from(last)


def test_a_path_that_does_not_work_is_not_taken_and_the_hop_is_named(there: Sea) -> None:
    good, dead = there.hop("good"), there.hop("dead")
    there.path("works", [good])
    there.path("broken", [good, dead])
    there.activate("works")
    there.all_come_from(good)
    dead.kill()
    there.forget_sources()
    with pytest.raises(RemoteError, match="hop 2 of 2: relay dead") as caught:
        there.activate("broken")
    assert caught.value.status == 502
    active = [path["name"] for path in there.client.get("/api/control-paths") if path["active"]]
    assert active == ["works"]
    there.fleet.controller.all_in_sync(NODES)
    assert there.sources <= {good.address}
    (record,) = there.client.get("/api/audit?action=control_path.activate&limit=1")
    assert record["result"] == "error"


def test_a_circuit_that_does_not_work_is_not_taken_and_the_hop_is_named(there: Sea) -> None:
    good, dead = there.hop("ogood", onion=True), there.hop("odead", onion=True)
    there.path("circuit", [good, dead])
    dead.kill()
    with pytest.raises(RemoteError, match="hop 2 of 2: nothing came back through relay odead"):
        there.activate("circuit")
    assert there.sources <= {good.address}, "of the shorter circuits that found the hop; nothing was moved"


def test_a_hop_that_dies_takes_the_links_with_it_and_nobody_goes_directly(there: Sea) -> None:
    first, second = there.hop("near"), there.hop("far")
    there.path("way", [first, second])
    there.activate("way")
    there.all_come_from(second)
    there.forget_sources()
    second.kill()
    for index in range(NODES):
        there.fleet.controller.until(f"n{index}", link_state="backing_off")
    found = there.fleet.controller.until("n0", link_reason=lambda text: "relay far" in text)
    assert "far" in found["link_reason"]
    assert there.sources == set(), "nobody was dialled by another way"
    second.start()
    there.all_come_from(second)
    assert there.sources == {second.address}


def test_a_path_is_used_the_moment_that_it_is_made(there: Sea, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hops were not told yet where it leads, and the last one refused all nodes."""
    monkeypatch.setattr(servers, "_ALLOW_S", 600.0)
    there.path("way", [there.hop(f"prompt{place}", ours=True) for place in range(2)])
    assert there.activate("way")["active"]
    there.fleet.controller.all_in_sync(NODES)


def test_a_hop_that_is_back_brings_all_links_back_at_once(there: Sea, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for up to half a minute each; the first that gets through calls the others."""
    hop = there.hop("tide")
    there.path("way", [hop])
    there.activate("way")
    there.all_come_from(hop)
    delays = itertools.chain([600.0] * (NODES - 1), itertools.repeat(0.3))
    monkeypatch.setattr(link_outage, "reconnect_delay", lambda _lost_for, _rng: next(delays))
    hop.kill()
    for index in range(NODES):
        there.fleet.controller.until(f"n{index}", link_state="backing_off")
    there.forget_sources()
    hop.start()
    there.all_come_from(hop)


def test_a_hop_that_is_not_fit_any_more_is_refused_and_not_gone_round(there: Sea) -> None:
    hop = there.hop("frail")
    there.path("way", [hop])
    there.activate("way")
    there.all_come_from(hop)
    there.set_status(hop, "error")
    (view,) = there.client.get("/api/control-paths")
    assert (view["active"], view["route"]) == (True, "")
    assert "frail" in view["problem"]
    there.forget_sources()
    hop.kill()
    there.fleet.controller.until("n1", link_reason=lambda text: "frail" in text and "nothing is dialled" in text)
    assert there.sources == set()
    hop.start()
    there.set_status(hop, "active")
    there.all_come_from(hop)


def test_a_database_that_does_not_answer_is_no_reason_to_go_directly(there: Sea) -> None:
    hop = there.hop("steady")
    there.path("way", [hop])
    there.activate("way")
    there.all_come_from(hop)
    controller = there.fleet.controller
    controller.store.for_actor = "servers"
    try:
        controller.store.refuse_reads = True
        with pytest.raises(RemoteError):
            there.client.get("/api/control-paths")
        there.forget_sources()
        controller.system.harm("servers", Harm.RAISE)
        hop.kill()
        controller.until("n0", link_state="backing_off")
        hop.start()
        assert there.sources <= {hop.address}
    finally:
        controller.store.refuse_reads = False
        controller.store.for_actor = "fleet"
    there.all_come_from(hop)
    assert there.sources == {hop.address}


def test_a_commit_whose_answer_is_lost_leaves_what_the_store_says(there: Sea) -> None:
    hop = there.hop("vague")
    there.path("way", [hop])
    controller = there.fleet.controller
    controller.store.for_actor = "servers"
    try:
        controller.store.lost_commits = 1
        with pytest.raises(RemoteError):
            there.activate("way")
    finally:
        controller.store.lost_commits = 0
        controller.store.for_actor = "fleet"
    (view,) = there.client.get("/api/control-paths")
    assert view["active"], "it was committed"
    there.all_come_from(hop)
    assert there.sources == {hop.address}


@pytest.mark.parametrize("actor", ["servers", "io_loop", "node_links", "certificate_authority", "fleet"])
def test_a_crash_of_any_part_leaves_everything_on_the_path(there: Sea, actor: str) -> None:
    hop = there.hop(f"rock-{actor[:4]}")
    there.path("way", [hop])
    there.activate("way")
    there.all_come_from(hop)
    there.forget_sources()
    system = there.fleet.controller.system
    before = system.directory.find(actor)
    assert system.harm(actor, Harm.RAISE)
    eventually(lambda: system.directory.find(actor) not in (None, before))
    there.fleet.controller.all_in_sync(NODES)
    assert there.sources <= {hop.address}


def test_directly_again_only_where_that_is_said(there: Sea) -> None:
    hop = there.hop("only")
    made = there.path("way", [hop])
    there.activate("way")
    there.all_come_from(hop)
    client = there.client
    for attempt in (
        lambda: client.post("/api/control-paths/deactivate", {}),
        lambda: client.call("DELETE", f"/api/control-paths/{made['id']}"),
        lambda: client.call("DELETE", f"/api/relays/{hop.id}"),
        lambda: client.post(f"/api/relays/{hop.id}/egress", {"disable": True}),
        lambda: client.post("/api/control-paths/way/activate", {}),
    ):
        with pytest.raises(RemoteError) as caught:
            attempt()
        assert caught.value.status == 409
    there.fleet.controller.all_in_sync(NODES)
    there.forget_sources()
    assert client.post("/api/control-paths/deactivate", {"allow_direct": True})["active"] is False
    there.all_come_from(None)
    assert there.sources == {"127.0.0.1"}
    eventually(lambda: hop.events("session ended"))


def test_a_controller_that_starts_again_takes_the_path_from_the_first_dial_on(there: Sea) -> None:
    hop = there.hop("anew")
    there.path("way", [hop])
    there.activate("way")
    there.all_come_from(hop)
    there.fleet.controller.stop()
    there.forget_sources()
    there.fleet.controller.start()
    there.all_come_from(hop)
    assert there.sources == {hop.address}
