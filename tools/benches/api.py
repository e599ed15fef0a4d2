"""The API on TCP, as scripts and the dashboard use it: bearer token, connections that stay open."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rig import Daemon, RigError, scratch

from benches.fleet import Bench

_NODES = 1_000
_CLIENTS = 8
_WRITERS = 24

Ask = Callable[[str, str, Any], Any]


def api(bench: Bench) -> None:
    """Queries and management actions over TCP: at a pace, and as fast as they go."""
    bench.drop_fleet()
    seconds = 4.0 if bench.scale.nodes < _NODES else 10.0
    with scratch("bench-api") as home:
        daemon = Daemon(home)
        daemon.init()
        daemon.start()
        try:
            token = daemon.client().post("/api/tokens", {"name": "bench", "scope": "admin"})["secret"]
            names = _fill(daemon)
            for _ in range(max(1, min(3, bench.scale.runs))):
                _queries(bench, daemon, token, names, seconds)
                _actions(bench, daemon, token, names, seconds)
            _many_open(bench, daemon, token, names, seconds)
        finally:
            daemon.stop()


def _fill(daemon: Daemon) -> list[str]:
    client = daemon.client()
    names = [f"n{number:04d}" for number in range(_NODES)]
    for number, name in enumerate(names):
        client.post("/api/nodes", {"name": name, "control_addr": f"192.0.2.1:{number + 1}", "region": "fra"})
    for name in names:
        client.post(f"/api/nodes/{name}/disable")  # none of them is there to be dialled
    return names


def _queries(bench: Bench, daemon: Daemon, token: str, names: list[str], seconds: float) -> None:
    turn = itertools.cycle(names)

    def one(ask: Ask) -> None:
        ask("GET", f"/api/nodes/{next(turn)}", None)

    def page(ask: Ask) -> None:
        ask("GET", f"/api/nodes?limit=50&after={next(turn)}", None)

    def everything(ask: Ask) -> None:
        found = ask("GET", "/api/nodes", None)
        if len(found) != _NODES:
            raise RigError(f"{len(found)} nodes came, of {_NODES}")

    for figure, what, rate in (
        ("GET one node, 8 clients: p99", one, 160.0),
        ("GET a page of 50 nodes, 8 clients: p99", page, 80.0),
        ("GET all 1,000 nodes, 8 clients: p99", everything, 8.0),
    ):
        bench.report.note(figure, _p99(_run(daemon, token, what, _CLIENTS, seconds, rate=rate)) * 1e3)
    took = _run(daemon, token, one, _CLIENTS, seconds, rate=None)
    bench.report.note("GET one node, 8 clients without a pause: per second", len(took) / seconds)


def _actions(bench: Bench, daemon: Daemon, token: str, names: list[str], seconds: float) -> None:
    """Each client changes nodes of its own, so that none of them meets a stale version."""
    versions = {node["name"]: node["version"] for node in daemon.client().get("/api/nodes")}
    free, lock = list(names), threading.Lock()

    def change(ask: Ask) -> None:
        with lock:
            name = free.pop()
        try:
            body = {"version": versions[name], "region": f"r{versions[name] % 100}"}
            versions[name] = ask("PATCH", f"/api/nodes/{name}", body)["version"]
        finally:
            with lock:
                free.insert(0, name)

    size = daemon.client().get("/api/audit/head")["size"]
    took = _run(daemon, token, change, _WRITERS, seconds, rate=None)
    bench.report.note("management actions, durable and audited: sustained", len(took) / seconds)
    paced = _run(daemon, token, change, _CLIENTS, seconds, rate=200.0)
    bench.report.note("management actions at 200 per second: p99", _p99(paced) * 1e3)
    recorded = daemon.client().get("/api/audit/head")["size"] - size
    bench.report.note("management actions at 200 per second: failed", abs(len(took) + len(paced) - recorded))


def _many_open(bench: Bench, daemon: Daemon, token: str, names: list[str], seconds: float) -> None:
    host, _, port = daemon.listen.rpartition(":")
    turn = itertools.cycle(names)
    with ExitStack() as opened:
        for _ in range(1_500):
            opened.enter_context(socket.create_connection((host, int(port)), 10))
        took = _run(daemon, token, lambda ask: ask("GET", f"/api/nodes/{next(turn)}", None), _CLIENTS, seconds, rate=160.0)
    bench.report.note("GET one node, 1,500 connections open: p99", _p99(took) * 1e3)


def _run(
    daemon: Daemon, token: str, what: Callable[[Ask], None], clients: int, seconds: float, *, rate: float | None
) -> list[float]:
    """Seconds that each call took. ``rate``: of all clients together, each call measured from when it was due; None: each
    client asks again at once.
    """
    took: list[float] = []
    failed: list[str] = []
    began = time.perf_counter() + 0.2

    def client(number: int) -> None:
        host, _, port = daemon.listen.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), 30)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

        def ask(method: str, path: str, body: Any) -> Any:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
            if answer.status >= 300:
                raise RigError(f"{method} {path}: {answer.status} {raw[:200]!r}")
            return json.loads(raw)

        try:
            for turn in itertools.count():
                due = began if rate is None else began + (turn * clients + number) / rate
                now = time.perf_counter()
                if now >= began + seconds or due >= began + seconds:
                    break
                if due > now:
                    time.sleep(due - now)
                start = time.perf_counter() if rate is None else due
                what(ask)
                took.append(time.perf_counter() - start)
        except Exception as error:  # a thread must not end without a word
            failed.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RigError(failed[0])
    return took


def _p99(took: list[float]) -> float:
    if not took:
        raise RigError("no request was answered in time to be measured")
    return sorted(took)[max(0, int(len(took) * 0.99) - 1)]
