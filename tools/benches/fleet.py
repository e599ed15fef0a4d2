"""A daemon and its simulated fleet, as the scenarios use them."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig import Daemon, RigError, Simulator, enrol, make_csrs, peers_for, scratch, usage, wait_until

from benches.figures import Report
from tests.support import some_ports

CHANGES_FROM = 1_000_000
"""Numbers of the devices that scenarios add; the fleet's own begin at 0."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    nodes: int
    many: int
    runs: int
    kills: int
    idle_s: float
    """A whole interval between two looks at a node, so that each was looked at once: shorter windows flatter or slander."""
    sustained_s: float
    verified_s: float
    """After a change each node is looked at once more, within six seconds: a change is measured when those of the one before
    are over, whether a node is slow in it or none."""


FULL = Scale(nodes=1000, many=5000, runs=5, kills=1000, idle_s=45.0, sustained_s=30.0, verified_s=7.0)
QUICK = Scale(nodes=100, many=300, runs=1, kills=10, idle_s=8.0, sustained_s=5.0, verified_s=0.0)


class BenchFleet:
    """``nodes`` simulated nodes in ``processes`` other processes, ``per_node`` peers each, and their daemon."""

    def __init__(self, home: Path, nodes: int, per_node: int, processes: int) -> None:
        self.nodes = nodes
        self.daemon = Daemon(home)
        self.ids: list[str] = []
        self._per_node = per_node
        self._fleet_dir = home / "fleet"
        self._fleet_dir.mkdir()
        self._processes = processes
        self.simulators: list[Simulator] = []
        self._numbers = CHANGES_FROM

    def up(self) -> None:
        self.daemon.init()
        self.daemon.start(chaos=True)
        make_csrs(self._fleet_dir, self.nodes)
        client, base_port = self.daemon.client(), some_ports(self.nodes)
        enrolled = enrol(client, self._fleet_dir, [f"n{i}" for i in range(self.nodes)], base_port)
        self.ids = [node["id"] for node in enrolled]
        client.post("/api/peers", peers_for(self.ids, self._per_node))
        share = -(-self.nodes // self._processes)
        for first in range(0, self.nodes, share):
            simulator = Simulator(self._fleet_dir, base_port)
            count = min(share, self.nodes - first)
            simulator.start("--no-observer", "--buffer", "4096", "--first", str(first), "--nodes", str(count))
            self.simulators.append(simulator)
        self.wait_in_sync()

    def down(self) -> None:
        try:
            self.daemon.stop()
        finally:
            self.daemon.kill()
            for simulator in self.simulators:
                simulator.stop()

    @property
    def simulator(self) -> Simulator:
        """The one process of a fleet that has one."""
        (only,) = self.simulators
        return only

    def status(self) -> dict[str, Any]:
        return self.daemon.client().get("/api/status")

    def in_sync(self) -> int:
        return int(self.status()["fleet"]["in_sync"])

    def boundaries(self) -> int:
        """Sessions opened and closed since the daemon started: one for each event of the simulator, which connects and
        disconnects in turn.
        """
        sessions = self.status()["sessions"]
        return int(sessions["opened"] + sessions["closed"])

    def told(self) -> int:
        """Connects and disconnects that the nodes have told of: a client that was connected when its agent started leaves
        without a word (node-contract.md 5.3), so this may be fewer than the simulator's clients made.
        """
        stats = [simulator.command("stats")["stats"] for simulator in self.simulators]
        return sum(int(s["connected_total"]) + int(s["disconnected_total"]) for s in stats)

    def settled_boundaries(self) -> int:
        """The same, when no more come: what the scenario before this one made is written within half a second or so."""
        seen = self.boundaries()
        while True:
            time.sleep(1.0)
            now_seen = self.boundaries()
            if now_seen == seen:
                return seen
            seen = now_seen

    def wait_in_sync(self, timeout: float = 180.0, every: float = 0.05) -> None:
        wait_until(f"{self.nodes} nodes in sync", lambda: self.in_sync() == self.nodes, timeout, every)

    def restart_daemon(self) -> float:
        """Starts the daemon; returns the seconds from then to all nodes in sync."""
        began = time.monotonic()
        self.daemon.start(chaos=True, wait=False)
        self.wait_in_sync()
        return time.monotonic() - began

    def new_peers(self, ids: list[str], per_node: int = 1) -> dict[str, Any]:
        """The body of a change that adds peers of devices that were never there before."""
        body = peers_for(ids, per_node, first=self._numbers)
        self._numbers += len(ids) * per_node
        return body

    def usage(self) -> Any:
        return usage(self.daemon.pid)


@dataclass
class Bench:
    """What a scenario gets. The fleet that most of them share is made when the first one asks for it."""

    scale: Scale
    report: Report
    say: Callable[[str], None]
    rng: random.Random
    _stack: list[Any] = field(default_factory=list)
    _shared: BenchFleet | None = None

    def fleet(self) -> BenchFleet:
        if self._shared is None:
            self._shared = self._enter(self.fresh_fleet(self.scale.nodes))
        return self._shared

    @contextmanager
    def fresh_fleet(self, nodes: int, processes: int = 1) -> Iterator[BenchFleet]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # what is started from here inherits it
        with scratch("bench") as home:
            fleet = BenchFleet(home, nodes, per_node=3, processes=processes)
            self.say(f"setting up {nodes} nodes")
            try:
                fleet.up()
                yield fleet
            finally:
                fleet.down()

    def drop_fleet(self) -> None:
        """Ends the shared fleet, if there is one."""
        self._shared = None
        while self._stack:
            self._stack.pop().__exit__(None, None, None)

    def _enter(self, manager: Any) -> Any:
        value = manager.__enter__()
        self._stack.append(manager)
        return value


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie (nearest rank). Raises ``RigError`` where there are none."""
    if not values:
        raise RigError("nothing was measured")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
