"""Nothing that a node could choke on gets into a push, and one bad peer stops no other."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.model import NetworkPolicy, Node, Peer, Protocol
from coxswain.reconcile.codec import push_request
from coxswain.reconcile.desired import _plain_row, _row, check_peer, desired, policy_fingerprint
from coxswain.wire import validate
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.coxswain.reconcile.samples import AWG, key, peer

NODE = Node("nod_a", "a", config_revision=5)
UUID = "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55"

BAD = {
    "an id with a line break": dataclasses.replace(peer(9), id="per_9\n"),
    "a short key": dataclasses.replace(peer(9), public_key="abc="),
    "a key with a line break": dataclasses.replace(peer(9), public_key=key(9) + "\n"),
    "a key in another spelling": dataclasses.replace(peer(9), public_key="A" * 42 + "B="),
    "no address": dataclasses.replace(peer(9), allowed_ips=()),
    "a bad address": dataclasses.replace(peer(9), allowed_ips=("10.7.0.300/32",)),
    "an address with more in it": dataclasses.replace(peer(9), allowed_ips=("10.7.0.9/32\nPostUp = rm -rf /",)),
    "the whole world": dataclasses.replace(peer(9), allowed_ips=("10.7.0.9/32", "0.0.0.0/0")),
    "half of it": dataclasses.replace(peer(9), allowed_ips=("128.0.0.0/1",)),
    "the whole IPv6 world": dataclasses.replace(peer(9), allowed_ips=("::/0",)),
    "a bad preshared key": dataclasses.replace(peer(9), preshared_key="s3cret"),
    "no UUID": Peer("per_9", "nod_a", "dev_9", Protocol.XRAY_REALITY, "somebody"),
    "an unknown flow": Peer("per_9", "nod_a", "dev_9", Protocol.XRAY_REALITY, UUID, flow="xtls"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_peer_is_left_out_and_named_and_the_others_go_on(bad: Peer) -> None:
    state, [finding] = desired(NODE, (peer(1), bad, peer(2)))
    assert state.peers == (peer(1), peer(2))
    assert finding.degraded
    assert "per_9" in finding.text
    assert "s3cret" not in finding.text
    with pytest.raises(InvalidInput):
        check_peer(bad)


_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            key(1),
            key(1) + "\n",
            "10.7.0.9",
            "10.7.0.9/32",
            "10.7.0.9/24",
            "10.7.0.9/32\n",
            f"{key(2)}\n10.7.0.9/32",
            "fd00::1",
        ]
    ),
    st.text(max_size=12),
)


@given(
    st.builds(
        Peer,
        _TEXTS,
        st.just("n"),
        st.just("d"),
        st.just(AWG),
        _TEXTS,
        st.lists(_TEXTS, max_size=2).map(tuple),
        _TEXTS,
        _TEXTS,
    )
)
def test_the_short_way_takes_what_the_long_way_takes_and_makes_the_same_of_it(peer: Peer) -> None:
    """Nearly every peer goes the short way: one pattern over all that it is."""
    short = _plain_row(peer)
    if short is not None:
        assert short == _row(check_peer(peer))


def test_peers_of_the_usual_form_go_the_short_way() -> None:
    assert all(_plain_row(p) for p in (peer(1), peer(2, psk=key("psk")), peer(3, ips=("10.7.0.3",))))
    assert not any(_plain_row(bad) for bad in BAD.values())


def test_a_key_counts_once() -> None:
    state, [finding] = desired(NODE, (peer(1), dataclasses.replace(peer(1), id="per_x", allowed_ips=("10.9.0.1",))))
    assert state.peers == (peer(1),)
    assert "per_x" in finding.text


@pytest.mark.parametrize("address", ["10.7.0.3", "10.7.0.3/32"])
def test_an_address_has_one_owner(address: str) -> None:
    second = dataclasses.replace(peer(2), allowed_ips=("10.8.0.1", address))
    state, [finding] = desired(NODE, (peer(1), second))
    assert state.peers == (peer(1),)
    assert "10.7.0.3/32 is peer per_1's" in finding.text


def test_a_node_that_was_never_pushed_to_begins_at_revision_one() -> None:
    assert desired(dataclasses.replace(NODE, config_revision=0), ())[0].revision == 1


def test_policies_are_named_by_what_they_say() -> None:
    policies = [NetworkPolicy(*flags) for flags in itertools.product([True, False], repeat=3)]
    assert len({policy_fingerprint(policy) for policy in policies}) == 8
    assert policy_fingerprint(NetworkPolicy()) == policy_fingerprint(NetworkPolicy(True, True, False))


PSK_TEXT = "s3cret and no key"
texts = st.one_of(st.text(max_size=60), st.sampled_from([key(1), key(2), "10.7.0.2/32", "10.7.0.2", "::1", UUID, ""]))
any_peers = st.lists(
    st.builds(
        Peer,
        id=st.sampled_from(["per_1", "per_2", "", "per\n3"]),
        node_id=st.just("nod_a"),
        device_id=st.just("dev_1"),
        protocol=st.sampled_from(Protocol),
        public_key=texts,
        allowed_ips=st.lists(texts, max_size=3).map(tuple),
        preshared_key=st.sampled_from(["", key("psk"), PSK_TEXT]),
        flow=texts,
    ),
    max_size=6,
)


@given(any_peers)
def test_whatever_the_store_says_a_push_is_clean(peers: list[Peer]) -> None:
    state, findings = desired(NODE, peers)
    assert len(state.peers) + len(findings) == len(peers)
    config = pb.AmneziaWGConfig.FromString(push_request(state).config)
    keys = [message.public_key for message in config.peers]
    assert len(keys) == len(set(keys))
    assert keys == [p.public_key for p in state.peers if p.protocol is AWG]
    for message in config.peers:
        validate.key("key", message.public_key)
        validate.preshared_key("psk", message.preshared_key)
        validate.allowed_ips("ips", tuple(message.allowed_ips))
        assert message.id.isprintable()
    assert all(secret not in finding.text for secret in (key("psk"), PSK_TEXT) for finding in findings)
    assert all(finding.text.isprintable() for finding in findings)


def test_what_was_checked_before_is_taken_over_and_nothing_else() -> None:
    first, _ = desired(NODE, (peer(1), peer(2)))
    changed = dataclasses.replace(peer(2), allowed_ips=("10.7.0.3",))  # which is peer 1's
    for peers in ((peer(1), peer(2), peer(3)), (peer(2),), (peer(1), changed), (peer(1), *BAD.values()), ()):
        assert desired(NODE, peers, first) == desired(NODE, peers)
    again, _ = desired(NODE, (peer(3), peer(2)), first)
    assert again.addresses == (frozenset({"10.7.0.5/32"}), frozenset({"10.7.0.4/32"}))


@pytest.mark.parametrize("widest", ["10.0.0.0/8", "10.1.2.3/8", "fd00::/16", "fd00:1::2/16"])
def test_a_network_behind_a_device_is_as_wide_as_a_private_one_may_be(widest: str) -> None:
    assert check_peer(peer(1, ips=("10.7.0.2/32", widest))).allowed_ips[1] == widest


@pytest.mark.parametrize("wider", ["10.0.0.0/7", "fc00::/15"])
def test_and_no_wider(wider: str) -> None:
    with pytest.raises(InvalidInput, match="the node would send everybody's traffic to this peer"):
        check_peer(peer(1, ips=("10.7.0.2/32", wider)))
