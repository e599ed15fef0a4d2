"""A thousand links: starting them, starting them again after a SIGKILL under load, keeping them; and five thousand."""

from __future__ import annotations

import threading
import time

from rig import RigError, usage

from benches.fleet import Bench, BenchFleet, percentile
from benches.ledger import Ledger, Writers
from coxswain.errors import CoxswainError

_SETTLE_S = 6.0


def start(bench: Bench) -> None:
    """Start of the daemon to all links live, in sync and verified."""
    fleet = bench.fleet()
    for _ in range(bench.scale.runs):
        fleet.daemon.stop()
        bench.report.note("start: to all links live, in sync and verified", fleet.restart_daemon())


def restart(bench: Bench) -> None:
    """SIGKILL while changes and events come in; start again; nothing acknowledged may be gone."""
    fleet = bench.fleet()
    ledger = Ledger()
    for _ in range(bench.scale.runs):
        fleet.simulator.command("rate", events_per_s=fleet.nodes)
        writers = Writers(ledger, fleet.daemon.socket, lambda: fleet.new_peers([bench.rng.choice(fleet.ids)]))
        time.sleep(3.0)
        fleet.daemon.kill()
        writers.join()
        queries = _Queries(fleet)
        bench.report.note("start after SIGKILL under load: to all links live, in sync", fleet.restart_daemon())
        answered = queries.stop()
        bench.report.note("start after SIGKILL under load: status queries, p99", percentile(answered, 0.99) * 1e3)
        fleet.simulator.command("rate", events_per_s=0)
    fleet.daemon.stop()
    lost, wrong = ledger.check(fleet.daemon.home / "state" / "app.db")
    bench.say(f"{len(ledger.acknowledged)} changes were acknowledged before the kills")
    bench.report.note("SIGKILL under load: acknowledged changes lost", lost)
    bench.report.note("SIGKILL under load: changes without exactly one audit record", wrong)
    fleet.daemon.start(chaos=True)
    fleet.wait_in_sync()


def idle(bench: Bench) -> None:
    """CPU, memory and threads with a hundred events a second."""
    fleet = bench.fleet()
    fleet.daemon.stop()
    fleet.restart_daemon()
    fleet.simulator.command("rate", events_per_s=100)
    time.sleep(_SETTLE_S)
    for _ in range(min(3, bench.scale.runs)):
        before, began = fleet.usage(), time.monotonic()
        time.sleep(bench.scale.idle_s)
        after, passed = fleet.usage(), time.monotonic() - began
        bench.report.note("100 events/s: CPU of the controller", (after.cpu_s - before.cpu_s) / passed * 100)
        bench.report.note("100 events/s: memory of the controller", after.rss / 1e6)
        bench.report.note("100 events/s: threads beyond one a link", after.threads - fleet.nodes)
    fleet.simulator.command("rate", events_per_s=0)


def many(bench: Bench) -> None:
    """Five times as many nodes, in two processes."""
    bench.drop_fleet()
    with bench.fresh_fleet(bench.scale.many, processes=2) as fleet:
        fleet.daemon.stop()
        bench.report.note("many: start to all links live, in sync", fleet.restart_daemon())
        time.sleep(_SETTLE_S)
        used = usage(fleet.daemon.pid)
        live = fleet.status()["fleet"]["by_link_state"].get("live", 0)
        bench.report.note("many: nodes that did not come up", fleet.nodes - live)
        bench.report.note("many: memory of the controller", used.rss / 1e6)
        bench.report.note("many: threads beyond one a link", used.threads - fleet.nodes)


class _Queries:
    """Asks for the status fifty times a second, from when there is an answer, and times the answers. A small fleet can be in
    sync before its first question was answered: it asks on until one was.
    """

    def __init__(self, fleet: BenchFleet) -> None:
        self._client = fleet.daemon.client(30)
        self._seconds: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> list[float]:
        self._stopped.set()
        self._thread.join(30)
        if not self._seconds:
            raise RigError("no query for the status was answered")
        return self._seconds

    def _ask(self) -> None:
        while not (self._stopped.wait(0.02) and self._seconds):
            began = time.monotonic()
            try:
                self._client.get("/api/status")
            except (CoxswainError, OSError):
                if self._seconds:
                    self._seconds.append(30.0)  # it answered already; then this is an outage
                continue
            self._seconds.append(time.monotonic() - began)
