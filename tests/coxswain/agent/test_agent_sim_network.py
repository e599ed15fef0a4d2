"""Inner links between simulated nodes: they shake hands and count when both ends are up and have each other, and not else
(contract 4.12, 6.6; what a controller makes of it is in ``coxswain.cascade.health``)."""

import contextlib

from coxswain.agent.dataplane import LinkConfig, LivePeer, PeerConfig
from coxswain.agent.fleet_sim import SimFleet
from coxswain.agent.sim_network import SimNetwork
from coxswain.agent.simulated import Behaviour
from coxswain.clock import ManualClock
from coxswain.netpolicy import Policy, Transit

PSK = "A" * 43 + "="
DEVICE = "10.7.0.2/32"


class Chain:
    """Nodes in a row: each dials the next, and sends on what the device sends that comes in by the first."""

    def __init__(self, fleet, clock, device):
        self.fleet, self.clock, self.device = fleet, clock, device

    async def wire(self):
        await self.fleet[0].plane.replace_peers([PeerConfig(self.device, (DEVICE,))])
        for dialer, target in zip(self.fleet.nodes, self.fleet.nodes[1:], strict=False):
            await target.plane.replace_peers([PeerConfig(dialer.identity.public_key, (DEVICE,), PSK)])
            await self.dial(dialer, target)
            await self.send_on(dialer)

    async def send_on(self, dialer, cidr=DEVICE, interface="awg1"):
        policy = Policy(forwarding=True, masquerade=True, transits=(Transit(cidr, interface, 7100, 7100),))
        await dialer.plane.apply_policy(policy, None, None)

    async def dial(self, dialer, target, psk=PSK, obfuscation=None, interface="awg1"):
        exit_peer = PeerConfig(target.identity.public_key, ("0.0.0.0/0",), psk, "203.0.113.1:443")
        await dialer.plane.configure_link(
            LinkConfig(interface, 51820, 1340, obfuscation or target.identity.obfuscation, exit_peer)
        )

    def comes(self, rx_rate=10.0, tx_rate=100.0):
        self.fleet[0].plane.connect(self.device, rx_rate=rx_rate, tx_rate=tx_rate)

    async def edge(self, index) -> LivePeer:
        """What node ``index`` shows of the one before it."""
        return (await self.fleet[index].plane.dump())[self.fleet[index - 1].identity.public_key]

    async def age(self, index, passed=0.0):
        """Seconds since the last handshake; infinite: never. Looks every five seconds, as an observer does."""
        for _ in range(int(passed / 5)):
            self.clock.advance(5)
            await self.fleet.poll()
        at = (await self.edge(index)).last_handshake
        return self.clock.now() - at if at else float("inf")


@contextlib.asynccontextmanager
async def chain(authority, t, nodes=2, **options):
    clock = ManualClock()
    async with SimFleet(nodes, sign=authority.for_fleet, clock=clock, observe=False, **options) as fleet:
        row = Chain(fleet, clock, t.key(1))
        await row.wire()
        yield row


async def test_a_link_shakes_hands_and_counts_while_somebody_sends_into_it(authority, t):
    async with chain(authority, t, 3) as row:
        assert await row.age(1, 600) == float("inf"), "nothing keeps a link awake that nobody uses"
        row.comes()
        assert await row.age(1) == await row.age(2) == 0
        before = [await row.edge(1), await row.edge(2)]
        assert await row.age(1, 600) < 120
        assert await row.age(2) < 120
        after = [await row.edge(1), await row.edge(2)]
        for was, now in zip(before, after, strict=True):
            assert (now.rx_bytes - was.rx_bytes, now.tx_bytes - was.tx_bytes) == (6000, 60_000)
        assert row.fleet[0].plane.link_state("awg1").traffic.tx_bytes == 6000
        assert row.fleet[1].plane.link_state("awg1").traffic.tx_bytes == 6000, "and on, from the second node"
        assert after[0].endpoint.endswith(":51820"), "the port that it dials from"
        row.fleet[0].plane.leave(row.device)
        assert await row.age(1, 300) > 180
        assert (await row.edge(2)).rx_bytes == after[1].rx_bytes
        row.comes()
        assert await row.age(2, 5) <= 5


async def test_hosts_that_all_dial_each_other_are_looked_at_once_each(authority, t, monkeypatch):
    """By every way that leads from one to another, eight took three seconds for a look, and nine half a minute."""
    asked = []
    sent = SimNetwork.sent

    def counted(network, dialler, key):
        asked.append((dialler, key))
        return sent(network, dialler, key)

    async with SimFleet(6, sign=authority.for_fleet, clock=ManualClock(), observe=False) as fleet:
        row = Chain(fleet, None, None)
        for number, target in enumerate(fleet.nodes):
            others = [node for node in fleet.nodes if node is not target]
            await target.plane.replace_peers(
                [PeerConfig(node.identity.public_key, (f"10.7.0.{n}/32",), PSK) for n, node in enumerate(others)]
            )
            for node in others:
                await row.dial(node, target, interface=f"awg{number + 1}")
        for node in fleet.nodes:
            await row.send_on(node, cidr="10.7.0.1/32", interface="awg1" if node is not fleet[0] else "awg2")
        monkeypatch.setattr(SimNetwork, "sent", counted)
        await fleet[0].plane.dump()
    assert len(asked) == len(set(asked)) == 6 * 5


async def test_a_row_of_any_length_can_be_looked_at(authority, t):
    """Paths of two nodes each, say, of which every one begins where another ends."""
    async with chain(authority, t, 250) as row:
        row.comes()
        assert await row.age(1) == 0
        assert await row.age(249) == float("inf"), "no path is so long"


async def test_observers_tell_of_it(authority, t):
    async with chain(authority, t) as row:
        await row.fleet.poll()
        row.comes()
        await row.fleet.poll()
        assert row.fleet[1].observer.connected_total == 1
        assert row.fleet[1].sessions == {row.fleet[0].identity.public_key}
        assert row.fleet[1].plane.next_change() <= row.clock.now(), "what happens elsewhere may show here at any time"
        row.fleet[0].plane.leave(row.device)
        await row.age(1, 300)
        assert row.fleet[1].observer.disconnected_total == 1


async def test_it_stops_when_one_end_is_down_and_goes_on_when_it_is_back(authority, t):
    async with chain(authority, t, 3) as row:
        row.comes()
        assert await row.age(2, 60) < 120
        await row.fleet[1].power_off()
        assert not row.fleet[1].running
        counted = (await row.edge(2)).rx_bytes
        assert await row.age(2, 300) > 180
        assert (await row.edge(2)).rx_bytes == counted
        assert row.fleet[0].plane.link_state("awg1").traffic.tx_bytes <= 650, "nothing goes into a link without an exit"
        await row.fleet[1].start()
        assert await row.age(1, 5) <= 5
        assert await row.age(2) > 180, "its links went with the host, and nothing brings them back but the controller"
        await row.dial(row.fleet[1], row.fleet[2])
        await row.send_on(row.fleet[1])
        assert await row.age(2, 5) <= 5


async def test_an_agent_that_is_killed_leaves_its_host_at_work(authority, t):
    async with chain(authority, t) as row:
        row.comes()
        await row.fleet[0].kill()
        assert await row.age(1, 300) < 120
        await row.fleet[0].start()
        await row.fleet[1].kill()
        await row.fleet[1].start()
        assert await row.age(1, 300) < 120


async def test_both_have_to_have_each_other(authority, t):
    async with chain(authority, t) as row:
        dialer, target = row.fleet
        row.comes()

        async def stops():
            assert await row.age(1, 300) > 180

        async def goes_on():
            assert await row.age(1, 5) <= 120

        await goes_on()
        dialer.plane.link_down("awg1")
        await stops()
        await row.dial(dialer, target)
        await goes_on()
        await row.dial(dialer, target, psk="B" * 43 + "=")
        await stops()
        await dialer.plane.remove_link("awg1")
        await row.dial(dialer, target, obfuscation=dialer.identity.obfuscation)
        await stops()
        await dialer.plane.remove_link("awg1")
        await row.dial(dialer, target)
        await goes_on()
        await target.plane.replace_peers([])
        row.clock.advance(300)
        await target.plane.replace_peers([PeerConfig(dialer.identity.public_key, (DEVICE,), PSK)])
        await goes_on()
        target.plane.interface_down()
        assert dialer.plane.link_state("awg1")
        await target.plane.up()
        await goes_on()
        dialer.plane.interface_down()
        await stops()
        await dialer.plane.up()
        await goes_on()
        await dialer.plane.apply_policy(Policy(), None, None)
        await stops()
        await target.set_up_anew()
        await target.plane.replace_peers([PeerConfig(dialer.identity.public_key, (DEVICE,), PSK)])
        await row.send_on(dialer)
        assert await row.age(1, 60) == float("inf"), "it is dialled by a key that it has not any more"
        await dialer.plane.remove_link("awg1")
        await row.dial(dialer, target)
        await goes_on()


async def test_a_node_that_dials_is_no_client(authority, t):
    """Whoever opens so many sessions, or makes clients live, leaves the ends of links alone; by name they can be set."""
    async with chain(authority, t, 3, behaviour=Behaviour(share=1.0, idle_s=1.0)) as row:
        dialer, target, last = row.fleet
        await dialer.plane.replace_peers([])  # the device
        assert await row.age(1, 1800) == float("inf")
        assert target.connect(5) == []
        assert row.fleet.connect(5) == 0
        assert await row.fleet.generator.run(1000, 0.01) == 0
        await last.plane.upsert_peer(PeerConfig(t.key(3), ("10.7.0.4/32",)))
        assert row.fleet.connect(1) == 1, "its turn is not lost on a node without clients"
        await dialer.set_up_anew()
        assert target.connect(5) == [], "nor is the key of a host that is gone"


async def test_what_was_said_of_an_end_by_hand_stays(authority, t):
    async with chain(authority, t) as row:
        row.comes()
        assert await row.age(1, 60) < 120
        row.fleet[1].plane.set_live(row.fleet[0].identity.public_key, handshake=int(row.clock.now()) - 400, rx=5)
        assert await row.age(1, 60) == 460
        assert (await row.edge(1)).rx_bytes == 5


async def test_each_exit_has_what_is_sent_to_it(authority, t):
    async with chain(authority, t, 3) as row:
        first, other = row.fleet[0], row.fleet[2]
        await row.fleet[1].plane.apply_policy(Policy(), None, None)
        await other.plane.replace_peers([PeerConfig(first.identity.public_key, ("10.7.0.3/32",), PSK)])
        await row.dial(first, other, interface="awg2")
        row.comes()
        await row.age(1, 60)
        assert (await other.plane.dump())[first.identity.public_key] == LivePeer(first.identity.public_key)
        await row.send_on(first, interface="awg2")
        await row.age(1, 300)
        assert await row.age(1) > 180
        seen = (await other.plane.dump())[first.identity.public_key]
        assert row.clock.now() - seen.last_handshake < 120
        assert seen.rx_bytes == 3000


async def test_two_nodes_that_dial_each_other(authority, t):
    async with chain(authority, t) as row:
        one, other = row.fleet
        await one.plane.upsert_peer(PeerConfig(other.identity.public_key, ("10.7.0.3/32",), PSK))
        await other.plane.upsert_peer(PeerConfig(t.key(2), ("10.7.0.3/32",)))
        await row.dial(other, one)
        await row.send_on(other, "10.7.0.3/32")
        assert (await one.plane.dump())[other.identity.public_key].last_handshake == 0
        row.comes()
        assert await row.age(1, 300) < 120
        assert (await one.plane.dump())[other.identity.public_key].last_handshake == 0, "its own client is not there"
        other.plane.connect(t.key(2), rx_rate=1, tx_rate=1)
        await row.age(1, 300)
        assert (await one.plane.dump())[other.identity.public_key].rx_bytes == 300
