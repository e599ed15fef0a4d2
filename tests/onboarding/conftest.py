"""A controller in this process and hosts with a real sshd; the agent that is installed is the real one."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coxswain.cli.client import RemoteError
from tests.fleet import ROOT, Controller
from tests.machines import PASSWORD, Machine, agent_file
from tests.support import eventually

_addresses = itertools.count(20)
OVER = ("done", "failed", "undone", "cancelled", "waiting")


class Rig:
    """A controller, hosts, and what tests ask of them again and again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.chmod(0o755)  # sshd reads authorized_keys as the user that logs in
        state = home / "state"
        state.mkdir(mode=0o700)
        (home / "cox.yaml").write_text("posture: personal\nstate_dir: ./state\n")
        self.controller = Controller(state)
        self.controller.start()
        self.machines: list[Machine] = []

    def close(self) -> None:
        for machine in self.machines:
            machine.stop()
        self.controller.stop()

    @property
    def client(self) -> Any:
        return self.controller.client

    def machine(self, **options: Any) -> Machine:
        directory = self.home / f"host{len(self.machines)}"
        directory.mkdir()
        machine = Machine(directory, f"127.0.3.{next(_addresses)}", **options)
        machine.start()
        self.machines.append(machine)
        return machine

    def agent(self, name: str = "agent", **options: Any) -> str:
        return str(agent_file(self.home / name, **options))

    def add_server(self, machine: Machine, **more: Any) -> dict[str, Any]:
        body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint} | more
        server: dict[str, Any] = self.client.post("/api/servers", {k: v for k, v in body.items() if v})
        return server

    def deploy(self, server: dict[str, Any], agent: str, **more: Any) -> dict[str, Any]:
        body = {"role": "node", "binary_path": agent} | more
        node: dict[str, Any] = self.client.post(f"/api/servers/{server['id']}/deploy", body)
        return node

    def node_on(self, machine: Machine, agent: str, **more: Any) -> dict[str, Any]:
        return self.deploy(self.add_server(machine), agent, **more)

    def begin(self, path: str, **body: Any) -> dict[str, Any]:
        operation: dict[str, Any] = self.client.begin(path, body)
        return operation

    def operation(self, operation: dict[str, Any] | str) -> dict[str, Any]:
        key = operation if isinstance(operation, str) else operation["id"]
        found: dict[str, Any] = self.client.get(f"/api/operations/{key}")
        return found

    def over(self, operation: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.operation(operation)
            return found if found["state"] in OVER else None

        return eventually(look, timeout=timeout, every=0.05) or {}

    def last(self, kind: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.client.get(f"/api/operations?kind={kind}&limit=1")
        return found[0]

    def audited(self, target: str) -> list[tuple[str, str]]:
        entries = self.client.get("/api/audit?limit=1000")
        return [(e["action"], e["result"]) for e in reversed(entries) if e["target_id"] == target]

    def fails(self, path: str, **body: Any) -> RemoteError:
        """The error of a request that has to fail."""
        with pytest.raises(RemoteError) as caught:
            self.client.post(path, body)
        return caught.value


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="cox-") as home:  # short: there is a socket in it
        made = Rig(Path(home))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def cox(rig: Rig) -> Callable[..., str]:
    """The command line, as an operator calls it: what it prints."""

    def run(*arguments: str, typed: str = "", code: int = 0) -> str:
        command = [sys.executable, "-m", "actors.main", *arguments, "--config", str(rig.home / "cox.yaml")]
        done = subprocess.run(command, cwd=ROOT, input=typed, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
