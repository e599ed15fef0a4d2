"""An exit that fails, with nothing simulated: the device's packets leave at the fallback, and never at the entry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_cascade_netns import Fleet, settled_fleet
from tests.support import eventually

pytestmark = pytest.mark.netns

HASTY = {
    "COX_FLEET__FAILOVER__AFTER_SECONDS": "5",
    "COX_FLEET__FAILOVER__BACK_AFTER_SECONDS": "5",
    "COX_FLEET__RECONCILE_INTERVAL": "2",
}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    for name, value in HASTY.items():
        monkeypatch.setenv(name, value)
    with settled_fleet(tmp_path) as made:
        yield made


def test_a_device_follows_its_path_to_the_fallback_and_home(fleet: Fleet) -> None:
    name, device = fleet.device(1)
    _, other = fleet.device(2)
    body = {"name": "far", "node_ids": ["entry", "mid", "exit"], "fallback_ids": ["other"]}
    fleet.api().post("/api/paths", body)
    fleet.api().post(f"/api/devices/{name}/bind", {"path_id": "far"})
    fleet.until_leaves_at(device, "exit")
    shaken = device.handshake()

    # An operator moves the exit, live: the middle node leads on to the fallback, and nothing leaks at the entry.
    fleet.hub.count()
    fleet.api().post("/api/paths/far/exit", {"node": "other"})
    fleet.until_leaves_at(device, "other")
    fleet.api().post("/api/paths/far/exit", {})
    fleet.until_leaves_at(device, "exit")
    assert fleet.hub.counted(fleet.sites["entry"]) == 0
    assert device.handshake() == shaken, "the device has noticed nothing"

    # The exit's machine is gone, as in a power cut. Until the path is moved the packets go nowhere.
    fleet.fall("exit")
    fleet.until_leaves_at(device, "other")
    assert fleet.hub.counted(fleet.sites["entry"]) == 0
    assert fleet.leaves_at(other) == "entry", "who is on no path has noticed nothing"
    assert fleet.api().get("/api/paths/far")["exit"]["automatic"]

    # It comes back, empty, and is made what it should be; the path goes home by itself.
    fleet.hub.count()
    fleet.run_agent("exit")
    fleet.until_leaves_at(device, "exit")
    assert eventually(lambda: fleet.api().get("/api/paths/far")["exit"]["phase"] == "settled", timeout=60)
    assert fleet.hub.counted(fleet.sites["entry"]) == 0
    assert device.handshake() == shaken
