"""Inner links, edge peers, transits and XRay in the one plan of a node (node-contract.md 4.12 to 4.15, 11.4, 12)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from coxswain.cascade.types import InnerLink, NodeCascade
from coxswain.model import NetworkPolicy, Node, Obfuscation, Peer, Protocol
from coxswain.netpolicy import Policy, Transit, render
from coxswain.reality import Reality, reality_of
from coxswain.reconcile import codec
from coxswain.reconcile.desired import desired, policy_fingerprint
from coxswain.reconcile.plan import describe, forced, plan, remember
from coxswain.reconcile.types import (
    UNVERSIONED,
    ConfigureLink,
    Desired,
    LinkMemory,
    Observed,
    Plan,
    PushPeers,
    PushXray,
    Reason,
    RemoveLink,
    ServiceHealth,
    SetPolicy,
    XrayInbound,
)
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.coxswain.reconcile.samples import key, peer, seen, service

NOW = 10_000.0
OBFUSCATION = Obfuscation(4, 40, 900, 20, 30, 25, 40, 10, 20, 30, 40)
LINK = InnerLink("nlk_1", "awg1", 51820, 1400, OBFUSCATION, key("exit"), "203.0.113.9:443", key("psk"))
OTHER = dataclasses.replace(LINK, id="nlk_2", interface="awg2", listen_port=51821, exit_key=key("other"))
TRANSIT = Transit("10.7.0.3/32", "awg1", 7100, 7100)
EDGE = Peer("nlk_0", "nod_a", "", Protocol.AMNEZIAWG, key("entry"), ("10.7.0.4/32",), key("psk 0"))
REALITY = reality_of("www.example.org")
NODE = Node("nod_a", "a", config_revision=5)


def state(*peers: Peer, cascade: NodeCascade = NodeCascade(), reality: Reality | None = None) -> Desired:
    return desired(NODE, peers, cascade=cascade, reality=reality)[0]


def mark(link: InnerLink) -> str:
    return f"{link.block}:{link.peer}"


def knows(wanted: Desired, links: Mapping[str, str] | None = None, **more: object) -> LinkMemory:
    have = {link.interface: mark(link) for link in wanted.links} if links is None else links
    confirmed = policy_fingerprint(wanted.policy, wanted.transits)
    memory = LinkMemory(confirmed, links=have, registered=frozenset(have), uptime_s=50, started_by=NOW - 50)
    return dataclasses.replace(memory, **more)  # type: ignore[arg-type]


def xray(count: int, *, running: bool = True) -> ServiceHealth:
    return ServiceHealth(Protocol.XRAY_REALITY, running, running, count, "", -1, 0)


def at(observed: Observed, *, uptime: int, now: float = NOW) -> Observed:
    return dataclasses.replace(observed, uptime_s=uptime, asked_at=(now, 1_000_000 + now))


def made(wanted: Desired, observed: Observed, memory: LinkMemory) -> Plan:
    return plan(wanted, observed, remember(memory, observed, NOW), NOW)


# -- order


def test_links_then_peers_then_transits_and_what_is_not_needed_any_more_last() -> None:
    """node-contract.md 11.4, rule 7; teardown is the same order seen from the other end."""
    wanted = state(peer(1), cascade=NodeCascade((LINK,), (EDGE,), (TRANSIT,)), reality=REALITY)
    memory = knows(wanted, {"awg3": "block:peer"}, policy_confirmed="another")
    steps = made(wanted, seen(applied=4, uptime=60), memory).steps
    assert [type(step) for step in steps] == [ConfigureLink, PushPeers, SetPolicy, PushXray, RemoveLink]


def test_everything_confirmed_is_left_alone() -> None:
    wanted = state(peer(1), cascade=NodeCascade((LINK, OTHER), (EDGE,), (TRANSIT,)))
    assert made(wanted, seen(peer(1), EDGE, uptime=60), knows(wanted)) == Plan((), ())


# -- links


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({}, Reason.LINK_NEW),
        ({"awg1": f"{LINK.block}:"}, Reason.LINK_DOUBTFUL),
        ({"awg1": mark(dataclasses.replace(LINK, exit_key=key("before")))}, Reason.LINK_CHANGED),
        ({"awg1": mark(dataclasses.replace(LINK, endpoint="203.0.113.8:443"))}, Reason.LINK_CHANGED),
        ({"awg1": mark(dataclasses.replace(LINK, preshared_key=key("x")))}, Reason.LINK_CHANGED),
    ],
    ids=["new", "in doubt", "key", "endpoint", "psk"],
)
def test_a_link_that_is_not_confirmed_as_intended_is_configured(known: dict[str, str], reason: Reason) -> None:
    wanted = state(cascade=NodeCascade((LINK,)))
    assert made(wanted, seen(uptime=60), knows(wanted, known)).steps == (ConfigureLink(LINK, reason),)


def test_a_link_that_no_path_needs_is_removed_and_told_first_to_an_agent_that_forgot_it() -> None:
    wanted = state()
    memory = knows(wanted, {"awg1": mark(LINK), "awg2": mark(OTHER)}, registered=frozenset({"awg2"}))
    assert made(wanted, seen(uptime=60), memory).steps == (
        RemoveLink("awg1", True, Reason.LINK_UNUSED),
        RemoveLink("awg2", False, Reason.LINK_UNUSED),
    )


def test_the_link_that_makes_an_agent_know_an_interface_again_leads_nowhere() -> None:
    inert = codec.inert_link("awg1")
    assert inert.interface == "awg1"
    assert list(inert.exit.allowed_ips) == []
    assert inert.exit.endpoints[0].startswith("192.0.2.")


def test_shape_and_peer_of_a_link_are_named_apart() -> None:
    """The shape is fixed when the interface is made; the peer is not (node-contract.md 4.12)."""
    for change in ({"listen_port": 5}, {"mtu": 1300}, {"obfuscation": dataclasses.replace(OBFUSCATION, h1=99)}):
        other = dataclasses.replace(LINK, **change)
        assert (other.block != LINK.block, other.peer) == (True, LINK.peer)
    for change in ({"exit_key": key("x")}, {"endpoint": "198.51.100.1:443"}, {"preshared_key": key("y")}):
        other = dataclasses.replace(LINK, **change)
        assert (other.block, other.peer != LINK.peer) == (LINK.block, True)


# -- restarts


@pytest.mark.parametrize(
    ("observed", "memory"),
    [
        (at(seen(EDGE), uptime=3), {"uptime_s": 50}),
        (at(seen(EDGE), uptime=60), {"uptime_s": 50, "started_by": NOW - 70}),
        (at(seen(EDGE), uptime=60), {"uptime_s": None, "started_by": None, "agent_started_at": 1_000_000 + NOW - 900}),
    ],
    ids=["its uptime went back", "its uptime is too small", "between two runs of ours"],
)
def test_a_restart_is_noticed_and_everything_is_sent_again(observed: Observed, memory: dict[str, object]) -> None:
    """node-contract.md 11.4, rule 6: XRay, every link under a higher revision, the policy with its transits."""
    wanted = state(cascade=NodeCascade((LINK,), (EDGE,), (TRANSIT,)), reality=REALITY)
    assert wanted.xray is not None
    before = knows(wanted, xray_confirmed=wanted.xray.fingerprint, **memory)
    after = remember(before, observed, NOW)
    assert after.links == {"awg1": f"{LINK.block}:"}
    assert after.registered == frozenset()
    assert after.policy_suspect
    steps = plan(wanted, observed, after, NOW).steps
    assert steps == (
        ConfigureLink(LINK, Reason.LINK_DOUBTFUL),
        SetPolicy(Reason.POLICY_SUSPECT),
        PushXray(Reason.XRAY_CHANGED),
    )


@pytest.mark.parametrize(
    "memory",
    [
        {"uptime_s": 50, "started_by": NOW - 61},
        {"uptime_s": 60, "started_by": NOW - 60},
        {"uptime_s": None, "started_by": None, "agent_started_at": 1_000_000 + NOW - 61.5},
        {"uptime_s": None, "started_by": None, "agent_started_at": 0.0},
    ],
    ids=["rounding", "the same", "a clock that was set", "never seen"],
)
def test_no_restart_is_seen_where_there_was_none(memory: dict[str, object]) -> None:
    wanted = state(cascade=NodeCascade((LINK,), (), (TRANSIT,)))
    assert made(wanted, at(seen(), uptime=60), knows(wanted, **memory)) == Plan((), ())


@pytest.mark.parametrize(
    ("uptime", "seen_before_s", "suspected"),
    [(0, 0.2, True), (3, 1.0, False), (3, 4.0, True), (60, 59.0, False), (60, 61.0, True)],
)
def test_whoever_answers_on_a_new_connection_proves_to_be_the_same_or_is_told_everything(
    uptime: int,
    seen_before_s: float,
    suspected: bool,
) -> None:
    """An agent that restarts within its first second looks the same by its uptime, and has forgotten its links."""
    memory = knows(state(), seen_at=NOW - seen_before_s, uptime_s=0, started_by=NOW)
    observed = at(seen(), uptime=uptime)
    assert remember(memory, observed, NOW, reconnected=True).policy_suspect is suspected
    assert not remember(memory, observed, NOW).policy_suspect


def test_a_host_that_was_set_up_anew_has_no_links_for_certain() -> None:
    wanted = state(cascade=NodeCascade((LINK,)))
    memory = knows(wanted, wg_public_key=key("before"))
    steps = made(wanted, at(seen(), uptime=60), memory).steps
    assert ConfigureLink(LINK, Reason.LINK_DOUBTFUL) in steps


# -- edge peers


def test_edge_peers_come_last_and_take_their_address_from_whoever_has_it() -> None:
    own = peer(2)  # has 10.7.0.4, which now comes in over a path
    wanted = state(peer(1), own, peer(3), cascade=NodeCascade(edges=(EDGE,)))
    pushed = pb.AmneziaWGConfig.FromString(codec.push_request(wanted).config).peers
    assert [p.public_key for p in pushed] == [peer(1).public_key, own.public_key, peer(3).public_key, EDGE.public_key]
    assert [list(p.allowed_ips) for p in pushed] == [["10.7.0.3/32"], [], ["10.7.0.5/32"], ["10.7.0.4/32"]]
    assert pushed[3].preshared_key == EDGE.preshared_key


def test_an_edge_peer_that_is_missing_on_the_node_is_pushed() -> None:
    wanted = state(peer(1), cascade=NodeCascade(edges=(EDGE,)))
    [step] = made(wanted, seen(peer(1), uptime=60), knows(wanted)).steps
    assert isinstance(step, PushPeers)
    assert step.detail == "1 missing"
    assert made(wanted, seen(peer(1), EDGE, uptime=60), knows(wanted)) == Plan((), ())


def test_a_bad_edge_peer_is_left_out_and_said() -> None:
    for bad in (dataclasses.replace(EDGE, public_key="x"), dataclasses.replace(EDGE, public_key=peer(1).public_key)):
        wanted, findings = desired(NODE, (peer(1),), cascade=NodeCascade(edges=(bad, EDGE)))
        assert [p.id for p in wanted.peers] == ["per_1", "nlk_0"]
        assert [f.degraded for f in findings] == [True]


def test_peers_that_gave_way_are_as_before_when_the_path_is_gone() -> None:
    own = peer(2)
    bound = state(own, cascade=NodeCascade(edges=(EDGE,)))
    assert desired(NODE, (own,), bound)[0].peers == (own,)


# -- the policy with its transits


def test_transits_force_forwarding_and_nothing_else() -> None:
    node = dataclasses.replace(NODE, policy=NetworkPolicy(False, False, False))
    wanted, findings = desired(node, (), cascade=NodeCascade((LINK,), (EDGE,), (TRANSIT,)))
    assert wanted.network == Policy(True, False, False, (TRANSIT,))
    assert findings == ()


@pytest.mark.parametrize(
    ("policy", "text", "degraded"),
    [
        (NetworkPolicy(False, False, False), "forwarding is off", True),
        (NetworkPolicy(True, False, False), "masquerading is off", False),
    ],
)
def test_an_exit_from_which_nothing_gets_out_is_said(policy: NetworkPolicy, text: str, degraded: bool) -> None:
    node = dataclasses.replace(NODE, policy=policy)
    [finding] = desired(node, (), cascade=NodeCascade(edges=(EDGE,)))[1]
    assert text in finding.text
    assert finding.degraded is degraded


def test_a_transit_more_or_less_is_another_policy() -> None:
    policy = NetworkPolicy()
    prints = {policy_fingerprint(policy, t) for t in ((), (TRANSIT,), (TRANSIT, dataclasses.replace(TRANSIT, mark=9)))}
    assert len(prints) == 3
    assert policy_fingerprint(policy) == policy_fingerprint(policy, ())


def test_what_goes_to_the_node_renders_as_the_preview_does() -> None:
    wanted = state(cascade=NodeCascade((LINK,), (), (TRANSIT,)))
    sent = codec.policy_request(wanted.network)
    [route] = sent.transits
    again = Policy(
        sent.forwarding,
        sent.masquerade,
        sent.isolation,
        (Transit(route.device_cidr, route.inner_interface, route.mark, route.table),),
    )
    assert render(again) == render(wanted.network)
    assert "iptables -t mangle -A PREROUTING -i %i -s 10.7.0.3/32 -j MARK --set-mark 7100" in render(again).post_up


def test_the_fingerprint_of_a_cascade_covers_all_of_it() -> None:
    cascades = [
        NodeCascade(),
        NodeCascade((LINK,)),
        NodeCascade((LINK,), (EDGE,)),
        NodeCascade((LINK,), (EDGE,), (TRANSIT,)),
    ]
    assert len({c.fingerprint for c in cascades}) == 4
    assert not NodeCascade().fingerprint


# -- XRay

CLIENT = Peer(
    "per_x",
    "nod_a",
    "dev_x",
    Protocol.XRAY_REALITY,
    "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55",
    ("10.7.0.9",),
    "",
    "xtls-rprx-vision",
)


def xray_state(*clients: Peer, enabled: bool = True) -> Desired:
    return state(*clients, reality=dataclasses.replace(REALITY, enabled=enabled))


def test_xray_is_pushed_under_the_revision_of_the_peers() -> None:
    """fleet-model.md 4.4: a second bump once made every node look drifted for ever."""
    wanted = xray_state(CLIENT)
    steps = made(wanted, seen(applied=4, uptime=60, services=(service(), xray(0, running=False))), knows(wanted)).steps
    assert [type(step) for step in steps] == [PushPeers, PushXray]
    assert wanted.xray is not None
    sent = codec.xray_request(wanted.xray, wanted.revision)
    assert (sent.revision, sent.protocol) == (5, pb.PROTOCOL_XRAY_REALITY)
    config = pb.XRayRealityConfig.FromString(sent.config)
    assert (config.dest, list(config.server_names), list(config.short_ids), config.port) == (
        "www.example.org:443",
        ["www.example.org"],
        [""],
        443,
    )
    assert [(p.public_key, p.flow) for p in config.peers] == [(CLIENT.public_key, CLIENT.flow)]


def test_xray_that_an_agent_forgot_is_pushed_without_the_peers() -> None:
    wanted = xray_state(CLIENT)
    assert wanted.xray is not None
    memory = knows(wanted, xray_confirmed=wanted.xray.fingerprint)
    down = seen(uptime=60, services=(service(), xray(0, running=False)))
    assert made(wanted, down, memory).steps == (PushXray(Reason.XRAY_DOWN),)
    up = seen(uptime=60, services=(service(), xray(1)))
    assert made(wanted, up, memory) == Plan((), ())


def test_a_change_reaches_running_xray_only_under_a_fresh_revision() -> None:
    """An equal one is answered as a repetition, whatever is in it (node-contract.md 4.5)."""
    wanted = xray_state(CLIENT)
    steps = made(wanted, seen(uptime=60, services=(service(), xray(0))), knows(wanted, xray_confirmed="another")).steps
    push, then = steps
    assert isinstance(push, PushPeers)
    assert push.fresh_revision
    assert then == PushXray(Reason.XRAY_CHANGED)


def test_an_agent_without_xray_is_told_of_and_not_asked_again() -> None:
    wanted = xray_state(CLIENT)
    memory = knows(wanted, xray_unsupported="v1")
    result = made(wanted, seen(uptime=60), memory)
    assert result.steps == ()
    assert [f.degraded for f in result.findings] == [True]
    upgraded = dataclasses.replace(seen(uptime=60), agent_version="v2")
    assert made(wanted, upgraded, memory).steps == (PushXray(Reason.XRAY_CHANGED),)
    assert made(xray_state(), seen(uptime=60), knows(xray_state(), xray_unsupported="v1")) == Plan((), ())


def test_an_agent_that_says_nothing_of_xray_is_believed_what_it_acknowledged() -> None:
    """It would be pushed to for ever."""
    wanted = xray_state(CLIENT)
    assert wanted.xray is not None
    silent = seen(uptime=60, services=(service(),))
    assert made(wanted, silent, knows(wanted, xray_confirmed=wanted.xray.fingerprint)) == Plan((), ())
    push, then = made(wanted, silent, knows(wanted, xray_confirmed="another")).steps
    assert isinstance(push, PushPeers), "it may run, and then it takes an equal revision for a repetition"
    assert then == PushXray(Reason.XRAY_CHANGED)


def test_an_agent_without_xray_or_a_version_is_not_asked_again_either() -> None:
    wanted = xray_state(CLIENT)
    nameless = dataclasses.replace(seen(uptime=60), agent_version="")
    assert made(wanted, nameless, knows(wanted, xray_unsupported=UNVERSIONED)).steps == ()


def test_xray_whose_revision_is_ahead_is_reached_in_a_few_attempts() -> None:
    """Its counter is its own, no status has it, and what is below it is refused (node-contract.md 4.5)."""
    wanted = xray_state(CLIENT)

    def revision(refused: int) -> int:
        memory = knows(wanted, xray_confirmed="another", xray_refused=refused)
        push, _ = made(wanted, seen(uptime=60, services=(service(), xray(0))), memory).steps
        assert isinstance(push, PushPeers)
        return push.at_least

    assert revision(0) == 6, "one more is enough, as a rule"
    assert revision(5) > 10_000
    silent = seen(uptime=60, services=(service(),))
    push, _ = made(wanted, silent, knows(wanted, xray_confirmed="", xray_refused=5)).steps
    assert isinstance(push, PushPeers) and push.at_least > 10_000, "nor does an agent without a status of XRay say its own"
    assert revision(1_000) < 2**32, "however often it is refused, and for whatever reason, the numbers last"


def test_xray_that_is_switched_off_is_emptied_and_then_left_alone() -> None:
    wanted = xray_state(CLIENT, enabled=False)
    assert wanted.xray == XrayInbound(dataclasses.replace(REALITY, enabled=False), ())
    steps = made(wanted, seen(uptime=60, services=(service(), xray(1))), knows(wanted)).steps
    assert PushXray(Reason.XRAY_CHANGED) in steps
    assert made(wanted, seen(uptime=60, services=(service(), xray(0))), knows(wanted)) == Plan((), ())
    assert made(wanted, seen(uptime=60), knows(wanted)) == Plan((), ())


# -- what an operator asks for and reads


def test_a_push_sends_everything() -> None:
    wanted = state(peer(1), cascade=NodeCascade((LINK,), (EDGE,), (TRANSIT,)), reality=REALITY)
    steps = forced(wanted, seen(peer(1), EDGE, uptime=60), knows(wanted, {"awg1": mark(LINK), "awg4": "b:p"})).steps
    assert [type(s) for s in steps] == [ConfigureLink, PushPeers, SetPolicy, PushXray, RemoveLink]
    assert describe(Plan(steps, ())) == (
        "configure inner link awg1 to 203.0.113.9:443: asked for by the operator",
        "push all peers: asked for by the operator",
        "set the network policy: asked for by the operator",
        "push XRay: asked for by the operator",
        "remove inner link awg4: no path leads over it any more",
    )
    assert key("psk") not in repr(steps)
