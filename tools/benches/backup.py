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
from rig import ROOT, RigError, usage, wait_until

from benches.fleet import Bench, BenchFleet, percentile

_ROWS_OF_A_GIGABYTE = 1_500_000
_CLIENTS = 4
_EVERY_S = 0.02
"""Each client asks, and when it was answered asks again at its next turn: 200 requests a second in all."""

_BASELINE_S = 30.0
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
            # Before and after, because a machine that others use as well is not the same from minute to minute.
            bench.say("the same without a backup")
            time.sleep(_BASELINE_S if full else _BASELINE_S / 4)
            before = load.take()
            bench.say("making the backup")
            out = fleet.daemon.home / "b.coxbak"
            seconds, memory = _create(fleet, out)
            during = load.take()
            bench.say("the same without a backup, again")
            time.sleep(_BASELINE_S if full else _BASELINE_S / 4)
            for kind, took in load.take().items():
                before[kind] += took
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


_OWNERS = """
CREATE TEMP TABLE owners AS
SELECT row_number() OVER () - 1 AS number, p.node_id, p.public_key, d.id AS device_id, d.user_id
FROM peers p JOIN devices d ON d.id = p.device_id;
CREATE UNIQUE INDEX temp.owners_number ON owners (number)
"""

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows)"
_ADDRESS = "'198.51.' || (i / 256 % 256) || '.' || (i % 256)"

_SESSIONS = f"""
INSERT INTO peer_sessions (id, node_id, protocol, peer_key, device_id, user_id, opened_at, opened_seen_at, closed_at,
    closed_seen_at, last_at, endpoint, rx_base, tx_base, rx_last, tx_last, reason)
{_NUMBERS}
SELECT 1000000000000000 + i, node_id, 1, public_key, device_id, user_id, :start + i * :step, :start + i * :step,
    :start + i * :step + 1000000000, :start + i * :step + 1000000000, :start + i * :step + 1000000000,
    {_ADDRESS} || ':' || (20000 + i % 40000), i, 2 * i, 3 * i, 4 * i, 'idle'
FROM n CROSS JOIN owners ON number = i % :owners
"""  # noqa: S608 - constants

_EVENTS = f"""
INSERT INTO connection_events (at, received_at, kind, session_id, node_id, peer_key, device_id, user_id, source_ip,
    source_endpoint)
{_NUMBERS}
SELECT :start + i * :step, :start + i * :step, 1, 1000000000000000 + i, node_id, public_key, device_id, user_id, {_ADDRESS},
    {_ADDRESS} || ':' || (20000 + i % 40000)
FROM n CROSS JOIN owners ON number = i % :owners
"""  # noqa: S608


def _fill(store: Path, rows: int) -> None:
    """Sessions of a year, with their events, straight into the tables."""
    connection = apsw.Connection(str(store))
    try:
        for pragma in ("synchronous = OFF", "cache_size = -200000"):
            list(connection.execute(f"PRAGMA {pragma}"))
        list(connection.execute(_OWNERS))
        (owners,) = next(connection.execute("SELECT count(*) FROM owners"))
        if not owners:
            raise RigError("there are no peers whose sessions could be told of")
        year = 365 * 86_400
        values = {"rows": rows, "owners": owners, "start": (int(time.time()) - year) * 10**6, "step": year * 10**6 // rows}
        with connection:
            list(connection.execute(_SESSIONS, values))
            list(connection.execute(_EVENTS, values))
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
        """Seconds of each request since the last call. A small backup is over before the first of a kind was answered: it is
        waited for.
        """
        wait_until("a read and a change are answered", lambda: self.failures or all(self.took.values()), 60, 0.01)
        if self.failures:
            raise RigError(self.failures[0])
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
