"""IPv6 in the tunnel: which address, for whom, on which node, and what clients are told (fleet-model.md 12 C 26)."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import Conflict
from coxswain.messages.accounts import ExportFormat
from coxswain.model import Credential, Device, Node, Peer, Protocol, User
from coxswain.provisioning.assign import ALL_NODES, Has, World, addresses_by, assign, new_peers, renumbered
from coxswain.provisioning.document import Grant, document, tunnel_ip_v6
from coxswain.provisioning.export import export
from coxswain.provisioning.offer import Offer, is_subnet_v6
from coxswain.reconcile import desired as reading
from coxswain.store import Store
from coxswain.store import accounts as account_rows
from coxswain.store import fleet as rows
from coxswain.store import profiles as profile_rows
from tests.coxswain.provisioning.test_assign import DEVICE, credential, node, world
from tests.coxswain.provisioning.test_provisioning_values import NODE, SETTINGS, grant

AWG, XRAY = Protocol.AMNEZIAWG, Protocol.XRAY_REALITY
SUBNET = "fd5e:1f7a:93c4::/64"
OFFER = Offer(xray=True, subnet_v6=ipaddress.IPv6Network(SUBNET))
FIRST, FIRST_V6 = "10.86.0.2/32", "fd5e:1f7a:93c4::a56:2/128"
KEY = base64.b64encode(bytes(range(32))).decode()

hosts = st.ip_addresses(v=4).map(str).filter(lambda text: int(text.partition(".")[0]) > 0)
groups = st.integers(1, 0xFFFF).map(lambda number: f"{number:x}")
subnets = st.one_of(
    st.builds(lambda a, b: f"fd5e:{a}:{b}::/48", groups, groups),
    st.builds(lambda a, b, c: f"fd00:{a}:{b}:{c}::/64", groups, groups, groups),
)


# -- addresses


@given(subnets, hosts, hosts)
def test_an_address_is_one_devices_exactly_when_its_ipv4_address_is(subnet: str, one: str, two: str) -> None:
    offer = Offer(subnet_v6=ipaddress.IPv6Network(subnet))
    first, second = offer.address_v6(one), offer.address_v6(two)
    assert (first == second) == (one == two)
    assert ipaddress.IPv6Address(first) in ipaddress.IPv6Network(subnet)
    assert str(ipaddress.IPv6Address(first)) == first
    # What the database tells misnumbered peers by.
    assert first.startswith(str(ipaddress.IPv6Network(subnet).network_address))


@given(subnets, subnets, hosts)
def test_no_address_of_one_subnet_looks_like_one_of_another(one: str, other: str, host: str) -> None:
    network, around = ipaddress.IPv6Network(one), ipaddress.IPv6Network(other)
    address = Offer(subnet_v6=network).address_v6(host)
    alike = network.network_address == around.network_address
    assert address.startswith(str(around.network_address)) == alike


@pytest.mark.parametrize("text", [SUBNET, "fd5e:1f7a:93c4::/48", "fd5e:1f7a:93c4:1::/64"])
def test_what_may_be_the_subnet(text: str) -> None:
    assert is_subnet_v6(text)
    assert Offer.of(SETTINGS | {"fleet.vpn_subnet_v6": text}).subnet_v6 == ipaddress.IPv6Network(text)


@pytest.mark.parametrize(
    "text",
    ["fd00::/64", "fd00:ec2::/64", "fd20:ce::/64", "2001:db8:1::/64", "fc5e:1f7a:93c4::/64", "fd5e:1f7a:93c4::/96",
     "fd5e:1f7a::/40", "fd5e:1f7a:93c4::1/64", "10.0.0.0/8", "fd5e:1f7a:93c4::/64%eth0", "x"],
)  # fmt: skip
def test_what_may_not(text: str) -> None:
    assert not is_subnet_v6(text)
    with pytest.raises(Conflict, match=r"fleet\.vpn_subnet_v6"):
        Offer.of(SETTINGS | {"fleet.vpn_subnet_v6": text})


def test_without_a_subnet_there_is_none() -> None:
    assert Offer.of(SETTINGS).address_v6("10.99.0.2") == ""


# -- on which node


def serving(number: int, *, ipv6: bool = True) -> Node:
    return dataclasses.replace(node(number), tunnel_ipv6=ipv6)


def around(*nodes: Node, offer: Offer = OFFER) -> World:
    return world(*nodes, offer=offer)


def test_only_amneziawg_on_nodes_that_serve_it() -> None:
    there = around(serving(1), serving(2, ipv6=False))
    made = assign(DEVICE, Has([], [], []), there)
    peers = new_peers(made, [credential(ALL_NODES)], [], addresses_by(there), lambda: "psk")
    assert {(p.node_id, p.protocol): p.allowed_ips for p in peers} == {
        ("nod_1", AWG): (FIRST, FIRST_V6),
        ("nod_1", XRAY): (FIRST,),
        ("nod_2", AWG): (FIRST,),
        ("nod_2", XRAY): (FIRST,),
    }


def test_switching_it_on_and_off_changes_addresses_and_no_key() -> None:
    held = [credential(ALL_NODES)]
    before, after = around(serving(1), offer=Offer(xray=True)), around(serving(1))
    made = assign(DEVICE, Has([], [], []), before)
    peers = new_peers(made, held, [], addresses_by(before), lambda: "psk")
    assert renumbered(held, peers, addresses_by(before)) == []
    [gained] = renumbered(held, peers, addresses_by(after))
    assert gained == dataclasses.replace(peers[0], allowed_ips=(FIRST, FIRST_V6))
    assert renumbered(held, [gained], addresses_by(after)) == []
    assert renumbered(held, [gained], addresses_by(before)) == [peers[0]]
    assert renumbered(held, [gained], addresses_by(around(serving(1, ipv6=False)))) == [peers[0]]
    assert renumbered([], [gained], addresses_by(before)) == [], "of somebody else's"


def test_an_address_that_somebody_was_given_by_hand_is_not_taken_away() -> None:
    addresses = addresses_by(around(serving(1)), {FIRST_V6})
    assert addresses(credential(ALL_NODES), "nod_1", AWG) == (FIRST,)
    assert addresses(credential(ALL_NODES, 1), "nod_1", AWG) == ("10.86.0.3/32", "fd5e:1f7a:93c4::a56:3/128")


# -- what clients are told


def with_v6(given_: Grant) -> Grant:
    """The grant, with an IPv6 address on AmneziaWG."""
    pairs = [
        (
            at,
            dataclasses.replace(peer, allowed_ips=("10.99.0.2/32", "fd5e:1f7a:93c4::a63:2/128"))
            if peer.protocol is AWG
            else peer,
        )
        for at, peer in given_.peers
    ]
    return dataclasses.replace(given_, peers=pairs)


def test_the_document_has_it_in_a_key_that_existing_clients_pass_over() -> None:
    """accounts-profiles.md 4.2: they read one IPv4 address and strip its mask; unknown keys are ignored (4.3)."""
    before = document(DEVICE, [grant(AWG, XRAY)], Offer.of(SETTINGS), 0.0)
    after = document(DEVICE, [with_v6(grant(AWG, XRAY))], Offer.of(SETTINGS), 0.0)
    awg, xray = (p["nodes"][0]["protocols"][0]["params"] for p in after["profiles"])
    assert (awg["address"], awg["address_v6"]) == ("10.99.0.2/32", "fd5e:1f7a:93c4::a63:2/128")
    assert (xray["address"], "address_v6" in xray) == ("10.99.0.2/32", False)
    assert awg["allowed_ips"] == ["0.0.0.0/0", "::/0"]
    assert "address_v6" not in before["profiles"][0]["nodes"][0]["protocols"][0]["params"]


def test_a_conf_has_both_addresses_and_never_lets_ipv6_past_the_tunnel() -> None:
    lines = export(ExportFormat.CONF, DEVICE, [with_v6(grant(AWG))], Offer(), 0.0).text.splitlines()
    assert "Address = 10.99.0.2/32, fd5e:1f7a:93c4::a63:2/128" in lines
    without = export(ExportFormat.CONF, DEVICE, [grant(AWG)], Offer(), 0.0).text.splitlines()
    assert "Address = 10.99.0.2/32" in without
    assert "AllowedIPs = 0.0.0.0/0, ::/0" in lines
    assert "AllowedIPs = 0.0.0.0/0, ::/0" in without


def test_what_is_shown_of_a_credential() -> None:
    made = with_v6(grant(AWG, XRAY))
    peers = [peer for _, peer in made.peers]
    assert tunnel_ip_v6(made.credential, peers) == "fd5e:1f7a:93c4::a63:2"
    assert tunnel_ip_v6(credential(ALL_NODES), peers) == ""


# -- what nodes are told


@given(subnets, hosts)
def test_the_quick_look_at_a_peer_says_what_the_thorough_one_does(subnet: str, host: str) -> None:
    address = Offer(subnet_v6=ipaddress.IPv6Network(subnet)).address_v6(host)
    peer = Peer("p", "nod_1", "dev_1", AWG, KEY, (f"{host}/32", f"{address}/128"), KEY)
    quick = reading._plain_row(peer)
    assert quick is not None
    assert quick == reading._row(reading.check_peer(peer))


@pytest.mark.parametrize(
    "second", ["FD5E:1f7a:93c4::a56:2/128", "fd5e:1f7a:93c4::a56:02/128", "fd5e:1f7a:93c4::/64", "10.86.0.3/32"]
)
def test_what_is_spelled_otherwise_takes_the_long_way(second: str) -> None:
    assert reading._plain_row(Peer("p", "nod_1", "dev_1", AWG, KEY, (FIRST, second), KEY)) is None


# -- rows, on both backends


def test_devices_that_are_misnumbered_on_a_node(store: Store) -> None:
    held = {
        "a": ("10.86.0.2/32",),
        "b": ("10.86.0.3/32", "fd5e:1f7a:93c4::a56:3/128"),
        "c": ("10.86.0.4/32", "fd11:1:1::a56:4/128"),
        "d": ("10.86.0.5/32",),
    }
    with store.write() as tx:
        account_rows.insert_user(tx, User("usr_1", "Ann", created_at=1.0))
        rows.insert_node(tx, NODE)
        for number, (name, ips) in enumerate(held.items()):
            account_rows.insert_device(tx, Device(f"dev_{name}", "usr_1", name, created_at=1.0))
            made = Credential(f"cred_{name}", f"dev_{name}", "", f"10.86.0.{number + 2}", name, b"", name)
            profile_rows.insert_credentials(tx, [made], now=1.0)
            rows.put_peers(tx, [Peer(f"p{name}", NODE.id, f"dev_{name}", AWG, name, ips, credential_id=made.id)], now=1.0)
        by_hand = ("10.86.0.9/32", "fd5e:1f7a:93c4::a56:5/128")
        rows.put_peers(tx, [Peer("hand", NODE.id, "dev_d", AWG, "hand", by_hand)], now=1.0)

        def found(network: str, **page: object) -> list[str]:
            return profile_rows.devices_misnumbered(tx, NODE.id, network, **{"limit": 9, **page})  # type: ignore[arg-type]

        assert found("fd5e:1f7a:93c4::") == ["dev_a", "dev_c", "dev_d"]
        assert found("fd5e:1f7a:93c4::", after="dev_a", limit=1) == ["dev_c"]
        assert found("") == ["dev_b", "dev_c"]
        taken = profile_rows.taken_by_hand(tx, [FIRST_V6, "fd5e:1f7a:93c4::a56:3/128", "fd5e:1f7a:93c4::a56:5/128"])
        assert taken == {"fd5e:1f7a:93c4::a56:5/128"}


def test_a_node_keeps_what_it_said_of_itself(store: Store) -> None:
    with store.write() as tx:
        rows.insert_node(tx, NODE)
        rows.record_observed(tx, [dataclasses.replace(NODE, tunnel_ipv6=True)], now=2.0)
        [known] = rows.list_nodes(tx, now=2.0)
        assert known.tunnel_ipv6
