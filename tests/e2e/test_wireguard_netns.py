"""The real agent with the ``wireguard`` data plane, driven over mTLS, with real clients on wireguard-go.

    client ──┐
             ├── node ── internet           and, for inner links:   client ── entry ── exit ── internet
    second ──┘

Each in a network namespace of its own; nothing is changed outside of them.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is imported

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization

from coxswain.pki.certificates import Role, create_authorities, issue_controller_leaf, issue_node_leaf
from coxswain.pki.csr import read_csr
from coxswain.wire.node_control import Deadlines, NodeControl, RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.netns import Keys, Lab, new_psk
from tests.support import eventually

pytestmark = pytest.mark.netns

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
    """An agent in a namespace, and the test's controller of it. Its event stream is read all the time."""

    def __init__(self, space, directory, pki, firewall="auto"):
        self.space = space
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
            f"data_plane: {{conf_directory: {self.confs}, firewall: {firewall}, poll_interval_s: 0.2}}\n"
            "log: {level: debug}\n"
        )
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
        command = [*AGENT, "run", "--config-dir", str(self.directory), "--data-plane", "wireguard"]
        self.agent = self.space.spawn(command, log=self.log)
        self.status()

    def stop(self, number=signal.SIGTERM):
        """Ends the agent; returns its exit status."""
        pid = next(p for p in self.space.pids() if "coxswain.agent.main" in _command_line(p))
        os.kill(pid, number)
        return self.agent.wait(30)

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
        self._thread.join(10)
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


class World:
    """Namespaces and nodes of one test."""

    def __init__(self, lab, directory, pki):
        self._lab = lab
        self._directory = directory
        self._pki = pki
        self._nodes = []
        self.internet = lab.namespace("internet")

    def node(self, name="node", address="198.51.100.1", firewall="auto"):
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
        node = Node(space, directory, self._pki, firewall)
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
            allowed="198.51.100.0/24,203.0.113.0/24,10.7.0.0/24",
        )

    def reaches(self, address=SERVER):
        return self.space.pings(address)


@pytest.fixture(scope="module")
def pki():
    return Pki()


@pytest.fixture
def world(tmp_path, pki):
    with Lab(tmp_path) as lab:
        made = World(lab, tmp_path, pki)
        try:
            yield made
        finally:
            made.close()
    left = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert "awg0" not in left
    assert "wg0" not in left


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


def test_a_client_comes_through_and_revocation_cuts_it_off(world):
    node = world.node()
    client = world.client(node)
    assert node.push(1, client.peer).reloaded
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    assert eventually(client.reaches, timeout=20)
    payload = os.urandom(1_000_000)
    saw = served(world.internet, payload)
    assert client.space.call(fetch) == payload
    assert saw() == "198.51.100.1", "traffic is masqueraded as the node's"
    connected = eventually(lambda: node.happened(pb.EVENT_TYPE_PEER_CONNECTED, client.keys.public))[0]
    assert connected.source_endpoint.startswith(f"{client.outside}:")
    state = node.live(client.keys.public)
    assert state.tx_bytes > 1_000_000
    assert 0 < state.rx_bytes < state.tx_bytes
    assert abs(state.last_handshake.seconds - time.time()) < 60
    status = node.status()
    assert status.services[0].handshaking_peers == 1
    assert "plain WireGuard" in status.services[0].detail
    assert client.address6.removesuffix("/128") in node.space.run("ip", "-6", "route").stdout
    # Revoked by a push without it: no packet more, its route is gone, its session ends.
    assert node.push(2).applied_revision == 2
    assert not client.reaches()
    assert client.address not in node.space.run("ip", "route").stdout
    assert client.address6.removesuffix("/128") not in node.space.run("ip", "-6", "route").stdout
    ended = eventually(lambda: node.happened(pb.EVENT_TYPE_PEER_DISCONNECTED, client.keys.public))[0]
    assert ended.tx_bytes > 1_000_000
    # Let in again by AddPeer, and revoked by RemovePeer.
    assert node.wait(node.control.add_peer(client.peer)).applied
    client.tunnel.connect()
    assert eventually(client.reaches, timeout=20)
    assert node.wait(node.control.remove_peer(AWG, client.keys.public)).applied
    assert not client.reaches()
    assert node.live(client.keys.public) is None
    secrets = (client.psk, (node.directory / "awg-node.json").read_text().split('"')[3])
    log = node.log.read_text()
    assert not [secret for secret in secrets if secret in log]
    assert (node.confs / "awg0.conf").stat().st_mode & 0o777 == 0o600


def test_a_wrong_preshared_key_lets_nobody_in(world):
    node = world.node()
    client = world.client(node, claimed_psk=new_psk())
    node.push(1, client.peer)
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    assert not client.reaches()
    assert node.live(client.keys.public).last_handshake.seconds == 0
    # The key that it has is pushed: the same client gets in.
    peer = client.peer
    peer.preshared_key = client._claimed_psk
    node.push(2, peer)
    client.tunnel.connect()
    assert eventually(client.reaches, timeout=20)


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_the_policy_is_in_force_and_comes_back(world, firewall):
    node = world.node(firewall=firewall)
    one, two = world.client(node, 1), world.client(node, 2)
    node.push(1, one.peer, two.peer)
    for client in (one, two):
        client.connect(node)
    assert not one.reaches(), "nothing is forwarded before there is a policy"
    node.policy(forwarding=True, masquerade=True)
    assert eventually(one.reaches, timeout=20)
    assert eventually(two.reaches, timeout=20), "now the node knows where it is"
    assert eventually(lambda: one.reaches(two.address), timeout=20)
    node.policy(forwarding=True, masquerade=True, isolation=True)
    assert not one.reaches(two.address)
    assert eventually(one.reaches)
    # Somebody flushes all rules: the next look at the node puts them back.
    node.space.run("nft", "flush", "ruleset")
    assert not one.reaches()
    node.policy(forwarding=True, masquerade=True, isolation=True)
    assert eventually(one.reaches)
    assert not one.reaches(two.address)
    # Applied again and again it is there once.
    assert node.space.run("nft", "list", "ruleset").stdout.lower().count("masquerade") == 1
    node.policy()
    left = node.space.run("nft", "list", "ruleset").stdout
    assert "awg0" not in left
    assert "asquerade" not in left.lower()


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_policy_that_cannot_be_installed_leaves_the_old_one_in_force(world, firewall):
    node = world.node(firewall=firewall)
    client = world.client(node)
    node.push(1, client.peer)
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    assert eventually(client.reaches, timeout=20)
    stored = (node.directory / "netpolicy.json").read_bytes()
    bad = pb.TransitRoute(device_cidr=f"{client.address}/32", inner_interface="awg9", mark=7100, table=7100)
    with pytest.raises(RpcFailed, match="awg9"):
        node.policy(forwarding=True, masquerade=True, transits=[bad])
    assert eventually(client.reaches)
    assert "7100" not in node.space.run("ip", "rule").stdout
    assert (node.directory / "netpolicy.json").read_bytes() == stored
    assert "network policy not applied" in node.status().services[0].detail
    node.policy(forwarding=True, masquerade=True)
    assert "network policy" not in node.status().services[0].detail


def test_a_change_between_firewalls_leaves_nothing_of_the_other(world):
    node = world.node(firewall="iptables")
    client = world.client(node)
    node.push(1, client.peer)
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    yaml = node.directory / "node.yaml"
    for firewall, table in (("nftables", True), ("iptables", False)):
        yaml.write_text(
            yaml.read_text().replace("nftables", "iptables").replace("firewall: iptables", f"firewall: {firewall}")
        )
        assert node.stop() == 0
        node.start()
        assert eventually(client.reaches, timeout=20)
        rules = node.space.run("nft", "list", "ruleset").stdout
        assert ("table inet coxswain" in rules) == table
        assert ("MASQUERADE" in node.space.run("iptables-save").stdout) != table


def test_another_firewalls_drop_policy_is_got_past(world):
    """A host whose own rules drop what is forwarded, as Docker's do: ``auto`` goes through their chain."""
    node = world.node()
    node.space.run("iptables", "-P", "FORWARD", "DROP")
    client = world.client(node)
    node.push(1, client.peer)
    client.connect(node)
    node.policy(forwarding=True, masquerade=True)
    assert eventually(client.reaches, timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_restart_keeps_clients_connected(world, number):
    node = world.node()
    client = world.client(node)
    node.push(5, client.peer)
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    assert eventually(client.reaches, timeout=20)
    before = node.live(client.keys.public)
    index = node.space.run("cat", "/sys/class/net/awg0/ifindex").stdout
    node.stop(number)
    assert eventually(client.reaches), "the tunnel does not need the agent"
    node.start()
    assert eventually(client.reaches)
    assert node.space.run("cat", "/sys/class/net/awg0/ifindex").stdout == index
    assert node.status().applied_revision == 5
    after = node.live(client.keys.public)
    assert after.last_handshake == before.last_handshake
    assert after.tx_bytes > before.tx_bytes
    node.push(6)
    assert not client.reaches()


def test_many_peers(world):
    """Routes of both families by the batch; those of peers that vanish go, and the files are the last good ones."""
    node = world.node()

    def peer(n):
        ips = [f"10.8.{n // 250}.{n % 250 + 1}/32", f"fd08::{n + 1:x}/128"]
        return pb.Peer(protocol=AWG, public_key=Keys.new().public, preshared_key=new_psk(), allowed_ips=ips)

    peers = [peer(n) for n in range(500)]
    assert node.push(1, *peers).reloaded
    assert node.status().services[0].peer_count == 500

    def routes():
        listed = node.space.run("ip", "route").stdout + node.space.run("ip", "-6", "route").stdout
        return sum("dev awg0" in line and ("10.8." in line or "fd08::" in line) for line in listed.splitlines())

    assert routes() == 1000
    listed = node.wait(node.control.list_peers(AWG)).peers
    assert [state.peer.public_key for state in listed] == [p.public_key for p in peers]
    node.push(2, *peers[:3])
    assert routes() == 6
    assert (node.confs / "awg0.conf").read_text() == (node.confs / "awg0.conf.good").read_text()


def reboot(node):
    """What a reboot takes: the agent, interfaces with their userspace programs, routes and rules."""
    node.stop(signal.SIGKILL)
    for interface in node.space.interfaces():
        if interface.startswith("awg"):
            node.space.run("ip", "link", "delete", interface)
    node.space.run("nft", "flush", "ruleset")
    while node.space.run("ip", "rule", "del", "from", "all", "fwmark", "7100", check=False).returncode == 0:
        pass
    eventually(lambda: not node.space.pids())
    node.start()


def test_traffic_through_an_inner_link_survives_a_reboot_of_the_entry(world):
    """Trap 12.1: the existing agent needs the link before it has it, and never comes back."""
    entry, leave = world.node("entry"), world.node("exit", "203.0.113.1")
    entry.space.run("ip", "route", "replace", "203.0.113.0/24", "via", SERVER)
    leave.space.run("ip", "route", "replace", "198.51.100.0/24", "via", "203.0.113.3")
    world.internet.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    client = world.client(entry)
    psk = new_psk()
    entry.push(1, client.peer)
    edge = pb.Peer(
        protocol=AWG, public_key=entry.public_key, preshared_key=psk, allowed_ips=[f"{client.address}/32"], id="per_edge"
    )
    leave.push(1, edge)
    leave.policy(forwarding=True, masquerade=True)
    entry.policy(forwarding=True, masquerade=True)
    client.connect(entry)
    assert eventually(client.reaches, timeout=20)
    link = pb.InnerLinkConfig(
        interface="awg1",
        listen_port=51820,
        mtu=1340,
        peer_obfuscation=leave.status().amneziawg.obfuscation,
        exit=pb.Peer(
            public_key=leave.public_key, preshared_key=psk, endpoints=["203.0.113.1:443"], allowed_ips=["0.0.0.0/0"]
        ),
    )
    assert entry.wait(entry.control.configure_inner_link(link, 1)).reloaded
    transit = pb.TransitRoute(device_cidr=f"{client.address}/32", inner_interface="awg1", mark=7100, table=7100)
    policy = {"forwarding": True, "masquerade": True, "transits": [transit]}

    def leaves_at():
        saw = served(world.internet, b"here")
        assert client.space.call(fetch) == b"here"
        return saw()

    assert leaves_at() == "198.51.100.1"
    entry.policy(**policy)
    assert eventually(client.reaches, timeout=20)
    assert leaves_at() == "203.0.113.1", "marked traffic leaves at the exit"
    entry.policy(**policy)
    assert entry.space.run("ip", "rule").stdout.count("lookup 7100") == 1, "the same policy again adds no second rule"
    reboot(entry)
    client.tunnel.connect()
    assert eventually(client.reaches, timeout=30)
    assert leaves_at() == "203.0.113.1"
    assert entry.status().services[0].detail.startswith("awg0 up, 1 peers")
    # A changed MTU is taken over, and the transit's route with it.
    link.mtu = 1300
    assert entry.wait(entry.control.configure_inner_link(link, 2)).reloaded
    assert entry.space.run("cat", "/sys/class/net/awg1/mtu").stdout.strip() == "1300"
    assert eventually(client.reaches, timeout=20)
    assert leaves_at() == "203.0.113.1"
    # Taken apart in the order of the contract, after a restart that forgot nothing.
    entry.stop()
    entry.start()
    entry.policy(forwarding=True, masquerade=True)
    assert entry.wait(entry.control.remove_inner_link("awg1")).removed
    assert entry.space.interfaces() & {"awg0", "awg1"} == {"awg0"}
    assert not list(entry.confs.glob("awg1*"))
    assert "7100" not in entry.space.run("ip", "rule").stdout
    assert leaves_at() == "198.51.100.1"
