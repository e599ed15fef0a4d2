"""A whole controller in this process, and its nodes in another one: real TLS, real gRPC, real store, real socket."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from actors.supervision import Intensity, System
from actors.tree import Parts, build
from coxswain.cli.client import Client
from coxswain.config import load
from coxswain.config.live import LiveConfig
from coxswain.errors import CoxswainError, StoreUnavailable
from coxswain.keyring import Keyring, KeySource, load_secret, make_key_file, open_keyring
from coxswain.store import Durability, Store, Tx, open_store
from coxswain.wire.node_control import Deadlines
from tests.netns import Namespace
from tests.support import eventually, free_port, free_ports

ROOT = Path(__file__).resolve().parent.parent


class Nodes:
    """``tools/fleet-sim run`` as a child process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._count = 0

    @staticmethod
    def make(directory: Path, nodes: int) -> Nodes:
        command = [sys.executable, str(ROOT / "tools/fleet-sim"), "csr", "--nodes", str(nodes)]
        subprocess.run([*command, "--dir", str(directory), "--shared-key"], check=True, capture_output=True, cwd=ROOT)
        return Nodes(directory)

    def csr(self, index: int) -> str:
        return (self._of(index) / "node.csr").read_text()

    def install(self, index: int, issued: dict[str, Any]) -> None:
        (self._of(index) / "node.crt").write_text(issued["node_crt"])
        (self.directory / "ca.crt").write_text(issued["ca_crt"])
        if self._process is not None:
            self.do("install", node=index)

    def start(self, base_port: int, *options: str) -> None:
        command = [sys.executable, str(ROOT / "tools/fleet-sim"), "run", "--dir", str(self.directory)]
        self._process = subprocess.Popen(
            [*command, "--base-port", str(base_port), "--no-observer", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        ready = json.loads(self._pipe(self._process.stdout).readline())
        assert ready["event"] == "ready", ready

    def do(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """Carries a command out and returns its answer."""
        assert self._process is not None
        self._count += 1
        pipe = self._pipe(self._process.stdin)
        pipe.write(json.dumps({"cmd": cmd, "id": self._count, **arguments}) + "\n")
        pipe.flush()
        while True:
            answer: dict[str, Any] = json.loads(self._pipe(self._process.stdout).readline())
            if answer.get("id") == self._count:
                assert answer["ok"], answer
                return answer

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                self._pipe(pipe).close()
            self._process = None

    def _of(self, index: int) -> Path:
        return self.directory / f"node-{index:05d}"

    @staticmethod
    def _pipe(pipe: Any) -> Any:
        assert pipe is not None
        return pipe


@contextmanager
def database(home: Path) -> Iterator[apsw.Connection]:
    """The database of a controller, which may be running in this process: so with the SQLite that it uses itself. Two copies
    of the library in one process do not see each other's locks: the other one cuts the memory off that this one has mapped.
    """
    connection = apsw.Connection(str(home / "app.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(10_000)
    try:
        yield connection
    finally:
        connection.close()


class FaultyStore:
    """A real store whose answers may be lost or late, those to ``for_actor`` (a thread has the name of its actor)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.for_actor = "fleet"
        self.lost_commits = 0
        self.refuse_reads = False
        self.slow_reads_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _concerns(self) -> bool:
        return threading.current_thread().name.startswith(self.for_actor)

    @contextmanager
    def write(self, durability: Durability = Durability.ACKNOWLEDGED) -> Iterator[Tx]:
        with self._store.write(durability) as tx:
            yield tx
        if durability is Durability.ACKNOWLEDGED:
            self._lose()

    def sync(self) -> None:
        self._store.sync()
        self._lose()

    def _lose(self) -> None:
        """It is on disk, and who asked for it does not learn that."""
        if self.lost_commits and self._concerns():
            self.lost_commits -= 1
            raise StoreUnavailable("the database: the connection was lost during the commit")

    @contextmanager
    def read(self) -> Iterator[Tx]:
        if self._concerns():
            time.sleep(self.slow_reads_s)
            if self.refuse_reads:
                raise StoreUnavailable("the database: it does not answer")
        with self._store.read() as tx:
            yield tx


class Controller:
    """A system on a state directory; may be stopped and started again on the same state."""

    def __init__(
        self,
        home: Path,
        *,
        interval_s: float = 45.0,
        deadlines: Deadlines = Deadlines(),
        database: str = "",
        web: bool = False,
        live_recheck_s: float = 60.0,
    ) -> None:
        self.home = home
        self._interval_s = interval_s
        self._deadlines = deadlines
        self._database = database
        self._live_recheck_s = live_recheck_s
        self.listen = f"127.0.0.1:{free_port()}" if web else ""
        self.system: System
        self.store: FaultyStore
        self.keyring: Keyring
        self.client = Client(home / "control.sock", timeout=30.0)

    def start(self) -> None:
        make_key_file(self.home / "ca.key")
        secret = load_secret(KeySource.FILE, key_file=self.home / "ca.key", environ={})
        self.store = FaultyStore(open_store(self._database or self.home / "app.db"))
        with self.store.write() as tx:
            keyring = self.keyring = open_keyring(tx, secret)
        socket = self.home / "control.sock"
        parts = Parts(self.store, keyring, self.home, socket, self._interval_s, self._deadlines, allow_chaos=True)
        configuration = self.home.parent / "cox.yaml"
        if configuration.exists():
            parts = dataclasses.replace(parts, settings=LiveConfig(load(configuration, {}), lambda path: load(path, {})))
        often = Intensity(1_000, 60.0)  # the tests kill far more than life does
        parts = dataclasses.replace(parts, intensity=often, listen=self.listen, live_recheck_s=self._live_recheck_s)
        self.system = build(parts)
        self.system.start()
        assert self.system.wait_up(20)

    def stop(self) -> None:
        self.client.close()
        assert self.system.stop(), self.system.failure
        self.store.close()

    # -- what tests ask again and again

    def node(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/nodes/{key}")
        return found

    def until(self, key: str, **wanted: Any) -> dict[str, Any]:
        """Waits until the node's view has these values; callables are asked."""

        def there() -> dict[str, Any] | None:
            found = self.node(key)
            fits = all(w(found[k]) if callable(w) else found[k] == w for k, w in wanted.items())
            return found if fits else None

        try:
            return eventually(there, timeout=30, every=0.05) or {}
        except AssertionError:
            raise AssertionError(f"{key} never had {wanted}; it is {self.node(key)}") from None

    def all_in_sync(self, count: int, timeout: float = 60.0) -> None:
        def there() -> bool:
            return bool(self.client.get("/api/status")["fleet"]["in_sync"] == count)

        eventually(there, timeout=timeout, every=0.1)

    def sessions(self) -> dict[str, int]:
        counts: dict[str, int] = self.client.get("/api/status")["sessions"]
        return counts


class Daemon:
    """``cox serve`` as a process of its own, in a network namespace if need be. ``store``: what ``open_store`` takes."""

    def __init__(self, home: Path, *, dsn: str = "", within: Namespace | None = None, init: bool = True) -> None:
        self.state = home / "state"
        self.store = dsn or str(self.state / "app.db")
        self._config = home / "cox.yaml"
        self._log = home / "serve.log"
        self._within = within
        self._environment = os.environ | ({"COX_DATABASE__DSN": dsn} if dsn else {})
        self._process: subprocess.Popen[bytes] | None = None
        if init:
            self.cox("init", "--state-dir", "./state")

    def cox(self, *arguments: str) -> str:
        """Runs a command to its end; returns what it printed."""
        command = self.command(*arguments)
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def setenv(self, name: str, value: str) -> None:
        """From its next start on."""
        self._environment = {**self._environment, name: value}

    def client(self) -> Client:
        return Client(self.state / "control.sock", 20)

    def start(self) -> None:
        command = self.command("serve")
        if self._within is not None:
            command = self._within.argv(command)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        try:
            eventually(self._is_ready, timeout=90, every=0.05)
        except BaseException:  # nobody else knows of it yet
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL; nothing happens if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(40)

    def command(self, *arguments: str) -> list[str]:
        """The argv of a command on this state."""
        return [sys.executable, "-m", "actors.main", *arguments, "--config", str(self._config)]

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2_000:]
        try:
            self.client().get("/healthz")
        except CoxswainError:
            return False
        return True


def killed_at_work(
    daemon: Daemon, work: Callable[[], None], clients: int, done: Sized, rng: random.Random, most_s: float
) -> None:
    """SIGKILL while so many clients ``work``, each until it is refused.

    The moment is by chance, up to ``most_s`` after something was ``done`` by them: however slow the machine is, there
    was a load.
    """
    before = len(done)
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(done) > before, timeout=60)
        time.sleep(rng.uniform(0.0, most_s))
    finally:
        daemon.kill()
        for thread in threads:
            thread.join(60)


class KillableController(Controller):
    """A daemon of its own, in the place of a controller in this process. ``store`` and ``system`` are out of reach."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "state")
        self.daemon = Daemon(home)

    def start(self) -> None:
        self.daemon.start()

    def stop(self) -> None:
        self.client.close()
        self.daemon.kill()

    def fall(self) -> None:
        """SIGKILL."""
        self.stop()


class LiveFleet:
    """A controller with ``count`` enrolled nodes named ``n0``, ``n1`` …"""

    def __init__(self, controller: Controller, nodes: Nodes, ids: Sequence[str], base_port: int) -> None:
        self.controller = controller
        self.nodes = nodes
        self.ids = list(ids)
        self.base_port = base_port

    def add_peers(self, per_node: int, first: int = 0) -> None:
        self.controller.client.post("/api/peers", peers_body(self.ids, per_node, first))

    def link(self, index: int) -> str:
        return f"node_link:{self.ids[index]}"

    def edit(self, name: str, **fields: Any) -> dict[str, Any]:
        """Changes a node; returns it as the API shows it then."""
        body = {"version": self.controller.node(name)["version"]} | fields
        found: dict[str, Any] = self.controller.client.call("PATCH", f"/api/nodes/{name}", body)
        return found

    def new_device(self) -> str:
        """Somebody's, on every node. Returns its id."""
        client = self.controller.client
        user = client.post("/api/users", {"name": "somebody"})["id"]
        made: str = client.post(f"/api/users/{user}/devices", {"name": "phone"})["id"]
        client.post(f"/api/devices/{made}/provision")
        return made


PERSONAL = "posture: personal\nstate_dir: ./state\n"


@contextmanager
def lone_controller(
    home: Path | None = None,
    *,
    config: str = "",
    before_start: Callable[[Path], object] = lambda _state: None,
    **more: Any,
) -> Iterator[Controller]:
    """One without nodes, on a state of its own.

    ``home``: where that is; None: where a socket's path is short, and gone afterwards. ``config``: YAML; empty: no file, and
    the defaults. ``before_start``: is given the state directory. ``more``: of ``Controller``.
    """
    with tempfile.TemporaryDirectory(prefix="cox-") as short:
        home = Path(short) if home is None else home
        state = home / "state"
        state.mkdir(mode=0o700)
        if config:
            (home / "cox.yaml").write_text(config)
        before_start(state)
        made = Controller(state, **more)
        made.start()
        try:
            yield made
        finally:
            made.stop()


def peers_body(node_ids: Sequence[str], per_node: int, first: int = 0) -> dict[str, Any]:
    """One user, a device and a peer for each place; keys are random, addresses are not."""
    base = ipaddress.IPv4Address("10.86.0.2")
    devices, peers = [], []
    for place in range(len(node_ids) * per_node):
        number = first + place
        devices.append({"id": f"dev_{number}", "user_id": "usr_test", "name": f"device {number}"})
        peers.append(
            {
                "id": f"peer_{number}",
                "node_id": node_ids[place // per_node],
                "device_id": f"dev_{number}",
                "public_key": base64.b64encode(os.urandom(32)).decode(),
                "allowed_ips": [f"{base + number}/32"],
                "preshared_key": base64.b64encode(os.urandom(32)).decode(),
            }
        )
    return {"users": [{"id": "usr_test", "name": "Test"}], "devices": devices, "add": peers, "remove": []}


@contextmanager
def live_fleet(
    home: Path,
    count: int,
    base_port: int,
    *,
    options: Sequence[str] = (),
    interval_s: float = 45.0,
    deadlines: Deadlines = Deadlines(),
    database: str = "",
    config: str = "",
    web: bool = False,
    regions: Sequence[str] = ("test",),
    before_start: Callable[[LiveFleet], None] = lambda _fleet: None,
    process: bool = False,
) -> Iterator[LiveFleet]:
    """Starts everything and waits until every node is in sync.

    ``base_port``: where the search for free ports begins. ``config``: YAML; empty: the defaults. ``process``: the controller
    is a process of its own, which can be killed.
    """
    state = home / "state"
    base_port = free_ports(base_port, count)
    if not process:
        state.mkdir(mode=0o700)
    if config:
        (home / "cox.yaml").write_text(config)
    controller = (
        KillableController(home)
        if process
        else Controller(state, interval_s=interval_s, deadlines=deadlines, database=database, web=web)
    )
    controller.start()
    nodes = Nodes.make(home / "nodes", count)
    try:
        ids = []
        for index in range(count):
            region = regions[index % len(regions)]
            body = {"name": f"n{index}", "region": region, "control_addr": f"127.0.0.1:{base_port + index}"}
            ids.append(controller.client.post("/api/nodes", body)["id"])
            nodes.install(index, controller.client.post(f"/api/nodes/n{index}/enroll", {"csr": nodes.csr(index)}))
        fleet = LiveFleet(controller, nodes, ids, base_port)
        before_start(fleet)
        nodes.start(base_port, *options)
        controller.all_in_sync(count)
        yield fleet
    finally:
        nodes.stop()
        controller.stop()
