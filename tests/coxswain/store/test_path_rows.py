"""Rows of paths, links and bindings, on each backend."""

import dataclasses

import pytest

from coxswain.cascade.types import Binding, Detour, NodeLink, Path, Phase
from coxswain.errors import NotFound, StaleVersion
from coxswain.model import Device, Node, Obfuscation, Peer, Profile, ProfileProtocol, Protocol, User
from coxswain.store import MissingReference, UniqueViolation, fleet, paths, profiles

NOW = 1_767_225_600.25
PATH = Path("pth_1", "far", ("nod_a", "nod_b", "nod_c"), "#4fd1c4", created_at=NOW, updated_at=NOW)
LINK = NodeLink(
    "nlk_1", "nod_a", "nod_b", 0, 1400, Obfuscation(jc=4, h1=9, i1="<b 0x01>"), "psk", created_at=NOW, updated_at=NOW
)


@pytest.fixture
def world(store):
    with store.write() as tx:
        for name in "abcd":
            fleet.insert_node(tx, Node(f"nod_{name}", name, created_at=NOW, updated_at=NOW))
        fleet.upsert_users(tx, [User("usr_1", "Anna")], now=NOW)
        fleet.upsert_devices(tx, [Device(f"dev_{i}", "usr_1", f"d{i}") for i in (1, 2)], now=NOW)
        paths.insert_path(tx, PATH)
        paths.insert_link(tx, LINK)
    return store


def read(store, function, *args):
    with store.read() as tx:
        return function(tx, *args)


def write(store, function, *args, **more):
    with store.write() as tx:
        return function(tx, *args, **more)


def test_a_path_is_read_as_it_was_written(world):
    assert read(world, paths.paths) == {"pth_1": PATH}
    assert read(world, paths.entries) == {"pth_1": "nod_a"}
    assert read(world, paths.paths_of_node, "nod_b") == ["far"]
    assert read(world, paths.paths_of_node, "nod_d") == []


def test_paths_come_in_the_order_of_their_names(world):
    for name in ("b", "B", "a", "é"):
        write(world, paths.insert_path, dataclasses.replace(PATH, id=f"pth_{name}", name=name))
    assert [p.name for p in read(world, paths.paths).values()] == ["B", "a", "b", "far", "é"]


def test_a_name_is_there_once_and_a_node_once_per_path(world):
    with pytest.raises(UniqueViolation):
        write(world, paths.insert_path, dataclasses.replace(PATH, id="pth_2"))
    with pytest.raises(UniqueViolation):
        write(world, paths.insert_path, Path("pth_2", "round", ("nod_a", "nod_b", "nod_a"), created_at=NOW))
    with pytest.raises(MissingReference):
        write(world, paths.insert_path, Path("pth_2", "nowhere", ("nod_a", "nod_x"), created_at=NOW))
    assert list(read(world, paths.paths)) == ["pth_1"]


def test_a_change_is_for_whoever_saw_the_present_version(world):
    renamed = dataclasses.replace(PATH, name="near", color="")
    assert write(world, paths.update_path, renamed, expected_version=1, now=NOW + 1).version == 2
    with pytest.raises(StaleVersion) as caught:
        write(world, paths.update_path, renamed, expected_version=1, now=NOW)
    assert caught.value.current == 2
    with pytest.raises(NotFound):
        write(world, paths.update_path, dataclasses.replace(PATH, id="pth_x"), expected_version=1, now=NOW)


def test_a_node_on_a_path_cannot_be_deleted_nor_a_path_with_a_device_on_it(world):
    with pytest.raises(MissingReference):
        write(world, fleet.delete_node, "nod_b", by="root", now=1.0)
    write(world, paths.put_exit, Binding("dev_1", "dev_1", "pth_1"), now=NOW)
    with pytest.raises(MissingReference):
        write(world, paths.delete_path, "pth_1")
    write(world, paths.remove_exit, "dev_1")
    write(world, paths.delete_path, "pth_1")
    assert read(world, paths.paths) == {}
    write(world, fleet.delete_node, "nod_b", by="root", now=1.0)
    assert read(world, paths.links) == {}, "its links go with it"


def test_a_link_is_read_as_it_was_written_and_has_its_place_alone(world):
    assert read(world, paths.links) == {"nlk_1": LINK}
    for other in (
        dataclasses.replace(LINK, id="nlk_2", exit_node_id="nod_c"),
        dataclasses.replace(LINK, id="nlk_2", index=1),
    ):
        with pytest.raises(UniqueViolation):
            write(world, paths.insert_link, other)
    moved = dataclasses.replace(LINK, index=3, mtu=1300, obfuscation=Obfuscation(h1=7))
    after = write(world, paths.update_link, moved, now=NOW + 5)
    assert after.version == 2
    assert read(world, paths.links) == {"nlk_1": after}
    assert "psk" not in repr(LINK)


def test_a_binding_has_its_stage_in_the_store(world):
    write(world, paths.insert_path, Path("pth_2", "other", ("nod_a", "nod_d"), created_at=NOW))
    binding = Binding("dev_1", "dev_1", "pth_1", "pth_2", Phase.PREPARING)
    assert write(world, paths.put_exit, binding, now=NOW).version == 1
    assert write(world, paths.put_exit, dataclasses.replace(binding, phase=Phase.MOVED), now=NOW).version == 2
    assert read(world, paths.device_bindings) == {"dev_1": dataclasses.replace(binding, phase=Phase.MOVED, version=2)}
    assert read(world, paths.users_of_path, "pth_1") == (1, 0)
    assert read(world, paths.users_of_path, "pth_2") == (1, 0)
    with pytest.raises(MissingReference):
        write(world, paths.put_exit, Binding("dev_x", "dev_x", "pth_1"), now=NOW)


def own(number, node="nod_a", device="dev_1", protocol=Protocol.AMNEZIAWG):
    return Peer(f"peer_{number}", node, device, protocol, f"key{number}", (f"10.86.0.{number}",), "", "")


def test_a_bound_device_takes_its_addresses_on_the_entry_along(world):
    peers = [own(2), own(3, device="dev_2"), own(4, node="nod_b"), own(5, protocol=Protocol.XRAY_REALITY)]
    write(world, fleet.put_peers, peers, now=NOW)
    write(world, paths.put_exit, Binding("dev_1", "dev_1", "pth_1"), now=NOW)
    [found] = read(world, paths.bindings, {"pth_1": "nod_a"})
    assert (found.id, found.addresses, found.active) == ("dev_1", {"nod_a": ("10.86.0.2/32",)}, True)
    assert read(world, paths.peers_at, "dev_1", "nod_a") == (1, 1)
    assert read(world, paths.tunnels_at, "dev_1", "nod_a") == ("10.86.0.2/32",)
    assert read(world, paths.tunnels_at, "dev_2", "nod_b") == ()


def test_a_profile_of_a_path_is_a_binding_of_its_own(world):
    """Its address is not the device's elsewhere, and is not taken along when the device is bound (fleet-model.md 6.1)."""
    with world.write() as tx:
        profile = Profile("psp_1", "dev_1", "work", ProfileProtocol.BOTH, path_id="pth_1", created_at=NOW)
        profiles.insert_profile(tx, profile)
        tx.execute(
            "INSERT INTO credentials (id, device_id, profile_id, wg_public_key, wg_private_key_sealed, uuid, created_at) "
            "VALUES ('crd_1', 'dev_1', 'psp_1', 'key9', ?, 'uuid', 0)",
            (b"sealed",),
        )
        tagged = dataclasses.replace(own(9), credential_id="crd_1")
        fleet.put_peers(tx, [own(2), tagged], now=NOW)
        paths.put_exit(tx, Binding("dev_1", "dev_1", "pth_1"), now=NOW)
    device, spec = read(world, paths.bindings, {"pth_1": "nod_a"})
    assert (device.id, device.addresses["nod_a"]) == ("dev_1", ("10.86.0.2/32",))
    assert (spec.id, spec.device_id, spec.route) == ("psp_1", "dev_1", "pth_1")
    assert spec.addresses["nod_a"] == ("10.86.0.9/32",)
    assert (spec.tunnel, spec.xray) == (True, True)
    assert read(world, paths.users_of_path, "pth_1") == (1, 1)
    with world.write() as tx:
        tx.execute("UPDATE peers SET enabled = 0")
        tx.execute("UPDATE devices SET status = 'suspended' WHERE id = 'dev_1'")
    assert [b.active for b in read(world, paths.bindings, {"pth_1": "nod_a"})] == [False, False]
    assert [b.addresses["nod_a"] for b in read(world, paths.bindings, {"pth_1": "nod_a"})] == [(), ()]


def test_revisions_of_links_only_grow_and_what_is_in_doubt_is_kept(world):
    assert write(world, paths.begin_links, "nod_a", {"awg1": "block:"}, 100) == 100
    assert write(world, paths.begin_links, "nod_a", {"awg1": "block:"}, 50) == 101
    assert write(world, paths.begin_links, "nod_a", {}, 2**40) == 2**40
    with pytest.raises(NotFound):
        write(world, paths.begin_links, "nod_x", {}, 1)
    write(world, paths.begin_links, "nod_a", {"awg2": "b:p", "awg1": "b:"}, 1)
    node = read(world, lambda tx: fleet.get_node(tx, "nod_a", now=NOW))
    assert node.links_confirmed == (("awg1", "b:"), ("awg2", "b:p"))
    assert node.link_revision == 2**40 + 1


def test_what_a_node_reported_of_its_links_comes_back(world):
    before = read(world, lambda tx: fleet.get_node(tx, "nod_a", now=NOW))
    after = dataclasses.replace(before, links_confirmed=(("awg1", "b:p"),), xray_confirmed="abc", agent_started_at=NOW)
    write(world, fleet.record_observed, [after], now=NOW)
    found = read(world, lambda tx: fleet.get_node(tx, "nod_a", now=NOW))
    assert (found.links_confirmed, found.xray_confirmed, found.agent_started_at) == ((("awg1", "b:p"),), "abc", NOW)


def test_a_device_that_is_deleted_is_bound_no_longer(world):
    write(world, paths.put_exit, Binding("dev_1", "dev_1", "pth_1"), now=NOW)
    with world.write() as tx:
        tx.execute("DELETE FROM devices WHERE id = 'dev_1'")
    assert read(world, paths.device_bindings) == {}


def test_a_nodes_clients_have_a_peer_there_or_a_path_over_it(world):
    """Each is counted once (fleet-model.md 2.5)."""
    assert read(world, fleet.clients_of_node, "nod_b") == 0
    write(world, paths.put_exit, Binding("dev_1", "dev_1", "pth_1"), now=NOW)
    peers = [Peer(f"peer_{n}", "nod_b", f"dev_{d}", Protocol.AMNEZIAWG, f"k{n}", ()) for n, d in ((1, 1), (2, 2), (3, 2))]
    write(world, fleet.put_peers, peers, now=NOW)
    assert [read(world, fleet.clients_of_node, f"nod_{name}") for name in "abcd"] == [1, 2, 1, 0]
    write(world, paths.insert_path, Path("pth_2", "next", ("nod_a", "nod_d"), created_at=NOW, updated_at=NOW))
    write(world, paths.put_exit, Binding("dev_1", "dev_1", "pth_1", "pth_2"), now=NOW)
    assert read(world, fleet.clients_of_node, "nod_d") == 1, "it is being moved there"


# -- exits


def test_fallbacks_keep_their_order_and_their_nodes(world):
    write(world, paths.put_fallbacks, "pth_1", ("nod_d",))
    assert read(world, paths.paths)["pth_1"].fallbacks == ("nod_d",)
    assert read(world, paths.paths_of_node, "nod_d") == ["far"]
    with pytest.raises(MissingReference):
        write(world, fleet.delete_node, "nod_d", by="root", now=1.0)
    write(world, paths.put_fallbacks, "pth_1", ())
    write(world, fleet.delete_node, "nod_d", by="root", now=1.0)
    with pytest.raises(MissingReference):
        write(world, paths.put_fallbacks, "pth_1", ("nod_d",))


def test_a_path_with_fallbacks_is_read_as_it_was_written(world):
    other = dataclasses.replace(PATH, id="pth_2", name="other", hops=("nod_a", "nod_b"), fallbacks=("nod_d", "nod_c"))
    write(world, paths.insert_path, other)
    assert read(world, paths.paths)["pth_2"] == other


@pytest.mark.parametrize(
    "detour",
    [
        Detour("", "nod_d", Phase.PREPARING, moved_at=NOW),
        Detour("nod_d", automatic=True, reason="c is unreachable", moved_at=NOW),
        Detour("nod_d", "", Phase.MOVED, reason="c is unreachable", moved_at=NOW),
    ],
)
def test_where_a_path_leaves_is_read_as_it_was_written(world, detour):
    write(world, paths.put_fallbacks, "pth_1", ("nod_d",))
    write(world, paths.put_detour, "pth_1", Detour("nod_d", reason="before", moved_at=NOW))
    write(world, paths.put_detour, "pth_1", detour)
    assert read(world, paths.paths)["pth_1"].detour == detour
    write(world, paths.put_detour, "pth_1", Detour())
    assert read(world, paths.paths)["pth_1"].detour == Detour()
    write(world, paths.put_detour, "pth_1", detour)
    write(world, paths.delete_path, "pth_1")
