"""A live fleet whose nodes could dial each other, and a packet that is followed through what they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coxswain.cli.client import Client, RemoteError
from coxswain.wire.node_control import Deadlines
from tests.fleet import KillableController, LiveFleet, live_fleet, peers_body
from tests.support import eventually

DROPPED = ("dropped",)


class CascadeFleet:
    """``fleet`` with some devices, each with one address on the nodes that it was given."""

    def __init__(self, fleet: LiveFleet) -> None:
        self.fleet = fleet
        self.addresses: dict[str, str] = {}
        self.bodies: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, int] = {}

    @property
    def client(self) -> Client:
        return self.fleet.controller.client

    def prepare(self, count: int) -> None:
        """Gives nodes addresses, and waits until their keys are known."""
        for index in range(count):
            view = self.node(index)
            body = {"version": view["version"], "endpoint_ips": [f"203.0.113.{10 + index}"]}
            self.client.call("PATCH", f"/api/nodes/n{index}", body)
        self.fleet.controller.all_in_sync(count)

    def node(self, index: int) -> dict[str, Any]:
        return self.fleet.controller.node(f"n{index}")

    def device(self, *nodes: int) -> str:
        """A new device with an address on these nodes."""
        number = len(self.addresses) + 1
        for place, index in enumerate(nodes):
            body = peers_body([self.fleet.ids[index]], 1, first=number)
            peer = body["add"][0]
            peer["id"] = f"peer_{number}_{place}"
            self.addresses[f"dev_{number}"] = peer["allowed_ips"][0]
            self.bodies[f"dev_{number}"] = body
            self.client.post("/api/peers", body)
        return f"dev_{number}"

    def take_away(self, device: str) -> None:
        """The last peer that the device was given; ``give_back`` puts it there again."""
        (peer,) = self.bodies[device]["add"]
        self.client.post("/api/peers", {"remove": [{"node_id": peer["node_id"], "public_key": peer["public_key"]}]})

    def give_back(self, device: str) -> None:
        self.client.post("/api/peers", self.bodies[device])

    def path(self, name: str, *nodes: int, **query: Any) -> dict[str, Any]:
        body = {"name": name, "node_ids": [f"n{index}" for index in nodes]}
        found: dict[str, Any] = self.client.post(f"/api/paths{_query(query)}", body)
        return found

    def bind(self, device: str, path: str, *, wait: bool = True, **query: Any) -> Any:
        place, body = f"/api/devices/{device}/bind{_query(query)}", {"path_id": path}
        return self.client.post(place, body) if wait else self.client.begin(place, body)

    def unbind(self, device: str, **query: Any) -> Any:
        return self.client.call("DELETE", f"/api/devices/{device}/bind{_query(query)}")

    def network(self) -> list[dict[str, Any]]:
        """What every simulated node has, by index."""
        found: list[dict[str, Any]] = self.fleet.nodes.do("network", node="all")["network"]
        return found

    def follow(self, device: str, entry: int, network: Sequence[dict[str, Any]] | None = None) -> tuple[Any, ...]:
        """The indices of the nodes that a packet of the device visits from ``entry`` on, up to where it leaves."""
        nodes = self.network() if network is None else network
        self._keys = {self.node(index)["wg_public_key"]: index for index in range(len(nodes))}
        return self._follow(device, entry, nodes)

    def follow_unwatched(self, device: str, entry: int) -> tuple[Any, ...]:
        """``follow`` while the controller is dead: by the keys that nodes had the last time."""
        return self._follow(device, entry, self.network())

    def _follow(self, device: str, entry: int, nodes: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
        keys, address = self._keys, self.addresses[device]
        way = [entry]
        while True:
            here = nodes[way[-1]]
            policy = here["policy"] or {"transits": ()}
            into = [t["inner_interface"] for t in policy["transits"] if t["device_cidr"] == address]
            if not into:
                return tuple(way)
            link = here["links"].get(into[-1])  # of several marks the last one counts
            if link is None:
                return tuple(way)  # the route went with the interface: it falls through to the main table
            there = keys.get(link["exit"])
            if there is None:
                return DROPPED  # nobody has this key any more
            owners = [key for key, ips in nodes[there]["peers"] if address in ips]
            if not owners or keys.get(owners[-1]) != way[-1]:
                return DROPPED
            way.append(there)

    def tidy_up(self) -> None:
        """Neither bindings nor paths, and nodes that have nothing of any."""
        count = len(self.fleet.ids)
        self.fleet.nodes.do("clear", node="all")
        self.fleet.nodes.do("start", node="all")
        self.fleet.controller.all_in_sync(count)
        for failed in self.client.get("/api/operations?state=failed"):
            self.client.post(f"/api/operations/{failed['id']}/cancel")

        def quiet() -> bool:
            found = self.client.get("/api/operations?open=true")
            return all(operation["state"] == "failed" for operation in found)

        eventually(quiet, timeout=60, every=0.1)

        def unbound() -> bool:
            try:
                for binding in self.client.get("/api/bindings"):
                    self.unbind(binding["device_id"])
            except RemoteError as error:
                if error.status == 409:  # a keeper that fell looks every five seconds for what is over
                    return False
                raise
            return True

        eventually(unbound, timeout=60, every=0.5)
        for path in self.client.get("/api/paths"):
            self.client.call("DELETE", f"/api/paths/{path['id']}")

        def bare() -> bool:
            return all(not node["links"] and not node["policy"]["transits"] for node in self.network())

        eventually(bare, timeout=30, every=0.1)
        self.fleet.controller.all_in_sync(count)

    def fall(self) -> None:
        """The controller is killed. Needs a fleet with ``process``."""
        assert isinstance(self.fleet.controller, KillableController)
        self.fleet.controller.fall()

    def rise(self) -> None:
        """On the same state."""
        self.fleet.controller.start()

    def changing_calls(self) -> int:
        """How many calls that change something nodes have got."""
        reading = ("GetStatus", "ListPeers", "WatchEvents", "GetMetrics")
        calls = self.fleet.nodes.do("calls", node="all")["calls"]
        return sum(call["method"] not in reading for call in calls)

    def until_follows(self, device: str, *way: int) -> None:
        def there() -> bool:
            return self.follow(device, way[0]) == way

        try:
            eventually(there, timeout=30, every=0.1)
        except AssertionError:
            raise AssertionError(f"{device} goes {self.follow(device, way[0])}, not {way}") from None


def _query(query: dict[str, Any]) -> str:
    return "?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else ""


@contextmanager
def cascade_fleet(
    home: Path,
    count: int,
    base_port: int,
    *,
    options: Sequence[str] = ("--record",),
    interval_s: float = 2.0,
    deadlines: Deadlines = Deadlines(read=2.0, list=3.0, change=4.0),
    process: bool = False,
    config: str = "",
) -> Iterator[CascadeFleet]:
    with live_fleet(
        home, count, base_port, options=options, interval_s=interval_s, deadlines=deadlines, process=process, config=config
    ) as fleet:
        cascade = CascadeFleet(fleet)
        cascade.prepare(count)
        yield cascade
