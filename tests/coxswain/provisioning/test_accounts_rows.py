"""Rows of provisioning on both backends: addresses that are there once, lowest free first; pages; references."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from coxswain.errors import AlreadyExists, NotFound, StaleVersion
from coxswain.model import Credential, Device, Node, Peer, Profile, Protocol, User
from coxswain.store import MissingReference, Store, Tx
from coxswain.store import accounts as rows
from coxswain.store import fleet as fleet_rows
from coxswain.store import peers as peer_rows
from coxswain.store import profiles as profile_rows

FIRST = int(ipaddress.IPv4Address("10.99.0.2"))
LAST = FIRST + 4


def people(tx: Tx, devices: int = 8) -> None:
    rows.insert_user(tx, User("usr_1", "Ann", "ann@example.org", created_at=1.0))
    for number in range(devices):
        rows.insert_device(tx, Device(f"dev_{number}", "usr_1", "d", created_at=float(number)))


def credential(device: int, number: int) -> Credential:
    address = str(ipaddress.IPv4Address(FIRST + number))
    return Credential(f"cred_{device}", f"dev_{device}", "", address, "k", b"sealed", "u")


def free(tx: Tx, count: int) -> list[int]:
    return [number - FIRST for number in profile_rows.addresses_free(tx, FIRST, LAST, count)]


def test_the_lowest_free_addresses_come_first_and_the_end_is_the_end(store: Store) -> None:
    with store.write() as tx:
        people(tx)
        assert free(tx, 3) == [0, 1, 2]
        profile_rows.insert_credentials(tx, [credential(0, 0), credential(1, 1), credential(2, 3)], now=1.0)
        assert free(tx, 1) == [2]
        assert free(tx, 9) == [2, 4]
        profile_rows.delete_credentials(tx, ["cred_0"])
        assert free(tx, 2) == [0, 2]
        profile_rows.insert_credentials(tx, [credential(3, 0), credential(4, 2), credential(5, 4)], now=1.0)
        assert free(tx, 1) == []


def test_an_address_that_a_peer_made_by_hand_has_is_not_free(store: Store) -> None:
    with store.write() as tx:
        people(tx)
        fleet_rows.insert_node(tx, Node("nod_1", "n1"))
        peer = Peer("peer_1", "nod_1", "dev_0", Protocol.AMNEZIAWG, "k", ("10.99.0.2",))
        fleet_rows.put_peers(tx, [peer], now=1.0)
        assert free(tx, 2) == [1, 2]


def test_one_address_is_one_credential(store: Store) -> None:
    with store.write() as tx:
        people(tx)
    with pytest.raises(AlreadyExists), store.write() as tx:
        profile_rows.insert_credentials(tx, [credential(0, 0), credential(1, 0)], now=1.0)


def test_credentials_come_back_as_they_went(store: Store) -> None:
    with store.write() as tx:
        people(tx)
        profile_rows.insert_credentials(tx, [credential(0, 0)], now=1.0)
        assert profile_rows.credentials_of(tx, ["dev_0", "dev_1"]) == {"dev_0": [credential(0, 0)], "dev_1": []}
        assert "sealed" not in repr(credential(0, 0))
        profile_rows.replace_keys(tx, [dataclasses.replace(credential(0, 0), uuid="other")])
        assert profile_rows.credentials_of(tx, ["dev_0"])["dev_0"][0].uuid == "other"
        assert rows.get_device(tx, "dev_0") == Device("dev_0", "usr_1", "d", created_at=0.0, provisioned=True)


def test_pages_go_through_everything_once(store: Store) -> None:
    with store.write() as tx:
        people(tx, devices=7)
        rows.insert_user(tx, User("usr_a", "admin", role="admin", created_at=0.5))
        found, after = [], ""
        while page := rows.list_devices(tx, after=after, limit=3):
            found += [device.id for device in page]
            after = page[-1].id
        assert found == [f"dev_{n}" for n in range(7)]
        for gone in (rows.list_devices, rows.list_users, profile_rows.list_profiles):
            with pytest.raises(NotFound, match="after"):
                gone(tx, after="dev_gone", limit=3)
        assert [user.id for user in rows.list_users(tx, limit=9)] == ["usr_1"]
        assert rows.find_user(tx, "ANN@example.org") == rows.get_user(tx, "usr_1")
        assert rows.count_devices(tx, "usr_1") == 7


def test_changes_that_somebody_was_quicker_with(store: Store) -> None:
    with store.write() as tx:
        people(tx, devices=1)
        user, device = rows.get_user(tx, "usr_1"), rows.get_device(tx, "dev_0")
        assert user is not None
        assert device is not None
        assert rows.update_user(tx, user, expected_version=1, now=2.0).version == 2
        assert rows.update_device(tx, device, expected_version=1, now=2.0).version == 2
        with pytest.raises(StaleVersion, match="is 2 now"):
            rows.update_user(tx, user, expected_version=1, now=2.0)
        with pytest.raises(StaleVersion):
            rows.update_device(tx, device, expected_version=1, now=2.0)
        with pytest.raises(NotFound):
            rows.update_device(tx, dataclasses.replace(device, id="dev_x"), expected_version=1, now=2.0)


def test_profiles_hold_the_node_that_they_lead_to(store: Store) -> None:
    profile = Profile("p_1", "dev_0", "home", node_id="nod_1", entry_ips=("192.0.2.1",), user_id="usr_1", created_at=1.0)
    with store.write() as tx:
        people(tx, devices=1)
        fleet_rows.insert_node(tx, Node("nod_1", "n1"))
        profile_rows.insert_profile(tx, profile)
        assert profile_rows.get_profile(tx, "p_1") == profile
        assert profile_rows.list_profiles(tx, user_id="usr_1", limit=5) == [profile]
        assert profile_rows.profiles_through(tx, node_id="nod_1") == 1
        assert profile_rows.update_profile(tx, profile, expected_version=1, now=2.0).version == 2
        with pytest.raises(StaleVersion):
            profile_rows.update_profile(tx, profile, expected_version=1, now=2.0)
    with pytest.raises(MissingReference), store.write() as tx:
        fleet_rows.delete_node(tx, "nod_1", by="root", now=1.0)
    with pytest.raises(AlreadyExists), store.write() as tx:
        profile_rows.insert_profile(tx, dataclasses.replace(profile, id="p_2"))
    with store.write() as tx:
        rows.delete_user(tx, "usr_1", by="root", now=1.0)
        assert profile_rows.list_profiles(tx, limit=5) == []
        fleet_rows.delete_node(tx, "nod_1", by="root", now=1.0)


def test_peers_of_whoever_is_suspended_are_off(store: Store) -> None:
    with store.write() as tx:
        people(tx, devices=2)
        fleet_rows.insert_node(tx, Node("nod_1", "n1"))
        one, two = (Peer(f"peer_{n}", "nod_1", f"dev_{n}", Protocol.AMNEZIAWG, f"k{n}", (f"10.0.0.{n}/32",)) for n in (0, 1))
        fleet_rows.put_peers(tx, [one], now=1.0)
        user, device = rows.get_user(tx, "usr_1"), rows.get_device(tx, "dev_1")
        assert user is not None
        assert device is not None
        rows.update_device(tx, dataclasses.replace(device, status="suspended"), expected_version=1, now=2.0)
        fleet_rows.put_peers(tx, [two], now=1.0)
        assert fleet_rows.peers_of(tx, ["nod_1"]) == {"nod_1": [one]}
        rows.update_user(tx, dataclasses.replace(user, status="suspended"), expected_version=1, now=2.0)
        assert peer_rows.enable_peers(tx, ["dev_0", "dev_1"]) == ["nod_1"]
        assert peer_rows.enable_peers(tx, ["dev_0", "dev_1"]) == []
        assert fleet_rows.peers_of(tx, ["nod_1"]) == {"nod_1": []}
        assert peer_rows.peers_of_devices(tx, ["dev_1"]) == {"dev_1": [two]}
        rows.update_user(tx, user, expected_version=2, now=3.0)
        assert peer_rows.enable_peers(tx, ["dev_0", "dev_1"]) == ["nod_1"]
        assert fleet_rows.peers_of(tx, ["nod_1"]) == {"nod_1": [one]}


def test_who_lacks_a_node(store: Store) -> None:
    with store.write() as tx:
        people(tx, devices=4)
        for number in (1, 2):
            fleet_rows.insert_node(tx, Node(f"nod_{number}", f"n{number}"))
        profile_rows.insert_credentials(tx, [credential(0, 0), credential(1, 1)], now=1.0)
        profile_rows.insert_profile(tx, Profile("p_2", "dev_2", "home", node_id="nod_1"))
        there = Peer("peer_1", "nod_1", "dev_0", Protocol.AMNEZIAWG, "k", ("10.99.0.2/32",), credential_id="cred_0")
        fleet_rows.put_peers(tx, [there], now=1.0)
        assert profile_rows.devices_lacking(tx, "nod_1", 1, limit=9) == ["dev_1", "dev_2"]
        assert profile_rows.devices_lacking(tx, "nod_1", 1, after="dev_1", limit=9) == ["dev_2"]
        assert profile_rows.devices_lacking(tx, "nod_2", 1, limit=1) == ["dev_0"]
        assert profile_rows.devices_lacking(tx, "nod_2", 2, limit=9) == ["dev_0", "dev_1"]
