"""What paths make of each node (fleet-model.md 6.5 to 6.7, appendix B)."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.cascade.preview import preview, way
from coxswain.cascade.types import Binding, Path, Phase
from coxswain.cascade.wiring import Cascade, wire
from coxswain.model import Node, Obfuscation, Peer, Protocol
from coxswain.netpolicy import Transit
from coxswain.reconcile.desired import desired
from tests.coxswain.cascade.samples import NODES, bound, key, links_for, node, path, wired

TWO, THREE = path("two", "ea"), path("three", "eab")
DEVICE = "10.86.0.2/32"


def follow(cascade: Cascade, address: str, entry: str = "nod_e") -> tuple[str, ...] | None:
    """The nodes that a packet visits; None: it is dropped."""
    by_key = {n.wg_public_key: n.id for n in NODES.values()}
    visited = [entry]
    while True:
        here = cascade.of(visited[-1])
        transit = next((t for t in here.transits if t.device_cidr == address), None)
        if transit is None:
            return tuple(visited)
        [link] = [k for k in here.links if k.interface == transit.inner_interface]
        there = by_key[link.exit_key]
        owners = [e.public_key for e in cascade.of(there).edges if address in e.allowed_ips]
        if owners != [NODES[visited[-1]].wg_public_key]:
            return None
        visited.append(there)


def test_a_path_that_nobody_uses_is_links_and_nothing_else() -> None:
    cascade = wired([THREE])
    assert [link.interface for link in cascade.of("nod_e").links] == ["awg1"]
    assert [link.exit_key for link in cascade.of("nod_a").links] == [key("b")]
    assert cascade.of("nod_b").links == ()
    assert all(not cascade.of(n).edges and not cascade.of(n).transits for n in NODES)
    [link] = cascade.of("nod_e").links
    assert (link.listen_port, link.obfuscation, link.mtu) == (51820, NODES["nod_a"].obfuscation, 1500 - 60 - 40)
    assert link.endpoint.endswith(":443")


def test_two_hops() -> None:
    cascade = wired([TWO], bound("dev", TWO, DEVICE))
    assert cascade.of("nod_e").transits == (Transit(DEVICE, "awg1", 7100, 7100),)
    [edge] = cascade.of("nod_a").edges
    assert (edge.public_key, edge.allowed_ips) == (key("e"), (DEVICE,))
    assert edge.preshared_key == cascade.of("nod_e").links[0].preshared_key
    assert cascade.of("nod_a").transits == ()


@pytest.mark.parametrize("claimed", ["e", "a"])
def test_a_node_that_claims_anothers_key_cuts_no_path_but_its_own(claimed: str) -> None:
    """Of two peers with one key the exit would serve the last."""
    other = path("other", "ca")
    nodes = {**NODES, "nod_c": node("c", created_at=7.0, wg_public_key=key(claimed))}
    bindings = (bound("dev", TWO, DEVICE), bound("other", other, "10.87.0.2/32"))
    cascade = wired([TWO, other], *bindings, nodes=nodes)
    [edge] = cascade.of("nod_a").edges
    assert (edge.public_key, edge.allowed_ips) == (key("e"), (DEVICE,))
    assert cascade.of("nod_e").transits and not cascade.of("nod_c").transits
    assert any(f"node c has the AmneziaWG key of node {claimed}" in problem.text for problem in cascade.problems)


def test_three_hops_carry_the_address_of_the_entry_all_the_way() -> None:
    cascade = wired([THREE], bound("dev", THREE, DEVICE))
    [mid] = cascade.of("nod_a").edges
    [last] = cascade.of("nod_b").edges
    assert (mid.public_key, mid.allowed_ips) == (key("e"), (DEVICE,))
    assert (last.public_key, last.allowed_ips) == (key("a"), (DEVICE,))
    assert cascade.of("nod_a").transits == (Transit(DEVICE, "awg1", 7100, 7100),)
    assert cascade.of("nod_b").transits == ()


def test_paths_that_share_an_edge_share_its_link_and_keep_the_rest_apart() -> None:
    other = path("other", "eac")
    one, two = "10.86.0.2/32", "10.86.0.3/32"
    cascade = wired([THREE, other], bound("dev_1", THREE, one), bound("dev_2", other, two))
    assert [e.allowed_ips for e in cascade.of("nod_a").edges] == [(one, two)]
    assert [t.device_cidr for t in cascade.of("nod_e").transits] == [one, two]
    assert [e.allowed_ips for e in cascade.of("nod_b").edges] == [(one,)]
    assert [e.allowed_ips for e in cascade.of("nod_c").edges] == [(two,)]
    assert [t.inner_interface for t in cascade.of("nod_a").transits] == ["awg1", "awg2"]


def test_one_bad_binding_is_left_out_and_said_and_nobody_else_notices() -> None:
    bad = Binding("dev_bad", "dev_bad", THREE.id)
    lost = Binding("dev_lost", "dev_lost", "pth_gone", addresses={"nod_e": ("10.86.0.9/32",)})
    good = bound("dev", THREE, DEVICE)
    cascade = wired([THREE], bad, good, lost)
    assert follow(cascade, DEVICE) == ("nod_e", "nod_a", "nod_b")
    assert {p.about: p.text for p in cascade.problems} == {
        "dev_bad": "it has no AmneziaWG address on e, the entry of its path",
        "dev_lost": "path pth_gone is gone",
    }
    assert cascade.nodes == wired([THREE], good).nodes


def test_of_two_bindings_that_want_one_address_the_first_goes_first() -> None:
    other = path("other", "ec")
    cascade = wired([THREE, other], bound("dev_1", THREE, DEVICE), bound("dev_2", other, DEVICE))
    assert follow(cascade, DEVICE) == ("nod_e", "nod_a", "nod_b")
    [problem] = cascade.problems
    assert problem.about == "dev_2"
    assert "already" in problem.text


def test_suspended_devices_are_no_problem_and_xray_on_a_path_is_one() -> None:
    """XRay is proxied on the entry and leaves there (fleet-model.md 12, 21)."""
    asleep = Binding("dev", "dev", THREE.id, active=False)
    assert wired([THREE], asleep).problems == ()
    both = dataclasses.replace(bound("psp", THREE, DEVICE), xray=True)
    cascade = wired([THREE], both)
    assert follow(cascade, DEVICE) == ("nod_e", "nod_a", "nod_b")
    assert "leaves there" in cascade.problems[0].text
    alone = Binding("psp", "dev", THREE.id, xray=True, tunnel=False)
    assert [p.about for p in wired([THREE], alone).problems] == ["psp"]


@pytest.mark.parametrize(
    "broken",
    [
        {"wg_public_key": ""},
        {"endpoint_ips": (), "public_ip": ""},
        {"obfuscation": Obfuscation()},
        {"obfuscation": dataclasses.replace(NODES["nod_a"].obfuscation, s4=161)},
    ],
    ids=["no key", "no address", "no obfuscation", "no room for 1280 bytes"],
)
def test_a_link_that_cannot_be_is_left_out_with_whoever_needs_it(broken: dict[str, object]) -> None:
    """A transit into a link that is not there would leave the node without any rules (node-contract.md 7.5)."""
    nodes = {**NODES, "nod_a": node("a", **broken)}
    other = path("other", "ec")
    links = links_for(THREE, other)
    bindings = [bound("dev_1", THREE, DEVICE), bound("dev_2", other, "10.86.0.3/32")]
    cascade = wire(nodes, links, {p.id: p for p in (THREE, other)}, bindings)
    assert [t.device_cidr for t in cascade.of("nod_e").transits] == ["10.86.0.3/32"]
    assert [link.interface for link in cascade.of("nod_e").links] == ["awg2"]
    assert cascade.of("nod_e").problems
    assert {p.about for p in cascade.problems} >= {"dev_1"}


def test_the_order_of_everything_is_the_same_whatever_the_order_it_came_in() -> None:
    devices = [bound(f"dev_{i}", THREE, f"10.86.0.{i}/32") for i in (2, 30, 100, 9)]
    links = links_for(THREE)
    paths = {THREE.id: THREE}
    found = {repr(wire(NODES, order, paths, d)) for order in (links, links[::-1]) for d in itertools.permutations(devices)}
    assert len(found) == 1
    [edge] = wire(NODES, links, paths, devices).of("nod_a").edges
    assert edge.allowed_ips == ("10.86.0.2/32", "10.86.0.9/32", "10.86.0.30/32", "10.86.0.100/32")


# -- staged changes of many devices at once

ROUTES = {p.id: p for p in (path(f"{h}", h) for h in ("ea", "eb", "eab", "eba", "eac", "ecd", "ebd"))}


@st.composite
def crowds(draw: st.DrawFn) -> list[Binding]:
    """Some devices, each on some path or none, on its way to another one or none, in some stage of it."""
    made = []
    for number in range(draw(st.integers(1, 5))):
        old, new = draw(st.sampled_from(["", *ROUTES])), draw(st.sampled_from(["", *ROUTES]))
        address = {"nod_e": (f"10.86.0.{number + 2}/32",)}
        stages: tuple[Phase, ...] = ()
        if old != new:
            before, after = (ROUTES[p].hops if p else ("nod_e",) for p in (old, new))
            stages = way(before, after)
        if stages:
            phase = draw(st.sampled_from(stages))
            made.append(Binding(f"dev_{number}", f"dev_{number}", old, new, phase, address))
        elif old:
            made.append(Binding(f"dev_{number}", f"dev_{number}", old, addresses=address))
    return made


@given(crowds())
def test_in_every_stage_every_device_has_one_complete_route(crowd: list[Binding]) -> None:
    cascade = wire(NODES, links_for(*ROUTES.values()), ROUTES, crowd)
    assert cascade.problems == ()
    for binding in crowd:
        [address] = binding.addresses["nod_e"]
        old, new = (ROUTES[p].hops if p else ("nod_e",) for p in (binding.route, binding.next_route))
        expected = {
            Phase.SETTLED: old,
            Phase.PREPARING: old,
            Phase.CROSSING: None,
            Phase.TURNING: None,
            Phase.MOVED: new,
        }[binding.phase]
        assert follow(cascade, address) == expected
        for n in NODES:  # an address belongs to one edge peer and goes one way, on every node
            owners = [e for e in cascade.of(n).edges if address in e.allowed_ips]
            sent = [t for t in cascade.of(n).transits if t.device_cidr == address]
            assert len(owners) <= 1
            assert len(sent) <= 1


def test_a_device_that_changes_its_entry_is_served_at_both_until_it_has_gone_over() -> None:
    far = path("far", "cab")
    moving = Binding("dev", "dev", THREE.id, far.id, Phase.PREPARING, {"nod_e": (DEVICE,), "nod_c": (DEVICE,)})
    paths = {p.id: p for p in (THREE, far)}
    links = links_for(THREE, far)
    ready = wire(NODES, links, paths, [moving])
    assert follow(ready, DEVICE) == ("nod_e", "nod_a", "nod_b")
    moved = wire(NODES, links, paths, [dataclasses.replace(moving, phase=Phase.MOVED)])
    assert follow(moved, DEVICE, "nod_c") == ("nod_c", "nod_a", "nod_b")
    assert moved.problems == ()


# -- previews


def stages_of(old: Path | None, new: Path | None) -> dict[Phase, tuple[str, ...]]:
    paths = {p.id: p for p in (THREE, TWO, path("other", "ecd"))}
    moving = Binding("dev", "dev", old.id if old else "", new.id if new else "", addresses={"nod_e": (DEVICE,)})
    return {s.phase: s.changes for s in preview(NODES, links_for(*paths.values()), paths, (), moving)}


def test_a_switch_is_shown_stage_by_stage() -> None:
    assert stages_of(THREE, path("other", "ecd")) == {
        Phase.PREPARING: (
            f"c: take {DEVICE} from e",
            f"c: send {DEVICE} into awg1, mark and table 7100",
            f"d: take {DEVICE} from c",
        ),
        Phase.MOVED: (f"e: send {DEVICE} into awg2, mark and table 7101",),
        Phase.SETTLED: (
            f"a: take {DEVICE} from e no longer",
            f"a: send {DEVICE} on no longer",
            f"b: take {DEVICE} from a no longer",
        ),
    }


def test_a_first_bind_and_a_clear_are_shown() -> None:
    assert list(stages_of(None, TWO)) == [Phase.PREPARING, Phase.MOVED]
    assert list(stages_of(TWO, None)) == [Phase.MOVED, Phase.SETTLED]


# -- IPv6

DEVICE6 = "fd5e:1f7a:93c4::a56:2/128"


def both(entry: str = "nod_e") -> dict[str, tuple[str, ...]]:
    return {entry: (DEVICE, DEVICE6)}


def serving(*names: str) -> dict[str, Node]:
    """The nodes, of which these carry IPv6."""
    return {node_id: dataclasses.replace(n, tunnel_ipv6=n.name in names) for node_id, n in NODES.items()}


def test_both_families_go_all_the_way() -> None:
    cascade = wired([THREE], Binding("dev", "dev", THREE.id, addresses=both()), nodes=serving("e", "a", "b"))
    assert follow(cascade, DEVICE) == follow(cascade, DEVICE6) == ("nod_e", "nod_a", "nod_b")
    assert [link.ipv6 for n in ("nod_e", "nod_a") for link in cascade.of(n).links] == [True, True]
    assert not any(cascade.of(n).refused for n in NODES)
    plain = wired([THREE], bound("dev", THREE, DEVICE), nodes=serving("e", "a", "b"))
    assert [link.ipv6 for link in plain.of("nod_e").links] == [False], "a link that nobody's IPv6 goes into is as it was"
    assert plain.of("nod_e").links[0].peer != cascade.of("nod_e").links[0].peer
    assert plain.of("nod_e").links[0].block == cascade.of("nod_e").links[0].block, "and is never made anew for it"


@pytest.mark.parametrize("able", [set(c) for n in range(4) for c in itertools.combinations("eab", n)])
def test_no_ipv6_leaves_before_the_exit_whoever_of_the_nodes_can_carry_it(able: set[str]) -> None:
    """An agent without IPv6 would refuse a policy with such a transit, and let what is not marked out where it is."""
    cascade = wired([THREE], Binding("dev", "dev", THREE.id, addresses=both()), nodes=serving(*able))
    assert follow(cascade, DEVICE) == ("nod_e", "nod_a", "nod_b"), "IPv4 goes its way"
    for name in {"e", "a", "b"} - able:
        here = cascade.of(f"nod_{name}")
        assert not any(":" in t.device_cidr for t in here.transits)
        assert not any(":" in address for edge in here.edges for address in edge.allowed_ips)
    if "e" not in able:
        assert cascade.of("nod_e").refused == (DEVICE6,), "it is not let in"
    elif "a" not in able or "b" not in able:
        assert follow(cascade, DEVICE6) is None, "it is dropped on its way"
    else:
        assert follow(cascade, DEVICE6) == ("nod_e", "nod_a", "nod_b")


def test_a_device_is_not_let_in_with_what_the_node_cannot_send_on() -> None:
    cascade = wired([TWO], Binding("dev", "dev", TWO.id, addresses=both()), nodes=serving("a"))
    peer = Peer("p", "nod_e", "dev", Protocol.AMNEZIAWG, key("device"), (DEVICE, DEVICE6), key("psk"))
    other = dataclasses.replace(
        peer, id="q", public_key=key("other"), allowed_ips=("10.86.0.9/32", "fd5e:1f7a:93c4::a56:9/128")
    )
    state, _ = desired(NODES["nod_e"], [peer, other], cascade=cascade.of("nod_e"))
    assert [p.allowed_ips for p in state.peers] == [(DEVICE,), other.allowed_ips]
    assert desired(NODES["nod_e"], [peer, other])[0].content != state.content
    able = wired([TWO], Binding("dev", "dev", TWO.id, addresses=both()), nodes=serving("e", "a"))
    assert desired(NODES["nod_e"], [peer], cascade=able.of("nod_e"))[0].peers[0].allowed_ips == (DEVICE, DEVICE6)
