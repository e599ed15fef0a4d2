"""What ``tools/demo`` and ``tools/bench`` share: a real daemon in a scratch directory, and fleets of simulated nodes in
other processes, so that the controller's figures are its own.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coxswain.cli.client import Client
from coxswain.config import render
from coxswain.errors import CoxswainError
from tests.support import free_port

ROOT = Path(__file__).resolve().parent.parent


class RigError(Exception):
    """The rig could not do its part; says which part."""


def wait_until(what: str, predicate: Callable[[], Any], timeout: float, every: float = 0.05) -> Any:
    """Polls until ``predicate`` returns something true, and returns that."""
    end = time.monotonic() + timeout
    while True:
        try:
            value = predicate()
        except CoxswainError:
            value = None
        if value:
            return value
        if time.monotonic() > end:
            raise RigError(f"not within {timeout:.0f} s: {what}")
        time.sleep(every)


@dataclass
class Usage:
    """What a process used up to now: CPU seconds, resident bytes, threads."""

    cpu_s: float
    rss: int
    threads: int


def usage(pid: int) -> Usage:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    rss = int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
    return Usage((int(stat[11]) + int(stat[12])) / ticks, rss, int(stat[17]))


@dataclass
class Daemon:
    """``cox serve`` in a scratch directory. ``settings``: what its configuration has besides, by the names of the keys."""

    home: Path
    settings: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    log_path: Path = field(init=False)
    listen: str = field(init=False)
    password: str = field(init=False, default="", repr=False)

    def __post_init__(self) -> None:
        self.log_path = self.home / "serve.log"
        self.listen = f"127.0.0.1:{free_port()}"

    @property
    def config(self) -> Path:
        return self.home / "cox.yaml"

    @property
    def socket(self) -> Path:
        return self.home / "state" / "control.sock"

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RigError("the daemon was not started")
        return self.process.pid

    def client(self, timeout: float = 60.0) -> Client:
        return Client(self.socket, timeout)

    def init(self) -> None:
        command = [sys.executable, "-m", "actors.main", "init", "--personal", "--config", str(self.config)]
        command += ["--state-dir", str(self.home / "state")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RigError(f"cox init: {done.stderr.strip()}")
        # In the file and not in the daemon's environment: whoever calls ``cox doctor`` beside it reads the file.
        own = {"state_dir": str(self.home / "state"), "ui.listen": self.listen}
        self.config.write_text(render("personal", own | self.settings), encoding="utf-8")
        shown = (line.split() for line in done.stdout.splitlines())
        self.password = next((words[1] for words in shown if words[:1] == ["password"]), "")

    def start(self, *, chaos: bool = False, wait: bool = True) -> None:
        command = [sys.executable, "-m", "actors.main", "serve", "--config", str(self.config)]
        if chaos:
            command.append("--allow-chaos")
        log = self.log_path.open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.process is not None and self.process.poll() is not None:
                tail = self.log_path.read_text(errors="replace")[-2000:]
                raise RigError(f"cox serve ended with {self.process.returncode}:\n{tail}")
            client = self.client(5)
            try:
                client.get("/readyz")
            finally:
                client.close()
            return True

        wait_until("cox serve answers", ready, 60)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout: float = 30.0) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0 if self.process is None else self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RigError("cox serve did not stop in time") from None


class Simulator:
    """``tools/fleet-sim run`` in a process of its own; commands go in and answers come out as JSON lines."""

    def __init__(self, directory: Path, base_port: int) -> None:
        self.directory = directory
        self.base_port = base_port
        self.process: subprocess.Popen[str] | None = None
        self._count = 0

    def start(self, *options: str) -> None:
        command = [sys.executable, str(ROOT / "tools" / "fleet-sim"), "run", "--dir", str(self.directory)]
        command += ["--base-port", str(self.base_port), *options]
        with (self.directory / "sim.log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._read()  # the line that says it is ready

    def command(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """Carries a command out and returns its answer; answers to earlier commands that come meanwhile are dropped."""
        number = self.send(cmd, **arguments)
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if not answer["ok"]:
                    raise RigError(f"fleet-sim {cmd}: {answer.get('error')}")
                return answer

    def send(self, cmd: str, **arguments: Any) -> int:
        """Sends a command without waiting for its answer. Returns its number."""
        if self.process is None or self.process.stdin is None:
            raise RigError("the simulator was not started")
        self._count += 1
        self.process.stdin.write(json.dumps({"cmd": cmd, "id": self._count, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._count

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> dict[str, Any]:
        if self.process is None or self.process.stdout is None:
            raise RigError("the simulator was not started")
        line = self.process.stdout.readline()
        if not line:
            tail = (self.directory / "sim.log").read_text(errors="replace")[-2000:]
            raise RigError(f"fleet-sim ended:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def make_csrs(directory: Path, nodes: int) -> None:
    """Keys and CSRs for ``nodes`` simulated nodes (one key for all: only the certificates differ)."""
    command = [sys.executable, str(ROOT / "tools" / "fleet-sim"), "csr", "--nodes", str(nodes)]
    command += ["--dir", str(directory), "--shared-key"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"fleet-sim csr: {done.stderr.strip()}")


def enrol(
    client: Client, directory: Path, names: Sequence[str], base_port: int, public_ips: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Adds a node for each name, node i on ``base_port + i``, and gives each its certificate. Returns the nodes.

    ``public_ips``: of the first ones; without one no path leads over a node.
    """
    nodes = []
    for index, name in enumerate(names):
        region = name.partition("-")[0]
        body = {"name": name, "region": region, "control_addr": f"127.0.0.1:{base_port + index}"}
        if index < len(public_ips):
            body["public_ip"] = public_ips[index]
        nodes.append(client.post("/api/nodes", body))
        files = directory / f"node-{index:05d}"
        issued = client.post(f"/api/nodes/{name}/enroll", {"csr": (files / "node.csr").read_text()})
        (files / "node.crt").write_text(issued["node_crt"])
        (directory / "ca.crt").write_text(issued["ca_crt"])
    return nodes


REGIONS = ("ams", "fra", "hel", "lon", "nyc", "sfo", "sgp", "syd", "tyo", "waw")


def wireguard_key() -> str:
    """A random key in WireGuard's text form; nobody holds the private half."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def peers_for(node_ids: Sequence[str], per_node: int, first: int = 0) -> dict[str, Any]:
    """The body of ``POST /api/peers``: one user, ``per_node`` devices a node, one peer each."""
    user = {"id": "usr_aaaaaaaaaaaaaaaa", "name": "Rig"}
    devices, peers = [], []
    for position, node_id in enumerate(node_ids):
        for slot in range(per_node):
            number = first + position * per_node + slot
            device_id = record_id("dev", number)
            devices.append({"id": device_id, "user_id": user["id"], "name": f"device-{number}"})
            peers.append(
                {
                    "id": record_id("peer", number),
                    "node_id": node_id,
                    "device_id": device_id,
                    "protocol": "amneziawg",
                    "public_key": wireguard_key(),
                    "allowed_ips": [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32"],
                    "preshared_key": wireguard_key(),
                }
            )
    return {"users": [user], "devices": devices, "add": peers, "remove": []}


def record_id(kind: str, number: int) -> str:
    """The same each time, in base32, which is without 0, 1, 8 and 9."""
    return f"{kind}_" + f"{number:016d}".translate(_DIGITS)


_DIGITS = str.maketrans("0123456789", "abcdefghij")


def end_at_sigterm() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does: what it started is stopped first."""

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


@contextmanager
def scratch(name: str, *, keep: bool = False) -> Iterator[Path]:
    """A directory for the daemon's state, 0700, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"coxswain-{name}-"))
    try:
        yield path
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)
