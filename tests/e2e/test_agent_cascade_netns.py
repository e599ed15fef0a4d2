"""Cascades of real agents: a client's packets leave where its path ends, or nowhere (contract 6.6, 7, 9.2, 12.1).

    client ── entry ── internet ── mid
                          ├─────── exit
                          └─────── server, which sees who asks and counts by which node packets come

Every node is a ``cox-node`` process in a network namespace, driven over mTLS as a controller drives it.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from coxswain.wire.node_control import RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.agents import AWG, HUB_SERVER, HUB_SERVER6, Cascade, fetch, served
from tests.support import eventually

pytestmark = pytest.mark.netns


def connect(entry, *clients):
    entry.push(entry.status().applied_revision + 1, *(client.peer for client in clients))
    entry.policy(forwarding=True, masquerade=True)
    for client in clients:
        client.connect(entry)
        assert eventually(lambda client=client: client.reaches(HUB_SERVER))


def leaves_at(hub, client):
    """The address that the server sees when the client asks for something."""
    saw = served(hub.internet, b"here")
    assert client.space.call(lambda: fetch(HUB_SERVER)) == b"here"
    return saw()


def refused_or_silent(client, address=HUB_SERVER):
    return not client.reaches(address)


def pinging(client, count, every):
    """Echo requests in the background, ``every`` so many seconds."""
    command = ["ping", "-n", "-i", every, "-c", str(count), "-W", "5", HUB_SERVER]
    return subprocess.Popen(client.space.argv(command), stdout=subprocess.PIPE, text=True)


def fragments(*spaces):
    """IPv4 packets that these hosts had to cut up."""
    total = 0
    for space in spaces:
        lines = [line.split() for line in space.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Ip:")]
        total += int(dict(zip(lines[0], lines[1], strict=True))["FragCreates"])
    return total


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_two_hops(hub, firewall):
    v6 = firewall == "nftables"  # the canonical rules are iptables', which are IPv4's
    entry, leave = hub.node("entry", firewall), hub.node("exit", firewall)
    client, other = hub.client(entry, 1), hub.client(entry, 2)
    connect(entry, client, other)
    assert leaves_at(hub, client) == entry.address
    before = client.handshake()
    path = Cascade(entry, leave)
    path.carry(client, v6=v6)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    hub.count()
    assert leaves_at(hub, client) == leave.address
    assert hub.counted(leave) > 0
    assert hub.counted(entry) == 0
    assert leaves_at(hub, other) == entry.address, "who is not bound leaves as before"
    assert client.handshake() == before, "binding a client does not cost it a handshake"
    edge = leave.live(entry.public_key)
    assert edge.tx_bytes > 0
    assert edge.last_handshake.seconds > 0
    # The same once more, and with another client: one rule and one table, however many are sent through.
    path.admit(client, other)
    for _ in range(2):
        entry.policy(forwarding=True, masquerade=True, transits=path.transits(client, other, v6=v6))
    assert entry.space.run("ip", "rule").stdout.count("lookup 7100") == 1
    routes = entry.space.run("ip", "route", "show", "table", "7100").stdout.split("\n")
    assert [line.strip() for line in routes if line] == ["default dev awg1 scope link", "unreachable default metric 4000"]
    assert eventually(lambda: leaves_at(hub, other) == leave.address)
    # Unbound, both leave here again, and nothing is left of the path.
    entry.policy(forwarding=True, masquerade=True)
    assert leaves_at(hub, client) == entry.address
    assert entry.wait(entry.control.remove_inner_link("awg1")).removed
    for look in (["ip", "rule"], ["ip", "-6", "rule"], ["ip", "route", "show", "table", "all"]):
        assert "7100" not in entry.space.run(*look).stdout
    assert client.handshake() == before


def test_three_hops_in_both_families(hub):
    entry, mid, leave = hub.node("entry"), hub.node("mid"), hub.node("exit")
    client = hub.client(entry)
    connect(entry, client)
    before = client.handshake()
    Cascade(entry, mid, leave).carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    hub.count()
    assert leaves_at(hub, client) == leave.address
    assert client.handshake() == before
    # It comes back although nobody out there knows the client's address: the exit has put its own in the place of it.
    assert eventually(lambda: client.reaches(HUB_SERVER6))
    assert hub.counted(leave) > 0
    assert hub.counted(entry) + hub.counted(mid) == 0
    # The mid is a client of the exit and has one of its own; each link's traffic is counted at its far end.
    for near, far in ((entry, mid), (mid, leave)):
        assert far.live(near.public_key).rx_bytes > 0


def test_an_exit_switch_moves_clients_without_a_handshake_and_without_a_gap(hub):
    entry, one, two = hub.node("entry"), hub.node("one"), hub.node("two")
    client = hub.client(entry)
    connect(entry, client)
    first, second = Cascade(entry, one), Cascade(entry, two, index=1)
    first.carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    before, live_before = client.handshake(), entry.live(client.keys.public).last_handshake
    # The new path is made whole before anything is sent through it.
    two.push(1)
    second.link()
    second.admit(client)
    two.policy(forwarding=True, masquerade=True)
    hub.count()
    running = pinging(client, 150, "0.02")
    for path in (second, first, second):
        entry.policy(forwarding=True, masquerade=True, transits=path.transits(client))
        assert leaves_at(hub, client) == path.nodes[-1].address
    told = running.communicate(timeout=60)[0]
    received = int(re.search(r"(\d+) received", told)[1])
    assert received >= 148, told  # an echo that is on its way back through the link that is left may be lost
    assert hub.counted(entry) == 0, "not one packet left at the entry meanwhile"
    assert (client.handshake(), entry.live(client.keys.public).last_handshake) == (before, live_before)
    assert leaves_at(hub, client) == two.address
    listed = entry.space.run("ip", "rule").stdout
    assert "lookup 7101" in listed
    assert "lookup 7100" not in listed


def test_the_same_policy_again_and_again_loses_no_packet(hub):
    node = hub.node()
    client = hub.client(node)
    connect(node, client)
    running = pinging(client, 200, "0.01")
    for isolation in [False, True] * 8:
        node.policy(forwarding=True, masquerade=True, isolation=isolation)
    told = running.communicate(timeout=60)[0]
    assert " 0% packet loss" in told, told


def test_peers_that_come_and_go_cost_the_others_no_packet_and_no_session(hub):
    """Nor does it cost any to be told the same again, as by a controller that cannot see whether an agent still has it."""
    node = hub.node()
    client, other, third = (hub.client(node, number) for number in (1, 2, 3))
    connect(node, client, other)
    before = client.handshake(), node.live(client.keys.public).last_handshake
    running = pinging(client, 400, "0.01")
    first = node.status().applied_revision + 1
    for revision in range(first, first + 32):
        turn = revision % 4
        peers = [client.peer, *([other.peer] if turn < 2 else []), *([third.peer] if turn else [])]
        assert node.push(revision, *peers).reloaded
        listed = {live.peer.public_key for live in node.wait(node.control.list_peers(AWG)).peers}
        assert listed == {peer.public_key for peer in peers}
    told = running.communicate(timeout=60)[0]
    assert " 0% packet loss" in told, told
    assert (client.handshake(), node.live(client.keys.public).last_handshake) == before
    assert set(node.space.run("wg", "show", "awg0", "peers").stdout.split()) == listed
    third.connect(node)
    assert eventually(lambda: third.reaches(HUB_SERVER))


def test_a_missing_link_fails_closed_and_is_mended(hub):
    entry, leave = hub.node("entry"), hub.node("exit")
    client = hub.client(entry)
    connect(entry, client)
    path = Cascade(entry, leave)
    path.carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    hub.count()
    entry.space.run("ip", "link", "delete", "awg1")
    told = client.space.run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", HUB_SERVER, check=False)
    assert "nreachable" in told.stdout, "the client is told at once"
    assert refused_or_silent(client, HUB_SERVER6)
    assert hub.counted(entry) == 0, "not a packet leaves at the entry"
    assert "inner link awg1" in entry.status().services[0].detail
    # Not even if somebody takes the rules of its table away.
    entry.space.run("ip", "rule", "del", "fwmark", "7100", "lookup", "7100")
    assert refused_or_silent(client)
    assert hub.counted(entry) == 0
    # A repeated revision is no replay if the link is not there (node-contract.md 4.12 is where the existing agent is wrong).
    path.revision -= 1
    assert path.link()[0].reloaded
    entry.policy(forwarding=True, masquerade=True, transits=path.transits(client))
    assert eventually(lambda: client.reaches(HUB_SERVER))
    assert leaves_at(hub, client) == leave.address
    assert hub.counted(entry) == 0
    assert "inner link" not in entry.status().services[0].detail


def test_the_agent_mends_what_somebody_took_away(hub):
    entry, leave = hub.node("entry", heal_s=0.3), hub.node("exit")
    client = hub.client(entry)
    connect(entry, client)
    path = Cascade(entry, leave)
    path.carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    hub.count()
    entry.space.run("ip", "link", "delete", "awg1")
    assert eventually(lambda: client.reaches(HUB_SERVER), timeout=30), "a link that is gone comes back by itself"
    entry.space.run("nft", "delete", "table", "inet", "coxswain")
    assert eventually(lambda: "awg0" in entry.space.run("nft", "list", "ruleset").stdout, timeout=30)
    assert eventually(lambda: leaves_at(hub, client) == leave.address, timeout=30)
    hub.count()
    entry.space.run("ip", "route", "flush", "table", "7100")
    assert eventually(lambda: client.reaches(HUB_SERVER), timeout=30), "and so do the routes into it"
    assert leaves_at(hub, client) == leave.address and hub.counted(entry) == 0


def test_a_reboot_of_every_node_brings_the_path_back(hub):
    """Trap 12.1: the existing agent needs the link before it has it, and never comes back."""
    entry, mid, leave = hub.node("entry"), hub.node("mid"), hub.node("exit")
    client = hub.client(entry)
    connect(entry, client)
    path = Cascade(entry, mid, leave)
    path.carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    hub.count()
    for node in (mid, entry, leave):
        node.reboot()
        assert node.status().services[0].detail.startswith("awg0 up, 1 peers")
    client.tunnel.connect()
    assert eventually(lambda: client.reaches(HUB_SERVER), timeout=40)
    assert leaves_at(hub, client) == leave.address
    assert hub.counted(entry) + hub.counted(mid) == 0, "nothing left early while the path came back"
    # A changed MTU is taken over, and the transit's route with it.
    path.mtu = 1300
    assert all(answer.reloaded for answer in path.link())
    assert entry.space.run("cat", "/sys/class/net/awg1/mtu").stdout.strip() == "1300"
    assert eventually(lambda: client.reaches(HUB_SERVER))
    # A changed port as well.
    config = path.config(0)
    config.listen_port = 51999
    entry.wait(entry.control.configure_inner_link(config, path.revision + 1))
    assert entry.space.run("wg", "show", "awg1", "listen-port").stdout.strip() == "51999"
    assert eventually(lambda: leaves_at(hub, client) == leave.address)
    # Taken apart in the order of the contract, after a restart that forgot nothing.
    entry.stop()
    entry.start()
    entry.policy(forwarding=True, masquerade=True)
    assert entry.wait(entry.control.remove_inner_link("awg1")).removed
    assert entry.space.interfaces() & {"awg0", "awg1"} == {"awg0"}
    assert not list(entry.confs.glob("awg1*"))
    assert not (entry.directory / "awg1-revision").exists()
    assert leaves_at(hub, client) == entry.address


def test_an_entry_whose_link_cannot_be_restored_serves_and_leaks_nothing(hub):
    entry, leave = hub.node("entry"), hub.node("exit")
    client, other = hub.client(entry, 1), hub.client(entry, 2)
    connect(entry, client, other)
    path = Cascade(entry, leave)
    path.carry(client)
    entry.stop(signal.SIGKILL)
    for name in ("awg1.conf", "awg1.conf.good"):
        text = (entry.confs / name).read_text()
        (entry.confs / name).write_text(re.sub(r"PublicKey = .*", "PublicKey = nonsense", text))
    entry.start()
    entry.reboot()
    hub.count()
    assert "inner link awg1" in entry.status().services[0].detail
    client.tunnel.connect()
    other.tunnel.connect()
    assert eventually(lambda: other.reaches(HUB_SERVER)), "the others are served"
    seen = hub.counted(entry)
    assert refused_or_silent(client)
    assert hub.counted(entry) == seen
    assert path.link()[0].reloaded
    assert eventually(lambda: client.reaches(HUB_SERVER))
    assert leaves_at(hub, client) == leave.address
    assert "inner link" not in entry.status().services[0].detail


def test_isolation_isolates(hub):
    entry, leave = hub.node("entry"), hub.node("exit")
    one, two = hub.client(entry, 1), hub.client(entry, 2)
    connect(entry, one, two)
    v6 = two.address6.removesuffix("/128")
    assert eventually(lambda: one.reaches(two.address))
    assert eventually(lambda: one.reaches(v6))
    listener = entry.space.call(lambda: socket.create_server((entry.address, 9000)))

    def service_answers():
        def try_it():
            with socket.create_connection((entry.address, 9000), timeout=1):
                return True

        try:
            return one.space.call(try_it)
        except OSError:
            return False

    with listener:
        assert service_answers()
        entry.policy(forwarding=True, masquerade=True, isolation=True)
        assert not service_answers(), "the node's own services are not the clients'"
    assert not one.reaches(two.address)
    assert not one.reaches(v6)
    assert one.reaches(HUB_SERVER)
    # Sent through a path that would lead out and back in, they still do not meet.
    path = Cascade(entry, leave)
    path.carry(one, two)
    entry.policy(forwarding=True, masquerade=True, isolation=True, transits=path.transits(one, two))
    assert eventually(lambda: one.reaches(HUB_SERVER))
    assert leaves_at(hub, one) == leave.address
    assert not one.reaches(two.address)
    assert not one.reaches(v6)
    # Revoked, one is out, while the other's session goes on.
    shaken = two.handshake()
    assert entry.wait(entry.control.remove_peer(AWG, one.keys.public)).applied
    assert refused_or_silent(one)
    assert leaves_at(hub, two) == leave.address
    assert two.handshake() == shaken


def test_metadata_services_are_out_of_reach(hub):
    node = hub.node()
    client = hub.client(node)
    connect(node, client)
    hub.internet.run("ip", "address", "add", "169.254.169.254/32", "dev", "lo")
    assert node.space.pings("169.254.169.254"), "the node itself reaches it"
    assert not client.reaches("169.254.169.254")


def test_full_size_packets_pass_without_fragmentation(hub):
    entry, mid, leave = hub.node("entry"), hub.node("mid"), hub.node("exit")
    client = hub.client(entry)
    connect(entry, client)
    Cascade(entry, mid, leave).carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    spaces = (client.space, entry.space, mid.space, leave.space, hub.internet)
    before = fragments(*spaces)
    whole = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", HUB_SERVER, "-s"]
    assert client.space.run(*whole, str(1340 - 28), check=False).returncode == 0
    told = client.space.run(*whole, str(1340 - 27), check=False)
    assert "mtu = 1340" in told.stdout + told.stderr, "the client is told what fits"
    # TCP gets through both ways although the client's own MTU is 1420 and it is deaf to that message.
    client.space.run("ip", "route", "flush", "cache")
    deaf = "table inet deaf { chain in { type filter hook input priority 0; icmp type destination-unreachable drop; }; }"
    client.space.run("nft", "-f", "-", stdin=deaf)
    payload = os.urandom(400_000)
    saw = served(hub.internet, payload)
    assert client.space.call(lambda: fetch(HUB_SERVER)) == payload
    assert saw() == leave.address
    assert client.space.call(lambda: _upload(hub, payload)) == len(payload)
    assert fragments(*spaces) == before


def _upload(hub, payload):
    """From the calling thread's namespace to the server; returns how much came."""
    counted = []
    listener = hub.internet.call(lambda: socket.create_server((HUB_SERVER, 8001)))

    def serve():
        with listener:
            connection, _ = listener.accept()
            with connection:
                counted.append(sum(len(data) for data in iter(lambda: connection.recv(65536), b"")))

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection((HUB_SERVER, 8001), timeout=20) as connection:
        connection.settimeout(20)
        connection.sendall(payload)
    thread.join(30)
    return counted[0]


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_transit_to_a_missing_link_is_refused_and_changes_nothing(hub, firewall):
    node = hub.node(firewall=firewall)
    client = hub.client(node)
    connect(node, client)
    stored = (node.directory / "netpolicy.json").read_bytes()
    with pytest.raises(RpcFailed, match="awg1"):
        node.policy(forwarding=True, masquerade=True, transits=Cascade(node, node).transits(client))
    assert leaves_at(hub, client) == node.address
    for look in (["ip", "rule"], ["ip", "-6", "rule"], ["ip", "route", "show", "table", "all"]):
        assert "7100" not in node.space.run(*look).stdout
    assert (node.directory / "netpolicy.json").read_bytes() == stored
    assert "network policy not applied" in node.status().services[0].detail
    node.policy(forwarding=True, masquerade=True)
    assert "network policy" not in node.status().services[0].detail


def in_force(node):
    """All that a policy has put in force on a host, without counters and priorities."""

    def lines(*command, of=""):
        told = node.space.run(*command, check=False).stdout.splitlines()
        return [re.sub(r"^\d+:", "", line).strip() for line in told if of in line]

    rules = lines("iptables-save", of="-A ") + lines("nft", "list", "table", "inet", "coxswain")
    for family in ("-4", "-6"):
        rules += lines("ip", family, "rule", of="fwmark")
        rules += lines("ip", family, "-N", "route", "show", "table", "all", of="table 71")
    return sorted(rules)


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_an_agent_killed_at_any_moment_of_a_change_leaves_the_old_policy_or_the_new(hub, firewall):
    entry, one, two = hub.node("entry", firewall), hub.node("one", firewall), hub.node("two", firewall)
    client = hub.client(entry)
    entry.push(1, client.peer)
    first, second = Cascade(entry, one), Cascade(entry, two, index=1)
    for path in (first, second):
        path.nodes[1].push(1)
        path.nodes[1].policy(forwarding=True, masquerade=True)
        path.link()
        path.admit(client)
    policies = [
        {"forwarding": True, "masquerade": True, "transits": first.transits(client, v6=False)},
        {"forwarding": True, "masquerade": True, "isolation": True, "transits": second.transits(client, v6=False)},
        {"forwarding": True},
    ]
    known = []
    for policy in policies:
        entry.policy(**policy)
        known.append(in_force(entry))
    assert len({str(state) for state in known}) == 3
    rng = random.Random(firewall)
    at = 2
    for _ in range(8):
        to = (at + rng.randint(1, 2)) % 3
        call = asyncio.run_coroutine_threadsafe(
            entry.control.set_network_config(pb.NetworkConfig(**policies[to])), entry._loop
        )
        time.sleep(rng.random() * 0.25)  # a moment by chance
        entry.stop(signal.SIGKILL)
        try:
            acknowledged = call.result(30).applied
        except RpcFailed:
            acknowledged = False
        eventually(lambda: entry.space.pids() == daemons(entry))  # what the agent had started ends by itself
        entry.start()
        state = in_force(entry)
        if acknowledged:
            assert state == known[to], "what was acknowledged is in force"
        else:
            assert state in (known[at], known[to]), f"{at} -> {to}"
        at = known.index(state)
    entry.policy(**policies[0])
    assert in_force(entry) == known[0]
    client.connect(entry)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    assert leaves_at(hub, client) == one.address


def daemons(node):
    """The programs that run its interfaces, which are to outlive it."""
    found = []
    for pid in node.space.pids():
        with contextlib.suppress(FileNotFoundError):
            if b"wireguard-go" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@pytest.mark.parametrize("comes", ["before", "after"])
def test_another_firewall_that_drops_what_is_forwarded_keeps_no_client_from_it(hub, comes):
    """As Docker's and ufw's do in both families; Docker may well start after the agent."""
    node = hub.node(heal_s=0.5)
    client = hub.client(node)

    def drop():
        for tool in ("iptables", "ip6tables"):
            node.space.run(tool, "-P", "FORWARD", "DROP")

    if comes == "before":
        drop()
    connect(node, client)
    drop()
    assert eventually(lambda: client.reaches(HUB_SERVER) and client.reaches(HUB_SERVER6), timeout=60)
    node.space.run("ip6tables", "-F", "FORWARD")
    node.space.run("iptables", "-F", "FORWARD")  # as a reload of the other one may
    assert eventually(lambda: client.reaches(HUB_SERVER) and client.reaches(HUB_SERVER6), timeout=60)
    node.policy()
    for tool in ("iptables", "ip6tables"):
        assert "awg0" not in node.space.run(tool, "-S", "FORWARD").stdout


@pytest.mark.parametrize("how", ["the table is emptied", "one rule is taken out", "a rule is added"])
def test_rules_that_somebody_changed_by_hand_come_back(hub, how):
    """Not only a table that is gone: one without its rules looks the same from far away, and isolates nobody."""
    node = hub.node(heal_s=0.5)
    client = hub.client(node)
    connect(node, client)
    node.policy(forwarding=True, masquerade=True, isolation=True)

    def rules(*options):
        return node.space.run("nft", *options, "list", "table", "inet", "coxswain").stdout

    before = rules()
    isolating = next(line for line in rules("-a").splitlines() if 'iifname "awg0" oifname "awg0" drop' in line)
    commands = {
        "the table is emptied": ["flush", "table", "inet", "coxswain"],
        "one rule is taken out": ["delete", "rule", "inet", "coxswain", "forward", "handle", isolating.split()[-1]],
        "a rule is added": ["insert", "rule", "inet", "coxswain", "forward", "accept"],
    }
    node.space.run("nft", *commands[how])
    assert rules() != before
    assert eventually(lambda: rules() == before, timeout=60)
    assert eventually(lambda: client.reaches(HUB_SERVER))
