"""A backup of a store of 1 GB, made while the daemon has work to do: what do its clients notice?"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from rig import ROOT, RigError, usage

from benches.fleet import Bench, BenchFleet, percentile

_ROWS_OF_A_GIGABYTE = 1_500_000
_CLIENTS = 4
_EVERY_S = 0.02
"""Each client asks, and when it was answered asks again at its next turn: 200 requests a second in all."""

_BASELINE_S = 40.0
_PHRASE = "a bench needs no secret"


def backup(bench: Bench) -> None:
    """Backup of a 1 GB store under load, and its restore."""
    full = bench.scale.nodes >= 1000
    with bench.fresh_fleet(100) as fleet:
        fleet.daemon.stop()
        store = fleet.daemon.home / "state" / "app.db"
        bench.say("filling the store")
        _fill(store, _ROWS_OF_A_GIGABYTE if full else _ROWS_OF_A_GIGABYTE // 10)
        fleet.daemon.start()
        fleet.wait_in_sync()
        for simulator in fleet.simulators:
            simulator.command("rate", events_per_s=100)
        name = "backup of a 1 GB store under load"
        bench.report.note(f"{name}: the store", store.stat().st_size / 1e6)
        with _load(fleet) as load:
            bench.say("the same without a backup")
            time.sleep(_BASELINE_S if full else _BASELINE_S / 4)
            before = load.take()
            bench.say("making the backup")
            out = fleet.daemon.home / "b.coxbak"
            seconds, memory = _create(fleet, out)
            during = load.take()
        bench.report.note(f"{name}: time", seconds)
        bench.report.note(f"{name}: memory of cox backup at its highest", memory / 1e6)
        bench.report.note(f"{name}: the file", out.stat().st_size / 1e6)
        for kind in ("read", "change"):
            calm, busy = percentile(before[kind], 0.99), percentile(during[kind], 0.99)
            bench.report.note(f"{name}: {kind}s, p99 without", calm * 1e3)
            bench.report.note(f"{name}: {kind}s, p99 meanwhile", busy * 1e3)
            bench.report.note(f"{name}: {kind}s, p99 meanwhile against without", busy / calm)
            late = sum(took > 2 * calm for took in during[kind]) / len(during[kind])
            usually = sum(took > 2 * calm for took in before[kind]) / len(before[kind])
            bench.report.note(f"{name}: {kind}s above twice the p99, meanwhile", 100 * late)
            bench.report.note(f"{name}: {kind}s above twice the p99, without", 100 * usually)
        fleet.daemon.stop()
        bench.say("putting it back")
        bench.report.note("restore of a 1 GB store: time", _restore(fleet, out))


def _fill(store: Path, rows: int) -> None:
    """Sessions of a year, with their events, straight into the tables."""
    connection = apsw.Connection(str(store))
    try:
        for pragma in ("synchronous = OFF", "cache_size = -200000"):
            list(connection.execute(f"PRAGMA {pragma}"))
        nodes = [row[0] for row in connection.execute("SELECT id FROM nodes")]
        owners = list(
            connection.execute("SELECT d.id, d.user_id, p.public_key FROM devices d JOIN peers p ON p.device_id = d.id")
        )
        if not nodes or not owners:
            raise RigError("there are no peers whose sessions could be told of")
        year, now = 365 * 86_400, int(time.time())
        with connection:
            for start in range(0, rows, 50_000):
                sessions, events = [], []
                for number in range(start, min(rows, start + 50_000)):
                    device, user, key = owners[number % len(owners)]
                    node = nodes[number % len(nodes)]
                    at = (now - year + number * year // rows) * 1_000_000
                    address = f"198.51.{number >> 8 & 255}.{number & 255}:{20_000 + number % 40_000}"
                    sessions.append(
                        (10**15 + number, node, 1, key, device, user, at, at, at + 10**9, at + 10**9, at + 10**9, address,
                         number, 2 * number, number, 2 * number, "idle")
                    )  # fmt: skip
                    events.append((at, at, 1, 10**15 + number, node, key, device, user, address.partition(":")[0], address))
                connection.executemany(
                    "INSERT INTO peer_sessions (id, node_id, protocol, peer_key, device_id, user_id, opened_at, "
                    "opened_seen_at, closed_at, closed_seen_at, last_at, endpoint, rx_base, tx_base, "
                    "rx_last, tx_last, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    sessions,
                )
                connection.executemany(
                    "INSERT INTO connection_events (at, received_at, kind, session_id, node_id, peer_key, device_id, "
                    "user_id, source_ip, source_endpoint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    events,
                )
        list(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
    finally:
        connection.close()


@dataclass
class _Load:
    """What clients of the daemon see."""

    stop: threading.Event = field(default_factory=threading.Event)
    took: dict[str, list[float]] = field(default_factory=lambda: {"read": [], "change": []})
    failures: list[str] = field(default_factory=list)

    def take(self) -> dict[str, list[float]]:
        """Seconds of each request since the last call."""
        found, self.took = self.took, {"read": [], "change": []}
        return found


@contextmanager
def _load(fleet: BenchFleet) -> Iterator[_Load]:
    load = _Load()
    numbers = threading.Lock()

    def ask(number: int) -> None:
        client = fleet.daemon.client()
        turn = time.monotonic() + number * _EVERY_S / _CLIENTS
        count = number
        while not load.stop.wait(max(0.0, turn - time.monotonic())):
            turn = max(turn + _EVERY_S, time.monotonic())
            count += 1
            node = fleet.ids[count % len(fleet.ids)]
            began = time.monotonic()
            try:
                if count % 10 == 0:
                    with numbers:
                        body = fleet.new_peers([node])
                    began = time.monotonic()
                    client.post("/api/peers", body)
                    load.took["change"].append(time.monotonic() - began)
                else:
                    client.get("/api/sessions?limit=100" if count % 3 == 0 else f"/api/nodes/{node}")
                    load.took["read"].append(time.monotonic() - began)
            except Exception as error:  # told at the end
                load.failures.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(30)
    if load.failures:
        raise RigError(f"{len(load.failures)} requests failed, first: {load.failures[0]}")


def _cox(*arguments: str, state_dir: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "actors.main", "backup", *arguments]
    environ = os.environ | {"COX_BACKUP_PASSPHRASE": _PHRASE} | ({"COX_STATE_DIR": state_dir} if state_dir else {})
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)


def _create(fleet: BenchFleet, out: Path) -> tuple[float, int]:
    """Seconds, and the most resident bytes."""
    began, most = time.monotonic(), 0
    process = _cox("create", "--config", str(fleet.daemon.config), "--out", str(out))
    while process.poll() is None:
        most = max(most, usage(process.pid).rss)
        time.sleep(0.1)
    if process.returncode:
        raise RigError(f"cox backup create ended with {process.returncode}")
    return time.monotonic() - began, most


def _restore(fleet: BenchFleet, backup_file: Path) -> float:
    began = time.monotonic()
    where = fleet.daemon.home / "again"
    process = _cox("restore", str(backup_file), "--config", str(where / "cox.yaml"), state_dir=str(where / "state"))
    if process.wait():
        raise RigError(f"cox backup restore ended with {process.returncode}")
    return time.monotonic() - began
