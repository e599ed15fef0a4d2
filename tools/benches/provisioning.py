"""Provisioning: how soon a device is on, and off, every node; what a plan costs; how quickly long lists come."""

from __future__ import annotations

import base64
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from rig import RigError, scratch

from benches.fleet import Bench, percentile
from coxswain.limits import collect_rarely
from coxswain.messages.fleet import Intent
from coxswain.messages.sessions import PeerCounters
from coxswain.model import Node, Obfuscation, Peer, Protocol
from coxswain.reconcile.codec import plain_ips, psk_digest
from coxswain.reconcile.desired import desired
from coxswain.reconcile.plan import plan
from coxswain.reconcile.types import Desired, LinkMemory, Observed, ObservedPeer, Plan, PushPeers, ServiceHealth
from coxswain.store import Durability, Store, open_store
from coxswain.store import fleet as rows

T = TypeVar("T")

NODES = 100
DEVICES = 10_000
_ALREADY = 200
"""Devices that are on every node before the one that is measured."""

_PAGES = 50


def provisioning(bench: Bench) -> None:
    """A device onto and off 100 nodes; the plan of a node with 10,000 peers; pages of 10,000 devices."""
    _on_and_off(bench)
    with scratch("plan") as home, _collecting_as_the_daemon():
        store = open_store(home / "app.db")
        try:
            _plan(bench, store)
        finally:
            store.close()


def _on_and_off(bench: Bench) -> None:
    with bench.fresh_fleet(NODES) as fleet:
        client = fleet.daemon.client()
        for number, node in enumerate(client.get("/api/nodes")):
            body = {"version": node["version"], "endpoint_ips": [f"198.51.100.{number + 1}"]}
            client.call("PATCH", f"/api/nodes/{node['id']}", body)
        user = client.post("/api/users", {"name": "bench"})["id"]
        bench.say(f"{_ALREADY} devices on {NODES} nodes first")
        for _ in range(_ALREADY):
            _provision(client, _device(client, user), wait=0)
        fleet.wait_in_sync()
        for _ in range(bench.scale.runs):
            device = _device(client, user)
            bench.report.note(
                "provision a device on 100 nodes: request to all acknowledged", _provision(client, device, wait=30)
            )
            began = time.monotonic()
            revoked = client.post(f"/api/devices/{device}/revoke?wait=30")
            if len(revoked["pushed_nodes"]) != NODES:
                raise RigError(f"revoked on {len(revoked['pushed_nodes'])} of {NODES} nodes")
            bench.report.note("revoke it: request to last node acknowledged", time.monotonic() - began)
        bench.say(f"{DEVICES} devices, to be listed")
        while len(client.get("/api/devices?limit=10000")) < DEVICES:
            for _ in range(1_000):
                _device(client, user)
        _list(bench, client)


def _device(client: Any, user: str) -> str:
    made: str = client.post(f"/api/users/{user}/devices", {"name": "bench"})["id"]
    return made


def _provision(client: Any, device: str, *, wait: int) -> float:
    began = time.monotonic()
    result = client.post(f"/api/devices/{device}/provision?wait={wait}")
    seconds = time.monotonic() - began
    if result["peer_count"] != NODES or (wait and len(result["pushed_nodes"]) != NODES):
        raise RigError(f"provisioned on {len(result['pushed_nodes'])} of {NODES} nodes")
    return seconds


def _list(bench: Bench, client: Any) -> None:
    """Pages of 100 from anywhere in the list."""
    ids = [device["id"] for device in client.get("/api/devices?limit=10000")]
    took = []
    for number in range(_PAGES):
        after = ids[number * (len(ids) - 101) // _PAGES]
        began = time.monotonic()
        client.get(f"/api/devices?limit=100&after={after}")
        took.append((time.monotonic() - began) * 1000)
    bench.report.note("a page of 100 of 10,000 devices: p99", percentile(took, 0.99))


def _plan(bench: Bench, store: Store) -> None:
    """From an intent and a look to a plan; the first time, and after a change. The store is read before that."""
    bench.say(f"{DEVICES} devices on {NODES} nodes, in a store")
    _fill(store)
    node = Node("nod_000", "n0", config_revision=2, wg_public_key="x", obfuscation=Obfuscation(h1=5, h2=6, h3=7, h4=8))
    observed = _observed(_read(store, node).peers)
    known = None
    for _ in range(bench.scale.runs + 1):
        intent, read_ms = _timed(partial(_read, store, node))
        (state, made), plan_ms = _timed(partial(_planned, intent, observed, known))
        if len(state.peers) != DEVICES or any(isinstance(step, PushPeers) for step in made.steps):
            raise RigError(f"the plan is wrong: {made.steps}")
        which = "full plan of a node with 10,000 peers" + (", first" if known is None else "")
        bench.report.note(which, plan_ms)
        bench.report.note("reading the intent of a node with 10,000 peers", read_ms)
        known = state


@contextmanager
def _collecting_as_the_daemon() -> Iterator[None]:
    """With Python's own thresholds every other plan of so many objects pays for a full collection: 50 ms, not 25."""
    before = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def _planned(intent: Intent, observed: Observed, known: Desired | None) -> tuple[Desired, Plan]:
    state, _ = desired(intent.node, intent.peers, known)
    return state, plan(state, observed, LinkMemory(), 0.0)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """In milliseconds of CPU: it waits for nothing, and what else the machine does is not its concern."""
    began = time.process_time()
    value = work()
    return value, (time.process_time() - began) * 1000


def _read(store: Store, node: Node) -> Intent:
    with store.read() as tx:
        return Intent(node, tuple(rows.peers_of(tx, [node.id])[node.id]))


def _observed(peers: tuple[Peer, ...]) -> Observed:
    seen = tuple(
        ObservedPeer(
            p.public_key,
            plain_ips(p.allowed_ips),
            psk_digest(p.preshared_key),
            PeerCounters(Protocol.AMNEZIAWG, p.public_key, 0.0, 0, 0),
        )
        for p in peers
    )
    health = ServiceHealth(
        Protocol.AMNEZIAWG,
        running=True,
        listening=True,
        peer_count=len(seen),
        detail="",
        newest_handshake_age_s=10,
        handshaking_peers=100,
    )
    return Observed("1", 10, 2, (health,), "x", Obfuscation(), "", seen)


def _fill(store: Store) -> None:
    keys = [base64.b64encode(os.urandom(32)).decode() for _ in range(DEVICES)]
    with store.write(Durability.BATCHED) as tx:
        tx.execute("INSERT INTO users (id, name, created_at, updated_at) VALUES ('usr_0', 'x', 0, 0)")
        tx.executemany(
            "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, 'usr_0', 'x', ?, 0)",
            ((f"dev_{n:05d}", n) for n in range(DEVICES)),
        )
        tx.executemany(
            "INSERT INTO nodes (id, name, created_at, updated_at) VALUES (?, ?, 0, 0)",
            ((f"nod_{n:03d}", f"n{n}") for n in range(NODES)),
        )
        tx.executemany(
            "INSERT INTO peers (id, node_id, device_id, protocol, public_key, allowed_ips, preshared_key, created_at) "
            "VALUES (?, ?, ?, 1, ?, ?, ?, ?)",
            (
                (
                    f"peer_{d:05d}_{n:03d}",
                    f"nod_{n:03d}",
                    f"dev_{d:05d}",
                    keys[d],
                    f'["10.{86 + d // 65536}.{d // 256 % 256}.{d % 256}/32"]',
                    keys[(d * 31 + n) % DEVICES],
                    d,
                )
                for d in range(DEVICES)
                for n in range(NODES)
            ),
        )
