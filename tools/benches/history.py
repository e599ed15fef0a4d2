"""``GET /api/sessions`` over a long history."""

from __future__ import annotations

import time
from itertools import cycle
from pathlib import Path

import apsw
from rig import Daemon, RigError, scratch

from benches.fleet import Bench, percentile

_QUERIES = 300
_NODES, _DEVICES, _USERS, _ADDRESSES = 200, 20_000, 5_000, 50_000

_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

_FILL = """
INSERT INTO connection_events (seq, at, received_at, kind, session_id, node_id, peer_key, device_id, user_id, source_ip,
    source_endpoint, rx_bytes, tx_bytes, country)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :count - 1)
SELECT :first + i, :from_us + CAST(i * :step_us AS INTEGER), :from_us + CAST(i * :step_us AS INTEGER),
    CASE i % 2 WHEN 0 THEN 32 ELSE CASE WHEN i % 1000 = 1 THEN 39 WHEN i % 20 = 1 THEN 34 ELSE 33 END END,
    i / 2, 'nod_aaaaaaaaaaaaaa' || substr(:letters, (i * 7919) % :nodes / 32 + 1, 1)
        || substr(:letters, (i * 7919) % :nodes % 32 + 1, 1), printf('peer%040d', (i / 2 * 104729) % :devices),
    printf('dev_%016d', (i / 2 * 104729) % :devices), printf('usr_%016d', (i / 2 * 104729) % :devices % :users),
    printf('10.%d.%d.7', (i * 31) % :addresses / 250, (i * 31) % :addresses % 250),
    printf('10.%d.%d.7:4000', (i * 31) % :addresses / 250, (i * 31) % :addresses % 250), i % 100000, i % 7777,
    CASE WHEN i % 100003 = 0 THEN 'NZ' WHEN i % 3 = 0 THEN 'FR' ELSE 'DE' END
FROM n
"""
"""Connects and disconnects in turn, in the shapes that the daemon writes: 32 connect, 33 disconnect, 34 roamed, 39 rare."""


def history(bench: Bench) -> None:
    """A page of sessions, by every filter, over a million sessions and over ten million."""
    full = bench.scale.nodes >= 1000
    small = _measure(bench, 1_000_000 if full else 20_000)
    large = _measure(bench, 10_000_000 if full else 200_000)
    bench.report.note("page of sessions over 1,000,000: p99", small)
    bench.report.note("page of sessions over 10,000,000: p99", large)
    bench.report.note("page of sessions, ten times as many: times as long", large / small)


def _measure(bench: Bench, sessions: int) -> float:
    with scratch("history") as home:
        daemon = Daemon(home)
        daemon.init()
        daemon.start()
        daemon.stop()
        began = time.monotonic()
        _fill(home / "state" / "app.db", 2 * sessions)
        bench.say(f"{sessions:,} sessions, {2 * sessions:,} records made in {time.monotonic() - began:.0f} s")
        daemon.start()
        try:
            return _ask(bench, daemon, sessions)
        finally:
            daemon.kill()


def _fill(path: Path, count: int) -> None:
    database = apsw.Connection(str(path))
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -500000")
    wanted = "tbl_name = 'connection_events' AND sql LIKE 'CREATE INDEX%'"
    indexes = list(database.execute(f"SELECT name, sql FROM sqlite_master WHERE {wanted}"))  # noqa: S608 - our own words
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    now_us = int(time.time() * 1e6)
    span_us = 6 * 86_400 * 1_000_000  # within what the personal posture keeps
    shape = {"nodes": _NODES, "letters": _LETTERS, "devices": _DEVICES, "users": _USERS, "addresses": _ADDRESSES}
    when = {"count": count, "first": 1_000_000, "from_us": now_us - span_us, "step_us": span_us / count}
    database.execute(_FILL, shape | when)
    for _, sql in indexes:
        database.execute(sql)
    database.close()


def _ask(bench: Bench, daemon: Daemon, sessions: int) -> float:
    client = daemon.client()
    took: dict[str, list[float]] = {}
    for number, name in zip(range(_QUERIES * len(_FILTERS)), cycle(_FILTERS), strict=False):
        path = "/api/sessions?limit=100" + _FILTERS[name](number * 7919 % sessions)
        began = time.perf_counter()
        found = client.get(path)
        took.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
        if not found and name != "a protocol that nobody uses":
            raise RigError(f"nothing for {path}")
    for name, values in took.items():
        bench.say(f"{sessions:,}: {name}: median {percentile(values, 0.5):.1f} ms, p99 {percentile(values, 0.99):.1f} ms")
    return percentile([value for values in took.values() for value in values], 0.99)


def _node(number: int) -> str:
    return f"nod_aaaaaaaaaaaaaa{_LETTERS[number // 32]}{_LETTERS[number % 32]}"


def _address(number: int) -> str:
    return f"10.{number // 250}.{number % 250}.7"


def _day(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600 * (2 + number % 140)))


_FILTERS = {
    "none": lambda _n: "",
    "node": lambda n: f"&node={_node(n % _NODES)}",
    "device": lambda n: f"&device=dev_{n % _DEVICES:016d}",
    "user": lambda n: f"&user=usr_{n % _USERS:016d}",
    "address": lambda n: f"&source_ip={_address(n * 31 % _ADDRESSES)}",
    "until": lambda n: f"&until={_day(n)}",
    "node and until": lambda n: f"&node={_node(n % _NODES)}&until={_day(n)}",
    "rare reason": lambda _n: "&reason=controller-restart",
    "node and reason": lambda n: f"&reason=roamed&node={_node(n % 10 * 20 + 19)}",
    "connects": lambda _n: "&event_type=connect",
    "a protocol that nobody uses": lambda n: f"&protocol=xray-reality&node={_node(n % _NODES)}",
    "a country that most are from": lambda _n: "&country=DE",
    "a rare country": lambda _n: "&country=NZ",
    "node and country": lambda n: f"&country=FR&node={_node(n % _NODES)}",
    "device and country": lambda n: f"&country=DE&device=dev_{n % _DEVICES:016d}",
    "disconnects of a device": lambda n: f"&device=dev_{n % _DEVICES:016d}&event_type=disconnect",
}
