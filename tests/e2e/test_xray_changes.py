"""A node that serves REALITY, while what it serves changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fleet import LiveFleet, live_fleet
from tests.support import eventually

CONFIG = "posture: personal\nprotocols:\n  xray: true\nanalytics:\n  disabled: true\n"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("xray"), 1, 13_600, config=CONFIG) as running:
        node = running.controller.node("n0")
        body = {"version": node["version"], "endpoint_ips": ["198.51.100.1"]}
        running.controller.client.call("PATCH", "/api/nodes/n0", body)
        yield running


def states(fleet: LiveFleet, after: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.controller.client.get(f"/api/events/recent?after={after}&class=status")["events"]
    return found


def test_a_change_that_went_well_is_no_error(fleet: LiveFleet) -> None:
    """The node served another number of clients when it was last looked at. Until it is looked at again, what it
    acknowledged counts: whoever watches is not told of an error, and of no recovery from one.
    """
    client = fleet.controller.client
    fleet.controller.until("n0", link_state="live", in_sync=True)
    begun = client.get("/api/events/recent")["last_seq"]
    user = client.post("/api/users", {"name": "Ann"})
    for name in ("phone", "laptop", "tablet"):
        device = client.post(f"/api/users/{user['id']}/devices", {"name": name})
        given = client.post(f"/api/devices/{device['id']}/provision", {})
        assert (given["pending_nodes"], given["peer_count"]) == ([], 2), "of AmneziaWG and of REALITY"
        assert fleet.controller.node("n0")["link_state"] == "live"
    client.call("DELETE", f"/api/devices/{device['id']}")
    fleet.controller.until("n0", link_state="live", in_sync=True)
    assert [(s["kind"], s.get("status"), s.get("reason")) for s in states(fleet, begun)] == []


def test_switched_off_it_is_in_no_document_and_switched_on_it_is_as_it_was(fleet: LiveFleet) -> None:
    controller, client = fleet.controller, fleet.controller.client
    user = client.post("/api/users", {"name": "Ben"})
    device = client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})["id"]
    client.post(f"/api/devices/{device}/provision", {})

    def told() -> dict[str, str]:
        """By protocol: the device's UUID or key."""
        text = client.post(f"/api/devices/{device}/export", {"format": "pharos"})["text"]
        found = [p for profile in json.loads(text)["payload"]["profiles"] for p in profile["nodes"][0]["protocols"]]
        return {p["type"]: p["params"].get("uuid") or p["params"]["private_key"] for p in found}

    def configure(text: str) -> None:
        controller.stop()
        (controller.home.parent / "cox.yaml").write_text(text)
        controller.start()

    before = told()
    assert sorted(before) == ["amneziawg", "xray-reality"]
    configure(CONFIG.replace("xray: true", "xray: false"))
    try:
        eventually(lambda: told() == {"amneziawg": before["amneziawg"]}, timeout=20)
    finally:
        configure(CONFIG)
    eventually(lambda: told() == before, timeout=20)
    controller.until("n0", link_state="live", in_sync=True)
