"""What changes when a device is provisioned: as a function of what it has, checked against rules that must always hold."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from coxswain.model import (
    Credential,
    Device,
    DeviceStatus,
    Node,
    Obfuscation,
    Peer,
    Profile,
    ProfileProtocol,
    Protocol,
)
from coxswain.provisioning.assign import ALL_NODES, Has, World, addresses_by, assign, new_peers, renumbered
from coxswain.provisioning.offer import Offer

AWG, XRAY = Protocol.AMNEZIAWG, Protocol.XRAY_REALITY
DEVICE = Device("dev_1", "usr_1", "phone")
OFFER = Offer(xray=True)


def node(number: int, *, awg: bool = True, xray: bool = True, reachable: bool = True) -> Node:
    return Node(
        f"nod_{number}",
        f"n{number}",
        public_ip="192.0.2.1" if reachable else "",
        wg_public_key="key" if awg else "",
        obfuscation=Obfuscation(h1=5, h2=6, h3=7, h4=8) if awg else Obfuscation(),
        xray_public_key="key" if xray else "",
    )


def credential(profile_id: str, number: int = 0) -> Credential:
    return Credential(f"cred_{number}_{profile_id}", "dev_1", profile_id, f"10.86.0.{number + 2}", "pub", b"", "uuid")


def profile(name: str, node_id: str = "", protocol: ProfileProtocol = ProfileProtocol.AMNEZIAWG, path: str = "") -> Profile:
    return Profile(f"p_{name}", "dev_1", name, protocol, node_id, path)


def world(*nodes: Node, offer: Offer = OFFER, **entries: str) -> World:
    return World({n.id: n for n in nodes}, entries, offer)


def after(device: Device, has: Has, around: World) -> tuple[Has, list[str]]:
    """What the device has once an assignment is carried out, and the ids of credentials that were destroyed."""
    made = assign(device, has, around)
    stays = [
        dataclasses.replace(c, profile_id=made.adopt.get(c.id, c.profile_id))
        for c in has.credentials
        if c.id not in made.drop
    ]
    # One that was taken over keeps its id, so that of a new one for the same profile has to be another.
    free = 1 + max((int(c.id.split("_")[1]) for c in has.credentials), default=99)
    stays += [credential(profile_id, number) for number, profile_id in enumerate(made.mint, free)]
    addresses = addresses_by(around)
    new = new_peers(made, stays, has.peers, addresses, lambda: "psk")
    gone = set(made.remove)
    kept = [p for p in has.peers if p.credential_id not in made.drop and (p.node_id, p.protocol, p.public_key) not in gone]
    moved = {peer.id: peer for peer in renumbered(stays, kept, addresses)}
    return Has(has.profiles, stays, [moved.get(p.id, p) for p in kept] + new), list(made.drop)


def places(has: Has) -> set[tuple[str, Protocol]]:
    return {(p.node_id, p.protocol) for p in has.peers}


NOTHING = Has([], [], [])


def test_a_device_without_profiles_is_given_every_node_that_is_ready() -> None:
    around = world(node(1), node(2, xray=False), node(3, awg=False), node(4, reachable=False))
    has, _ = after(DEVICE, NOTHING, around)
    assert places(has) == {("nod_1", AWG), ("nod_1", XRAY), ("nod_2", AWG), ("nod_3", XRAY)}
    assert [c.profile_id for c in has.credentials] == [ALL_NODES]
    assert places(after(DEVICE, has, dataclasses.replace(around, offer=Offer()))[0]) == {("nod_1", AWG), ("nod_2", AWG)}


def test_a_node_that_is_not_ready_for_a_while_keeps_its_peers() -> None:
    has, _ = after(DEVICE, NOTHING, world(node(1), node(2)))
    again, _ = after(DEVICE, has, world(node(1), node(2, reachable=False)))
    assert again.peers == has.peers


def test_both_is_amneziawg_alone_where_there_is_no_xray() -> None:
    both = [profile("b", "nod_1", ProfileProtocol.BOTH)]
    made = assign(DEVICE, Has(both, [], []), world(node(1, xray=False)))
    assert (made.places["p_b"], made.skipped) == ((("nod_1", AWG),), ())
    has, _ = after(DEVICE, Has(both, [], []), world(node(1)))
    assert places(has) == {("nod_1", AWG), ("nod_1", XRAY)}


def test_a_path_is_entered_at_its_entry() -> None:
    has = Has([profile("p", path="pth_1")], [], [])
    made = assign(DEVICE, has, world(node(1), node(2), pth_1="nod_2"))
    assert made.places["p_p"] == (("nod_2", AWG),)
    gone = assign(DEVICE, has, world(node(1), node(2)))
    assert (gone.mint, [s.reason for s in gone.skipped]) == ((), ["path pth_1 is not there"])


def test_a_profile_that_cannot_be_served_leaves_the_others_and_keeps_what_it_had() -> None:
    has, _ = after(DEVICE, Has([profile("a", "nod_1"), profile("b", "nod_2")], [], []), world(node(1), node(2)))
    broken = world(node(1))
    made = assign(DEVICE, has, broken)
    assert (made.remove, made.drop, made.mint) == ((), (), ())
    assert [s.name for s in made.skipped] == ["b"]


def test_the_first_profile_takes_over_the_keys_of_all_nodes_and_the_last_gives_them_back() -> None:
    around = world(node(1), node(2))
    auto, _ = after(DEVICE, NOTHING, around)
    one = dataclasses.replace(auto, profiles=[profile("a", "nod_1")])
    has, dropped = after(DEVICE, one, around)
    assert (dropped, [c.id for c in has.credentials]) == ([], [c.id for c in auto.credentials])
    assert set(has.peers) == {p for p in auto.peers if p.node_id == "nod_1" and p.protocol is AWG}
    back, _ = after(DEVICE, dataclasses.replace(has, profiles=[]), around)
    assert [c.id for c in back.credentials] == [c.id for c in auto.credentials]
    assert set(has.peers) <= set(back.peers)


def test_no_usable_profile_is_no_reason_to_be_left_with_nothing() -> None:
    auto, _ = after(DEVICE, NOTHING, world(node(1)))
    has, dropped = after(DEVICE, dataclasses.replace(auto, profiles=[profile("a", "nod_9")]), world(node(1)))
    assert (has.peers, dropped) == (auto.peers, [])


def test_a_revoked_device_loses_everything() -> None:
    has, _ = after(DEVICE, Has([profile("a", "nod_1")], [], []), world(node(1)))
    gone, dropped = after(dataclasses.replace(DEVICE, status=DeviceStatus.REVOKED), has, world(node(1)))
    assert (gone.peers, gone.credentials, len(dropped)) == ([], [], 1)


_nodes = st.lists(
    st.builds(node, st.integers(1, 4), awg=st.booleans(), xray=st.booleans(), reachable=st.booleans()),
    unique_by=lambda n: n.id,
    max_size=4,
)
_profiles = st.lists(
    st.builds(
        profile, st.sampled_from("abc"), st.sampled_from(["nod_1", "nod_2", "nod_9"]), st.sampled_from(ProfileProtocol)
    ),
    unique_by=lambda p: p.id,
    max_size=3,
)
_offers = st.builds(Offer, amneziawg=st.booleans(), xray=st.booleans())


@given(st.lists(st.tuples(_nodes, _profiles, _offers), min_size=1, max_size=5))
def test_whatever_changes_these_hold(steps: list[tuple[list[Node], list[Profile], Offer]]) -> None:
    has = NOTHING
    for nodes, profiles, offer in steps:
        before = dataclasses.replace(has, profiles=profiles)
        around = world(*nodes, offer=offer)
        has, dropped = after(DEVICE, before, around)
        # Once more changes nothing.
        again, _ = after(DEVICE, has, around)
        assert (set(again.peers), again.credentials) == (set(has.peers), has.credentials)
        # No two peers of one credential in one place, no peer without its credential, one credential a profile.
        assert len({(p.credential_id, p.node_id, p.protocol) for p in has.peers}) == len(has.peers)
        assert {p.credential_id for p in has.peers} <= {c.id for c in has.credentials}
        assert len({c.profile_id for c in has.credentials}) == len(has.credentials)
        # Nothing of a profile that is gone, and nothing of a protocol that is switched off.
        wanted = {p.id for p in profiles} | {ALL_NODES}
        assert {c.profile_id for c in has.credentials} <= wanted
        assert not any(p.protocol is XRAY for p in has.peers if not offer.xray)
        # What is where it should be was not touched.
        kept = {c.id: c for c in has.credentials}
        for peer in before.peers:
            owner = kept.get(peer.credential_id)
            target = next((p for p in profiles if owner is not None and p.id == owner.profile_id), None)
            if target is not None and target.node_id == peer.node_id and peer.credential_id not in dropped:
                speaks = target.protocol is ProfileProtocol.BOTH or (target.protocol is ProfileProtocol.AMNEZIAWG) == (
                    peer.protocol is AWG
                )
                off = not (offer.amneziawg if peer.protocol is AWG else offer.xray)
                assert peer in has.peers or not speaks or off


def test_peers_are_what_the_contract_says() -> None:
    made = assign(DEVICE, NOTHING, world(node(1)))
    (awg, xray) = new_peers(made, [credential(ALL_NODES)], [], addresses_by(world(node(1))), lambda: "psk")
    assert (awg.public_key, awg.preshared_key, awg.flow, awg.allowed_ips) == ("pub", "psk", "", ("10.86.0.2/32",))
    assert (xray.public_key, xray.preshared_key, xray.flow) == ("uuid", "", "xtls-rprx-vision")
    assert isinstance(awg, Peer)


def test_what_is_switched_off_for_the_fleet_is_kept_nowhere_not_even_of_a_broken_profile() -> None:
    """Found by the test above."""
    xray = [profile("x", "nod_1", ProfileProtocol.XRAY_REALITY)]
    has, _ = after(DEVICE, Has(xray, [], []), world(node(1)))
    assert places(has) == {("nod_1", XRAY)}
    off, _ = after(DEVICE, has, world(offer=Offer(xray=False)))
    assert off.peers == []
