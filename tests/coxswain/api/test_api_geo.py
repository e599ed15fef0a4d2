"""Where nodes are, through the API of a real controller; and the tree without those of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coxswain.messages.audit import Caller
from coxswain.messages.servers import AddRelay, PutServer
from coxswain.servers import Relay
from tests.fleet import Controller, lone_controller
from tests.mmdb import city, write_mmdb
from tests.support import an_addr, eventually

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFfO0ZtHt4P2SJUA157w8YSDWtv2g0faqFpBtbTDCuIV"
MOUNTAIN = {"8.8.8.0/24": city(37.4, -122.1, "Mountain View", "United States", "US")}


@pytest.fixture
def located(tmp_path: Path) -> Iterator[Controller]:
    """A controller with a database in its state directory."""

    def put_mountain(state: Path) -> None:
        write_mmdb(state / "dbip-city-lite.mmdb", MOUNTAIN)

    config = "posture: personal\ncontrol_location: {city: Reykjavik, lat: 64.1, lon: -21.9}\n"
    with lone_controller(tmp_path, config=config, before_start=put_mountain) as controller:
        yield controller


def test_nodes_are_where_their_region_says_else_where_their_address_is(located: Controller) -> None:
    client = located.client
    assert client.get("/api/geoip") == {
        "available": True,
        "source": "DBIP-City-Lite",
        "attribution": {"text": "IP Geolocation by DB-IP", "url": "https://db-ip.com"},
    }
    for name, region, address in (
        ("a", "fra1", "8.8.8.8"),
        ("b", "", "8.8.8.9"),
        ("c", "unheard-of", "8.8.8.10"),
        ("d", "", "192.0.2.1"),
    ):
        client.post(
            "/api/nodes", {"name": name, "region": region, "control_addr": an_addr("127.0.0.1"), "public_ip": address}
        )
    found = client.get("/api/map")
    assert [(p["city"], p["source"], [n["name"] for n in p["nodes"]]) for p in found["places"]] == [
        ("Frankfurt", "region", ["a"]),
        ("Mountain View", "geoip", ["b", "c"]),
    ]
    assert [node["name"] for node in found["elsewhere"]] == ["d"]
    assert found["controller"] == {"city": "Reykjavik", "latitude": 64.1, "longitude": -21.9}
    assert found["credit"] == {"text": "IP Geolocation by DB-IP", "url": "https://db-ip.com"}
    assert client.get("/api/nodes/b")["location"] == {
        "city": "Mountain View",
        "country": "United States",
        "country_code": "US",
        "latitude": 37.4,
        "longitude": -122.1,
    }
    assert "location" not in client.get("/api/nodes/d")
    assert [node["name"] for node in client.get("/api/nodes?region=fra1")] == ["a"]


def test_relays_are_on_the_map_as_well(located: Controller) -> None:
    for name, region, host in (("r1", "fra1", "8.8.8.8"), ("r2", "", "8.8.8.9"), ("r3", "", "192.0.2.1")):
        relay = Relay("", name, endpoint=f"{host}:8444", region=region, status="active")
        located.system.ask("servers", AddRelay(Caller("tests", "system"), relay), deadline=30)
    found = located.client.get("/api/map")
    assert [(r["name"], r["city"], r["source"]) for r in found["relays"]] == [
        ("r1", "Frankfurt", "region"),
        ("r2", "Mountain View", "geoip"),
    ]
    assert found["places"] == []
    places = {relay["name"]: relay.get("location", {}).get("city") for relay in located.client.get("/api/relays")}
    assert places == {"r1": "Mountain View", "r2": "Mountain View", "r3": None}


def test_machines_are_where_their_address_is(located: Controller) -> None:
    """management-plane.md 3.3: ``location`` of Server and Self, left out where nobody knows."""
    for host in ("8.8.8.8", "192.0.2.1"):
        put = PutServer(Caller("tests", "system"), host, 22, "root", HOST_KEY)
        located.system.ask("servers", put, deadline=30)
    there, nowhere = located.client.get("/api/servers")
    assert there["location"] == located.client.get("/api/servers")[0]["location"]
    assert (there["location"]["city"], there["location"]["country_code"]) == ("Mountain View", "US")
    assert "location" not in nowhere
    assert "location" not in located.client.get("/api/self")
    registered = located.client.post("/api/servers/self", {"host": "8.8.8.9"})
    own = located.client.get("/api/self")
    assert own["public_ip"] == "8.8.8.9" and own["location"] == registered["location"] == there["location"]


def test_without_a_database_there_is_no_credit(controller: Controller) -> None:
    none = {"available": False, "source": "", "attribution": {"text": "", "url": ""}}
    assert controller.client.get("/api/geoip") == none
    assert controller.client.get("/api/map")["credit"] is None


def test_the_tree_may_be_asked_for_without_links(controller: Controller) -> None:
    controller.client.post("/api/nodes", {"name": "one", "control_addr": an_addr("127.0.0.1")})

    def names(tree: dict[str, Any]) -> set[str]:
        return {tree["id"]}.union(*(names(child) for child in tree["children"]))

    eventually(lambda: any(name.startswith("node_link:") for name in names(controller.client.get("/api/tree"))))
    short = names(controller.client.get("/api/tree?links=false"))
    assert "node_links" in short
    assert not any(name.startswith("node_link:") for name in short)
