"""Links moved to relays and back: an egress chain, and onion circuits, of two relays each.

The relays are ``cox-relay``, onboarded on hosts of their own; all share this machine's processors with controller and fleet.
"""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

from rig import RigError, scratch, wait_until

from benches.fleet import Bench, BenchFleet

_LINKS = 100
_ANSWERED = re.compile(r"answered in (\d+) ms")


def control_paths(bench: Bench) -> None:
    """A hundred links moved to two relays: the probe, a round trip, the move."""
    if os.geteuid() != 0:
        raise RigError("control_paths: the relays' hosts are mount namespaces, which need root")
    bench.drop_fleet()
    with bench.fresh_fleet(_LINKS) as fleet, scratch("relays") as home, ExitStack() as stack:
        client = fleet.daemon.client()
        for kind, first in (("egress chain", 1), ("onion circuits", 3)):
            hops = [_relay(client, stack, home, number, onion=kind != "egress chain") for number in (first, first + 1)]
            client.post("/api/control-paths", {"name": _name(kind), "hops": hops})
            for _ in range(bench.scale.runs):
                _move(bench, fleet, kind)


def _relay(client: Any, stack: ExitStack, home: Any, number: int, *, onion: bool) -> str:
    """Onboards one; returns its id."""
    from tests.machines import PASSWORD, Machine, relay_file  # noqa: PLC0415 - tests' hosts, with their sshd

    directory = home / f"host{number}"
    directory.mkdir()
    machine = stack.enter_context(Machine(directory, f"127.0.9.{number + 100}"))
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    host = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint}
    server = client.post("/api/servers", host)["id"]
    program = str(relay_file(home / f"relay{number}"))
    body = {"role": "relay", "egress": True, "onion": onion, "no_ingress": True, "binary_path": program}
    relay_id: str = client.post(f"/api/servers/{server}/deploy", body)["id"]
    for port in (8456, 8457) if onion else (8456,):  # hosts share a network: onboarding saw that another listens there
        wait_until("the relay listens", lambda port=port: _listens(machine.address, port), 30)
    return relay_id


def _listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _move(bench: Bench, fleet: BenchFleet, kind: str) -> None:
    client = fleet.daemon.client()
    before, began = fleet.usage().cpu_s, time.monotonic()
    client.post(f"/api/control-paths/{_name(kind)}/activate", {})
    probed = time.monotonic()

    def all_over() -> bool:
        status = client.get("/api/status")
        over = status["control_path"]["connections"]
        return bool(over >= fleet.nodes and status["fleet"]["in_sync"] == fleet.nodes)

    wait_until("all links over relays", all_over, 120, 0.02)
    bench.report.note(f"{kind} of two relays: probe, every hop and a node", (probed - began) * 1e3)
    bench.report.note(f"{kind} of two relays: move of 100 links", time.monotonic() - probed)
    bench.report.note(f"{kind} of two relays: move of 100 links, CPU of the controller", fleet.usage().cpu_s - before)
    (record,) = client.get("/api/audit?action=control_path.activate&limit=1")
    answered = _ANSWERED.search(record["detail"]["probed"])
    if answered is None:
        raise RigError(f"the probe did not say how long a node took: {record['detail']}")
    bench.report.note(f"{kind} of two relays: first answer of a node", float(answered[1]))
    client.post("/api/control-paths/deactivate", {"allow_direct": True})
    wait_until(
        "all links direct again",
        lambda: client.get("/api/status")["control_path"]["connections"] == 0 and fleet.in_sync() == fleet.nodes,
        120,
    )


def _name(kind: str) -> str:
    return kind.replace(" ", "-")
