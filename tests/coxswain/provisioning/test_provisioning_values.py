"""Checks, keys, offers and what is handed to clients."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coxswain.cascade.resources import client_mtu, endpoint
from coxswain.errors import Conflict, InvalidInput, KeyUnavailable
from coxswain.keyring import Keyring, KeySource
from coxswain.messages.accounts import ExportFormat
from coxswain.model import Device, Node, Obfuscation, Peer, Profile, ProfileProtocol, Protocol
from coxswain.provisioning import checks, keys
from coxswain.provisioning.document import Grant, document, in_order
from coxswain.provisioning.export import conf, export
from coxswain.provisioning.offer import Offer, Rotation, decoy
from coxswain.provisioning.readiness import entry_points, why_not

SETTINGS = {
    "fleet.vpn_subnet": "10.99.0.0/29",
    "fleet.vpn_subnet_v6": "",
    "protocols.amneziawg": True,
    "protocols.xray": True,
    "reality.decoy_site": "decoy.example",
    "fleet.rotation.enabled": True,
    "fleet.rotation.interval_seconds": 600,
    "fleet.rotation.jitter_seconds": 120,
    "control_location.city": "",
    "control_location.lat": 0.0,
    "control_location.lon": 0.0,
}
NODE = Node(
    "nod_a2b3c4d5e6f7g2h3",
    "ams-1",
    region="nl",
    public_ip="203.0.113.7",
    endpoint_ips=("203.0.113.8", "2001:db8::1"),
    wg_public_key="E" * 43 + "=",
    obfuscation=Obfuscation(5, 50, 120, 31, 44, 57, 22, 305419896, 610839793, 916259690, 1221679587, i1="<b 0x01>"),
    xray_public_key="M" * 43,
)
DEVICE = Device("dev_1", "usr_1", "Ann's phone", profile_revision=3)
RING = Keyring(KeySource.FILE, bytes(32))


def grant(*protocols: Protocol, profile: Profile | None = None) -> Grant:
    credential = keys.mint(RING, "dev_1", "" if profile is None else profile.id, "10.99.0.2")
    pairs = [
        (NODE, Peer("peer_1", NODE.id, "dev_1", p, credential.wg_public_key, (), "psk=", "", credential.id))
        if p is Protocol.AMNEZIAWG
        else (NODE, Peer("peer_2", NODE.id, "dev_1", p, credential.uuid, (), "", "xtls-rprx-vision", credential.id))
        for p in protocols
    ]
    return Grant(credential, keys.open_private_key(RING, credential), profile, pairs)


# -- checks


@pytest.mark.parametrize(
    ("text", "normal"),
    [(" Ann@Example.ORG ", "ann@example.org"), ("a.b+c@x.y.example",) * 2, ("ü@exämple.org",) * 2, ("", "")],
)  # fmt: skip
def test_addresses_are_normalised(text: str, normal: str) -> None:
    assert checks.check_email(text) == normal


@pytest.mark.parametrize("text", ["a", "a@b", "@b.de", "a b@c.de", "a@-b.de", "a@b..de", "a@b.de, c@d.de", "a@" + "b" * 300])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput, match="email"):
        checks.check_email(text)


@pytest.mark.parametrize(("text", "normal"), [("0049 30-123.4567", "+49301234567"), ("(030) 1234", "0301234"), ("", "")])
def test_numbers_are_normalised(text: str, normal: str) -> None:
    assert checks.check_phone(text) == normal


@pytest.mark.parametrize("text", ["12", "+1 2 3", "call me", "1" * 16])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InvalidInput, match="phone"):
        checks.check_phone(text)


@given(st.text(max_size=80))
def test_a_name_that_is_taken_stays_what_it_is(text: str) -> None:
    try:
        name = checks.check_label("name", text)
    except InvalidInput:
        return
    assert checks.check_label("name", name) == name
    assert 0 < len(name.encode()) <= 64


def test_xray_cannot_follow_a_path() -> None:
    """fleet-model.md 12 C 21: it would leave at the entry."""
    profile = Profile("p", "dev_1", "x", ProfileProtocol.BOTH, path_id="pth_1")
    with pytest.raises(InvalidInput, match="cannot follow a path"):
        checks.check_profile(profile, NODE)


# -- keys


def test_keys_are_sealed_for_their_row_and_for_no_other() -> None:
    made = keys.mint(RING, "dev_1", "", "10.99.0.2")
    raw = base64.b64decode(keys.open_private_key(RING, made))
    assert (raw[0] & 7, raw[31] & 128, raw[31] & 64) == (0, 0, 64)  # clamped
    public = X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    assert base64.b64encode(public).decode() == made.wg_public_key
    assert raw not in made.wg_private_key_sealed
    other = keys.mint(RING, "dev_2", "", "10.99.0.3")
    swapped = type(made)(**{f: getattr(made, f) for f in made.__slots__} | {"id": other.id})
    with pytest.raises(KeyUnavailable):
        keys.open_private_key(RING, swapped)
    with pytest.raises(KeyUnavailable):
        keys.open_private_key(Keyring(KeySource.FILE, bytes([1]) * 32), made)
    for secret in (made.uuid, base64.b64encode(raw).decode()):
        assert secret not in repr(made) + repr(grant(Protocol.AMNEZIAWG))


# -- the offer


def test_the_range_of_addresses() -> None:
    offer = Offer.of(SETTINGS)
    assert (offer.last - offer.first, str(offer.subnet)) == (
        4,
        "10.99.0.0/29",
    )  # .2 to .6: no network, no gateway, no broadcast
    assert offer.rotation == Rotation(enabled=True, interval_seconds=600, jitter_seconds=120)
    with pytest.raises(Conflict, match="no IPv4 network"):
        Offer.of(SETTINGS | {"fleet.vpn_subnet": "fd00::/64"})


@pytest.mark.parametrize(
    ("site", "both"), [("a.example", ("a.example:443", "a.example")), ("a.example:8443", ("a.example:8443", "a.example"))]
)
def test_the_decoy(site: str, both: tuple[str, str]) -> None:
    assert decoy(site) == both


def test_entry_addresses() -> None:
    profile = Profile("p", "dev_1", "x", node_id=NODE.id, entry_ips=("2001:db8::1", "192.0.2.9"))
    assert entry_points(NODE, profile) == ("2001:db8::1",)
    assert entry_points(NODE, Profile("p", "dev_1", "x", node_id=NODE.id, entry_ips=("192.0.2.9",))) == NODE.endpoint_ips
    assert "protocols.xray is off" in why_not(NODE, Protocol.XRAY_REALITY, Offer())


# -- what clients get


def test_the_document_of_the_contract() -> None:
    """accounts-profiles.md 4.2 to 4.4: every key, and the types that existing clients insist on."""
    profile = Profile("pspec_7d2kq5mz3xw4naby", "dev_1", "Amsterdam", ProfileProtocol.BOTH, NODE.id)
    offer = Offer.of(SETTINGS)
    found = document(DEVICE, [grant(Protocol.AMNEZIAWG, Protocol.XRAY_REALITY, profile=profile)], offer, 1780309230.9)
    assert {k: found[k] for k in ("fleet_id", "user", "revision", "issued_at", "expires_at")} == {
        "fleet_id": "",
        "user": "usr_1",
        "revision": 3,
        "issued_at": "2026-06-01T10:20:30Z",
        "expires_at": "0001-01-01T00:00:00Z",
    }
    (entry,) = found["profiles"]
    assert (entry["id"], entry["name"], entry["protocol"]) == (profile.id, "Amsterdam", "both")
    (node,) = entry["nodes"]
    assert node["endpoints"] == ["203.0.113.8", "2001:db8::1"]
    awg, xray = node["protocols"]
    assert (awg["type"], awg["v"], xray["type"], xray["v"]) == ("amneziawg", 2, "xray-reality", 1)
    assert set(awg["params"]) == {
        "private_key", "address", "public_key", "preshared_key", "endpoints", "rotation", "allowed_ips", "obfuscation",
    }  # fmt: skip
    assert awg["params"]["address"] == "10.99.0.2/32"
    assert awg["params"]["endpoints"][0] == {"ip": "203.0.113.8", "port_min": 443, "port_max": 443}
    assert awg["params"]["obfuscation"]["h4"] == 1221679587
    assert "i2" not in awg["params"]["obfuscation"]
    assert set(xray["params"]) == {
        "uuid", "flow", "address", "public_key", "server_name", "short_id", "fingerprint", "endpoints", "rotation",
        "allowed_ips",
    }  # fmt: skip
    assert (xray["params"]["server_name"], xray["params"]["fingerprint"]) == ("decoy.example", "chrome")
    assert not [value for value in _leaves(found) if isinstance(value, float)]


def test_amneziawg_comes_first_however_the_peers_lie_in_the_store() -> None:
    """As in accounts-profiles.md 4.4: whoever takes the first entry of a node takes the same with every device."""
    profile = Profile("pspec_7d2kq5mz3xw4naby", "dev_1", "Amsterdam", ProfileProtocol.BOTH, NODE.id)
    found = document(DEVICE, [grant(Protocol.XRAY_REALITY, Protocol.AMNEZIAWG, profile=profile)], Offer.of(SETTINGS), 0.0)
    types = [protocol["type"] for protocol in found["profiles"][0]["nodes"][0]["protocols"]]
    assert types == ["amneziawg", "xray-reality"]


def test_profiles_and_nodes_come_oldest_first_however_they_lie_in_the_store() -> None:
    """accounts-profiles.md 6.2. Keys of one transaction lie by their random ids, and a profile's may be newer than the next
    one's; a conf is of the first node, and who takes the first profile takes the same with every device.
    """
    older, newer = (Profile(f"pspec_{n}", "dev_1", str(n), node_id=NODE.id, created_at=float(n)) for n in (1, 2))
    given = grant(Protocol.AMNEZIAWG)
    (node, peer), *_ = given.peers
    nodes = [dataclasses.replace(node, id=f"nod_{9 - age}", name=f"n{age}", created_at=float(age)) for age in range(3)]
    pairs = [(nodes[i], dataclasses.replace(peer, node_id=nodes[i].id)) for i in (2, 0, 1)]
    every = dataclasses.replace(given, peers=pairs)
    ordered = in_order([dataclasses.replace(every, profile=newer), dataclasses.replace(every, profile=older), every])
    assert [g.profile for g in ordered] == [None, older, newer]
    assert [[n.name for n, _ in g.peers] for g in ordered] == [["n0", "n1", "n2"]] * 3


def test_of_a_device_that_is_bound_to_a_path_xray_goes_no_further_than_the_entry() -> None:
    """So it is shown without the path (fleet-model.md 12, 21)."""
    exit_ = dataclasses.replace(NODE, id="nod_exit", name="exit")
    given = dataclasses.replace(grant(Protocol.AMNEZIAWG, Protocol.XRAY_REALITY), path="p", hops=(NODE, exit_))
    awg, xray = document(DEVICE, [given], Offer.of(SETTINGS), 0.0)["profiles"]
    assert (awg["id"], [hop["id"] for hop in awg["path"]["hops"]]) == ("auto-amneziawg", [NODE.id, "nod_exit"])
    assert (xray["id"], "path" in xray) == ("auto-xray-reality", False)


def test_a_link_leaves_at_its_node_also_where_the_device_is_bound_to_a_path() -> None:
    """Only AmneziaWG goes over it, and who exports the other is told so by this."""
    exit_ = dataclasses.replace(NODE, id="nod_exit", name="exit")
    given = dataclasses.replace(grant(Protocol.AMNEZIAWG, Protocol.XRAY_REALITY), path="p", hops=(NODE, exit_))
    files = (export(kind, DEVICE, [given], Offer.of(SETTINGS), 0.0) for kind in (ExportFormat.CONF, ExportFormat.VLESS))
    assert [file.leaves_at for file in files] == ["", NODE.id]


def test_a_profile_that_names_entry_addresses_shows_no_others() -> None:
    """Not in the flat list either, to which a client may fall back (accounts-profiles.md 4.2)."""
    profile = Profile("pspec_1", "dev_1", "x", node_id=NODE.id, entry_ips=("2001:db8::1",))
    found = document(DEVICE, [grant(Protocol.AMNEZIAWG, profile=profile)], Offer.of(SETTINGS), 0.0)
    (node,) = found["profiles"][0]["nodes"]
    assert node["endpoints"] == [e["ip"] for e in node["protocols"][0]["params"]["endpoints"]] == ["2001:db8::1"]


@pytest.mark.parametrize(
    ("wanted", "mapped", "ports"),
    [
        ("20000-29999", "20000-29999", (20000, 29999)),
        ("20000-29999", "", (443, 443)),
        ("", "20000-29999", (443, 443)),
        ("20000-29999", "20000-29998", (443, 443)),
    ],
)
def test_a_range_of_ports_is_told_where_it_is_wanted_and_in_force(wanted: str, mapped: str, ports: tuple[int, int]) -> None:
    """Any of it may be dialled, so all of it has to work; XRay, a conf and what other nodes dial have no range."""
    node = dataclasses.replace(NODE, endpoint_ports=wanted, mapped_ports=mapped)
    given = grant(Protocol.AMNEZIAWG, Protocol.XRAY_REALITY)
    given = dataclasses.replace(given, peers=[(node, peer) for _, peer in given.peers])
    found = document(DEVICE, [given], Offer.of(SETTINGS), 1.0)
    awg, xray = [
        {(point["port_min"], point["port_max"]) for point in profile["nodes"][0]["protocols"][0]["params"]["endpoints"]}
        for profile in found["profiles"]
    ]
    assert (awg, xray) == ({ports}, {(443, 443)})
    assert "Endpoint = 203.0.113.8:443\n" in conf(given, node, given.peers[0][1])
    assert endpoint(node) == "203.0.113.8:443"


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


def test_the_controllers_place_is_told_where_it_is_known() -> None:
    """accounts-profiles.md 4.2."""
    assert "control" not in document(DEVICE, [], Offer.of(SETTINGS), 0.0)
    there = SETTINGS | {"control_location.lat": 59.91, "control_location.lon": 10.75}
    assert document(DEVICE, [], Offer.of(there), 0.0)["control"] == {"label": "Controller", "lat": 59.91, "lon": 10.75}
    named = document(DEVICE, [], Offer.of(there | {"control_location.city": "Oslo"}), 0.0)["control"]
    assert named == {"label": "Controller · Oslo", "city": "Oslo", "lat": 59.91, "lon": 10.75}


def test_a_device_without_profiles_has_one_for_each_protocol() -> None:
    found = document(DEVICE, [grant(Protocol.AMNEZIAWG, Protocol.XRAY_REALITY)], Offer.of(SETTINGS), 0.0)
    assert [(p["id"], p["name"]) for p in found["profiles"]] == [
        ("auto-amneziawg", "All Nodes (AmneziaWG)"),
        ("auto-xray-reality", "All Nodes (XRay/REALITY)"),
    ]


@pytest.mark.parametrize(("s4", "mtu"), [(0, 1420), (22, 1398), (140, 1280), (150, 1280)])
def test_the_mtu_leaves_room_for_padding(s4: int, mtu: int) -> None:
    """node-contract.md 6.3; fleet-model.md 12 C 24."""
    assert client_mtu(Obfuscation(s4=s4)) == mtu


def test_a_conf_is_of_one_node_and_the_others_are_named() -> None:
    (given,) = grant(Protocol.AMNEZIAWG).peers
    node, peer = given
    others = ((dataclasses.replace(node, id=f"nod_{name}", name=name), peer) for name in ("fra-1", "hel-1", "fra-1"))
    several = dataclasses.replace(grant(Protocol.AMNEZIAWG), peers=(given, *others))
    exported = export(ExportFormat.CONF, DEVICE, [several], Offer(), 0.0)
    assert (exported.name, exported.also) == ("Ann-s-phone-ams-1.conf", ("fra-1", "hel-1"))
    assert export(ExportFormat.CONF, DEVICE, [grant(Protocol.AMNEZIAWG)], Offer(), 0.0).also == ()


def test_a_conf_for_stock_clients(tmp_path: Path) -> None:
    exported = export(ExportFormat.CONF, DEVICE, [grant(Protocol.AMNEZIAWG)], Offer(), 0.0)
    assert exported.name == "Ann-s-phone-ams-1.conf"
    lines = exported.text.splitlines()
    assert lines[0] == "[Interface]"
    for line in ("Address = 10.99.0.2/32", "MTU = 1398", "Jc = 5", "S4 = 22", "H1 = 305419896", "I1 = <b 0x01>"):
        assert line in lines
    for line in ("PresharedKey = psk=", "AllowedIPs = 0.0.0.0/0, ::/0", "Endpoint = 203.0.113.8:443"):
        assert line in lines[lines.index("[Peer]") :]
    assert exported.text not in repr(exported)
    v6 = Profile("p", "dev_1", "x", node_id=NODE.id, entry_ips=("2001:db8::1",))
    text = export(ExportFormat.CONF, DEVICE, [grant(Protocol.AMNEZIAWG, profile=v6)], Offer(), 0.0).text
    assert "Endpoint = [2001:db8::1]:443" in text
    (tmp_path / "x").write_text(text)


def test_a_link_for_xray_clients() -> None:
    text = export(ExportFormat.VLESS, DEVICE, [grant(Protocol.XRAY_REALITY)], Offer.of(SETTINGS), 0.0).text
    link = urlsplit(text.strip())
    query = parse_qs(link.query)
    assert (link.scheme, link.hostname, link.port, link.fragment) == ("vless", "203.0.113.8", 443, "ams-1")
    assert (query["pbk"], query["sni"], query["flow"]) == (["M" * 43], ["decoy.example"], ["xtls-rprx-vision"])


def test_a_node_without_an_endpoint_is_named() -> None:
    given = grant(Protocol.AMNEZIAWG)
    ((node, peer),) = given.peers
    lacking = dataclasses.replace(given, peers=((dataclasses.replace(node, endpoint_ips=(), public_ip=""), peer),))
    with pytest.raises(Conflict, match=f"node {node.name}, which has no endpoint address") as caught:
        export(ExportFormat.CONF, DEVICE, [lacking], Offer(), 0.0)
    assert caught.value.remedy == f"Give it one: cox nodes endpoints {node.name} IP"


def test_a_file_for_existing_clients() -> None:
    exported = export(ExportFormat.PHAROS, DEVICE, [grant(Protocol.AMNEZIAWG)], Offer(), 0.0)
    container = json.loads(exported.text)
    assert (container["fmt"], container["v"], container["enc"]) == ("pharos-profile", 1, "none")
    assert list(container) == ["fmt", "v", "enc", "payload"]
    with pytest.raises(Conflict, match="no XRay keys"):
        export(ExportFormat.VLESS, DEVICE, [grant(Protocol.AMNEZIAWG)], Offer(), 0.0)
