"""Events of nodes to durable sessions: sustained, and in a burst."""

from __future__ import annotations

import threading
import time
from typing import Self

from rig import usage

from benches.fleet import Bench, BenchFleet

_RATE = 3_000
_BURST_RATE, _BURST_S = 30_000, 10.0
_LINGER_S = 0.5
"""Events wait this long at most for company before they are written."""


def events(bench: Bench) -> None:
    """3,000 events a second; then ten times that for ten seconds."""
    fleet = bench.fleet()
    _everybody_comes_and_goes(fleet)
    for _ in range(min(3, bench.scale.runs)):
        made, _, durable_s, wrong = _burst(bench, fleet, _RATE, bench.scale.sustained_s)
        # What was made in 30 s may be durable a moment later; a controller that fell behind shows it here.
        bench.report.note("sustained events: durable per second", made / max(bench.scale.sustained_s, durable_s - _LINGER_S))
        bench.report.note("sustained events: lost or doubled", wrong)
    seconds = _BURST_S if bench.scale.nodes >= 1000 else _BURST_S / 5
    with _Memory(fleet) as memory:
        made, made_s, durable_s, wrong = _burst(bench, fleet, _BURST_RATE, seconds)
    bench.say(f"{made} events in a burst, durable after {durable_s:.1f} s")
    bench.report.note("burst of 30,000 events/s for 10 s: made per second", made / made_s)
    bench.report.note("burst of 30,000 events/s for 10 s: durable per second", made / durable_s)
    bench.report.note("burst of 30,000 events/s for 10 s: lost or doubled", wrong)
    bench.report.note("burst of 30,000 events/s for 10 s: memory at its highest", memory.highest / 1e6)


def _everybody_comes_and_goes(fleet: BenchFleet) -> None:
    """Twice each client, uncounted. One that was connected while its agent restarted leaves without a word (node-contract.md
    5.3), and its next coming is rightly taken for the session that is still open: a connect told of that opens nothing.
    """
    clients = sum(simulator.command("stats")["stats"]["peers"] for simulator in fleet.simulators)
    fleet.simulator.command("burst", events_per_s=_RATE, seconds=2 * 2 * clients / _RATE)


def _burst(bench: Bench, fleet: BenchFleet, rate: int, seconds: float) -> tuple[int, float, float, int]:
    """Returns events made, seconds that took, seconds until all were durable, and how many were lost or doubled."""
    before = fleet.settled_boundaries()
    told = fleet.told()
    began = time.monotonic()
    answer = fleet.simulator.command("burst", events_per_s=rate, seconds=seconds)
    made = fleet.told() - told
    durable_at = began
    seen = -1
    still_since = time.monotonic()
    while seen < made and time.monotonic() - still_since < 15.0:
        now_seen = fleet.boundaries() - before
        if now_seen != seen:
            seen, still_since = now_seen, time.monotonic()
            durable_at = still_since
        time.sleep(0.1)
    time.sleep(1.0)  # anything doubled comes late
    more = fleet.boundaries() - before - made
    if more:
        bench.say(f"{abs(more)} of {made} events {'doubled' if more > 0 else 'lost'}")
    return made, float(answer["seconds"]), durable_at - began, abs(more)


class _Memory:
    """The highest resident size meanwhile."""

    def __init__(self, fleet: BenchFleet) -> None:
        self._pid = fleet.daemon.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.highest = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.highest = max(self.highest, usage(self._pid).rss)
