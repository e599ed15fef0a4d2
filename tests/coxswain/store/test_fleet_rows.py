"""Rows of the fleet, on each backend."""

import dataclasses

import pytest

from coxswain.errors import AlreadyExists, NotFound, StaleVersion
from coxswain.model import Device, NetworkPolicy, Node, NodeStatus, Obfuscation, Peer, Protocol, User
from coxswain.store import MissingReference, UniqueViolation, fleet

NOW = 1_767_225_600.25
AWG, XRAY = Protocol.AMNEZIAWG, Protocol.XRAY_REALITY

FULL = Node(
    id="nod_a",
    name="alpha",
    region="nyc1",
    control_addr="192.0.2.1:8444",
    public_ip="192.0.2.1",
    endpoint_ips=("192.0.2.1", "2001:db8::1"),
    endpoint_ports="20000-29999",
    mapped_ports="20000-20001",
    status=NodeStatus.ACTIVE,
    enabled=False,
    agent_version="1.2.3",
    wg_public_key="key",
    obfuscation=Obfuscation(jc=4, h1=2**32 - 1, i1="<b 0x01>"),
    xray_public_key="xkey",
    policy=NetworkPolicy(forwarding=False, masquerade=False, isolation=True),
    policy_confirmed="abc",
    config_revision=2**40,
    applied_revision=11,
    version=3,
    created_at=NOW,
    updated_at=NOW + 1,
)


def get(store, node_id="nod_a", now=NOW):
    with store.read() as tx:
        return fleet.get_node(tx, node_id, now=now)


def put(store, *peers):
    with store.write() as tx:
        fleet.put_peers(tx, peers, now=NOW)


def peers_of(store, node_id="nod_a"):
    with store.read() as tx:
        return fleet.peers_of(tx, [node_id])[node_id]


def peer(number, node_id="nod_a", **changes):
    return dataclasses.replace(
        Peer(f"peer_{number}", node_id, "dev_1", AWG, f"key{number}", (f"10.0.0.{number}/32",), "psk", ""), **changes
    )


@pytest.fixture
def fleet_store(store):
    with store.write() as tx:
        fleet.insert_node(tx, FULL)
        fleet.insert_node(tx, Node("nod_b", "Beta", config_revision=5))
        fleet.upsert_users(tx, [User("usr_1", "ann", "ann@example.org")], now=NOW)
        fleet.upsert_devices(tx, [Device("dev_1", "usr_1", "phone"), Device("dev_2", "usr_1", "laptop")], now=NOW)
    return store


def test_a_node_comes_back_as_it_went_in(fleet_store):
    assert get(fleet_store) == FULL
    assert get(fleet_store, "nod_b") == Node("nod_b", "Beta", config_revision=5)
    assert get(fleet_store, "nod_x") is None


def test_nodes_are_listed_by_name(fleet_store):
    with fleet_store.write() as tx:
        fleet.insert_node(tx, Node("nod_c", "nod_b"))
    with fleet_store.read() as tx:
        assert [n.name for n in fleet.list_nodes(tx, now=NOW)] == ["Beta", "alpha", "nod_b"]


def test_a_name_is_given_once(fleet_store):
    with pytest.raises(UniqueViolation), fleet_store.write() as tx:
        fleet.insert_node(tx, Node("nod_z", "alpha"))
    with pytest.raises(UniqueViolation), fleet_store.write() as tx:
        fleet.update_node(tx, dataclasses.replace(FULL, name="Beta"), expected_version=3, now=NOW)
    assert get(fleet_store) == FULL


def test_server_names_are_those_of_valid_certificates_newest_first(fleet_store):
    rows = [
        ("1", "nod_a", "old.example", 100, None),
        ("2", "nod_a", "new.example", 200, None),
        ("3", "nod_a", "revoked.example", 300, 301),
        ("4", "nod_b", "other.example", 400, None),
        ("5", "nod_b", "other.example", 500, None),
    ]
    end = int((NOW + 10) * 1e6)
    with fleet_store.write() as tx:
        tx.executemany(
            "INSERT INTO node_certs (serial, node_id, server_name, cert_pem, not_before, not_after, revoked_at, created_at) "
            "VALUES (?, ?, ?, '', 0, ?, ?, ?)",
            [(serial, node, name, end, revoked, created) for serial, node, name, created, revoked in rows],
        )
    assert get(fleet_store).server_names == ("new.example", "old.example")
    assert get(fleet_store, "nod_b").server_names == ("other.example",)
    assert get(fleet_store, now=NOW + 10).server_names == ()
    with fleet_store.read() as tx:
        assert [n.server_names for n in fleet.list_nodes(tx, now=NOW)] == [
            ("other.example",),
            ("new.example", "old.example"),
        ]


def test_an_update_writes_intent_and_nothing_that_a_node_reports(fleet_store):
    wanted = dataclasses.replace(
        FULL, name="gamma", region="", enabled=True, policy=NetworkPolicy(), endpoint_ports="5000-5001",
        agent_version="forged", applied_revision=99, mapped_ports="5000-5001",
    )  # fmt: skip
    with fleet_store.write() as tx:
        returned = fleet.update_node(tx, wanted, expected_version=3, now=NOW + 5)
    stored = get(fleet_store)
    assert (stored.name, stored.region, stored.enabled, stored.policy) == ("gamma", "", True, NetworkPolicy())
    assert (stored.agent_version, stored.applied_revision) == ("1.2.3", 11)
    assert (stored.endpoint_ports, stored.mapped_ports) == ("5000-5001", "20000-20001")
    with fleet_store.write() as tx:
        fleet.record_observed(tx, [dataclasses.replace(FULL, endpoint_ports="forged", mapped_ports="")], now=NOW + 6)
    stored = get(fleet_store)
    assert (stored.endpoint_ports, stored.mapped_ports) == ("5000-5001", "")
    assert (returned.version, returned.updated_at) == (stored.version, stored.updated_at) == (4, NOW + 5)


def test_a_stale_update_is_refused_with_the_current_version_and_changes_nothing(fleet_store):
    with pytest.raises(StaleVersion) as caught, fleet_store.write() as tx:
        fleet.update_node(tx, dataclasses.replace(FULL, name="gamma"), expected_version=2, now=NOW)
    assert caught.value.current == 3
    assert get(fleet_store) == FULL
    with pytest.raises(NotFound), fleet_store.write() as tx:
        fleet.update_node(tx, dataclasses.replace(FULL, id="nod_x"), expected_version=3, now=NOW)


def test_an_update_never_takes_the_revision_back(fleet_store):
    with fleet_store.write() as tx:
        fleet.bump_revision(tx, "nod_a", 0)
        assert fleet.update_node(tx, FULL, expected_version=3, now=NOW).config_revision == FULL.config_revision + 1
    assert get(fleet_store).config_revision == FULL.config_revision + 1


def test_revisions_grow_and_touch_nothing_else(fleet_store):
    with fleet_store.write() as tx:
        assert fleet.bump_revision(tx, "nod_b", 0) == 6
        assert fleet.bump_revision(tx, "nod_b", 7) == 7
        assert fleet.bump_revision(tx, "nod_b", 100) == 100
        assert fleet.bump_revision(tx, "nod_b", 3) == 101
    assert get(fleet_store, "nod_b") == Node("nod_b", "Beta", config_revision=101)
    with pytest.raises(NotFound), fleet_store.write() as tx:
        fleet.bump_revision(tx, "nod_x", 0)


def test_many_revisions_grow_at_once(store):
    ids = [f"nod_{number}" for number in range(1203)]
    with store.write() as tx:
        for position, node_id in enumerate(ids):
            fleet.insert_node(tx, Node(node_id, node_id, config_revision=position))
        assert fleet.bump_revisions(tx, [*ids[1:], "nod_unknown"]) == {i: n + 1 for n, i in enumerate(ids) if n}
        assert fleet.bump_revisions(tx, []) == {}
    assert get(store, "nod_0").config_revision == 0


def test_what_is_observed_touches_neither_version_nor_intent(fleet_store):
    seen = dataclasses.replace(
        FULL,
        name="ignored",
        agent_version="2.0",
        wg_public_key="k2",
        obfuscation=Obfuscation(),
        xray_public_key="x2",
        policy_confirmed="def",
        applied_revision=12,
        config_revision=1,
        version=77,
    )
    with fleet_store.write() as tx:
        fleet.record_observed(tx, [seen, dataclasses.replace(FULL, id="nod_gone")], now=NOW + 9)
    expected = dataclasses.replace(seen, name="alpha", version=3, config_revision=FULL.config_revision)
    assert get(fleet_store) == expected, "updated_at too: the status is the same"
    with fleet_store.write() as tx:
        fleet.record_observed(tx, [dataclasses.replace(seen, status=NodeStatus.UNREACHABLE)], now=NOW + 9)
    assert get(fleet_store) == dataclasses.replace(expected, status=NodeStatus.UNREACHABLE, updated_at=NOW + 9)


def test_a_deleted_node_takes_its_peers_and_certificates_along(fleet_store):
    put(fleet_store, peer(1))
    with fleet_store.write() as tx:
        tx.execute("INSERT INTO node_certs VALUES ('1', 'nod_a', 'n', '', 0, 1, NULL, '', 0)")
        fleet.delete_node(tx, "nod_a", by="root", now=1.0)
    with fleet_store.read() as tx:
        assert tx.execute("SELECT (SELECT count(*) FROM peers), (SELECT count(*) FROM node_certs)") == [(0, 0)]
        assert fleet.counts(tx) == fleet.Counts(users=1, devices=2, peers=0)
    put(fleet_store, peer(1, "nod_b"))


def test_users_and_devices_are_written_over_and_count_their_versions(fleet_store):
    with fleet_store.write() as tx:
        fleet.upsert_users(tx, [User("usr_1", "Ann", ""), User("usr_2", "bob", "")], now=NOW)
        fleet.upsert_devices(tx, [Device("dev_1", "usr_1", "old phone", "ios", "revoked")], now=NOW)
    with fleet_store.read() as tx:
        assert tx.execute("SELECT name, email, version FROM users ORDER BY id") == [("Ann", None, 2), ("bob", None, 1)]
        found = tx.execute("SELECT name, platform, status, version FROM devices WHERE id = 'dev_1'")
        assert found == [("old phone", "ios", "revoked", 2)]
    with pytest.raises(MissingReference), fleet_store.write() as tx:
        fleet.upsert_devices(tx, [Device("dev_9", "usr_9", "x")], now=NOW)


def test_peers_come_back_in_a_steady_order(fleet_store):
    first = [peer(3), peer(1), peer(2)]
    put(fleet_store, *first)
    with fleet_store.write() as tx:
        fleet.put_peers(tx, [peer(0)], now=NOW + 1)
    assert peers_of(fleet_store) == [peer(1), peer(2), peer(3), peer(0)]
    assert peers_of(fleet_store, "nod_b") == []


def test_a_peer_with_the_same_key_is_replaced_and_keeps_its_id(fleet_store):
    put(fleet_store, peer(1))
    put(fleet_store, peer(1, id="peer_other", device_id="dev_2", allowed_ips=("10.0.0.9",), preshared_key="new"))
    expected = peer(1, device_id="dev_2", allowed_ips=("10.0.0.9",), preshared_key="new")
    assert peers_of(fleet_store) == [expected]
    put(fleet_store, peer(2, allowed_ips=("10.0.0.1",)))  # the address that was given back


def test_an_allowed_ip_belongs_to_one_peer_of_a_node(fleet_store):
    put(fleet_store, peer(1), peer(2, allowed_ips=("fd00::2", "10.1.0.0/16")))
    for taken in ("10.0.0.1", "10.0.0.1/32", "FD00::2/128", "10.1.2.3/16"):
        with pytest.raises(AlreadyExists, match=r"allowed_ips: .* is that of peer key[12]"):
            put(fleet_store, peer(3, allowed_ips=("10.0.0.3/32", taken)))
    with pytest.raises(AlreadyExists, match="allowed_ips"):
        put(fleet_store, peer(3), peer(4, allowed_ips=("10.0.0.3",)))
    assert len(peers_of(fleet_store)) == 2
    put(fleet_store, peer(1, "nod_b", id="peer_1b"))  # on another node
    put(fleet_store, peer(5, protocol=XRAY, allowed_ips=("10.0.0.1/32",)))  # XRay does not route by it
    put(fleet_store, peer(6, allowed_ips=("10.1.2.3/32",)))  # a longer prefix within another's wins, and is another one


def test_peers_may_swap_addresses_in_one_change(fleet_store):
    put(fleet_store, peer(1), peer(2))
    put(fleet_store, peer(1, allowed_ips=("10.0.0.2/32",)), peer(2, allowed_ips=("10.0.0.1/32",)))
    assert [p.allowed_ips for p in peers_of(fleet_store)] == [("10.0.0.2/32",), ("10.0.0.1/32",)]


def test_a_removed_peer_gives_its_address_back(fleet_store):
    put(fleet_store, peer(1), peer(2))
    with fleet_store.write() as tx:
        fleet.remove_peers(tx, [("nod_a", AWG, "key1"), ("nod_a", AWG, "never"), ("nod_b", AWG, "key2")])
        fleet.put_peers(tx, [peer(3, allowed_ips=("10.0.0.1/32",))], now=NOW)
    assert [p.id for p in peers_of(fleet_store)] == ["peer_2", "peer_3"]


def test_a_peer_without_a_device_or_node_is_refused(fleet_store):
    for orphan in (peer(1, device_id="dev_9"), peer(1, "nod_x")):
        with pytest.raises(MissingReference):
            put(fleet_store, orphan)


def test_attribution_is_by_node_protocol_and_key(fleet_store):
    put(fleet_store, peer(1), peer(1, "nod_b", id="peer_1b", device_id="dev_2"), peer(2))
    asked = [("nod_a", AWG, "key1"), ("nod_b", AWG, "key1"), ("nod_b", AWG, "key2"), ("nod_a", XRAY, "key1")]
    with fleet_store.read() as tx:
        assert fleet.attribution(tx, asked) == {
            ("nod_a", AWG, "key1"): ("dev_1", "usr_1"),
            ("nod_b", AWG, "key1"): ("dev_2", "usr_1"),
        }
        assert fleet.attribution(tx, []) == {}
        assert fleet.node_keys(tx) == {"key"}


def test_a_node_does_not_hide_a_device_by_claiming_its_key(fleet_store):
    put(fleet_store, peer(1, public_key="key"))
    with fleet_store.read() as tx:
        assert fleet.node_keys(tx) == frozenset()


def test_ten_thousand_peers_at_once(fleet_store):
    many = [
        peer(n, id=f"peer_{n:05}", public_key=f"k{n}", allowed_ips=(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32",))
        for n in range(10_000)
    ]
    put(fleet_store, *many)
    put(fleet_store, *many)
    assert peers_of(fleet_store) == many
