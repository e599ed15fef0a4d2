"""The real agent with the ``wireguard`` data plane, driven over mTLS, with real clients on wireguard-go.

    client ──┐
             ├── node ── internet
    second ──┘

Each in a network namespace of its own; nothing is changed outside of them. Cascades are in ``test_agent_cascade_netns.py``.
"""

import json
import os
import signal
import time

import pytest

from coxswain.netpolicy import Policy, render, resolve
from coxswain.wire.node_control import RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.agents import AWG, USER, fetch, served
from tests.netns import Keys, new_psk
from tests.support import eventually

pytestmark = pytest.mark.netns


def test_a_client_comes_through_and_revocation_cuts_it_off(world):
    node = world.node()
    client = world.client(node)
    assert node.push(1, client.peer).reloaded
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    assert eventually(client.reaches)
    payload = os.urandom(1_000_000)
    saw = served(world.internet, payload)
    assert client.space.call(fetch) == payload
    assert saw() == "198.51.100.1", "traffic is masqueraded as the node's"
    if not node.happened(pb.EVENT_TYPE_PEER_CONNECTED, client.keys.public):
        # It may have shaken hands before the first look, which is silent (node-contract.md 5.3): the next time is told.
        time.sleep(1)  # a handshake is told by its whole second
        client.tunnel.connect()
        assert eventually(client.reaches)
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
    assert eventually(client.reaches)
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
    assert eventually(client.reaches)
    # It is taken away, which syncconf alone does not do: a client without one gets in, and the old one does not.
    peer.preshared_key = ""
    node.push(3, peer)
    client.tunnel.connect()
    assert not client.reaches()
    client.space.run("ip", "link", "delete", "wg0")
    client._claimed_psk = ""
    client.connect(node)
    assert "PresharedKey" not in client.tunnel.conf
    assert eventually(client.reaches)


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_the_policy_is_in_force_and_comes_back(world, firewall):
    node = world.node(firewall=firewall)
    one, two = world.client(node, 1), world.client(node, 2)
    node.push(1, one.peer, two.peer)
    for client in (one, two):
        client.connect(node)
    assert not one.reaches(), "nothing is forwarded before there is a policy"
    node.policy(forwarding=True, masquerade=True)
    assert eventually(one.reaches)
    assert eventually(two.reaches), "now the node knows where it is"
    assert eventually(lambda: one.reaches(two.address))
    node.policy(forwarding=True, masquerade=True, isolation=True)
    assert not one.reaches(two.address)
    assert eventually(one.reaches)
    # Somebody flushes all rules: the next look at the node puts them back.
    node.space.run("nft", "flush", "ruleset")
    assert not one.reaches()
    node.policy(forwarding=True, masquerade=True, isolation=True)
    assert eventually(one.reaches)
    assert not one.reaches(two.address)
    # Applied again and again it is there once for each family; iptables has the canonical rules, which are IPv4's.
    families = {"nftables": 2, "iptables": 1}[firewall]
    assert node.space.run("nft", "list", "ruleset").stdout.lower().count("masquerade") == families
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
    assert eventually(client.reaches)
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
        assert eventually(client.reaches)
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
    assert eventually(client.reaches)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_restart_keeps_clients_connected(world, number):
    node = world.node()
    client = world.client(node)
    node.push(5, client.peer)
    node.policy(forwarding=True, masquerade=True)
    client.connect(node)
    assert eventually(client.reaches)
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


def test_a_host_changes_agents_in_place_and_back(world):
    """What one agent has installed, the other takes down by the commands that it finds stored (node-contract.md 7.5)."""
    node = world.node()
    one, two = world.client(node, 1), world.client(node, 2)
    node.push(1, one.peer, two.peer)
    isolated = Policy(forwarding=True, masquerade=True, isolation=True)
    node.policy(forwarding=True, masquerade=True, isolation=True)
    for client in (one, two):
        client.connect(node)
        assert eventually(client.reaches)
    assert not one.reaches(two.address)
    assert node.stop() == 0
    stored = node.directory / "netpolicy.json"

    def existing_agent(policy):
        """Takes the stored policy down and puts another in force, as that agent does; it knows no nftables."""
        for argv in json.loads(stored.read_text())["down"]:
            assert argv[0] in {"sysctl", "iptables", "ip"}
            node.space.run(*argv, check=False)
        rules = render(policy)
        for line in (*rules.pre_up, *rules.post_up):
            node.space.run(*resolve(line, "awg0", "eth1a"))
        document = {"Forwarding": True, "Masquerade": policy.masquerade, "Isolation": policy.isolation, "Transits": None}
        down = [resolve(line, "awg0", "eth1a") for line in rules.post_down]
        stored.write_text(json.dumps({"policy": document, "down": down}))

    existing_agent(Policy(forwarding=True))
    assert eventually(lambda: one.reaches(two.address)), "nothing of ours isolates any more"
    assert not one.reaches(), "nor masquerades"
    existing_agent(isolated)
    assert eventually(one.reaches)
    assert not one.reaches(two.address)
    node.start()
    assert eventually(one.reaches)
    assert not one.reaches(two.address)
    assert "awg0" not in node.space.run("iptables-save").stdout, "nothing of theirs is left"
    assert "MASQUERADE" not in node.space.run("iptables-save").stdout
    node.policy(forwarding=True, masquerade=True)
    assert eventually(lambda: one.reaches(two.address))


@pytest.mark.parametrize("content", ["{", '{"policy": {"Forwarding": true, "Transits": [{"DeviceCIDR": "x; drop"}]}}'])
def test_a_policy_that_cannot_be_understood_does_not_keep_the_node_from_serving(world, content):
    node = world.node()
    client = world.client(node)
    node.push(1, client.peer)
    node.stop()
    (node.directory / "netpolicy.json").write_text(content)
    node.belongs_to(USER)
    node.start()
    assert "netpolicy.json" in node.status().services[0].detail
    node.policy(forwarding=True, masquerade=True)
    assert "netpolicy.json" not in node.status().services[0].detail
    client.connect(node)
    assert eventually(client.reaches)
