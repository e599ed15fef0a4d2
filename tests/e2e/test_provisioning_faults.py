"""Provisioning where things go wrong: no address left, many at once, lost commits, kills, a database that was put back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from actors.supervision import Harm
from coxswain.cli.client import Client, RemoteError
from coxswain.errors import CoxswainError
from tests.fleet import LiveFleet, database, live_fleet
from tests.postgres import PostgresServer
from tests.support import eventually

NODES = 2
BASE_PORT = 13_600
CONFIG = "posture: personal\nstate_dir: state\nfleet:\n  vpn_subnet: 10.99.0.0/26\n"
ADDRESSES = 61
"""Of a /26: 64 less network, gateway and broadcast."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path, NODES, BASE_PORT, config=CONFIG) as running:
        for index in range(NODES):
            body = {"version": running.controller.node(f"n{index}")["version"], "endpoint_ips": [f"198.51.100.{index + 1}"]}
            running.controller.client.call("PATCH", f"/api/nodes/n{index}", body)
        yield running


def device(client: Client, user: str = "") -> str:
    user = user or client.post("/api/users", {"name": "somebody"})["id"]
    made: str = client.post(f"/api/users/{user}/devices", {"name": "phone"})["id"]
    return made


def rows(fleet: LiveFleet, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    with database(fleet.controller.home) as db:
        return list(db.execute(sql, params))


def public_keys(fleet: LiveFleet, index: int) -> set[str]:
    return {p["public_key"] for p in fleet.nodes.do("peers", node=index)["peers"]}


def intended_keys(fleet: LiveFleet, index: int) -> set[str]:
    sql = "SELECT public_key FROM peers WHERE node_id = ? AND enabled = 1"
    return {row[0] for row in rows(fleet, sql, fleet.ids[index])}


def test_many_at_once_until_no_address_is_left(fleet: LiveFleet) -> None:
    """fleet-model.md 12 E 34; accounts-profiles.md 10.1, 7: never one address twice, and a conflict at the end."""
    client = fleet.controller.client
    user = client.post("/api/users", {"name": "many"})["id"]
    ids = [device(client, user) for _ in range(ADDRESSES + 5)]

    def provision(device_id: str) -> str:
        own = Client(fleet.controller.home / "control.sock", timeout=60.0)
        try:
            return str(own.post(f"/api/devices/{device_id}/provision?wait=0")["tunnel_ip"])
        except RemoteError as error:
            return "" if error.status == 409 and "tunnel addresses left" in str(error) else str(error)
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(provision, ids))
    addresses = [address for address in given if address]
    assert len(addresses) == len(set(addresses)) == ADDRESSES
    assert {"10.99.0.2", "10.99.0.62"} <= set(addresses)
    assert rows(fleet, "SELECT count(*) FROM credentials") == [(ADDRESSES,)]

    freed = given.index("10.99.0.40")
    client.call("DELETE", f"/api/devices/{ids[freed]}")
    refused = ids[given.index("")]
    assert provision(refused) == "10.99.0.40"
    fleet.controller.all_in_sync(NODES)
    assert public_keys(fleet, 0) == intended_keys(fleet, 0)


def test_who_finds_no_address_left_is_in_nobodys_way(fleet: LiveFleet) -> None:
    """Neither in that of the device's other profiles, nor of what other devices lack on nodes that became ready."""
    client = fleet.controller.client

    def endpoints(index: int, *addresses: str) -> None:
        body = {"version": fleet.controller.node(f"n{index}")["version"], "endpoint_ips": list(addresses)}
        client.call("PATCH", f"/api/nodes/n{index}", body)

    def profile(device_id: str, name: str, node: str) -> dict[str, Any]:
        body = {"device_id": device_id, "name": name, "node_id": node, "protocol": "amneziawg"}
        made: dict[str, Any] = client.post("/api/profiles?wait=0", body)
        return made

    endpoints(1)
    torn, other = device(client), device(client)
    near = profile(torn, "near", "n0")
    assert [s["name"] for s in profile(torn, "far", "n1")["skipped"]] == ["far"]
    client.post(f"/api/devices/{other}/provision?wait=0")
    for _ in range(ADDRESSES - 2):
        profile(device(client), "near", "n0")
    with pytest.raises(RemoteError, match="0 tunnel addresses left"):
        profile(device(client), "near", "n0")

    endpoints(1, "198.51.100.2")  # both lack it; the one whom no address is left for comes first or last
    own = {r[0] for r in rows(fleet, "SELECT public_key FROM peers WHERE device_id = ?", other)}
    eventually(lambda: public_keys(fleet, 1) == own)
    changed = client.call("PATCH", f"/api/profiles/{near['id']}", {"name": "first", "version": near["version"]})
    assert [(s["name"], "0 tunnel addresses left" in s["reason"]) for s in changed["skipped"]] == [("far", True)]
    rotated = client.post(f"/api/devices/{torn}/provision", {"rotate": True})
    assert (rotated["peer_count"], [s["name"] for s in rotated["skipped"]]) == (1, ["far"])

    client.call("DELETE", f"/api/profiles/{near['id']}")  # its own address is free now
    (left,) = client.get(f"/api/devices/{torn}")["credentials"]
    assert left["tunnel_ip"] == "10.99.0.2"
    eventually(lambda: left["wg_public_key"] in public_keys(fleet, 1))
    assert left["wg_public_key"] not in public_keys(fleet, 0)


def test_a_commit_whose_answer_is_lost_leaves_nodes_and_rows_alike(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    first, second = device(client), device(client)
    client.post(f"/api/devices/{first}/provision")
    fleet.controller.store.lost_commits = 1
    with pytest.raises(CoxswainError):
        client.post(f"/api/devices/{second}/provision")
    fleet.controller.store.lost_commits = 1
    with pytest.raises(CoxswainError):
        client.post(f"/api/devices/{first}/revoke")
    eventually(lambda: public_keys(fleet, 0) == intended_keys(fleet, 0) != set(), timeout=30)
    assert client.get(f"/api/devices/{first}")["status"] == "revoked"
    assert client.post(f"/api/devices/{second}/provision")["peer_count"] == NODES
    assert public_keys(fleet, 0) == intended_keys(fleet, 0)


@pytest.mark.parametrize("victim", ["fleet", "network", "audit_writer"])
def test_whoever_falls_in_between_nobody_stays_on_who_was_revoked(fleet: LiveFleet, victim: str) -> None:
    client = fleet.controller.client
    ids = [device(client) for _ in range(6)]
    for device_id in ids:
        client.post(f"/api/devices/{device_id}/provision")
    for device_id in ids:
        name = "node_links" if victim == "network" else victim
        fleet.controller.system.harm(name, Harm.RAISE)

        def revoked(wanted: str = device_id) -> bool:
            try:
                if client.get(f"/api/devices/{wanted}")["status"] != "revoked":
                    client.post(f"/api/devices/{wanted}/revoke?wait=0")
            except CoxswainError:
                return False
            return bool(client.get(f"/api/devices/{wanted}")["status"] == "revoked")

        eventually(revoked, timeout=30, every=0.1)
    eventually(lambda: public_keys(fleet, 0) == set() == public_keys(fleet, 1), timeout=60, every=0.1)
    fleet.controller.all_in_sync(NODES)
    actions = [r["action"] for r in client.get("/api/audit?limit=200")]
    assert actions.count("device.revoke") == len(ids)


def test_a_node_that_was_ready_before_a_crash_is_made_up_for_after_it(fleet: LiveFleet) -> None:
    """What is left to do is found, not remembered."""
    client = fleet.controller.client
    node = fleet.controller.node("n1")
    bare = client.call("PATCH", "/api/nodes/n1", {"version": node["version"], "endpoint_ips": []})
    device_id = device(client)
    assert client.post(f"/api/devices/{device_id}/provision")["peer_count"] == 1
    fleet.controller.stop()
    with database(fleet.controller.home) as db:  # as if it had fallen right after the change
        db.execute("UPDATE nodes SET endpoint_ips = '[\"198.51.100.2\"]' WHERE id = ?", (bare["id"],))
    fleet.controller.start()
    eventually(lambda: client.get(f"/api/devices/{device_id}")["peer_count"] == 2, timeout=30)
    eventually(lambda: public_keys(fleet, 1) == intended_keys(fleet, 1) != set(), timeout=30)


def test_a_database_that_was_put_back_is_noticed_whatever_its_numbers_say(fleet: LiveFleet, tmp_path: Path) -> None:
    """fleet-model.md 12 B 11; management-plane.md 13.6, 40: nodes become what the store says, be it behind or level."""
    client = fleet.controller.client
    keeps = device(client)
    client.post(f"/api/devices/{keeps}/provision")
    fleet.controller.stop()
    shutil.copy(fleet.controller.home / "app.db", tmp_path / "backup.db")
    fleet.controller.start()
    later = device(client)
    client.post(f"/api/devices/{later}/provision")
    fleet.controller.all_in_sync(NODES)
    ahead = fleet.controller.node("n0")["applied_revision"]

    fleet.controller.stop()
    for leftover in fleet.controller.home.glob("app.db*"):
        leftover.unlink()
    shutil.copy(tmp_path / "backup.db", fleet.controller.home / "app.db")
    (fleet.controller.home / "app.db").chmod(0o600)
    with database(fleet.controller.home) as db:
        # n0 is behind its node; n1 was counted up to just where its node is.
        db.execute("UPDATE nodes SET config_revision = ? WHERE id = ?", (ahead, fleet.ids[1]))
    fleet.controller.start()
    for index in range(NODES):
        eventually(lambda index=index: public_keys(fleet, index) == intended_keys(fleet, index), timeout=30)
    fleet.controller.all_in_sync(NODES)
    assert len(public_keys(fleet, 0)) == len(public_keys(fleet, 1)) == 1
    assert fleet.controller.node("n0")["applied_revision"] > ahead


def test_a_database_that_was_put_back_leaves_no_route_nor_rule_behind(fleet: LiveFleet, tmp_path: Path) -> None:
    """Whoever has the address of a device next would be led into a path that is not there any more."""
    client, home = fleet.controller.client, fleet.controller.home
    fleet.controller.stop()
    shutil.copy(home / "app.db", tmp_path / "backup.db")
    fleet.controller.start()
    moved = device(client)
    client.post(f"/api/devices/{moved}/provision")
    path = client.post("/api/paths", {"name": "p", "node_ids": ["n0", "n1"]})["id"]
    client.post(f"/api/devices/{moved}/bind", {"path_id": path})
    client.call("PATCH", "/api/nodes/n1", {"version": fleet.controller.node("n1")["version"], "isolation": True})

    def rules() -> list[tuple[int, bool]]:
        found = (node["policy"] for node in fleet.nodes.do("network", node="all")["network"])
        return [(len(policy["transits"]), policy["isolation"]) for policy in found]

    eventually(lambda: rules() == [(1, False), (0, True)])
    fleet.controller.stop()
    for leftover in home.glob("app.db*"):
        leftover.unlink()
    shutil.copy(tmp_path / "backup.db", home / "app.db")
    (home / "app.db").chmod(0o600)
    fleet.controller.start()
    eventually(lambda: rules() == [(0, False), (0, False)])
    fleet.controller.all_in_sync(NODES)


def test_the_same_on_postgres(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Every statement of provisioning, and conflicts by their meaning and not by a driver's words."""
    dsn = postgres_server.create_database()
    with live_fleet(tmp_path, NODES, BASE_PORT, config=CONFIG, database=dsn) as fleet:
        client = fleet.controller.client
        for index in range(NODES):
            body = {"version": fleet.controller.node(f"n{index}")["version"], "endpoint_ips": [f"198.51.100.{index + 1}"]}
            client.call("PATCH", f"/api/nodes/n{index}", body)
        user = client.post("/api/users", {"name": "Ann", "email": "ann@example.org", "phone": "+49301234"})
        for taken in ({"email": "ANN@example.org"}, {"phone": "+49301234"}):
            with pytest.raises(RemoteError) as caught:
                client.post("/api/users", {"name": "B"} | taken)
            assert caught.value.status == 409
        ids = [device(client, user["id"]) for _ in range(3)]
        for device_id in ids:
            assert client.post(f"/api/devices/{device_id}/provision")["peer_count"] == NODES
        given = {"device_id": ids[0], "name": "home", "node_id": fleet.ids[0]}
        made = client.post("/api/profiles", given)
        with pytest.raises(RemoteError) as caught:
            client.post("/api/profiles", given)
        assert caught.value.status == 409
        client.call("PATCH", f"/api/profiles/{made['id']}", {"version": 1, "node_id": fleet.ids[1]})
        assert len(public_keys(fleet, 0)) == 2
        assert len(public_keys(fleet, 1)) == 3
        client.post(f"/api/devices/{ids[1]}/provision", {"rotate": True})
        client.post(f"/api/users/{user['id']}/suspend")
        assert public_keys(fleet, 0) == public_keys(fleet, 1) == set()
        client.post(f"/api/users/{user['id']}/resume")
        client.post(f"/api/devices/{ids[2]}/revoke")
        assert len(public_keys(fleet, 1)) == 2
        after = client.get("/api/devices?limit=2")[-1]["id"]
        assert [d["id"] for d in client.get(f"/api/devices?after={after}")] == ids[2:]
        client.call("DELETE", f"/api/profiles/{made['id']}")
        client.call("DELETE", f"/api/users/{user['id']}")
        assert public_keys(fleet, 0) == public_keys(fleet, 1) == set()
        fleet.controller.all_in_sync(NODES)
