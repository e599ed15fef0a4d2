"""Changes: how fast one reaches every node, and that none that was acknowledged is ever lost or doubled."""

from __future__ import annotations

import itertools
import time
from datetime import datetime

from rig import Daemon, peers_for, scratch, wait_until

from benches.fleet import Bench, BenchFleet
from benches.ledger import Ledger, Writers

_DELAY_S = 10.0
_CHECK_EVERY = 100


def change(bench: Bench) -> None:
    """One change that touches every node, from its commit to the last node that applied it; then with one slow node."""
    fleet = bench.fleet()
    everybody = set(range(fleet.nodes))
    for _ in range(bench.scale.runs):
        took = _change(bench, fleet, everybody)
        bench.report.note("change of all nodes: commit to last applied", took)
        bench.report.note("change of all nodes: commit to last applied, slowest", took)
    for _ in range(min(3, bench.scale.runs)):
        fleet.simulator.command("delay", node=0, method="PushConfig", seconds=_DELAY_S)
        took = _change(bench, fleet, everybody - {0})
        bench.report.note("change, one node answers after 10 s: last of the others", took)
        bench.report.note("change, one node answers after 10 s: last of the others, slowest", took)
        fleet.simulator.command("clear", node=0)
        fleet.wait_in_sync()


def _change(bench: Bench, fleet: BenchFleet, nodes: set[int]) -> float:
    """Returns the seconds from the commit to the last push that a node of ``nodes`` answered."""
    client = fleet.daemon.client()
    time.sleep(bench.scale.verified_s)
    began = time.monotonic()
    revisions = client.post("/api/peers", fleet.new_peers(fleet.ids))["revisions"]
    # The record is stamped inside the transaction, so the commit itself is counted as well.
    committed = datetime.fromisoformat(client.get("/api/audit?limit=1")[0]["at"]).timestamp()
    wanted = {index: revisions[node_id] for index, node_id in enumerate(fleet.ids)}

    def applied() -> dict[int, float]:
        pushes = fleet.simulator.command("pushes", node="all", since=began)["pushes"]
        return {p["node"]: p["wall"] for p in pushes if p["revision"] >= wanted[p["node"]]}

    time.sleep(1.0)  # asking costs the simulator time that the nodes need
    try:
        walls = wait_until("the change on all nodes", lambda: nodes <= (found := applied()).keys() and found, 60, 0.5)
    finally:
        bench.report.note("change of all nodes: nodes without it", len(nodes - applied().keys()))
    if nodes == set(range(fleet.nodes)):
        fleet.wait_in_sync()
    return max(walls[index] for index in nodes) - committed


def kills(bench: Bench) -> None:
    """SIGKILL at random moments of a load of writes; what was acknowledged is counted in the database."""
    bench.drop_fleet()
    ledger, numbers = Ledger(), itertools.count()
    lost = wrong = 0
    with scratch("bench") as home:
        daemon = Daemon(home)
        daemon.init()
        daemon.start()
        ids = [
            daemon.client().post("/api/nodes", {"name": f"n{i}", "control_addr": f"127.0.0.1:{i + 1}"})["id"]
            for i in range(20)
        ]
        for turn in range(1, bench.scale.kills + 1):
            writers = Writers(ledger, daemon.socket, lambda: peers_for([bench.rng.choice(ids)], 1, first=next(numbers)))
            time.sleep(bench.rng.uniform(0.0, 0.4))
            daemon.kill()
            writers.join()
            if turn % _CHECK_EVERY == 0 or turn == bench.scale.kills:
                lost, wrong = ledger.check(home / "state" / "app.db")
                bench.say(f"{turn} kills, {len(ledger.acknowledged)} changes acknowledged, {lost} lost, {wrong} wrong")
            daemon.start()
        daemon.stop()
        lost, wrong = ledger.check(home / "state" / "app.db")
    bench.report.note("SIGKILL at random moments: times", bench.scale.kills)
    bench.report.note("SIGKILL at random moments: changes acknowledged", len(ledger.acknowledged))
    bench.report.note("SIGKILL at random moments: acknowledged changes lost", lost)
    bench.report.note("SIGKILL at random moments: changes without exactly one audit record", wrong)
