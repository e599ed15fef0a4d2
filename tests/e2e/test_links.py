"""What nodes do to a controller, and what it makes of it: the contract's traps, bad input, outages. Nobody else notices."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from actors.certificate_authority import _CheckRenewal
from actors.supervision import Harm
from coxswain.cli.client import RemoteError
from coxswain.messages.ca import DescribeCa
from coxswain.messages.fleet import GetPulses
from coxswain.metering import Pulse
from coxswain.pki import Role, create_authorities, issue_node_leaf
from coxswain.wire.node_control import Deadlines
from tests.fleet import LiveFleet, live_fleet, peers_body
from tests.support import eventually

NODES = 4
BASE_PORT = 13_000
DEADLINES = Deadlines(read=1.0, list=1.5, change=3.0)
OURS = 1_000_000
"""No revision that the tests' controller counts itself comes near it."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    home = tmp_path_factory.mktemp("links")
    with live_fleet(
        home, NODES, BASE_PORT, deadlines=DEADLINES, interval_s=2.0, before_start=lambda f: f.add_peers(4)
    ) as running:
        yield running


@pytest.fixture
def fleet(shared: LiveFleet) -> Iterator[LiveFleet]:
    """Everything is well before each test, and must be again after it; n1, n2 and n3 never notice what n0 does."""
    shared.controller.all_in_sync(NODES)
    bystanders = {f"n{i}": shared.controller.node(f"n{i}")["link_since"] for i in (1, 2, 3)}
    yield shared
    shared.nodes.do("clear", node="all")
    shared.nodes.do("start", node="all")
    shared.controller.all_in_sync(NODES)
    for name, since in bystanders.items():
        assert shared.controller.node(name)["link_since"] == since, f"{name} noticed"


def look(fleet: LiveFleet, key: str = "n0") -> None:
    fleet.controller.client.post(f"/api/nodes/{key}/look")


def last_event(fleet: LiveFleet) -> int:
    return int(fleet.controller.client.get("/api/events/recent?after=0&limit=5000")["last_seq"])


def until_told(fleet: LiveFleet, after: int, reason: str) -> dict[str, Any]:
    """Waits for the event of n0's link: it stays, when what it tells of was over a moment later."""

    def told() -> dict[str, Any] | None:
        events = fleet.controller.client.get(f"/api/events/recent?after={after}&limit=1000")["events"]
        ours = (event for event in events if event.get("kind") == "node.link" and event["name"] == "n0")
        return next((event for event in ours if reason in event["reason"]), None)

    return eventually(told, every=0.05) or {}


def push_peer(fleet: LiveFleet, number: int, index: int = 0) -> str:
    body = peers_body([fleet.ids[index]], 1, first=number)
    fleet.controller.client.post("/api/peers", body)
    return str(body["add"][0]["public_key"])


# -- bad input from a node


@pytest.mark.parametrize("method", ["GetStatus", "ListPeers"])
def test_an_answer_that_cannot_be_decoded(fleet: LiveFleet, method: str) -> None:
    fleet.nodes.do("garbage", node=0, method=method, times=1000)
    look(fleet)
    seen = fleet.controller.until("n0", link_state="backing_off", status="error")
    assert method in seen["link_reason"]
    fleet.nodes.do("clear", node=0)
    fleet.controller.until("n0", link_state="live", status="active", in_sync=True)


def test_a_push_that_is_answered_with_garbage_is_tried_again(fleet: LiveFleet) -> None:
    fleet.nodes.do("garbage", node=0, method="PushConfig", times=1)
    push_peer(fleet, 50_000)
    fleet.controller.until("n0", link_state="live", in_sync=True, applied_revision=lambda r: r > 0)


def test_events_that_cannot_be_decoded_cost_the_stream_and_nothing_else(fleet: LiveFleet) -> None:
    before = last_event(fleet)
    fleet.nodes.do("mangle", node=0, mode="garble")
    fleet.nodes.do("inject", node=0, connect=1)
    until_told(fleet, before, "WatchEvents")
    fleet.nodes.do("mangle", node=0, mode="none")
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_a_revision_from_the_future_is_adopted_and_told(fleet: LiveFleet) -> None:
    before = fleet.controller.node("n0")["config_revision"]
    fleet.nodes.do("future", node=0, revision=before + 1_000)
    plan = fleet.controller.client.get("/api/nodes/n0/plan")
    assert plan["applied_revision"] == before + 1_000
    assert "ahead of ours" in plan["findings"][0]
    look(fleet)
    fleet.controller.until("n0", config_revision=lambda r: r >= before + 1_001)
    fleet.nodes.do("future", node=0, revision=None)
    look(fleet)
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_an_absurd_revision_is_refused_and_named(fleet: LiveFleet) -> None:
    fleet.nodes.do("future", node=0, revision=2**62 + 1)
    look(fleet)
    seen = fleet.controller.until("n0", link_state="backing_off", status="error")
    assert "applied_revision" in seen["link_reason"]
    fleet.nodes.do("future", node=0, revision=None)
    fleet.controller.until("n0", link_state="live", in_sync=True)
    assert fleet.controller.node("n0")["config_revision"] < OURS


def test_a_revision_after_which_none_can_be_counted_is_not_taken_over(fleet: LiveFleet) -> None:
    """Neither by itself nor by an operator's push, and the actor lives through both."""
    incarnation = fleet.controller.system.directory.find(fleet.link(0)).context.incarnation
    fleet.nodes.do("future", node=0, revision=2**61)
    assert fleet.controller.client.get("/api/nodes/n0/plan")["applied_revision"] == 2**61  # shown, and not acted on
    with pytest.raises(RemoteError, match="applied_revision"):
        fleet.controller.client.post("/api/nodes/n0/push")
    seen = fleet.controller.until("n0", link_state="backing_off", status="error")
    assert "2^61" in seen["link_reason"]
    fleet.nodes.do("future", node=0, revision=None)
    fleet.controller.until("n0", link_state="live", in_sync=True)
    assert fleet.controller.node("n0")["config_revision"] < OURS
    assert fleet.controller.system.directory.find(fleet.link(0)).context.incarnation == incarnation


def test_a_node_that_answers_absurdly_each_time_is_dialled_ever_less_often(fleet: LiveFleet) -> None:
    """Its connections come up, and prove nothing: the outage began when it first answered so, and goes on."""
    fleet.nodes.do("future", node=0, revision=2**62 + 1)
    look(fleet)
    fleet.controller.until("n0", link_state="backing_off", status="error")
    link: Any = fleet.controller.system.directory.find(fleet.link(0))
    began, attempts = link._outage.since, link._doing.generation
    eventually(lambda: link._doing.generation >= attempts + 6, timeout=30)
    assert link._outage.since == began
    fleet.nodes.do("future", node=0, revision=None)
    fleet.controller.until("n0", link_state="live", in_sync=True)


@pytest.mark.parametrize("mode", ["repeat", "swap"])
def test_repeated_and_reordered_events_count_no_session_twice(fleet: LiveFleet, mode: str) -> None:
    fleet.nodes.do("mangle", node=0, mode=mode)
    keys = fleet.nodes.do("inject", node=0, connect=3)["keys"]

    def open_on_n0() -> set[str]:
        rows = fleet.controller.client.get("/api/sessions/history?node=n0&active=true&limit=1000")
        found = [r["peer_key"] for r in rows]
        assert len(found) == len(set(found))
        return set(found)

    eventually(lambda: set(keys) <= open_on_n0(), every=0.1)
    fleet.nodes.do("inject", node=0, disconnect=keys)
    eventually(lambda: not set(keys) & open_on_n0(), timeout=30, every=0.2)


def test_sessions_are_right_although_every_event_is_lost(fleet: LiveFleet) -> None:
    """An agent drops what its buffer does not hold, without a word (node-contract.md 5.8)."""
    fleet.nodes.do("mangle", node=0, mode="swallow")
    keys = set(fleet.nodes.do("inject", node=0, connect=3)["keys"])

    def found() -> list[str]:
        rows = fleet.controller.client.get("/api/sessions/history?node=n0&active=true&limit=1000")
        return [r["peer_key"] for r in rows if r["peer_key"] in keys]

    assert sorted(eventually(lambda: len(found()) >= 3 and found(), timeout=30, every=0.1)) == sorted(keys)
    fleet.nodes.do("mangle", node=0, mode="none")
    fleet.nodes.do("inject", node=0, disconnect=sorted(keys))
    eventually(lambda: not found(), timeout=30, every=0.1)


def test_a_node_that_never_answers_is_degraded_then_unreachable_then_back(fleet: LiveFleet) -> None:
    fleet.nodes.do("stall", node=0)
    look(fleet)
    seen = fleet.controller.until("n0", link_state="degraded")
    assert "no answer in time" in seen["link_reason"]
    assert "polls missed" in seen["link_reason"]
    fleet.controller.until("n0", status="unreachable", link_state="backing_off")
    fleet.nodes.do("release", node=0)
    fleet.controller.until("n0", link_state="live", status="active", in_sync=True)


def test_an_edit_does_not_call_a_node_live_that_does_not_answer(fleet: LiveFleet) -> None:
    """What it last said needs nothing done, but it did not say so again."""
    fleet.nodes.do("stall", node=0)
    look(fleet)
    seen = fleet.controller.until("n0", link_state="degraded")
    after = last_event(fleet)
    fleet.controller.client.call("PATCH", "/api/nodes/n0", {"version": seen["version"], "region": f"{seen['region']}x"})
    fleet.controller.until("n0", status="unreachable", link_state="backing_off")
    events = fleet.controller.client.get(f"/api/events/recent?after={after}&limit=1000")["events"]
    states = [e["link_state"] for e in events if e.get("kind") == "node.link" and e["name"] == "n0"]
    assert states, "the polls that were missed are told"
    assert "live" not in states
    fleet.nodes.do("release", node=0)
    fleet.controller.until("n0", link_state="live", status="active", in_sync=True)


def test_a_node_that_sends_events_is_not_lost_however_slow_its_answers(fleet: LiveFleet) -> None:
    """A link that is given up takes the events with it that are on their way."""
    opened, before = fleet.controller.sessions()["opened"], fleet.nodes.do("stats")["stats"]
    fleet.nodes.do("rate", events_per_s=80)
    fleet.nodes.do("stall", node=0, method="GetStatus")
    look(fleet)
    states = set()
    for _ in range(60):  # twelve deadlines of a second, less the pauses between them
        states.add(fleet.controller.node("n0")["link_state"])
        time.sleep(0.2)
    assert "degraded" in states and states <= {"live", "degraded"}
    fleet.controller.until("n0", link_reason=lambda r: "its events still come" in r)
    fleet.nodes.do("rate", events_per_s=0)
    emitted = fleet.nodes.do("stats")["stats"]["generated"] - before["generated"] - before["sessions"]
    # Who was there may go; of the rest somebody comes first and nobody is left out, so half at least opened a session.
    eventually(lambda: fleet.controller.sessions()["opened"] >= opened + emitted // 2, timeout=30, every=0.1)
    fleet.controller.until("n0", status="unreachable", link_state="backing_off")  # now that it says nothing at all
    fleet.nodes.do("release", node=0)
    fleet.controller.until("n0", link_state="live", status="active", in_sync=True)
    fleet.nodes.do("inject", node="all", disconnect=1000)


def test_a_change_that_never_returns_holds_nobody_else_up(fleet: LiveFleet) -> None:
    fleet.nodes.do("stall", node=0, method="PushConfig")
    before = {i: fleet.controller.node(f"n{i}")["applied_revision"] for i in range(NODES)}
    fleet.controller.client.post("/api/peers", peers_body(fleet.ids, 1, first=60_000))
    for i in (1, 2, 3):
        fleet.controller.until(f"n{i}", applied_revision=lambda r, i=i: r > before[i], in_sync=True)
    assert not fleet.controller.node("n0")["in_sync"]
    fleet.nodes.do("release", node=0)
    fleet.controller.until("n0", in_sync=True, applied_revision=lambda r: r > before[0])


# -- traps of the contract


def test_a_refused_push_is_an_error_until_it_heals(fleet: LiveFleet) -> None:
    fleet.nodes.do("fail", node=0, method="PushConfig", code="INTERNAL", times=1000)
    push_peer(fleet, 51_000)
    seen = fleet.controller.until("n0", link_state="degraded", status="error")
    assert "PushConfig: INTERNAL" in seen["link_reason"]
    fleet.nodes.do("clear", node=0)
    fleet.controller.until("n0", link_state="live", status="active", in_sync=True)


def test_a_stale_revision_is_no_dead_end(fleet: LiveFleet) -> None:
    fleet.nodes.do("fail", node=0, method="PushConfig", code="FAILED_PRECONDITION", times=1)
    push_peer(fleet, 52_000)
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_a_node_that_moved_is_linked_at_its_new_address_with_the_certificate_that_it_has(fleet: LiveFleet) -> None:
    def lead_to(host: str) -> None:
        view = fleet.controller.node("n0")
        body = {"version": view["version"], "control_addr": f"{host}:{fleet.base_port}"}
        fleet.controller.client.call("PATCH", "/api/nodes/n0", body)
        before = view["link_since"]
        fleet.controller.until("n0", link_state="live", in_sync=True, link_since=lambda since: since != before)
        assert fleet.controller.node("n0")["control_addr"] == body["control_addr"]

    lead_to("localhost")
    lead_to("127.0.0.1")


def test_a_policy_that_failed_is_suspect_and_pushed_again(fleet: LiveFleet) -> None:
    node, before = fleet.controller.node("n0"), last_event(fleet)
    fleet.nodes.do("fail", node=0, method="SetNetworkConfig", code="INTERNAL", times=1, after=True)
    policy = {"forwarding": True, "masquerade": True, "isolation": not node["isolation"]}
    fleet.controller.client.call("PATCH", "/api/nodes/n0", {"version": node["version"], **policy})
    assert until_told(fleet, before, "SetNetworkConfig")["link_state"] == "degraded"
    fleet.controller.until("n0", link_state="live", in_sync=True, isolation=not node["isolation"])


def test_peers_that_somebody_changed_on_the_node_are_put_right(fleet: LiveFleet) -> None:
    """Equal revisions prove nothing (node-contract.md 11.4, rule 8)."""
    before = fleet.controller.node("n0")["applied_revision"]
    fleet.nodes.do("reboot", node=0)
    fleet.controller.until("n0", link_state="live", in_sync=True, applied_revision=lambda r: r >= before)


def test_a_restarted_agent_is_live_again_with_its_sessions_carried_on(fleet: LiveFleet) -> None:
    keys = set(fleet.nodes.do("inject", node=0, connect=2)["keys"])

    def open_on_n0() -> dict[str, int]:
        rows = fleet.controller.client.get("/api/sessions/history?node=n0&active=true&limit=1000")
        return {r["peer_key"]: r["id"] for r in rows if r["peer_key"] in keys}

    before = eventually(lambda: len(open_on_n0()) == 2 and open_on_n0(), every=0.1)
    fleet.nodes.do("kill", node=0)
    fleet.controller.until("n0", link_state="backing_off")
    fleet.nodes.do("start", node=0)
    fleet.controller.until("n0", link_state="live", in_sync=True)
    assert open_on_n0() == before, "a blip closes no session (management-plane.md 13.1, 3)"
    fleet.nodes.do("inject", node=0, disconnect=sorted(keys))
    eventually(lambda: not open_on_n0(), every=0.1)


def test_an_agent_that_hides_preshared_keys_gets_them_once_more_when_it_was_restarted(fleet: LiveFleet) -> None:
    """It may have lost one of them, and does not show it. A connection that is only made anew costs no push."""

    def pushed(since: float) -> int:
        return len(fleet.nodes.do("pushes", node=0, since=since)["pushes"])

    def lacking() -> list[str]:
        return [p["public_key"] for p in fleet.nodes.do("peers", node=0)["peers"] if not p["has_preshared_key"]]

    def connected_anew() -> None:
        # Uptimes are whole seconds: of an agent that was last seen in its first one nobody can say whether it is the same.
        eventually(lambda: fleet.controller.client.get("/api/nodes/n0/status")["uptime_seconds"] >= 3)
        since = fleet.controller.node("n0")["link_since"]
        fleet.nodes.do("cut", node=0)
        fleet.controller.until("n0", link_state="live", in_sync=True, link_since=lambda s: s != since)

    fleet.nodes.do("inject", node=0, connect=1)  # where everybody has just left, a push mends the silence
    fleet.nodes.do("hide_keys", node=0, on=True)
    begun = fleet.nodes.do("ping")["at"]
    connected_anew()
    assert pushed(begun) == 0
    some = fleet.nodes.do("peers", node=0)["peers"][1]["public_key"]
    fleet.nodes.do("drop_key", node=0, peer=some)
    fleet.controller.client.get("/api/nodes/n0/plan")  # looks
    assert lacking() == [some] and pushed(begun) == 0, "nobody can know"
    fleet.nodes.do("restart", node=0)
    eventually(lambda: not lacking(), every=0.1)
    connected_anew()
    assert pushed(begun) == 1


def test_a_cut_stream_is_opened_again(fleet: LiveFleet) -> None:
    since = fleet.controller.node("n0")["link_since"]
    assert fleet.nodes.do("cut", node=0)["streams"] == 1
    fleet.controller.until("n0", link_state="live", link_since=lambda s: s != since)


# -- what operators do


def test_a_plan_changes_nothing(fleet: LiveFleet) -> None:
    fleet.nodes.do("inject", node=0, connect=1)  # where everybody has just left, there would be a silence to mend
    fleet.nodes.do("stall", node=0, method="PushConfig")
    before = fleet.controller.node("n0")
    plan = fleet.controller.client.get("/api/nodes/n0/plan")
    assert plan["steps"] == []
    after = fleet.controller.node("n0")
    assert (after["config_revision"], after["applied_revision"]) == (before["config_revision"], before["applied_revision"])
    fleet.nodes.do("release", node=0)


def test_an_operators_push_goes_out_under_a_fresh_revision(fleet: LiveFleet) -> None:
    before, pushed = fleet.controller.node("n0")["config_revision"], "/api/audit?action=node.push"
    recorded = len(fleet.controller.client.get(pushed))
    outcome = fleet.controller.client.post("/api/nodes/n0/push")
    assert outcome["PushedRevision"] == outcome["AppliedRevision"] == before + 1
    assert outcome["Reloaded"]
    assert len(fleet.controller.client.get(pushed)) == recorded + 1


@pytest.mark.parametrize("calls", [("enable",), ("disable", "enable")])
def test_what_is_enabled_while_it_is_live_is_active(fleet: LiveFleet, calls: tuple[str, ...]) -> None:
    """Twice, and before its link noticed that it was not; also when nothing else about it changes."""
    for _ in range(3):
        for call in calls:
            fleet.controller.client.post(f"/api/nodes/n0/{call}")
        eventually(lambda: fleet.controller.node("n0")["link_state"] == "live", timeout=20)
        eventually(lambda: fleet.controller.node("n0")["status"] == "active", timeout=10)


def test_disabled_is_stopped_and_comes_back(fleet: LiveFleet) -> None:
    fleet.controller.client.post("/api/nodes/n0/disable")
    fleet.controller.until("n0", link_state="disabled", status="stopped")
    with pytest.raises(RemoteError, match="node n0 is disabled"):
        fleet.controller.client.get("/api/nodes/n0/plan")
    fleet.controller.client.post("/api/nodes/n0/enable")
    fleet.controller.until("n0", link_state="live", status="active", in_sync=True)


def test_revocation_is_honoured_at_once_and_a_new_enrolment_heals(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    client.post("/api/nodes/n0/revoke", {"reason": "stolen"})
    seen = fleet.controller.until("n0", link_state="backing_off")
    assert "certificate" in seen["link_reason"]
    assert not seen["enrolled"]
    issued = client.post("/api/nodes/n0/enroll", {"csr": fleet.nodes.csr(0)})
    seen = fleet.controller.until("n0", link_reason=lambda r: "not one that this controller accepts" in r)
    assert seen["link_state"] != "live", "the node still presents the revoked certificate"
    fleet.nodes.install(0, issued)
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_until_it_is_revoked_an_earlier_certificate_is_good_enough(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    client.post("/api/nodes/n0/enroll", {"csr": fleet.nodes.csr(0)})  # issued, but not yet on the host
    assert fleet.controller.system.harm(fleet.link(0), Harm.RAISE)
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_the_controllers_certificate_is_renewed_without_dropping_a_link(fleet: LiveFleet) -> None:
    before = {n["name"]: n["link_since"] for n in fleet.controller.client.get("/api/nodes")}
    serial = _controller_serial(fleet)
    actor: Any = fleet.controller.system.directory.find("certificate_authority")
    actor._due_at = 0.0  # as if two thirds of its life were over
    fleet.controller.system.tell("certificate_authority", _CheckRenewal())  # the hourly look, made now
    fleet.controller.system.ask("certificate_authority", DescribeCa(), deadline=30)
    assert _controller_serial(fleet) != serial
    assert {n["name"]: n["link_since"] for n in fleet.controller.client.get("/api/nodes")} == before
    fleet.nodes.do("cut", node=0)
    fleet.controller.until("n0", link_state="live", link_since=lambda s: s != before["n0"])


def test_a_peer_that_could_poison_a_node_never_gets_into_the_intent(fleet: LiveFleet) -> None:
    before = fleet.controller.node("n0")["config_revision"]
    poison = {
        "public_key": "x" * 44,
        "allowed_ips": ["10.99.0.1/32\nPostUp = touch /tmp/owned"],
        "preshared_key": "short",
    }
    for field, value in poison.items():
        body = peers_body([fleet.ids[0]], 1, first=70_000)
        body["add"][0][field] = value
        with pytest.raises(RemoteError) as refused:
            fleet.controller.client.post("/api/peers", body)
        assert refused.value.status == 400
        assert field in str(refused.value)
        assert "short" not in str(refused.value) or field != "preshared_key"
    assert fleet.controller.node("n0")["config_revision"] == before


def test_a_removed_peer_is_cut_off(fleet: LiveFleet) -> None:
    key = push_peer(fleet, 53_000)
    fleet.controller.until("n0", in_sync=True)
    removal = {"node_id": fleet.ids[0], "public_key": key}
    revision = fleet.controller.client.post("/api/peers", {"remove": [removal]})["revisions"][fleet.ids[0]]
    fleet.controller.until("n0", in_sync=True, applied_revision=revision)
    assert key not in fleet.nodes.do("inject", node=0, connect=1000)["keys"]
    fleet.nodes.do("inject", node=0, disconnect=1000)


@pytest.mark.parametrize(
    ("csr", "told"),
    [("", "csr"), ("hello", "no certificate request"), ("-----BEGIN CERTIFICATE REQUEST-----\nAA==\n", "cannot be read")],
)
def test_a_malformed_request_names_itself(fleet: LiveFleet, csr: str, told: str) -> None:
    with pytest.raises(RemoteError, match=told) as refused:
        fleet.controller.client.post("/api/nodes/n0/enroll", {"csr": csr})
    assert refused.value.status == 400
    assert refused.value.exit_code == 2


def test_a_node_of_another_fleet_is_kept_out(fleet: LiveFleet) -> None:
    """A certificate from another CA: here, that of n1 on the address of n0."""
    client = fleet.controller.client
    issued = client.post("/api/nodes/n1/enroll", {"csr": fleet.nodes.csr(1)})
    mine = client.post("/api/nodes/n0/enroll", {"csr": fleet.nodes.csr(0)})
    fleet.nodes.install(0, issued)
    seen = fleet.controller.until("n0", link_reason=lambda r: "not one that this controller accepts" in r)
    assert seen["link_state"] != "live"
    fleet.nodes.install(0, mine)
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_a_certificate_of_another_ca_is_kept_out(fleet: LiveFleet) -> None:
    """Made for the same key, address and name, by somebody else's CA."""
    client = fleet.controller.client
    mine = client.post("/api/nodes/n0/enroll", {"csr": fleet.nodes.csr(0)})
    theirs = create_authorities(time.time())[Role.FLEET]
    key: Any = x509.load_pem_x509_csr(fleet.nodes.csr(0).encode()).public_key()
    leaf = issue_node_leaf(theirs, key, "127.0.0.1", time.time(), random_int=lambda _bits: int(mine["serial"]))
    fleet.nodes.install(0, mine | {"node_crt": (leaf.pem + theirs.pem).decode()})
    seen = fleet.controller.until("n0", link_reason=lambda r: "another CA issued it, so another controller" in r)
    assert (seen["link_state"], seen["in_sync"]) == ("backing_off", False)
    fleet.nodes.install(0, mine)
    fleet.controller.until("n0", link_state="live", in_sync=True)


def test_no_preshared_key_is_in_the_log_whatever_goes_wrong(fleet: LiveFleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = peers_body([fleet.ids[0]], 2, first=54_000)
    secrets = [peer["preshared_key"] for peer in body["add"]]
    fleet.nodes.do("fail", node=0, method="PushConfig", code="INTERNAL", times=1, after=True)
    fleet.nodes.do("garbage", node=0, method="ListPeers", times=1)
    fleet.controller.client.post("/api/peers", body)
    fleet.controller.until("n0", link_state="live", in_sync=True)
    fallen: Any = fleet.controller.system.directory.find(fleet.link(0))
    assert fleet.controller.system.harm(fleet.link(0), Harm.RAISE)

    def successor() -> Any:
        found: Any = fleet.controller.system.directory.find(fleet.link(0))
        return found if found is not fallen and found is not None and found._knows.intent is not None else None

    link = eventually(successor)
    fleet.controller.until("n0", link_state="live", in_sync=True)
    assert {peer.preshared_key for peer in link._knows.intent.peers} >= set(secrets), "it is there to be leaked"
    inside = repr(vars(link)) + repr(vars(link._knows))
    told = caplog.text + inside + str(fleet.controller.client.get("/api/events/recent?after=0&limit=5000"))
    assert "chaos: told to raise" in told
    assert not [secret for secret in secrets if secret in told]


def test_garbage_fills_no_log(tmp_path: Path) -> None:
    """What is wrong with a node is said where one looks for it; grpc would tell each answer with a traceback."""
    with live_fleet(tmp_path, 1, BASE_PORT + 100, process=True) as fleet:
        fleet.nodes.do("garbage", node=0, method="GetStatus", times=1000)
        look(fleet)
        fleet.controller.until("n0", link_state="backing_off", link_reason=lambda r: "GetStatus" in r)
    log = (tmp_path / "serve.log").read_text()
    assert "Traceback" not in log
    assert "grpc" not in log


def _controller_serial(fleet: LiveFleet) -> str:
    leaves = fleet.controller.client.get("/api/ca")["leaves"]
    return str(next(leaf["serial"] for leaf in leaves if leaf["holder"] == "controller"))


def test_an_outage_between_two_looks_of_the_charts_is_kept(fleet: LiveFleet) -> None:
    """A link that falls and is live again a moment later was not up all the time; the others were."""
    system, client = fleet.controller.system, fleet.controller.client

    def up_s() -> dict[str, float]:
        pulses: dict[str, Pulse] = system.ask("fleet", GetPulses(), deadline=30)
        uptimes = {f"n{i}": pulses[fleet.ids[i]].uptime for i in (0, 1)}
        now = time.time()  # of both, as one outage may be shorter than what is between two looks at the clock
        return {name: found.total(now) for name, found in uptimes.items() if found is not None}

    since, before = fleet.controller.node("n0")["link_since"], up_s()
    client.post("/api/chaos", {"actor": f"node_link:{fleet.ids[0]}", "how": "raise"})
    eventually(lambda: (n := fleet.controller.node("n0"))["link_state"] == "live" and n["link_since"] != since)
    after = up_s()
    assert 0 <= after["n0"] - before["n0"] < after["n1"] - before["n1"]
