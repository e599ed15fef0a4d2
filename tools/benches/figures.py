"""What is measured, what it must reach, and how it is told."""

from __future__ import annotations

import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw


class Over(Enum):
    """What several runs of the same thing come to."""

    MEDIAN = "median"
    WORST = "worst"


@dataclass(frozen=True)
class Goal:
    """``limit`` None: told for information. ``exact``: right or wrong on any machine, so a miss fails the run."""

    unit: str
    limit: float | None = None
    at_least: bool = False
    exact: bool = False
    over: Over = Over.MEDIAN

    def met(self, value: float) -> bool | None:
        if self.limit is None:
            return None
        if self.exact:
            return value == self.limit
        return value >= self.limit if self.at_least else value <= self.limit


NONE_LOST = Goal("", 0, exact=True, over=Over.WORST)

GOALS = {
    "start: to all links live, in sync and verified": Goal("s", 15),
    "start after SIGKILL under load: to all links live, in sync": Goal("s", 15),
    "start after SIGKILL under load: status queries, p99": Goal("ms", 250),
    "SIGKILL under load: acknowledged changes lost": NONE_LOST,
    "SIGKILL under load: changes without exactly one audit record": NONE_LOST,
    "100 events/s: CPU of the controller": Goal("% of a core", 8),
    "100 events/s: memory of the controller": Goal("MB", 300),
    "100 events/s: threads beyond one a link": Goal("", 40),
    "many: nodes that did not come up": NONE_LOST,
    "many: start to all links live, in sync": Goal("s"),
    "many: memory of the controller": Goal("MB", 1100),
    "many: threads beyond one a link": Goal(""),
    "change of all nodes: commit to last applied": Goal("s", 1.0),
    "change of all nodes: commit to last applied, slowest": Goal("s", 3.0, over=Over.WORST),
    "change of all nodes: nodes without it": NONE_LOST,
    "change, one node answers after 10 s: last of the others": Goal("s", 1.0),
    "change, one node answers after 10 s: last of the others, slowest": Goal("s", 3.0, over=Over.WORST),
    "sustained events: durable per second": Goal("/s", 3000, at_least=True),
    "sustained events: lost or doubled": NONE_LOST,
    "burst of 30,000 events/s for 10 s: made per second": Goal("/s"),
    "burst of 30,000 events/s for 10 s: durable per second": Goal("/s"),
    "burst of 30,000 events/s for 10 s: lost or doubled": NONE_LOST,
    "burst of 30,000 events/s for 10 s: memory at its highest": Goal("MB", 500, over=Over.WORST),
    "link actor crashes: until live again": Goal("s", 0.5),
    "link actor hangs: until live again": Goal("s", 4.0),
    "link actor crashes or hangs: events of others lost": NONE_LOST,
    "node restarts: listening to live": Goal("s", 2.0),
    "node restarts after 20 s away: listening to live": Goal("s", 2.0),
    "SIGKILL at random moments: times": Goal(""),
    "SIGKILL at random moments: changes acknowledged": Goal(""),
    "SIGKILL at random moments: acknowledged changes lost": NONE_LOST,
    "SIGKILL at random moments: changes without exactly one audit record": NONE_LOST,
    "onboard one host over SSH, 40 MB": Goal("s", 15),
    "onboard 20 hosts at once": Goal("s"),
    "onboard 20 hosts at once, against one": Goal("times", 3.0),
    "onboard 20 hosts at once: CPU of the controller": Goal("s"),
    "onboard 20 hosts at once: CPU of the whole machine": Goal("s"),
    "onboard one host over SSH, 40 MB, lines of 100mbit": Goal("s", 15),
    "onboard 20 hosts at once, lines of 100mbit": Goal("s"),
    "onboard 20 hosts at once, against one, lines of 100mbit": Goal("times", 3.0),
    "onboard 20 hosts at once, lines of 100mbit: CPU of the controller": Goal("s"),
    "onboard 20 hosts at once, lines of 100mbit: CPU of the whole machine": Goal("s"),
    "onboard one host over SSH, 40 MB, a processor each": Goal("s", 15),
    "onboard 20 hosts at once, a processor each": Goal("s"),
    "onboard 20 hosts at once, against one, a processor each": Goal("times", 3.0),
    "onboard 20 hosts at once, a processor each: CPU of the controller": Goal("s"),
    "onboard 20 hosts at once, a processor each: CPU of the whole machine": Goal("s"),
    **{
        f"{kind} of two relays: {what}": goal
        for kind in ("egress chain", "onion circuits")
        for what, goal in (
            ("probe, every hop and a node", Goal("ms")),
            ("first answer of a node", Goal("ms")),
            ("move of 100 links", Goal("s", 15)),
            ("move of 100 links, CPU of the controller", Goal("s")),
        )
    },
    "provision a device on 100 nodes: request to all acknowledged": Goal("s", 2.0),
    "revoke it: request to last node acknowledged": Goal("s", 2.0),
    "full plan of a node with 10,000 peers": Goal("ms", 50),
    "full plan of a node with 10,000 peers, first": Goal("ms"),
    "reading the intent of a node with 10,000 peers": Goal("ms"),
    "a page of 100 of 10,000 devices: p99": Goal("ms", 15),
    "GET one node, 8 clients: p99": Goal("ms", 5),
    "GET a page of 50 nodes, 8 clients: p99": Goal("ms", 15),
    "GET all 1,000 nodes, 8 clients: p99": Goal("ms", 60),
    "GET one node, 8 clients without a pause: per second": Goal("/s"),
    "management actions, durable and audited: sustained": Goal("/s", 500, at_least=True),
    "management actions at 200 per second: p99": Goal("ms", 20),
    "management actions at 200 per second: failed": NONE_LOST,
    "GET one node, 1,500 connections open: p99": Goal("ms"),
    "audit verify: records per second": Goal("/s", 150_000, at_least=True),
    "cox --version, from the zipapp": Goal("ms", 150),
    "cox nodes list, from the zipapp": Goal("ms", 350),
    "cox serve ready, from the zipapp": Goal("s", 2.0),
    "size of the zipapp": Goal("MB", 32),
    "live, 1,000 events/s to 200 clients: p99": Goal("ms", 150),
    "live, 200 clients: memory of each, idle": Goal("KB", 25),
    "live, 200 clients: threads of each": Goal("", 0.02),
    "live, one of 200 never reads: p99 of the others": Goal("ms", 150),
    "live, one of 200 never reads: others delayed by": Goal("ms", 10),
    "live, one of 200 never reads: memory grows by": Goal("MB", 8),
    "dashboard, 100 events/s: node event to changed pixel, median": Goal("ms"),
    "dashboard, 100 events/s: node event to changed pixel, p95": Goal("ms", 200),
    "dashboard, 10,000 devices: heaviest page, with all it loads": Goal("KB", 200),
    "dashboard, 10,000 devices: slowest page, median time of the server": Goal("ms", 50),
    "page of sessions over 1,000,000: p99": Goal("ms", 25),
    "page of sessions over 10,000,000: p99": Goal("ms"),
    "page of sessions, ten times as many: times as long": Goal("times", 2),
    "backup of a 1 GB store under load: the store": Goal("MB"),
    "backup of a 1 GB store under load: time": Goal("s"),
    "backup of a 1 GB store under load: the file": Goal("MB"),
    "backup of a 1 GB store under load: memory of cox backup at its highest": Goal("MB"),
    "backup of a 1 GB store under load: reads, p99 without": Goal("ms"),
    "backup of a 1 GB store under load: reads, p99 meanwhile": Goal("ms"),
    "backup of a 1 GB store under load: reads, p99 meanwhile against without": Goal("times", 2),
    "backup of a 1 GB store under load: reads above twice the p99, meanwhile": Goal("%"),
    "backup of a 1 GB store under load: reads above twice the p99, without": Goal("%"),
    "backup of a 1 GB store under load: changes, p99 without": Goal("ms"),
    "backup of a 1 GB store under load: changes, p99 meanwhile": Goal("ms"),
    "backup of a 1 GB store under load: changes, p99 meanwhile against without": Goal("times", 2),
    "backup of a 1 GB store under load: changes above twice the p99, meanwhile": Goal("%"),
    "backup of a 1 GB store under load: changes above twice the p99, without": Goal("%"),
    "restore of a 1 GB store: time": Goal("s"),
}
"""Every figure there is, in the order in which it is told."""


@dataclass
class Report:
    """Collects values; several of one figure come to one."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def note(self, figure: str, value: float) -> None:
        if figure not in GOALS:
            raise KeyError(figure)
        self.values.setdefault(figure, []).append(value)

    def results(self) -> list[dict[str, Any]]:
        found = []
        for figure, goal in GOALS.items():
            values = self.values.get(figure)
            if not values:
                continue
            worst = min(values) if goal.at_least else max(values)
            value = worst if goal.over is Over.WORST else statistics.median(values)
            met = goal.met(value)
            result = {"figure": figure, "value": round(value, 3), "unit": goal.unit, "goal": goal.limit, "met": met}
            found.append(result | {"runs": [round(v, 3) for v in values]})
        return found

    def went_wrong(self) -> list[str]:
        """Figures that are not a matter of speed and were missed."""
        return [r["figure"] for r in self.results() if GOALS[r["figure"]].exact and not r["met"]]

    def table(self) -> str:
        rows = [("figure", "value", "goal", "", "runs")]
        for result in self.results():
            goal = GOALS[result["figure"]]
            limit = "" if goal.limit is None else f"{'≥' if goal.at_least else '=' if goal.exact else '≤'} {goal.limit:g}"
            mark = {None: "", True: "met", False: "MISSED"}[result["met"]]
            runs = result["runs"]
            spread = f"{len(runs)}: {_short(min(runs))} to {_short(max(runs))}" if len(runs) > 1 else ""
            rows.append((result["figure"], f"{_short(result['value'])} {goal.unit}".strip(), limit, mark, spread))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def machine() -> str:
    """What it ran on, and with which versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    gigabytes = int(memory.split()[1]) * 1024 / 1e9
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return (
        f"{len(models)} cores, {models[0] if models else platform.machine()}, {gigabytes:.0f} GB, {platform.system()} "
        f"{platform.release()}\ncoxswain {commit.stdout.strip()}, Python {platform.python_version()}, "
        f"grpcio {version('grpcio')}, pykka {version('pykka')}, SQLite {apsw.sqlite_lib_version()}"
    )
