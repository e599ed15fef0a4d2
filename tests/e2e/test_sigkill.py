"""SIGKILL of the daemon while changes come in: nothing that was acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from coxswain.audit.verify import verify
from coxswain.errors import CoxswainError
from coxswain.store import open_store
from tests.fleet import Daemon, Nodes, killed_at_work, peers_body
from tests.support import eventually, free_ports

KILLS = 8
WRITERS = 4
NODES = 3
BASE_PORT = 13_200


@pytest.mark.timeout(300)  # eight starts, on a machine that may be crowded
def test_acknowledged_changes_and_their_records_are_there_once(daemon: Daemon, tmp_path: Path) -> None:
    rng = random.Random(5)
    client = daemon.client()
    nodes = Nodes.make(tmp_path / "nodes", NODES)
    ids, base_port = [], free_ports(BASE_PORT, NODES)
    for index in range(NODES):
        body = {"name": f"n{index}", "control_addr": f"127.0.0.1:{base_port + index}"}
        ids.append(client.post("/api/nodes", body)["id"])
        nodes.install(index, client.post(f"/api/nodes/n{index}/enroll", {"csr": nodes.csr(index)}))
    nodes.start(base_port)
    asked: list[str] = []
    acknowledged: list[str] = []
    lock = threading.Lock()

    def write() -> None:
        client = daemon.client()
        while True:
            with lock:
                body = peers_body([rng.choice(ids)], 1, first=len(asked))
                device = body["devices"][0]["id"]
                asked.append(device)
            try:
                client.post("/api/peers", body)
            except (CoxswainError, OSError):
                return  # killed; whether this one was made is open
            with lock:
                acknowledged.append(device)

    try:
        for _ in range(KILLS):
            killed_at_work(daemon, write, WRITERS, acknowledged, rng, 0.3)
            daemon.start()
        status = eventually(
            lambda: (s := daemon.client().get("/api/status"))["fleet"]["in_sync"] == NODES and s, timeout=30, every=0.1
        )
        on_nodes = sum(node["peers_configured"] for node in daemon.client().get("/api/nodes"))
    finally:
        nodes.stop()
    assert daemon.stop() == 0
    store = open_store(daemon.store)
    try:
        with store.read() as tx:
            peers = Counter(row[0] for row in tx.execute("SELECT device_id FROM peers"))
            details = [row[0] for row in tx.execute("SELECT detail FROM audit_log WHERE action = 'peers.apply'")]
            waiting = tx.execute("SELECT COUNT(*) FROM audit_outbox")[0][0]
            report = verify(tx)
    finally:
        store.close()
    assert (report.good, report.broken, list(report.findings)) == (status["audit"]["size"], None, [])
    records = Counter(device for detail in details for device in json.loads(detail)["devices"])
    assert not [d for d in acknowledged if peers[d] != 1 or records[d] != 1]
    assert peers == records, "what was made has one record, what was not made has none"
    assert waiting == 0
    assert on_nodes == len(peers)
