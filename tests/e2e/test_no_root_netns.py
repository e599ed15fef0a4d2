"""An agent that is no root: what it can do is in the other tests, which all start it so. Here is what it cannot, and that a
host changes between such an agent and one that is root.
"""

import os
import stat
import sys
from pathlib import Path

import pytest

from coxswain.onboarding.guard import guard_rules
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.agents import AWG, HUB_SERVER, USER, Cascade
from tests.support import eventually

pytestmark = pytest.mark.netns

ADMIN, BIND = 1 << 12, 1 << 10
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def pushed(node, client):
    node.push(1, client.peer)
    node.policy(forwarding=True, masquerade=True, isolation=True)


def test_it_has_two_capabilities_and_nobodys_files(world):
    node = world.node()
    client = world.client(node)
    pushed(node, client)
    seen = status(node.agent.pid)
    assert seen["Uid"].split() == seen["Gid"].split() == [str(USER)] * 4
    assert seen["Groups"] == "" and seen["NoNewPrivs"] == "1"
    assert [int(seen[name], 16) for name in SETS] == [ADMIN | BIND] * 5
    owned = {path.name: (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in node.directory.iterdir()}
    owned |= {path.name: (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in node.confs.iterdir()}
    secret, told = (USER, 0o600), (USER, 0o644)
    for name, expected in {
        "node.key": secret, "awg-node.json": secret, "xray-node.json": secret, "awg0.conf": secret, "awg0.conf.good": secret,
        "awg-revision": told, "netpolicy.json": told, "node.crt": (0, 0o644), "ca.crt": (0, 0o644),
    }.items():  # fmt: skip
        assert owned[name] == expected, name
    assert not [name for name in owned if name.endswith(".tmp")]
    # The unit loads the rules about the control port as the same user.
    rules = node.directory / "control.nft"
    rules.write_text(guard_rules(8444, ["192.0.2.0/24"]))
    rules.chmod(0o640)
    os.chown(rules, 0, USER)
    assert node.as_agent("nft", "-f", "/mnt/control.nft").returncode == 0
    assert "192.0.2.0/24" in node.space.run("nft", "list", "table", "inet", "cox_control").stdout


FORBIDDEN = {
    "its trust anchor": "echo mine > /mnt/ca.crt",
    "its trust anchor by a rename": "cp /mnt/node.key /mnt/mine && mv -f /mnt/mine /mnt/ca.crt",
    "its certificate": "rm -f /mnt/node.crt",
    "its settings": "mv /mnt/node.yaml /mnt/other",
    "an operator's own tunnel": "cat /mnt/confs/theirs.conf",
    "the system's files": "echo x > /etc/cox-was-here",
    "programs": "echo x > /usr/local/bin/cox-was-here",
    "secrets of others": "cat /etc/shadow",
    "settings of the kernel that are not the network's": "sysctl -w kernel.hostname=mine",
    "giving files away": "chown 0 /mnt/node.key",
    "devices": "mknod /mnt/disk b 8 0",
    "becoming root": "setpriv --reuid=0 --clear-groups true",
    "mounts": "mount -t tmpfs none /mnt",
    "processes of others": "kill -0 1",
    "packets on the wire": f"{sys.executable} -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
}


def test_what_it_may_not_touch(world):
    node = world.node()
    theirs(node)
    may = [what for what, command in FORBIDDEN.items() if node.as_agent("sh", "-c", command).returncode == 0]
    assert not may
    sees = f"{sys.executable} -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM).bind((\"\", 80))'"
    for allowed in (
        sees,
        "sysctl -w net.ipv4.conf.all.forwarding=1",
        "echo x > /mnt/own && mv /mnt/own /mnt/own2 && rm /mnt/own2",
    ):
        assert node.as_agent("sh", "-c", allowed).returncode == 0, "or all is refused"


def theirs(node):
    conf = node.confs / "theirs.conf"
    conf.write_text("[Interface]\nPrivateKey = x\n")
    conf.chmod(0o600)


def test_an_operators_tunnel_beside_it_is_left_alone_and_not_complained_about(world):
    node = world.node()
    client = world.client(node)
    pushed(node, client)
    node.stop()
    theirs(node)
    node.start()
    assert node.status().services[0].detail.startswith("awg0 up, 1 peers")
    assert "theirs" not in node.status().services[0].detail


def test_a_host_changes_between_root_and_no_root_in_place(hub):
    """As an upgrade and a rollback do it: the agent stops, its files change hands, the other one starts.

    The kernel's interfaces do not notice. A userspace program whose socket changes hands ends, and the agent makes the
    interface anew: clients shake hands again.
    """
    entry, leave = hub.node("entry", root=True), hub.node("exit", root=True)
    client = hub.client(entry)
    entry.push(1, client.peer)
    entry.policy(forwarding=True, masquerade=True)
    client.connect(entry)
    path = Cascade(entry, leave)
    path.carry(client)
    assert eventually(lambda: client.reaches(HUB_SERVER), timeout=20)
    key = entry.public_key
    for root in (False, True, False):
        shaken, index = client.handshake(), entry.space.run("cat", "/sys/class/net/awg0/ifindex").stdout
        for node in (entry, leave):
            assert node.stop() == 0
            node.root = root
            node.belongs_to(0 if root else USER)
            node.start()
        assert int(status(entry.agent.pid)["Uid"].split()[0]) == (0 if root else USER)
        if root:  # who reads the sockets all the same
            assert entry.space.run("cat", "/sys/class/net/awg0/ifindex").stdout == index
            assert client.handshake() == shaken
        else:
            client.tunnel.connect()
        assert eventually(lambda: client.reaches(HUB_SERVER), timeout=20), "the path carries"
        told = entry.status()
        assert (told.applied_revision, entry.public_key) == (1, key)
        assert "inner link" not in told.services[0].detail and "policy" not in told.services[0].detail
        # Both go on with what the other one has made: a link, a peer, a policy.
        path.link()
        entry.policy(forwarding=True, masquerade=True, transits=path.transits(client))
        peer = client.peer
        assert entry.wait(entry.control.add_peer(peer)).applied
        assert eventually(lambda: client.reaches(HUB_SERVER), timeout=20)
    assert entry.wait(entry.control.remove_peer(AWG, client.keys.public)).applied
    assert not client.reaches(HUB_SERVER)


XRAY = """#!/bin/sh
# Stands in for xray: takes its configuration, and tells who connects what it may do.
cat > /dev/null
[ "$2" != -test ] || exit 0
exec @PYTHON@ -c '
import socket
listener = socket.create_server(("0.0.0.0", 443))
told = open("/proc/self/status").read().encode()
while True:
    link, _ = listener.accept()
    link.sendall(told)
    link.close()
'
"""


def test_reality_gets_its_port_and_nothing_of_the_network(world, monkeypatch, tmp_path):
    node = world.node()
    assert node.stop() == 0
    programs = node.directory / "programs"
    programs.mkdir()
    (programs / "xray").write_text(XRAY.replace("@PYTHON@", sys.executable))
    (programs / "xray").chmod(0o755)
    monkeypatch.setenv("PATH", f"/mnt/programs:{os.environ['PATH']}")
    node.start()
    config = pb.XRayRealityConfig(
        peers=[pb.Peer(protocol=pb.PROTOCOL_XRAY_REALITY, public_key="0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55")],
        dest="192.0.2.1:443", server_names=["a.example"], short_ids=[""], port=443,
    )  # fmt: skip
    request = pb.PushConfigRequest(protocol=pb.PROTOCOL_XRAY_REALITY, revision=1, config=config.SerializeToString())
    assert node.wait(node.control.push_config(request)).reloaded
    asking = "import socket; print(socket.create_connection(('127.0.0.1', 443)).makefile().read())"
    lines = node.space.run(sys.executable, "-c", asking).stdout.splitlines()
    seen = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert seen["Uid"].split()[0] == str(USER)
    assert [int(seen[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [BIND] * 3
    # It ends with an agent that is killed.
    node.stop(9)
    eventually(lambda: node.space.run(sys.executable, "-c", asking, check=False).returncode != 0)
    node.start()
    assert node.status().services[1].running
