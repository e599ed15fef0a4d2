"""Measures the supervision by itself, for docs/supervision.md: ``python tools/bench_supervision.py [children]``."""

from __future__ import annotations

import logging
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actors.supervision import (
    Actor,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    StartChild,
    System,
    TerminateChild,
    WhichChildren,
)
from coxswain.clock import SystemClock

_IDLE_S = 10.0


class _Echo(Actor):
    def receive(self, message: Any) -> Any:
        return message


def _timed(what: str, work: Callable[[], object]) -> None:
    begin = time.perf_counter()
    work()
    print(f"{what:<34}{time.perf_counter() - begin:8.2f} s")


def main() -> None:
    """Prints one line for each figure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    dynamic = ChildSpec("dynamic", DynamicSupervisor, hang_s=120.0, shutdown_s=60.0)
    system = System(children=(dynamic, ChildSpec("echo", _Echo)), clock=SystemClock(), rng=random.Random(1), shutdown_s=60.0)  # noqa: S311
    system.start()
    system.wait_up(10)

    def children() -> Any:
        return system.ask("dynamic", WhichChildren(), deadline=60.0)

    def start() -> None:
        for number in range(count):
            system.tell("dynamic", StartChild(ChildSpec(f"echo:{number}", _Echo)))
        while not all(child.state is ChildState.RUNNING for child in children()):
            time.sleep(0.05)

    def terminate() -> None:
        for number in range(count // 2):
            system.tell("dynamic", TerminateChild(f"echo:{number}"))
        while len(children()) > count - count // 2:
            time.sleep(0.05)

    logging.disable(logging.WARNING)  # the full mailbox below is meant
    asks, tells = 20_000, 100_000
    begin = time.perf_counter()
    for number in range(asks):
        system.ask("echo", number, deadline=5.0)
    print(f"{'asks, one caller':<34}{asks / (time.perf_counter() - begin):8.0f} /s")
    begin = time.perf_counter()
    taken = sum(system.tell("echo", number) for number in range(tells))
    print(f"{'tells, one caller':<34}{tells / (time.perf_counter() - begin):8.0f} /s, {tells - taken} met a full mailbox")

    _timed(f"start {count}", start)
    time.sleep(1)
    cpu = time.process_time()
    time.sleep(_IDLE_S)
    print(f"{'idle, watch included':<34}{(time.process_time() - cpu) / _IDLE_S * 100:8.2f} % of a core")
    sweeps, trees = [], []
    for _ in range(10):
        begin = time.perf_counter()
        system.watch.sweep()
        sweeps.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        system.tree()
        trees.append(time.perf_counter() - begin)
    print(f"{'one sweep of the watch':<34}{statistics.median(sweeps) * 1000:8.1f} ms")
    print(f"{'one tree()':<34}{statistics.median(trees) * 1000:8.1f} ms")
    print(f"{'resident memory':<34}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MB at most")
    _timed(f"terminate {count // 2}", terminate)
    _timed(f"stop with {count - count // 2}", system.stop)


if __name__ == "__main__":
    main()
