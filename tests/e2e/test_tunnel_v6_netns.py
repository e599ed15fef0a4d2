"""IPv6 with nothing simulated: packets of devices that ``cox serve`` gave both addresses leave where they should, or not.

The world is that of ``test_cascade_netns``. Nobody in its internet knows a way to the devices' addresses, so an answer comes
back only to who was masqueraded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import HUB_SERVER, HUB_SERVER6, Client
from tests.e2e.test_cascade_netns import Fleet, settled_fleet
from tests.support import eventually

pytestmark = pytest.mark.netns

KEY = "COX_FLEET__VPN_SUBNET_V6"
SUBNET = "fd5e:1f7a:93c4::/64"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("COX_FLEET__RECONCILE_INTERVAL", "2")
    with settled_fleet(tmp_path) as made:
        yield made


def switch_on(fleet: Fleet) -> None:
    """The daemon starts again with the key set."""
    fleet.daemon.stop()
    fleet.daemon.setenv(KEY, SUBNET)
    fleet.daemon.start()


def given(fleet: Fleet, name: str, node: str) -> str:
    """A new device with a profile of this node; its id."""
    user = fleet.api().post("/api/users", {"name": name})["id"]
    device: str = fleet.api().post(f"/api/users/{user}/devices", {"name": name})["id"]
    body = {"user_id": user, "device_id": device, "name": "x", "node_id": fleet.node(node)["id"], "protocol": "amneziawg"}
    fleet.api().post("/api/profiles", body)
    return device


def conf(fleet: Fleet, device: str) -> str:
    text: str = fleet.api().post(f"/api/devices/{device}/export", {"format": "conf"})["text"]
    return text


def addresses(fleet: Fleet, device: str) -> list[str]:
    line = next(line for line in conf(fleet, device).splitlines() if line.startswith("Address"))
    return line.removeprefix("Address = ").split(", ")


def connect(fleet: Fleet, device: str, node: str, number: int) -> Client:
    """A client that is joined to the node's site, with the conf that the controller gives out."""
    client = fleet.hub.client(fleet.sites[node], number)
    client.space.run("ip", "route", "add", f"{fleet.sites[node].address}/32", "via", f"192.0.{number + 10}.1")
    client.tunnel = client.space.conf("wg0", conf(fleet, device))
    assert eventually(lambda: client.reaches(HUB_SERVER))
    return client


def counts(fleet: Fleet) -> dict[str, int]:
    """Of IPv6 alone: the end of an IPv4 connection may still be on its way."""
    return {name: fleet.hub.counted(site, ["ip6"]) for name, site in fleet.sites.items()}


def until_only(fleet: Fleet, client: Client, exit_name: str) -> None:
    """IPv6 of the client gets its answers, and comes to the server by this node and no other."""

    def there() -> bool:
        fleet.hub.count()
        return client.reaches(HUB_SERVER6) and [name for name, count in counts(fleet).items() if count] == [exit_name]

    assert eventually(there, timeout=60, every=0.5)


@pytest.mark.timeout(300)
def test_ipv6_is_gained_follows_paths_is_isolated_and_is_cut(fleet: Fleet) -> None:
    one = given(fleet, "one", "entry")
    device = connect(fleet, one, "entry", 1)
    assert addresses(fleet, one) == ["10.86.0.2/32"]
    assert not device.reaches(HUB_SERVER6)
    shaken = device.handshake()

    # Switched on: the device has a second address as soon as it syncs, on the tunnel that it has.
    switch_on(fleet)
    second = "fd5e:1f7a:93c4::a56:2/128"
    assert eventually(lambda: addresses(fleet, one) == ["10.86.0.2/32", second], timeout=60, every=0.5)
    device.space.run("ip", "address", "add", second, "dev", "wg0", "nodad")
    until_only(fleet, device, "entry")
    assert device.handshake() == shaken
    fleet.settled()

    # Isolated from another.
    two = given(fleet, "two", "entry")
    other = connect(fleet, two, "entry", 2)
    mine, theirs = second.removesuffix("/128"), addresses(fleet, two)[1].removesuffix("/128")
    until_only(fleet, other, "entry")
    view = fleet.node("entry")
    assert eventually(lambda: other.reaches(mine))
    fleet.api().call("PATCH", "/api/nodes/entry", {"version": view["version"], "isolation": True})
    assert eventually(lambda: not other.reaches(mine))
    assert not device.reaches(theirs)
    until_only(fleet, other, "entry")
    until_only(fleet, device, "entry")
    fleet.settled()

    # Over two hops, in both families, without a handshake.
    fleet.api().post("/api/paths", {"name": "far", "node_ids": ["entry", "exit"]})
    fleet.api().post(f"/api/devices/{one}/bind", {"path_id": "far"})
    fleet.until_leaves_at(device, "exit")
    until_only(fleet, device, "exit")
    assert device.handshake() == shaken
    until_only(fleet, other, "entry")
    assert not other.reaches(mine)
    assert not device.reaches(theirs)

    # Revoked, it is out in both families, and the other is not.
    fleet.api().post(f"/api/devices/{one}/revoke")
    assert eventually(lambda: not device.reaches(HUB_SERVER) and not device.reaches(HUB_SERVER6))
    for node in ("entry", "exit"):
        assert mine not in fleet.sites[node].space.run("ip", "-6", "route").stdout
    until_only(fleet, other, "entry")


@pytest.mark.timeout(300)
def test_nothing_leaks_where_an_agent_cannot_keep_it(fleet: Fleet) -> None:
    """As with an existing agent, whose rules are IPv4's: its clients have no IPv6, and still send it into the tunnel."""
    directory = fleet.home / "other"
    (directory / "node.yaml").write_text(f"data_plane: {{conf_directory: {directory / 'confs'}, firewall: iptables}}\n")
    fleet.reboot("other")
    switch_on(fleet)
    assert eventually(lambda: fleet.node("entry")["tunnel_ipv6"] and not fleet.node("other")["tunnel_ipv6"], timeout=60)
    here = given(fleet, "here", "other")
    client = connect(fleet, here, "other", 1)
    assert addresses(fleet, here) == ["10.86.0.2/32"]
    fleet.hub.count()
    assert not client.reaches(HUB_SERVER6)
    # Not even if it takes the address that it would have elsewhere.
    client.space.run("ip", "address", "add", "fd5e:1f7a:93c4::a56:2/128", "dev", "wg0", "nodad")
    assert not client.reaches(HUB_SERVER6)
    assert counts(fleet) == dict.fromkeys(fleet.sites, 0)
    assert client.reaches(HUB_SERVER)

    # A path that ends there: IPv4 takes it, IPv6 takes none.
    there = given(fleet, "there", "entry")
    bound = connect(fleet, there, "entry", 2)
    assert len(addresses(fleet, there)) == 2
    fleet.api().post("/api/paths", {"name": "half", "node_ids": ["entry", "other"]})
    fleet.api().post(f"/api/devices/{there}/bind", {"path_id": "half"})
    fleet.until_leaves_at(bound, "other")
    fleet.settled()
    fleet.hub.count()
    assert not bound.reaches(HUB_SERVER6)
    assert counts(fleet) == dict.fromkeys(fleet.sites, 0)
