"""Onboarding over SSH: one host, and twenty at once, on real sshds with a program of 40 MB."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any

from rig import Daemon, RigError, scratch, wait_until

from benches.fleet import Bench

_AT_ONCE = 20
_BYTES = 40_000_000
_OVER = ("failed", "undone", "cancelled", "waiting")


def onboarding(bench: Bench) -> None:
    """One host over SSH, then twenty at once; each has an sshd and an agent of its own."""
    from tests.machines import PASSWORD, Machine, agent_file  # noqa: PLC0415 - tests' hosts, with their sshd

    if os.geteuid() != 0:
        raise RigError("onboarding: hosts are mount namespaces, which need root")
    with scratch("onboard") as home, ExitStack() as stack:
        daemon = Daemon(home)
        daemon.init()
        daemon.start()
        stack.callback(daemon.stop)
        client = daemon.client()
        runs = min(3, bench.scale.runs)
        machines = []
        for number in range(_AT_ONCE + runs):
            directory = home / f"host{number}"
            directory.mkdir()
            machines.append(stack.enter_context(Machine(directory, f"127.0.9.{number + 1}", warm=True)))
        agent = str(agent_file(home / "agent", pad=_BYTES, warm=True))
        for machine in machines:
            body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint}
            machine.server = client.post("/api/servers", body)["id"]
            wait_until("its interpreter is warm", lambda m=machine: m.path("/run/warm.sock").exists(), 60)
        took = []
        for machine in machines[_AT_ONCE:]:
            took.append(_onboard(client, [machine.server], agent))
            bench.report.note("onboard one host over SSH, 40 MB", took[-1])
        one = sorted(took)[len(took) // 2]
        many = _onboard(client, [machine.server for machine in machines[:_AT_ONCE]], agent)
        bench.report.note("onboard 20 hosts at once", many)
        bench.report.note("onboard 20 hosts at once, against one", many / one)


def _onboard(client: Any, servers: list[str], agent: str) -> float:
    """Returns the seconds from the first request to the last link being live."""
    began = time.monotonic()
    body = {"role": "node", "binary_path": agent}
    left = {client.begin(f"/api/servers/{server}/deploy", body)["id"] for server in servers}

    def over() -> bool:
        going = {o["id"]: o for o in client.get("/api/operations?kind=node.add&open=true&limit=100")}
        failed = [o["error"] for o in going.values() if o["id"] in left and o["state"] in _OVER]
        if failed:
            raise RigError(f"onboarding failed: {failed[0]}")
        return not going.keys() & left

    wait_until("all are onboarded", over, 300, 0.1)
    return time.monotonic() - began
