"""The live stream: node events to WebSocket clients, what a client costs, and one that never reads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rig import RigError, usage

from benches.fleet import Bench, BenchFleet, percentile

_CLIENTS = 200
_RATE = 1_000
_READERS = Path(__file__).with_name("live_readers.py")


def live(bench: Bench) -> None:
    """1,000 events a second to 200 WebSocket clients, then with one of them that never reads."""
    fleet = bench.fleet()
    seconds = 20.0 if bench.scale.nodes >= 1000 else 6.0
    fleet.settled_boundaries()
    for number in range(min(3, bench.scale.runs)):
        before = usage(fleet.daemon.pid)
        with _readers(fleet, _CLIENTS) as readers:
            with_clients = usage(fleet.daemon.pid)
            if number == 0:  # later ones live in memory that these have left
                each = (with_clients.rss - before.rss) / _CLIENTS
                bench.report.note("live, 200 clients: memory of each, idle", each / 1e3)
            threads = max(0, with_clients.threads - before.threads)
            bench.report.note("live, 200 clients: threads of each", threads / _CLIENTS)
            calm = readers.measure(fleet, seconds)
        bench.say(f"{len(calm)} latencies, median {percentile(calm, 0.5):.0f} ms, worst {max(calm):.0f} ms")
        bench.report.note("live, 1,000 events/s to 200 clients: p99", percentile(calm, 0.99))
        with _readers(fleet, _CLIENTS, "--lazy") as readers:
            rss = usage(fleet.daemon.pid).rss
            lazy = readers.measure(fleet, seconds)
            grown = usage(fleet.daemon.pid).rss - rss
        bench.say(f"one does not read: median {percentile(lazy, 0.5):.0f} ms, worst {max(lazy):.0f} ms")
        later = percentile(lazy, 0.5) - percentile(calm, 0.5)
        bench.report.note("live, one of 200 never reads: p99 of the others", percentile(lazy, 0.99))
        bench.report.note("live, one of 200 never reads: others delayed by", later)
        bench.report.note("live, one of 200 never reads: memory grows by", grown / 1e6)


class _Readers:
    """A process with all clients. It reads and measures; the daemon's figures stay its own."""

    def __init__(self, fleet: BenchFleet, count: int, *options: str) -> None:
        client = fleet.daemon.client()
        secret = client.post("/api/tokens", {"name": "bench", "scope": "monitor"})["secret"]
        command = [sys.executable, str(_READERS), fleet.daemon.listen, str(count), *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdin is None or self._process.stdout is None:
            raise RigError("the readers have no pipes")
        self._in, self._out = self._process.stdin, self._process.stdout
        self._say(secret)
        if self._hear() != "ready":
            raise RigError("the readers did not get in")

    def measure(self, fleet: BenchFleet, seconds: float) -> list[float]:
        """Milliseconds from event to client, of the first event of each piece that a client reads."""
        self._say("start")
        fleet.simulator.command("burst", events_per_s=_RATE, seconds=seconds)
        time.sleep(1.0)
        self._say("stop")
        return [float(word) for word in self._hear().split()]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _say(self, line: str) -> None:
        self._in.write(line + "\n")
        self._in.flush()

    def _hear(self) -> str:
        return self._out.readline().strip()


@contextmanager
def _readers(fleet: BenchFleet, count: int, *options: str) -> Iterator[_Readers]:
    readers = _Readers(fleet, count, *options)
    try:
        time.sleep(3.0)
        yield readers
    finally:
        readers.end()
        time.sleep(1.0)
