"""A range of UDP ports that leads to the clients' interface: real agents, and clients on wireguard-go."""

import json
import signal
import socket

import pytest

from tests.agents import HUB_SERVER, SERVER, Cascade, Client, Node, World
from tests.netns import Namespace
from tests.support import eventually

pytestmark = pytest.mark.netns

PORTS = {"endpoint_port_min": 20000, "endpoint_port_max": 29999}
NEXT_TO_LINKS = {"endpoint_port_min": 50000, "endpoint_port_max": 51819}


def outside(client: Client) -> str:
    """The address at which the client dials its node."""
    return client._endpoint.rpartition(":")[0]


def move(client: Client, port: int) -> None:
    """The client goes on with its session at another port of the node's, and from the same port of its own."""
    (peer,) = client.space.run("wg", "show", "wg0", "peers").stdout.split()
    client.space.run("wg", "set", "wg0", "peer", peer, "endpoint", f"{outside(client)}:{port}")


def dial(client: Client, port: int) -> None:
    """The tunnel that the client has, anew, to another port of the node."""
    client.tunnel.connect()  # forgets its session
    move(client, port)


def from_elsewhere(client: Client) -> None:
    """From another port of its own: what the node's connection tracking knows of it does not count any more."""
    present = int(client.space.run("wg", "show", "wg0", "listen-port").stdout)
    client.space.run("wg", "set", "wg0", "listen-port", str(40_000 + (present + 1) % 10_000))


def mapped(node: Node) -> tuple[int, int]:
    status = node.status()
    return status.endpoint_port_min, status.endpoint_port_max


def _listening(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.settimeout(10)
    found.bind(("0.0.0.0", port))
    return found


def _say(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", (host, port))


def _internet_side(space: Namespace) -> str:
    """The interface of the default route; empty: none."""
    words = space.run("ip", "route", "show", "default").stdout.split()
    return words[words.index("dev") + 1] if words else ""


def rules(node: Node) -> str:
    return node.space.run("nft", "list", "ruleset").stdout


@pytest.fixture
def met(world: World) -> tuple[Node, Client]:
    node = world.node()
    client = world.client(node)
    node.push(1, client.peer)
    node.policy(forwarding=True, masquerade=True, **PORTS)
    client.connect(node)
    assert eventually(client.reaches)
    return node, client


def test_every_port_of_the_range_leads_to_the_tunnel_and_none_beside_it(met: tuple[Node, Client]) -> None:
    node, client = met
    assert mapped(node) == (20000, 29999)
    # From one port of the client's to many of the node's, as a client does that rotates: its tunnel goes on.
    for port in (20000, 24567, 29999, 443, 20000):
        dial(client, port)
        assert eventually(client.reaches), port
    for port in (19999, 30000, 8444):
        dial(client, port)
        assert not client.reaches(), port
    # Where it dials, the node does not send from another: a client behind NAT would not get it.
    dial(client, 20001)
    assert eventually(client.reaches)
    said = client.space.run("wg", "show", "wg0", "endpoints").stdout.split()[-1]
    assert said.endswith(":20001")


def test_so_it_is_over_ipv6(met: tuple[Node, Client]) -> None:
    node, client = met
    for space, address in ((node.space, "2001:db8:c::1/64"), (client.space, "2001:db8:c::2/64")):
        (uplink,) = {name for name in space.interfaces() if name.startswith("eth")} - {_internet_side(space)}
        space.run("ip", "address", "add", address, "dev", uplink, "nodad")
    client._endpoint = "[2001:db8:c::1]:443"
    for port, comes in ((443, True), (20000, True), (29999, True), (30000, False)):
        dial(client, port)
        assert (eventually(client.reaches) if comes else client.reaches()) == comes, port


def test_a_session_goes_on_when_its_client_changes_ports(met: tuple[Node, Client]) -> None:
    node, client = met
    shaken = client.handshake()
    for port in (23456, 28000, 443, 21000):
        move(client, port)
        assert client.reaches(), port
    assert client.handshake() == shaken, "no handshake was needed"
    assert mapped(node) == (20000, 29999)


def test_it_needs_no_forwarding_and_outlives_the_agent(met: tuple[Node, Client]) -> None:
    node, client = met
    node.policy(**PORTS)
    assert mapped(node) == (20000, 29999)
    from_elsewhere(client)
    dial(client, 25000)
    client.reaches()  # nothing is forwarded, but the handshake is the node's own
    assert eventually(client.handshake)
    node.policy(forwarding=True, masquerade=True, **PORTS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        node.stop(number)
        from_elsewhere(client)
        dial(client, 26000)
        assert eventually(client.reaches), "the kernel does it, not the agent"
        node.start()
        assert mapped(node) == (20000, 29999)
        dial(client, 27000)
        assert eventually(client.reaches)
    node.space.run("nft", "flush", "ruleset")
    assert not client.reaches()
    node.stop()
    node.start()
    assert eventually(client.reaches)
    node.reboot()
    assert mapped(node) == (20000, 29999)
    dial(client, 28000)
    assert eventually(client.reaches)
    stored = json.loads((node.directory / "netpolicy.json").read_text())
    assert stored["policy"]["EndpointPorts"] == [20000, 29999]
    assert "20000" not in json.dumps(stored["down"])


def test_a_range_that_is_cleared_or_moved_is_gone(met: tuple[Node, Client]) -> None:
    node, client = met
    dial(client, 20500)
    assert eventually(client.reaches)
    node.policy(forwarding=True, masquerade=True, endpoint_port_min=30000, endpoint_port_max=30000)
    assert mapped(node) == (30000, 30000)
    from_elsewhere(client)
    dial(client, 20500)
    assert not client.reaches()
    dial(client, 30000)
    assert eventually(client.reaches)
    node.policy(forwarding=True, masquerade=True)
    assert mapped(node) == (0, 0)
    assert "redirect" not in rules(node)
    assert "EndpointPorts" not in (node.directory / "netpolicy.json").read_text()
    from_elsewhere(client)
    dial(client, 30000)
    assert not client.reaches()
    dial(client, 443)
    assert eventually(client.reaches)
    node.policy(**PORTS)
    node.policy()
    assert "coxswain" not in rules(node)


def test_what_is_not_for_the_node_is_not_taken(world: World, met: tuple[Node, Client]) -> None:
    """What its clients or its containers send to such ports elsewhere."""
    _, client = met
    listener = world.internet.call(lambda: _listening(25000))
    with listener:
        client.space.call(lambda: _say(SERVER, 25000))
        assert listener.recvfrom(100)[0] == b"hello", "a client's own packet left"
        client.space.run("ip", "route", "add", f"{SERVER}/32", "via", outside(client))
        client.space.call(lambda: _say(SERVER, 25000))
        assert listener.recvfrom(100)[0] == b"hello", "so did one that came as a container's does"


def test_inner_links_next_to_the_range_are_not_touched(hub) -> None:  # type: ignore[no-untyped-def]
    entry, leave = hub.node("entry"), hub.node("exit")
    client = hub.client(entry, 1)
    entry.push(1, client.peer)
    leave.push(1)
    client.connect(entry)
    path = Cascade(entry, leave)
    path.link()
    path.admit(client)
    leave.policy(forwarding=True, masquerade=True, **NEXT_TO_LINKS)
    entry.policy(forwarding=True, masquerade=True, transits=path.transits(client), **NEXT_TO_LINKS)
    hub.count()
    assert eventually(lambda: client.reaches(HUB_SERVER))
    assert (hub.counted(leave) > 0, hub.counted(entry)) == (True, 0)
    dial(client, 51819)
    assert eventually(lambda: client.reaches(HUB_SERVER))
    dial(client, 51820)
    assert not client.reaches(HUB_SERVER), "that one is the link's"
    dial(client, 50000)
    assert eventually(lambda: client.reaches(HUB_SERVER))


def test_the_canonical_firewall_maps_none_and_says_so(world: World) -> None:
    node = world.node(firewall="iptables")
    client = world.client(node)
    node.push(1, client.peer)
    node.policy(forwarding=True, masquerade=True, **PORTS)
    assert mapped(node) == (0, 0)
    client.connect(node)
    assert eventually(client.reaches)
    dial(client, 25000)
    assert not client.reaches()
