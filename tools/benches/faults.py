"""What breaks and heals: link actors and nodes."""

from __future__ import annotations

import time

from rig import wait_until

from benches.fleet import Bench, BenchFleet


def faults(bench: Bench) -> None:
    """A link actor crashes, or hangs, and a node restarts: until it is live again, and what others lose by it."""
    fleet = bench.fleet()
    for _ in range(bench.scale.runs):
        for how, figure in (("raise", "crashes"), ("hang", "hangs")):
            index = bench.rng.randrange(fleet.nodes)
            lost, took = _harm(fleet, index, how)
            bench.report.note(f"link actor {figure}: until live again", took)
            bench.report.note("link actor crashes or hangs: events of others lost", lost)
    for _ in range(bench.scale.runs):
        bench.report.note("node restarts: listening to live", _restart_node(fleet, bench.rng.randrange(fleet.nodes), 1.0))
    for _ in range(min(2, bench.scale.runs)):
        took = _restart_node(fleet, bench.rng.randrange(fleet.nodes), 20.0)
        bench.report.note("node restarts after 20 s away: listening to live", took)


def _harm(fleet: BenchFleet, index: int, how: str) -> tuple[int, float]:
    """Harms the link of one node while all others send events. Returns how many of theirs were lost or doubled, and the
    seconds until the harmed link was live again.
    """
    client, node_id = fleet.daemon.client(), fleet.ids[index]
    others = [i for i in range(fleet.nodes) if i != index]
    since = client.get(f"/api/nodes/{node_id}")["link_since"]
    before = fleet.settled_boundaries()
    made = fleet.simulator.command("inject", node=others, connect=1)["peers"]
    began = time.monotonic()
    client.post("/api/chaos", {"actor": f"node_link:{node_id}", "how": how})
    made += fleet.simulator.command("inject", node=others, disconnect=1)["peers"]

    def again() -> bool:
        node = client.get(f"/api/nodes/{node_id}")
        return bool(node["link_since"] != since and node["link_state"] == "live")

    wait_until("the harmed link is live", again, 30, 0.02)
    took = time.monotonic() - began
    try:
        wait_until("all events", lambda: fleet.boundaries() - before >= made, 15, 0.1)
    finally:
        time.sleep(0.5)
        lost = abs(fleet.boundaries() - before - made)
    return lost, took


def _restart_node(fleet: BenchFleet, index: int, away_s: float) -> float:
    """Returns the seconds from when the node listens again to its link being live."""
    client, node_id = fleet.daemon.client(), fleet.ids[index]
    fleet.simulator.command("kill", node=index)
    wait_until("the loss is noticed", lambda: client.get(f"/api/nodes/{node_id}")["link_state"] != "live", 10, 0.02)
    time.sleep(away_s)
    listening = fleet.simulator.command("start", node=index)["at"]
    wait_until("the node is live", lambda: client.get(f"/api/nodes/{node_id}")["link_state"] == "live", 90, 0.02)
    return time.monotonic() - float(listening)
