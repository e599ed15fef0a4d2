"""What is done to a node, for everything that can be wrong with it (fleet-model.md, appendix B; node-contract.md 11)."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.model import NetworkPolicy, Node, Peer, Protocol
from coxswain.ports import PortRange
from coxswain.reality import reality_of
from coxswain.reconcile.codec import psk_digest
from coxswain.reconcile.desired import desired, policy_fingerprint
from coxswain.reconcile.plan import STALL_COOLDOWN_S, describe, plan, remember
from coxswain.reconcile.types import Desired, LinkMemory, Observed, Plan, PushPeers, Reason, SetPolicy, XrayInbound
from tests.coxswain.reconcile.samples import AWG, confirmed, key, peer, seen, service, shown, wanted

ONE, TWO = peer(1), peer(2)
POLICY = NetworkPolicy()
NOW = 10_000.0
BUSY = service(2, 2, 3)


def push(made: Plan) -> PushPeers:
    [step] = made.steps
    assert isinstance(step, PushPeers)
    return step


def made(state: Desired, observed: Observed, memory: LinkMemory | None = None, now: float = NOW) -> Plan:
    before = memory or confirmed()
    return plan(state, observed, remember(before, observed, now), now)


# -- the sweep's decision table


def test_behind_is_pushed_even_while_everybody_shakes_hands() -> None:
    step = push(made(wanted(ONE, TWO), seen(ONE, TWO, applied=4, services=(BUSY,))))
    assert (step.reason, step.fresh_revision, step.at_least) == (Reason.REVISION_BEHIND, False, 5)


def test_in_sync_and_handshaking_is_left_alone() -> None:
    assert made(wanted(ONE, TWO), seen(ONE, TWO, services=(BUSY,))) == Plan((), ())


def test_no_peers_and_no_handshakes_is_left_alone() -> None:
    assert made(wanted(), seen()) == Plan((), ())


def test_no_service_is_not_pushed_but_said() -> None:
    result = made(wanted(ONE), seen(ONE, services=()))
    assert result.steps == ()
    assert [f.degraded for f in result.findings] == [True]


def test_in_sync_where_nobody_ever_shook_hands_is_idle_and_not_stale() -> None:
    """Deliberately better: the existing controller pushes idle nodes every 5 minutes (management-plane.md 13.6, 39)."""
    assert made(wanted(ONE), seen(ONE, services=(service(1, 0, -1),))) == Plan((), ())


def test_an_old_agent_that_cannot_tell_handshakes_is_not_stalled() -> None:
    memory = confirmed(handshakes_seen_at=NOW - 60)
    assert made(wanted(ONE), seen(ONE, services=(service(1, 0, 0),)), memory) == Plan((), ())


def test_handshakes_that_ceased_are_healed_once_for_each_silence() -> None:
    state, memory, reasons = wanted(ONE, TWO), confirmed(), []
    for minute in range(60):
        handshaking = minute in {0, 1, 20}
        health = BUSY if handshaking else service(2, 0, 200)
        observed = seen(ONE, TWO, services=(health,), uptime=minute * 60)
        now = NOW + minute * 60
        memory = remember(memory, observed, now)
        steps = plan(state, observed, memory, now).steps
        if steps:
            memory = dataclasses.replace(memory, last_stall_heal_at=now)
            reasons.append((minute, steps[0].reason))
    assert reasons == [(2, Reason.STALLED), (21, Reason.STALLED)]


def test_a_stall_is_healed_at_most_every_five_minutes() -> None:
    state, observed = wanted(ONE), seen(ONE, services=(service(1, 0, 200),))
    healed = NOW - STALL_COOLDOWN_S
    memory = confirmed(handshakes_seen_at=NOW - 30, last_stall_heal_at=healed + 1)
    assert made(state, observed, memory).steps == ()
    assert push(made(state, observed, dataclasses.replace(memory, last_stall_heal_at=healed))).reason is Reason.STALLED


def test_silence_right_after_a_restart_of_the_agent_is_no_stall() -> None:
    memory = confirmed(handshakes_seen_at=NOW - 30, uptime_s=5000)
    plan = made(wanted(ONE), seen(ONE, services=(service(1, 0, 200),), uptime=3), memory)
    assert plan.steps == (SetPolicy(Reason.POLICY_SUSPECT),)


def test_a_host_that_was_set_up_anew_gets_its_policy_again() -> None:
    """No look shows whether it has any (node-contract.md 11.4, rule 6)."""
    memory = confirmed(uptime_s=5000, wg_public_key="before", applied_revision=5)
    anew = dataclasses.replace(seen(ONE, uptime=6000), wg_public_key="another")
    assert made(wanted(ONE), anew, memory).steps == (SetPolicy(Reason.POLICY_SUSPECT),)
    blank = dataclasses.replace(seen(uptime=6000), wg_public_key="before", applied_revision=0)
    assert SetPolicy(Reason.POLICY_SUSPECT) in made(wanted(ONE), blank, memory).steps
    same = dataclasses.replace(seen(ONE, uptime=6000), wg_public_key="before")
    assert made(wanted(ONE), same, memory).steps == ()


# -- betterments


def test_a_revision_ahead_of_ours_is_adopted_and_said() -> None:
    result = made(wanted(ONE, revision=5), seen(ONE, applied=9))
    step = push(result)
    assert (step.reason, step.fresh_revision, step.at_least) == (Reason.REVISION_AHEAD, True, 10)
    assert "9" in result.findings[0].text


@pytest.mark.parametrize(
    ("overtaken", "told"),
    [
        ((), False),
        ((NOW,), False),  # a database that was restored
        ((NOW - 45, NOW), True),
        ((NOW - 3_000, NOW - 170), True),
        ((NOW - 3_000, NOW - 190), False),  # the other one has stopped
        ((NOW - 4_000, NOW), False),  # restored twice
    ],
)
def test_another_controller_beside_ours_is_told_of_until_it_is_quiet(overtaken: tuple[float, ...], told: bool) -> None:
    result = made(wanted(ONE), seen(ONE), confirmed(overtaken=overtaken))
    assert [f.text for f in result.findings if f.degraded] == (
        ["another controller pushes to it as well; stop one of the two"] if told else []
    )
    assert result.steps == ()


@pytest.mark.parametrize(
    ("observed", "detail"),
    [
        ((), "1 missing"),
        ((ONE, TWO), "1 extra"),
        ((ONE, ONE), "1 extra"),
        ((dataclasses.replace(ONE, allowed_ips=("10.9.9.9/32",)),), "1 changed"),
        ((dataclasses.replace(ONE, preshared_key=key("psk")),), "1 changed"),
        ((TWO,), "1 missing, 1 extra"),
    ],
)
def test_content_that_differs_is_pushed_under_a_fresh_revision(observed: tuple[Peer, ...], detail: str) -> None:
    step = push(made(wanted(ONE), seen(*observed)))
    assert (step.reason, step.fresh_revision, step.at_least, step.detail) == (Reason.PEERS_DIFFER, True, 6, detail)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("10.7.0.2",), ("10.7.0.2/32",)),
        (("10.7.0.2/32", "fd00::2"), ("FD00:0::2/128", "10.7.0.2")),
        (("10.7.1.0/24",), ("10.7.1.9/24",)),
    ],
)
def test_the_same_addresses_written_otherwise_are_the_same(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    assert made(wanted(peer(1, ips=ours)), seen(peer(1, ips=theirs))).steps == ()


def test_without_a_list_of_peers_nothing_is_compared() -> None:
    assert made(wanted(ONE), seen(asked=False)).steps == ()


def test_a_key_with_a_line_break_in_it_does_not_pass_for_the_key() -> None:
    spoilt = dataclasses.replace(shown(ONE), public_key=ONE.public_key + "\ufffd")
    observed = dataclasses.replace(seen(), peers=(spoilt,))
    assert push(made(wanted(ONE), observed)).detail == "1 missing, 1 extra"


def test_a_data_plane_that_is_down_gets_everything_anew() -> None:
    step = push(made(wanted(ONE), seen(ONE, services=(service(running=False),))))
    assert (step.reason, step.fresh_revision, step.at_least) == (Reason.DATA_PLANE_DOWN, True, 6)


def test_a_fresh_node_gets_revision_one_although_it_has_no_peers() -> None:
    """Until then there is no awg0 (node-contract.md 4.7)."""
    step = push(made(wanted(revision=0), seen(applied=0, services=(service(running=False),))))
    assert (step.reason, step.at_least) == (Reason.REVISION_BEHIND, 1)


def test_a_policy_that_was_never_confirmed_comes_after_the_push() -> None:
    result = made(wanted(ONE), seen(applied=0), LinkMemory())
    assert [step.reason for step in result.steps] == [Reason.REVISION_BEHIND, Reason.POLICY_CHANGED]


def test_a_changed_policy_is_set_without_a_push() -> None:
    state = wanted(ONE, policy=NetworkPolicy(isolation=True))
    assert made(state, seen(ONE)).steps == (SetPolicy(Reason.POLICY_CHANGED),)


PORTS = PortRange(20000, 29999)


def test_a_range_of_ports_is_part_of_the_policy_and_of_no_other() -> None:
    """So the first look of a new release at a node without one finds nothing to do."""
    assert policy_fingerprint(POLICY, (), None) == "a335b168a411480ae8827a3136dc7ce7"  # as stored before there were ranges
    assert len({policy_fingerprint(POLICY, (), p) for p in (None, PORTS, PortRange(20000, 29998))}) == 3
    state = dataclasses.replace(wanted(ONE), ports=PORTS)
    assert made(state, seen(ONE)).steps == (SetPolicy(Reason.POLICY_CHANGED),)
    assert state.network.ports == PORTS
    assert state.content == wanted(ONE).content, "peers are not another because of it"


def test_what_the_node_says_that_it_maps_counts() -> None:
    state = dataclasses.replace(wanted(ONE), ports=PORTS)
    known = LinkMemory(policy_fingerprint(POLICY, (), PORTS))

    def plan_for(said: str | None, state: Desired = state, memory: LinkMemory = known) -> Plan:
        return made(state, dataclasses.replace(seen(ONE), mapped_ports=said), memory)

    assert plan_for("20000-29999") == Plan((), ())
    assert plan_for(None) == Plan((), ()), "it was set just now, and nobody has looked yet"
    assert plan_for("20000-20001").steps == (SetPolicy(Reason.PORTS_DIFFER),)
    (finding,) = plan_for("").findings
    assert (plan_for("").steps, finding.degraded) == ((), False), "an existing agent serves at 443, and is left alone"
    assert "does not map ports 20000-29999" in finding.text
    # Of a database that was restored: nobody here knows of a range that the node still maps.
    assert plan_for("20000-29999", wanted(ONE), confirmed()).steps == (SetPolicy(Reason.PORTS_DIFFER),)
    assert plan_for("", wanted(ONE), confirmed()) == Plan((), ())


def test_a_policy_that_failed_half_way_is_set_again_although_it_is_the_confirmed_one() -> None:
    memory = confirmed(policy_suspect=True)
    assert made(wanted(ONE), seen(ONE), memory).steps == (SetPolicy(Reason.POLICY_SUSPECT),)


def test_a_wrong_clock_is_said() -> None:
    observed = dataclasses.replace(seen(ONE), clock_skew_s=-3600.0)
    result = made(wanted(ONE), observed)
    assert result.steps == ()
    assert "60 min behind" in result.findings[0].text


def test_a_plan_reads_like_a_sentence() -> None:
    result = made(wanted(ONE), seen(applied=3), LinkMemory())
    assert describe(result) == (
        "push all peers: the node's revision is behind (3, intended 5)",
        "set the network policy: the network policy was changed",
    )


# -- properties

numbers = st.lists(st.integers(1, 12), unique=True, max_size=8)
policies = st.sampled_from([NetworkPolicy(), NetworkPolicy(isolation=True), NetworkPolicy(False, False, False)])


@st.composite
def situations(draw: st.DrawFn) -> tuple[Desired, Observed, LinkMemory]:
    state = wanted(*(peer(n) for n in draw(numbers)), revision=draw(st.integers(0, 5)), policy=draw(policies))
    psk = draw(st.sampled_from(["", key("psk")]))
    there = [peer(n, psk=psk) for n in draw(numbers)]
    health = draw(st.sampled_from([service(), service(running=False), service(3, 0, 200), service(3, 3, 0)]))
    observed = seen(*there, applied=draw(st.integers(0, 7)), services=(health,), asked=draw(st.booleans()))
    memory = LinkMemory(
        policy_confirmed=draw(st.sampled_from(["", policy_fingerprint(state.policy)])),
        policy_suspect=draw(st.booleans()),
        handshakes_seen_at=draw(st.sampled_from([None, NOW - 60])),
        last_stall_heal_at=draw(st.sampled_from([None, NOW - 400, NOW - 20])),
    )
    return state, observed, memory


@given(situations())
def test_carrying_a_plan_out_leaves_nothing_to_do(situation: tuple[Desired, Observed, LinkMemory]) -> None:
    state, observed, memory = situation
    for step in plan(state, observed, memory, NOW).steps:
        match step:
            case PushPeers(reason=reason, fresh_revision=fresh, at_least=at_least):
                if fresh:  # what fleet does for BumpRevision
                    state = dataclasses.replace(state, revision=max(state.revision + 1, at_least))
                assert state.revision > observed.applied_revision, "the node would refuse it or take it for a replay"
                observed = seen(
                    *state.peers, applied=state.revision, services=(service(len(state.peers), 0, 200),), uptime=200
                )
                if reason is Reason.STALLED:
                    memory = dataclasses.replace(memory, last_stall_heal_at=NOW)
            case SetPolicy():
                fingerprint = policy_fingerprint(state.policy)
                memory = dataclasses.replace(memory, policy_confirmed=fingerprint, policy_suspect=False)
    left = plan(state, observed, memory, NOW + 1).steps
    # What may be left is to wake up peers that were silent all the while, once.
    assert all(isinstance(step, PushPeers) and step.reason is Reason.STALLED for step in left)


@given(situations(), st.integers(0, 2**32))
def test_the_order_in_which_a_node_lists_its_peers_does_not_matter(
    situation: tuple[Desired, Observed, LinkMemory], seed: int
) -> None:
    state, observed, memory = situation
    shuffled = list(observed.peers or ())
    random.Random(seed).shuffle(shuffled)
    other = dataclasses.replace(observed, peers=None if observed.peers is None else tuple(shuffled))
    assert plan(state, observed, memory, NOW) == plan(state, other, memory, NOW)


@given(situations())
def test_a_push_always_comes_before_the_policy_and_only_once(situation: tuple[Desired, Observed, LinkMemory]) -> None:
    kinds = [type(step) for step in plan(*situation, NOW).steps]
    assert kinds in ([], [PushPeers], [SetPolicy], [PushPeers, SetPolicy])


def test_the_service_of_another_protocol_says_nothing_about_ours() -> None:
    xray = dataclasses.replace(service(running=False), protocol=type(AWG).XRAY_REALITY)
    assert made(wanted(ONE), seen(ONE, services=(xray, service(1)))).steps == ()


# -- what a revision stands for


def hiding(observed: Observed) -> Observed:
    """As an agent has it that shows no preshared keys (node-contract.md 9.1, 7)."""
    assert observed.peers is not None
    return dataclasses.replace(
        observed, peers=tuple(dataclasses.replace(p, psk_digest=psk_digest("")) for p in observed.peers)
    )


def test_a_number_that_was_acknowledged_for_something_else_is_pushed_anew() -> None:
    """A restored database whose counter caught up (fleet-model.md 12 B 11), where nobody read the peers back."""
    before, after = wanted(peer(1, psk=key("old"))), wanted(peer(1, psk=key("new")))
    assert before.content != after.content
    memory = confirmed(applied_content=before.content, applied_revision=5)
    unread = dataclasses.replace(seen(peer(1)), peers=None)
    step = push(made(after, unread, memory))
    assert (step.reason, step.fresh_revision, step.at_least) == (Reason.CONTENT_UNKNOWN, True, 6)
    assert made(before, unread, memory).steps == ()
    # Peers that were read back speak for themselves, whatever is remembered.
    assert made(after, seen(peer(1, psk=key("new"))), memory).steps == ()
    assert made(after, unread, confirmed()).steps == ()


def test_an_agent_may_hide_the_preshared_keys_that_it_acknowledged() -> None:
    state = wanted(peer(1, psk=key("one")), peer(2, psk=key("two")))
    hidden = hiding(seen(*state.peers))
    step = push(made(state, hidden, confirmed()))
    assert (step.reason, step.fresh_revision, step.at_least) == (Reason.KEYS_HIDDEN, True, 6), "who knows?"
    memory = confirmed(applied_content=state.content)
    assert made(state, hidden, memory).steps == ()
    # What it does show counts as before: its other peers, their addresses, and keys as soon as it shows any.
    moved = seen(peer(1, ips=("10.7.9.9/32",)), peer(2))
    assert push(made(state, moved, memory)).detail == "1 changed"
    assert push(made(state, hiding(seen(peer(1))), memory)).detail == "1 missing"
    assert push(made(state, seen(peer(1, psk=key("one")), peer(2)), memory)).detail == "1 changed"


def test_keys_that_a_restarted_agent_hides_are_pushed_once() -> None:
    """It may have lost any of them with its file, and nothing would tell."""
    state = wanted(peer(1, psk=key("one")), peer(2))
    young, old = hiding(seen(*state.peers, uptime=3)), hiding(seen(*state.peers, uptime=130))
    before = remember(confirmed(applied_content=state.content), hiding(seen(*state.peers)), 1_000.0)
    assert made(state, old, remember(before, old, 1_030.0, reconnected=True)).steps == (), "only the connection is another"
    after = dataclasses.replace(remember(before, young, 1_030.0), policy_suspect=False)
    step = push(made(state, young, after))
    assert (step.reason, step.fresh_revision, step.at_least) == (Reason.KEYS_HIDDEN, True, 6)
    acknowledged = dataclasses.replace(after, applied_content=state.content)
    assert made(state, young, remember(acknowledged, young, 1_030.5)).steps == ()
    # Where keys are shown, or there are none, nothing is in doubt.
    assert made(state, seen(*state.peers, uptime=3), after).steps == ()
    bare = wanted(peer(1), peer(2))
    assert made(bare, hiding(seen(*bare.peers, uptime=3)), after).steps == ()
    lost = seen(peer(1), peer(2, psk=key("not ours")), uptime=3)
    assert push(made(state, lost, after)).reason is Reason.PEERS_DIFFER


@given(st.lists(st.integers(0, 400), unique=True, max_size=8), st.randoms(use_true_random=False))
def test_content_does_not_depend_on_order_or_on_how_it_was_worked_out(numbers: list[int], rng: random.Random) -> None:
    peers = [peer(number, psk=key(f"psk {number}")) for number in numbers]
    node = Node("nod_a", "a")
    state, _ = desired(node, peers)
    shuffled = rng.sample(peers, len(peers))
    grown = None
    for count in range(len(shuffled) + 1):
        grown, _ = desired(node, shuffled[:count], grown)
    assert grown is not None
    assert grown.content == state.content
    assert (len(peers) < 2) or desired(node, peers[1:])[0].content != state.content


# -- what somebody else told the node, or did to it

HELD = policy_fingerprint(POLICY)
OTHER = policy_fingerprint(NetworkPolicy(isolation=True))


def holding(policy: str, **more: object) -> Observed:
    return dataclasses.replace(seen(ONE), policy=policy, **more)  # type: ignore[arg-type]


def looked(observed: Observed, memory: LinkMemory, now: float = NOW, **more: object) -> LinkMemory:
    return remember(memory, observed, now, ours=5, policy=HELD, **more)  # type: ignore[arg-type]


def test_a_policy_that_somebody_else_set_is_set_anew_and_what_no_look_shows_is_told_again() -> None:
    links = {"awg1": "block:peer"}
    memory = looked(holding(OTHER), confirmed(links=links, xray_confirmed="x"))
    assert memory.policy_suspect and memory.links == {"awg1": "block:"} and memory.xray_confirmed == ""
    assert SetPolicy(Reason.POLICY_DIFFERS) in plan(wanted(ONE), holding(OTHER), memory, NOW).steps


@pytest.mark.parametrize("said", ["", HELD])
def test_a_node_that_says_nothing_of_its_policy_or_the_right_thing_is_left_alone(said: str) -> None:
    assert plan(wanted(ONE), holding(said), looked(holding(said), confirmed()), NOW) == Plan((), ())


def test_a_policy_of_ours_whose_confirmation_was_lost_is_nobody_elses() -> None:
    """The daemon was killed between the call and the note of it."""
    memory = looked(holding(HELD), LinkMemory(policy_confirmed=OTHER))
    assert (memory.overtaken, memory.policy_suspect) == ((), False)
    assert plan(wanted(ONE), holding(HELD), memory, NOW).steps == (SetPolicy(Reason.POLICY_CHANGED),)


def test_another_policy_twice_is_another_controller_and_once_that_cannot_be_mended_is_none() -> None:
    once = looked(holding(OTHER), confirmed())
    assert once.overtaken == (NOW,)
    assert looked(holding(OTHER), once, NOW + 1).overtaken == (NOW,), "the same one, still there"
    again = looked(holding(OTHER), dataclasses.replace(once, policy_suspect=False), NOW + 45)
    assert again.overtaken == (NOW, NOW + 45)
    restarted = looked(holding(OTHER, uptime_s=1), confirmed(uptime_s=100, started_by=None))
    assert restarted.overtaken == () and restarted.policy_suspect, "its agent lost a file, perhaps"
    ahead = looked(holding(OTHER, applied_revision=9), confirmed())
    assert ahead.overtaken == (), "counted where the revision is taken over"


def test_a_revision_that_went_back_is_told_from_one_that_was_never_there() -> None:
    """Until it is what it was: the memory of a look must not be forgotten with the next one."""
    before = LinkMemory(applied_revision=5)  # as an earlier run of the daemon left it
    once = looked(seen(ONE, applied=3), before)
    again = looked(seen(ONE, applied=3), once)
    assert push(
        plan(wanted(ONE), seen(ONE, applied=3), dataclasses.replace(again, policy_confirmed=HELD, policy_suspect=False), NOW)
    ).reason is (Reason.REVISION_LOST)
    assert push(made(wanted(ONE, revision=6), seen(ONE, applied=5), confirmed(applied_revision=5))).reason is (
        Reason.REVISION_BEHIND
    )


@pytest.mark.parametrize(("live", "detail"), [(2, "2 live, 1 configured"), (0, "0 live, 1 configured")])
def test_peers_that_are_in_force_and_not_configured_are_pushed_away(live: int, detail: str) -> None:
    observed = seen(ONE, services=(dataclasses.replace(service(live), detail=f"awg0 up, {live} peers"),))
    step = push(made(wanted(ONE), observed))
    assert (step.reason, step.fresh_revision, step.at_least, step.detail) == (Reason.PEERS_LIVE, True, 6, detail)
    result = made(wanted(ONE), observed, confirmed(healed={Reason.PEERS_LIVE: (NOW - STALL_COOLDOWN_S + 1, detail)}))
    assert (result.steps, [f.degraded for f in result.findings]) == ((), [live > 1])
    assert (
        push(made(wanted(ONE), observed, confirmed(healed={Reason.PEERS_LIVE: (NOW - STALL_COOLDOWN_S, detail)}))).reason
        is Reason.PEERS_LIVE
    )
    assert (
        push(made(wanted(ONE), observed, confirmed(healed={Reason.PEERS_LIVE: (NOW - 2, "9 live, 1 configured")}))).reason
        is Reason.PEERS_LIVE
    )
    helped = remember(confirmed(healed={Reason.PEERS_LIVE: (NOW - 2, detail)}), seen(ONE), NOW - 1)
    assert push(made(wanted(ONE), observed, helped)).reason is Reason.PEERS_LIVE, "the next one is another"


@pytest.mark.parametrize("detail", ["Unable to access interface: Protocol not supported", ""])
def test_an_agent_that_cannot_count_its_live_peers_is_not_pushed_to_for_it(detail: str) -> None:
    services = (dataclasses.replace(service(0), detail=detail),)
    assert made(wanted(ONE), seen(ONE, services=services)) == Plan((), ())


def test_nothing_is_said_of_live_peers_without_a_list() -> None:
    assert made(wanted(ONE), seen(services=(service(3),), asked=False)).steps == ()


@pytest.mark.parametrize("what", ["policy", "xray"])
def test_a_node_that_does_not_become_what_it_was_told_is_told_again_after_five_minutes(what: str) -> None:
    """Meanwhile it is said, and what no look shows is not in doubt: nothing else is told again with it."""
    reason = Reason.POLICY_DIFFERS if what == "policy" else Reason.XRAY_DIFFERS
    client = Peer("per_x", "nod_a", "dev_x", Protocol.XRAY_REALITY, UUID, ())
    inbound = XrayInbound(reality_of(), (client,))
    state = dataclasses.replace(wanted(ONE), xray=inbound)
    runs = dataclasses.replace(service(1), protocol=Protocol.XRAY_REALITY)
    links = {"awg1": "block:peer"}
    told_at = confirmed(xray_confirmed=inbound.fingerprint, links=links, healed={reason: (NOW, "")})

    def looks(now: float, said: str, memory: LinkMemory) -> tuple[LinkMemory, Plan]:
        observed = dataclasses.replace(seen(ONE, services=(service(1), runs)), **{what: said})  # type: ignore[arg-type]
        told = inbound.as_told if what == "xray" else ""
        memory = remember(memory, observed, now, ours=5, policy=HELD, xray=told)
        return memory, plan(state, observed, dataclasses.replace(memory, links={}), now)

    for said in ("something else", "something else again"):
        memory, result = looks(NOW + STALL_COOLDOWN_S - 1, said, told_at)
        assert (result.steps, [f.degraded for f in result.findings]) == ((), [True])
        assert result.findings[0].text.startswith(f"{reason.value}, also after it was told")
        assert (memory.policy_suspect, memory.links, memory.overtaken) == (False, links, ())
    _, later = looks(NOW + STALL_COOLDOWN_S, "something else", told_at)
    assert reason in [step.reason for step in later.steps]
    unsaid, _ = looks(NOW + 1, "", told_at)
    assert unsaid.healed == told_at.healed
    mended, result = looks(NOW + 1, HELD if what == "policy" else inbound.as_told, told_at)
    assert (dict(mended.healed), result) == ({}, Plan((), ()))
    _, anew = looks(NOW + 2, "something else", mended)
    assert reason in [step.reason for step in anew.steps], "it was what it should be: that is somebody else's doing"
    restarted = dataclasses.replace(told_at, uptime_s=5000)
    assert dict(looks(NOW + 1, "something else", restarted)[0].healed) == {}, "another process may take it"


def test_a_node_that_is_told_another_policy_is_told_so_at_once_whatever_it_did_not_become() -> None:
    memory = confirmed(healed={Reason.POLICY_DIFFERS: (NOW - 1, "")})
    state = wanted(ONE, policy=NetworkPolicy(masquerade=False))
    result = plan(state, holding("something else"), looked(holding("something else"), memory), NOW)
    assert result.steps == (SetPolicy(Reason.POLICY_CHANGED),)


UUID = "8c7b5d43-6a9e-4c1f-9d3a-2f4f0c7a1b22"


def test_other_clients_of_xray_in_the_same_number_are_noticed() -> None:
    """A look counts clients; who they are, only an agent of ours says."""
    client = Peer("per_x", "nod_a", "dev_x", Protocol.XRAY_REALITY, UUID, ())
    inbound = XrayInbound(reality_of(), (client,))
    other = dataclasses.replace(inbound, clients=(dataclasses.replace(client, public_key=UUID[:-1] + "3"),))
    state = dataclasses.replace(wanted(ONE), xray=inbound)
    runs = dataclasses.replace(service(1), protocol=Protocol.XRAY_REALITY)
    memory = confirmed(xray_confirmed=inbound.fingerprint)

    def plan_for(said: str) -> list[Reason]:
        observed = dataclasses.replace(seen(ONE, services=(service(1), runs)), xray=said)
        return [step.reason for step in made(state, observed, memory).steps]

    assert plan_for("") == []
    assert "as_told" not in vars(inbound), "what nobody compares is not worked out"
    assert plan_for(inbound.as_told) == []
    assert inbound.as_told is inbound.as_told and inbound.fingerprint is inbound.fingerprint, "once, and not at each look"
    assert plan_for(other.as_told) == [Reason.XRAY_DIFFERS] * 2
