"""Network namespaces with real WireGuard clients, for tests that need packets to flow.

A ``Lab`` makes namespaces, joins them by veth pairs and takes everything away again: processes, namespaces, files.
Nothing is changed in the namespace that the tests run in. Each namespace has a ``/run/wireguard`` of its own, because
sockets of userspace WireGuard are files and would meet there.

Needs root, ``ip``, ``wg``, ``wireguard-go`` and ``ping``::

    with Lab(tmp_path) as lab:
        client, node, internet = lab.namespace("client"), lab.namespace("node"), lab.namespace("internet")
        lab.join(client, "192.0.2.2/24", node, "192.0.2.1/24")
        lab.join(node, "198.51.100.1/24", internet, "198.51.100.2/24")
        node.default_route("198.51.100.2")
        daemon = node.spawn(["cox-node", "run", ...])
        tunnel = client.wireguard("wg0", keys, "10.7.0.2/32", peer=node_key, endpoint="192.0.2.1:443", psk=psk)
        assert client.pings("198.51.100.2")

Code of the test itself gets into a namespace in two ways: ``Namespace.call`` runs a function on a thread that is in it, and
``Namespace.forward`` makes a unix socket that leads to a TCP port in it.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.reach import open_the_way
from tests.support import eventually

__all__ = ["AS_USER", "Keys", "Lab", "Namespace", "Tunnel", "new_psk"]

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
RUN_WIREGUARD = Path("/run/wireguard")
_libc = ctypes.CDLL(None, use_errno=True)

_ENTER = 'mount --bind "$0" /run/wireguard && exec "$@"'
"""Run by ``ip netns exec``, which has given it a mount namespace of its own."""

AS_USER = (
    f"set -e; {open_the_way()}\n"
    """\
mount --bind "$0" /mnt; mount --bind "$1" /dev/net/tun; uid=$2; shift 2; caps=-all,+net_admin,+net_bind_service
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups --no-new-privs --inh-caps="$caps" --ambient-caps="$caps" \
    --bounding-set="$caps" "$@"
"""
)
"""Run in a namespace: the command is an unprivileged user's, with what ``node_unit`` gives it and nothing else. Its
directory is ``/mnt``; whoever runs the tests has it where that user does not get. ``/dev/net/tun`` is for everybody, as udev
makes it.
"""


@dataclass(frozen=True)
class Keys:
    """A WireGuard key pair, base64."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def new(cls) -> Keys:
        private = X25519PrivateKey.generate()
        raw, public = private.private_bytes_raw(), private.public_key().public_bytes_raw()
        return cls(base64.b64encode(raw).decode(), base64.b64encode(public).decode())


def new_psk() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True)
class Tunnel:
    """A client's interface."""

    space: Namespace
    interface: str
    conf: str = field(repr=False)

    def connect(self) -> None:
        """Forgets its session: the next packet makes a handshake at once, where a client would doubt for 15 s."""
        self.space.run("wg", "setconf", self.interface, "/dev/stdin", stdin=self.conf)


class Namespace:
    """One network namespace. Made by ``Lab.namespace``."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.sockets = directory / "wireguard"
        self.sockets.mkdir(parents=True)
        self._spawned: list[subprocess.Popen[bytes]] = []
        self._cleanups: list[Callable[[], None]] = []

    # -- running things in it

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` in here."""
        return ["ip", "netns", "exec", self.name, "sh", "-c", _ENTER, str(self.sockets), *map(str, command)]

    def run(self, *command: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.argv(command), check=False, capture_output=True, text=True, input=stdin, timeout=60)
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def spawn(self, command: Sequence[str], *, log: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """A process that is killed when the lab ends, if it still runs then."""
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(log.open("ab")) if log is not None else subprocess.DEVNULL
            process = subprocess.Popen(
                self.argv(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environment}
            )
        self._spawned.append(process)
        return process

    def call(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on a new thread that is in this network namespace; sockets that it makes stay in it."""
        result: list[Any] = []

        def run() -> None:
            try:
                self.enter()
                result.append((work(), None))
            except BaseException as error:
                result.append((None, error))

        thread = threading.Thread(target=run, name=f"in {self.name}")
        thread.start()
        thread.join(60)
        assert result, f"{work} in {self.name} does not end"
        value, error = result[0]
        if error is not None:
            raise error
        return value

    def enter(self) -> None:
        """Moves the calling thread, and only it, into this network namespace; there is no way back."""
        with Path(f"/run/netns/{self.name}").open("rb") as file:
            if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def pids(self) -> list[int]:
        """Processes in this network namespace, but not threads of ours that are."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True).stdout
        return [int(pid) for pid in listed.split() if int(pid) != os.getpid()]

    def interfaces(self) -> set[str]:
        lines = self.run("ip", "-o", "link", "show").stdout.splitlines()
        return {line.split(":")[1].strip().split("@")[0] for line in lines}

    # -- network

    def default_route(self, via: str) -> None:
        self.run("ip", "route", "replace", "default", "via", via)

    def pings(self, address: str, *, wait: int = 1) -> bool:
        """Does one echo request get its answer within ``wait`` seconds?"""
        return self.run("ping", "-n", "-c", "1", "-W", str(wait), address, check=False).returncode == 0

    def wireguard(
        self,
        interface: str,
        keys: Keys,
        address: str,
        *,
        peer: str,
        endpoint: str,
        psk: str = "",
        allowed: str = "0.0.0.0/0",
    ) -> Tunnel:
        """A client's tunnel on wireguard-go: ``allowed`` is routed through it.

        Args:
            address: the client's own, with prefix length.
            peer: the node's public key.
        """
        psk_line = f"PresharedKey = {psk}\n" if psk else ""
        conf = (
            f"[Interface]\nPrivateKey = {keys.private}\n"
            f"[Peer]\nPublicKey = {peer}\n{psk_line}Endpoint = {endpoint}\nAllowedIPs = {allowed}\n"
        )
        self.run("wireguard-go", interface)
        tunnel = Tunnel(self, interface, conf)
        tunnel.connect()
        self.run("ip", "address", "add", address, "dev", interface)
        self.run("ip", "link", "set", "mtu", "1420", "up", "dev", interface)
        for network in allowed.split(","):
            # Two halves win over a default route without replacing it; the route to the endpoint itself stays better.
            for part in ["0.0.0.0/1", "128.0.0.0/1"] if network == "0.0.0.0/0" else [network]:
                self.run("ip", "route", "replace", part, "dev", interface)
        return tunnel

    def conf(self, interface: str, text: str) -> Tunnel:
        """A client's tunnel from a conf for ``awg-quick``, on wireguard-go: without what only AmneziaWG knows."""
        plain = ("[", "PrivateKey", "PublicKey", "PresharedKey", "Endpoint", "AllowedIPs", "PersistentKeepalive")
        said = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
        self.run("wireguard-go", interface)
        tunnel = Tunnel(self, interface, "".join(f"{line}\n" for line in text.splitlines() if line.startswith(plain)))
        tunnel.connect()
        for address in said["Address"].split(", "):
            self.run("ip", "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        self.run("ip", "link", "set", "mtu", said["MTU"], "up", "dev", interface)
        for part in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"):
            self.run("ip", "route", "replace", part, "dev", interface)
        return tunnel

    def forward(self, port: int, host: str = "127.0.0.1") -> str:
        """A unix socket, outside, that leads to a TCP port in here. Returns its path."""
        path = str(self.directory / f"{port}.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(16)
        threading.Thread(target=self._serve, args=(listener, (host, port)), name=f"to {self.name}", daemon=True).start()

        def close() -> None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

        self._cleanups.append(close)
        return path

    def _serve(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self.enter()
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(target, timeout=10)
            except OSError:
                near.close()  # as if nobody listened
                continue
            far.settimeout(None)
            threading.Thread(target=_relay, args=(near, far), daemon=True).start()

    # -- the end

    def _end(self) -> None:
        for cleanup in self._cleanups:
            cleanup()
        for process in self._spawned:
            if process.poll() is None:
                process.kill()
            process.wait(30)
        for pid in self.pids():  # daemons, such as wireguard-go
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.pids())
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def _relay(near: socket.socket, far: socket.socket) -> None:
    with near, far:
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Lab:
    """Makes namespaces and, at the end, unmakes them whatever has happened. Args: ``directory`` for sockets and files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._prefix = f"cx{secrets.token_hex(3)}"
        self._namespaces: dict[str, Namespace] = {}
        self._pairs = 0

    def __enter__(self) -> Self:
        RUN_WIREGUARD.mkdir(mode=0o700, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def namespace(self, name: str, *, forwarding: bool = False) -> Namespace:
        """A new one with loopback up. Its name outside has a random prefix, so that test runs do not meet."""
        full = f"{self._prefix}-{name}"
        subprocess.run(["ip", "netns", "add", full], check=True)
        made = self._namespaces[name] = Namespace(full, self._directory / name)
        made.run("ip", "link", "set", "lo", "up")
        made.run("sysctl", "-qw", f"net.ipv4.ip_forward={int(forwarding)}")
        return made

    def join(self, one: Namespace, one_address: str, other: Namespace, other_address: str) -> tuple[str, str]:
        """A veth pair with an address (with prefix length) on each side. Returns the names of its ends."""
        self._pairs += 1
        names = (f"eth{self._pairs}a", f"eth{self._pairs}b")
        subprocess.run(
            [
                "ip",
                "link",
                "add",
                names[0],
                "netns",
                one.name,
                "type",
                "veth",
                "peer",
                "name",
                names[1],
                "netns",
                other.name,
            ],
            check=True,
        )
        for space, name, address in ((one, names[0], one_address), (other, names[1], other_address)):
            space.run("ip", "address", "add", address, "dev", name)
            space.run("ip", "link", "set", "up", "dev", name)
        return names

    def close(self) -> None:
        """Raises ``AssertionError`` if something is left that was made here."""
        ended: list[str] = []
        for namespace in self._namespaces.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                namespace._end()
            ended.append(namespace.name)
        self._namespaces.clear()
        left = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()
        assert not set(ended) & set(left), f"namespaces left: {set(ended) & set(left)}"
