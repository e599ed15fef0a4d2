"""What a running interface is told: only what it does not have."""

import random

import pytest

from coxswain.agent.dataplane import PeerConfig
from coxswain.agent.wireguard.changes import NO_PRESHARED_KEY, as_shown, changes, read_settings


def dump(*peers, port=443):
    lines = [f"PRIVATE\tPUBLIC\t{port}\toff"]
    for peer in peers:
        shown = (peer.preshared_key or "(none)", peer.endpoint or "(none)", ",".join(peer.allowed_ips) or "(none)")
        lines.append("\t".join([peer.public_key, *shown, "0", "0", "0", "off"]))
    return "\n".join(lines) + "\n"


def told(live, *peers):
    found = changes(read_settings(dump(*live)), peers)
    return {peer.public_key: set(peer.allowed_ips) for peer in found.changed}, found.gone


A = PeerConfig("a", ("10.7.0.2/32",))
B = PeerConfig("b", ("10.7.0.3/32", "fd00::3/128"), "psk")


def test_what_it_has_is_not_told():
    roamed = PeerConfig("a", A.allowed_ips, endpoint="198.51.100.1:4000")
    assert told([roamed, B], A, B) == ({}, ())
    assert told([A, B], B, PeerConfig("a", ("10.7.0.2",))) == ({}, ()), "an address is a network of one"
    assert told([A, B], A, PeerConfig("b", ("FD00:0::3/128", "10.7.0.3/32"), "psk")) == ({}, ())


@pytest.mark.parametrize(
    "peer",
    [
        PeerConfig("b", B.allowed_ips, "another"),
        PeerConfig("b", B.allowed_ips),
        PeerConfig("b", B.allowed_ips, "psk", "203.0.113.1:443"),
        PeerConfig("b", B.allowed_ips[:1], "psk"),
        PeerConfig("b", (), "psk"),
        PeerConfig("b", (*B.allowed_ips, "10.8.0.0/24"), "psk"),
    ],
    ids=["key", "no key", "endpoint", "fewer addresses", "none", "more"],
)
def test_one_that_differs_is_told(peer):
    assert told([A, B], A, peer) == ({"b": set(peer.allowed_ips)}, ())


def test_who_comes_and_who_goes():
    assert told([A], A, B) == ({"b": set(B.allowed_ips)}, ())
    assert told([A, B], B) == ({}, ("a",))
    assert told([]) == ({}, ())


def test_an_address_of_two_is_the_last_ones():
    """As if all were written anew in the order of the conf (contract 4.15)."""
    edge = PeerConfig("edge", ("10.7.0.0/24", "10.7.0.2/32"))
    held = PeerConfig("a", ())
    assert told([held, edge], A, edge) == ({}, ())
    assert told([held, edge], edge, A) == ({"a": {"10.7.0.2/32"}, "edge": {"10.7.0.0/24"}}, ())
    assert told([A], A, edge) == ({"a": set(), "edge": set(edge.allowed_ips)}, ())


def test_addresses_that_are_swapped():
    one, two = PeerConfig("a", ("10.7.0.3/32",)), PeerConfig("b", ("10.7.0.2/32",))
    assert told([A, PeerConfig("b", ("10.7.0.3/32",))], one, two) == ({"a": {"10.7.0.3/32"}, "b": {"10.7.0.2/32"}}, ())


def test_from_anything_to_anything_ends_where_writing_all_of_it_would():
    rng = random.Random(7)
    addresses = [f"10.7.0.{number}/32" for number in range(6)]

    def some():
        keys = rng.sample("abcdef", rng.randint(0, 6))
        return [PeerConfig(key, tuple(rng.sample(addresses, rng.randint(0, 3))), rng.choice(["", "psk"])) for key in keys]

    def set_to(state, peers):
        """As the kernel takes peers over, one after the other, each with all of its addresses in place of those it had.

        A preshared key that is not named stays.
        """
        for peer in peers:
            state = {key: (psk, own - set(peer.allowed_ips)) for key, (psk, own) in state.items()}
            psk = peer.preshared_key or state.get(peer.public_key, ("",))[0]
            state[peer.public_key] = ("" if psk == NO_PRESHARED_KEY else psk, set(peer.allowed_ips))
        return state

    for _ in range(2000):
        state, wanted = set_to({}, some()), some()
        live = [PeerConfig(key, tuple(own), psk) for key, (psk, own) in state.items()]
        found = changes(read_settings(dump(*live)), wanted)
        left = {key: held for key, held in state.items() if key not in found.gone}
        assert set_to(left, found.changed) == set_to({}, wanted)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "PRIVATE\tPUBLIC\n",
        "PRIVATE\tPUBLIC\tport\toff\n",
        "PRIVATE\tPUBLIC\t443\t0x1\n",
        "PRIVATE\tPUBLIC\t443\t4\t10\t50\t0\t0\t1\t2\t3\t4\toff\n",
        dump(A).rstrip("\n").rpartition("\t")[0],
        dump() + "short\n",
    ],
)
def test_what_is_not_understood_is_none(text):
    assert read_settings(text) is None


def test_an_address_that_is_none_is_not_taken_for_one():
    with pytest.raises(ValueError):
        told([A], PeerConfig("b", ("10.7.0.300/32",)))


def test_a_private_key_is_shown_as_it_is_used():
    """Checked against ``wg`` itself."""
    assert as_shown("hAdSAK2JsjaoBPux4puf2BVGBq69enhbDV7IptAMFKI=") == "gAdSAK2JsjaoBPux4puf2BVGBq69enhbDV7IptAMFGI="


def test_keys_are_not_shown():
    settings = read_settings(dump(B))
    assert "PRIVATE" not in repr(settings) and "psk" not in repr(settings)
