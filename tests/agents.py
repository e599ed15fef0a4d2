"""Real agents with the ``wireguard`` data plane in network namespaces, driven over mTLS, and real clients of theirs.

``World`` is the simple topology: nodes joined to an ``internet`` namespace, clients joined to their node. ``Hub`` is the one
for cascades: the internet routes between nodes, has a server of its own, and counts whose packets come to it.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is imported

import grpc
import grpc.aio
from cryptography.hazmat.primitives import serialization

from coxswain.pki.certificates import Role, create_authorities, issue_controller_leaf, issue_node_leaf
from coxswain.pki.csr import read_csr
from coxswain.wire.node_control import Deadlines, NodeControl, RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.netns import AS_USER, Keys, new_psk
from tests.support import eventually

__all__ = [
    "AWG",
    "HUB_SERVER",
    "HUB_SERVER6",
    "SERVER",
    "USER",
    "Cascade",
    "Client",
    "Hub",
    "Node",
    "Pki",
    "World",
    "fetch",
    "served",
]

USER = 61_717
"""Of agents: nobody's on the machine that runs the tests."""

ROOTS = 'mount --bind "$0" /mnt; shift 2; exec "$@"'
AGENT = [sys.executable, "-m", "coxswain.agent.main"]
PORT = 8444
SERVER = "198.51.100.2"
AWG = pb.PROTOCOL_AMNEZIAWG


class Pki:
    """A fleet's certificates, made by the controller's own code."""

    def __init__(self):
        self.authorities = create_authorities(time.time())
        self.leaf = issue_controller_leaf(self.authorities[Role.CONTROL], time.time())

    def enrol(self, directory):
        """Makes the directory of an enrolled node; returns the name that its certificate carries."""
        csr = subprocess.run(
            [*AGENT, "gen-csr", "--config-dir", str(directory)], check=True, capture_output=True, timeout=60
        ).stdout
        leaf = issue_node_leaf(self.authorities[Role.FLEET], read_csr(csr).public_key, "127.0.0.1", time.time())
        (directory / "node.crt").write_bytes(leaf.pem + self.authorities[Role.FLEET].pem)
        (directory / "ca.crt").write_bytes(self.authorities[Role.CONTROL].pem)
        return leaf.server_name

    def credentials(self):
        key = self.leaf.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = self.leaf.pem + self.authorities[Role.CONTROL].pem
        return grpc.ssl_channel_credentials(self.authorities[Role.ROOT].pem, key, chain)


class Node:
    """An agent in a namespace, and the test's controller of it. Its event stream is read all the time.

    Args:
        root: as agents are that do not know what they run as; else an unprivileged user's with the unit's capabilities.
    """

    def __init__(self, space, directory, pki, firewall="auto", heal_s=0, *, root=False):
        self.space = space
        self.root = root
        self.directory = directory
        self.confs = directory / "confs"
        self.log = directory / "agent.log"
        self.events = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"controller of {space.name}")
        self._thread.start()
        name = pki.enrol(directory)
        (directory / "node.yaml").write_text(
            f"control: {{listen_addr: '127.0.0.1:{PORT}', stop_grace_s: 5}}\n"
            f"data_plane: {{conf_directory: /mnt/confs, firewall: {firewall}, poll_interval_s: 0.2,"
            f" heal_interval_s: {heal_s}}}\n"
            "log: {level: debug}\n"
        )
        self.tun = directory.parent / f"{directory.name}.tun"
        os.mknod(self.tun, stat.S_IFCHR | 0o666, os.makedev(10, 200))
        self.tun.chmod(0o666)
        self.confs.mkdir()
        self.belongs_to(0 if root else USER)
        target = f"unix:{space.forward(PORT)}"
        options = [("grpc.ssl_target_name_override", name), ("grpc.initial_reconnect_backoff_ms", 100),
                   ("grpc.max_reconnect_backoff_ms", 200), ("grpc.min_reconnect_backoff_ms", 100)]  # fmt: skip

        async def connect():
            return grpc.aio.secure_channel(target, pki.credentials(), options=options)

        self._channel = self.wait(connect())
        self.control = NodeControl(self._channel, Deadlines(5.0, 5.0, 60.0))
        self.agent = None
        self.start()
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)

    def wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(90)

    def start(self):
        command = [*AGENT, "run", "--config-dir", "/mnt", "--data-plane", "wireguard"]
        self.agent = self.space.spawn(self._as(*command), log=self.log)
        self.status()

    def as_agent(self, *command):
        """Runs a command as the agent is run."""
        argv = self.space.argv(self._as(*command))
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    def _as(self, *command):
        lowered = ROOTS if self.root else AS_USER
        return ["sh", "-c", lowered, str(self.directory), str(self.tun), str(USER), *command]

    def belongs_to(self, uid):
        """Its files, as onboarding leaves them: what it writes is its user's, what is put there is root's."""
        for directory, mode in ((self.directory, 0o1775), (self.confs, 0o1770)):
            os.chown(directory, 0, uid)
            directory.chmod(mode if uid else 0o755)
            for path in directory.iterdir():
                if path.is_file() and path.suffix not in {".crt", ".yaml", ".log"}:
                    os.chown(path, uid, uid)
        if uid:  # systemd does it; root reads them all the same
            for path in (self.space.sockets, *self.space.sockets.iterdir()):
                os.chown(path, uid, uid)

    def stop(self, number=signal.SIGTERM):
        """Ends the agent; returns its exit status."""
        # Each program on the way to it has become the next, so it is the process that was started. Looked for by its command
        # line, it could be one that it has just forked.
        self.agent.send_signal(number)
        return self.agent.wait(30)

    def reboot(self):
        """What a reboot takes: the agent, interfaces with their userspace programs, routes and rules."""
        self.stop(signal.SIGKILL)
        forget_all(self.space)
        eventually(lambda: not self.space.pids())
        self.start()

    def status(self):
        def answer():
            assert self.agent.poll() is None, self.log.read_text()
            with contextlib.suppress(RpcFailed):
                return self.wait(self.control.get_status())

        return eventually(answer, timeout=30)

    def push(self, revision, *peers):
        config = pb.AmneziaWGConfig(peers=peers).SerializeToString()
        return self.wait(self.control.push_config(pb.PushConfigRequest(protocol=AWG, revision=revision, config=config)))

    def policy(self, **fields):
        return self.wait(self.control.set_network_config(pb.NetworkConfig(**fields)))

    def live(self, public_key):
        listed = self.wait(self.control.list_peers(AWG)).peers
        return next((state for state in listed if state.peer.public_key == public_key), None)

    @property
    def public_key(self):
        return self.status().amneziawg.public_key

    def happened(self, kind, public_key):
        return [event for event in self.events if event.type == kind and event.peer_id == public_key]

    def close(self):
        """Ends the agent, if it runs, and checks that it leaves nothing running but the interfaces' own programs."""
        try:
            if self.agent is not None and self.agent.poll() is None:
                assert self.stop() == 0, self.log.read_text()
                left = [_command_line(pid) for pid in self.space.pids()]
                assert not [line for line in left if line and "wireguard-go awg" not in line], left
        finally:
            self._hang_up()

    def _hang_up(self):
        async def end():
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            await self._channel.close()

        self.wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _watch(self):
        self._watcher = asyncio.current_task()
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                stream = self.control.watch_events()
                while (event := await stream.read()) is not grpc.aio.EOF:
                    self.events.append(event)
            await asyncio.sleep(0.05)


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def forget_all(space):
    """Takes from a namespace what a reboot takes: tunnels with their userspace programs, rules and tables."""
    for interface in space.interfaces():
        if interface.startswith("awg"):
            space.run("ip", "link", "delete", interface)
    space.run("nft", "flush", "ruleset")
    for family in ("-4", "-6"):
        for rule in json.loads(space.run("ip", family, "-N", "-j", "rule").stdout):
            if "fwmark" in rule:
                space.run("ip", family, "rule", "del", "pref", str(rule["priority"]))
                space.run("ip", family, "route", "flush", "table", rule["table"])


class World:
    """Namespaces and nodes of one test."""

    def __init__(self, lab, directory, pki):
        self._lab = lab
        self._directory = directory
        self._pki = pki
        self._nodes = []
        self.internet = lab.namespace("internet")

    def node(self, name="node", address="198.51.100.1", firewall="auto", *, root=False):
        """A node that is joined to the internet."""
        space = self._lab.namespace(name)
        number = len(self._nodes)
        if number == 0:
            self._lab.join(space, f"{address}/24", self.internet, f"{SERVER}/24")
        else:
            self._lab.join(space, f"{address}/24", self.internet, f"203.0.113.{2 + number}/24")
        space.default_route(SERVER if number == 0 else f"203.0.113.{2 + number}")
        directory = self._directory / f"{name}-agent"
        directory.mkdir()
        node = Node(space, directory, self._pki, firewall, root=root)
        self._nodes.append(node)
        return node

    def client(self, node, number=1, **tunnel):
        return Client(self._lab, node, number, **tunnel)

    def close(self):
        with contextlib.ExitStack() as stack:  # each one, whatever becomes of the others
            for node in self._nodes:
                stack.callback(node.close)


class Client:
    """A device with its keys, joined to a node."""

    def __init__(self, lab, node, number, *, psk=None, claimed_psk=None):
        self.keys, self.psk = Keys.new(), psk or new_psk()
        self.address = f"10.7.0.{number + 1}"
        self.address6 = f"fd07::{number + 1}/128"
        self.outside = f"192.0.{number + 10}.2"
        self.space = lab.namespace(f"client{number}")
        lab.join(self.space, f"{self.outside}/24", node.space, f"192.0.{number + 10}.1/24")
        self._endpoint = f"192.0.{number + 10}.1:443"
        self._claimed_psk = claimed_psk or self.psk
        self.through = "198.51.100.0/24,203.0.113.0/24,10.7.0.0/24"

    @property
    def peer(self):
        return pb.Peer(
            id="per_x",
            protocol=AWG,
            public_key=self.keys.public,
            preshared_key=self.psk,
            allowed_ips=[f"{self.address}/32", self.address6],
        )

    def connect(self, node):
        """Brings the tunnel up; the other direction is the client's as well."""
        self.tunnel = self.space.wireguard(
            "wg0",
            self.keys,
            f"{self.address}/32",
            peer=node.public_key,
            endpoint=self._endpoint,
            psk=self._claimed_psk,
            allowed=self.through,
        )
        if ":" in self.through:
            self.space.run("ip", "address", "add", self.address6, "dev", "wg0", "nodad")

    def reaches(self, address=SERVER):
        return self.space.pings(address)

    def handshake(self):
        """When it last shook hands, in epoch seconds; 0: never."""
        return int(self.space.run("wg", "show", "wg0", "latest-handshakes").stdout.split()[-1])


def served(space, payload):
    """Starts a server that sends ``payload`` to one caller; returns what gives the address it saw."""
    seen = []
    listener = space.call(lambda: socket.create_server(("0.0.0.0", 8000)))

    def serve():
        with listener:
            connection, address = listener.accept()
            with connection:
                seen.append(address[0])
                connection.sendall(payload)

    thread = threading.Thread(target=serve)
    thread.start()

    def result():
        thread.join(30)
        return seen[0]

    return result


def fetch(address=SERVER):
    with socket.create_connection((address, 8000), timeout=20) as connection:
        connection.settimeout(20)
        received = bytearray()
        while data := connection.recv(65536):
            received += data
        return bytes(received)


HUB_SERVER = "203.0.113.80"
HUB_SERVER6 = "2001:db8:ff::80"
EVERYTHING = "0.0.0.0/0,::/0"


class Hub(World):
    """The internet routes between the nodes, has a server of its own and counts by whom it is reached.

    Node *n*, from 0, has 198.51.(100+n).1 and 2001:db8:n::1; there is no way between nodes but through the internet.
    """

    def __init__(self, lab, directory, pki):
        super().__init__(lab, directory, pki)
        self._sides = {}
        self.internet.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.internet.run("ip", "address", "add", f"{HUB_SERVER}/32", "dev", "lo")
        self.internet.run("ip", "address", "add", f"{HUB_SERVER6}/128", "dev", "lo")

    def site(self, name):
        """A machine of the internet: its namespace, its public address, its uplink and the internet's side of that."""
        number = len(self._sides)
        space = self._lab.namespace(name)
        address, address6 = f"198.51.{100 + number}.1", f"2001:db8:{number:x}::1"
        uplink, side = self._lab.join(space, f"{address}/24", self.internet, f"198.51.{100 + number}.2/24")
        space.run("ip", "address", "add", f"{address6}/64", "dev", uplink, "nodad")
        self.internet.run("ip", "address", "add", f"2001:db8:{number:x}::2/64", "dev", side, "nodad")
        space.default_route(f"198.51.{100 + number}.2")
        space.run("ip", "route", "replace", "default", "via", f"2001:db8:{number:x}::2")
        self._sides[name] = side
        return SimpleNamespace(name=name, space=space, address=address, uplink=uplink, side=side)

    def node(self, name="node", firewall="auto", heal_s=0, *, root=False):
        site = self.site(name)
        directory = self._directory / f"{name}-agent"
        directory.mkdir()
        node = Node(site.space, directory, self._pki, firewall, heal_s, root=root)
        node.address, node.uplink, node.side = site.address, site.uplink, site.side
        self._nodes.append(node)
        return node

    def client(self, node, number=1, **tunnel):
        client = Client(self._lab, node, number, **tunnel)
        client.through = EVERYTHING
        return client

    def count(self):
        """Starts counting, from 0, what comes to the server from each node."""
        rules = [
            f'iifname "{side}" {family} daddr {server} counter'
            for side in self._sides.values()
            for family, server in (("ip", HUB_SERVER), ("ip6", HUB_SERVER6))
        ]
        chain = "\n".join(["type filter hook prerouting priority raw; policy accept;", *rules])
        table = f"table inet watch {{}}\ndelete table inet watch\ntable inet watch {{\nchain seen {{\n{chain}\n}}\n}}\n"
        self.internet.run("nft", "-f", "-", stdin=table)

    def counted(self, node, families=("ip", "ip6")):
        """Packets that came to the server from this node since ``count``, the last of a connection that is over included."""
        listed = json.loads(self.internet.run("nft", "-j", "list", "table", "inet", "watch").stdout)["nftables"]
        total = 0
        for rule in (item["rule"]["expr"] for item in listed if "rule" in item):
            if rule[0]["match"]["right"] == node.side and rule[1]["match"]["left"]["payload"]["protocol"] in families:
                total += next(part["counter"]["packets"] for part in rule if "counter" in part)
        return total


class Cascade:
    """A path through nodes, made as a controller makes it: links, then edge peers, then transits (contract 11.4, 7).

    Link *i* of the dialling node is ``awg<i+1>`` with mark and table 7100 + i.
    """

    def __init__(self, *nodes, mtu=1340, index=0):
        self.nodes, self.index, self.mtu = nodes, index, mtu
        self.psks = [new_psk() for _ in nodes[1:]]
        self.revision = 0

    @property
    def interface(self):
        return f"awg{self.index + 1}"

    def link(self):
        """Makes every link, or makes them anew."""
        self.revision += 1
        return [
            near.wait(near.control.configure_inner_link(self.config(hop), self.revision))
            for hop, near in enumerate(self.nodes[:-1])
        ]

    def config(self, hop):
        far = self.nodes[hop + 1]
        leave = pb.Peer(
            public_key=far.public_key,
            preshared_key=self.psks[hop],
            endpoints=[f"{far.address}:443"],
            allowed_ips=["0.0.0.0/0", "::/0"],
        )
        return pb.InnerLinkConfig(
            interface=self.interface,
            listen_port=51820 + self.index,
            mtu=self.mtu,
            peer_obfuscation=far.status().amneziawg.obfuscation,
            exit=leave,
        )

    def admit(self, *clients):
        """The edge peers: each node but the entry lets the one before it in, with the clients' addresses."""
        for near, far, psk in zip(self.nodes, self.nodes[1:], self.psks, strict=False):
            ips = [f"{c.address}/32" for c in clients] + [c.address6 for c in clients]
            peer = pb.Peer(protocol=AWG, public_key=near.public_key, preshared_key=psk, allowed_ips=ips)
            assert far.wait(far.control.add_peer(peer)).applied

    def transits(self, *clients, v6=True):
        mark = 7100 + self.index
        return [
            pb.TransitRoute(device_cidr=cidr, inner_interface=self.interface, mark=mark, table=mark)
            for client in clients
            for cidr in (f"{client.address}/32", client.address6)[: 1 + v6]
        ]

    def carry(self, *clients, v6=True):
        """All of it, and every node masquerades."""
        for node in self.nodes:
            if node.status().applied_revision == 0:
                node.push(1)
        self.link()
        self.admit(*clients)
        self.nodes[-1].policy(forwarding=True, masquerade=True)
        for node in reversed(self.nodes[:-1]):
            node.policy(forwarding=True, masquerade=True, transits=self.transits(*clients, v6=v6))
