"""Inner links of simulated nodes: what a controller that builds cascades is tested against (contract 4.12 to 4.14, 12.1)."""

import grpc
import pytest

from coxswain.agent.identity import load_or_create_awg
from coxswain.agent.requests import obfuscation_message
from coxswain.agent.sim_links import LinkTraffic
from coxswain.agent.sim_process import network_of
from coxswain.agent.state import MemoryFiles
from coxswain.errors import Refused
from coxswain.netpolicy import Transit
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

Code = grpc.StatusCode
XRAY = pb.PROTOCOL_XRAY_REALITY


def link(t, interface="awg1", **fields):
    exit_peer = t.peer(90, allowed_ips=["0.0.0.0/0"], endpoints=["192.0.2.7:443"])
    obfuscation = obfuscation_message(load_or_create_awg(MemoryFiles()).obfuscation)
    given = {"interface": interface, "listen_port": 51820, "mtu": 1340, "peer_obfuscation": obfuscation, "exit": exit_peer}
    return pb.InnerLinkConfig(**(given | fields))


def transit(number, interface="awg1", mark=7100):
    cidr = f"10.7.{number // 250}.{number % 250 + 1}/32"
    return pb.TransitRoute(device_cidr=cidr, inner_interface=interface, mark=mark, table=mark)


def policy(*transits):
    return pb.NetworkConfig(forwarding=True, masquerade=True, transits=transits)


async def test_a_transit_needs_its_link_first(authority, t):
    async with t.one_node(authority) as lab:
        code, text = await t.refused(lab.control.set_network_config(policy(transit(1))))
        assert code == Code.INTERNAL
        assert "awg1" in text
        await lab.control.configure_inner_link(link(t), 1)
        await lab.control.set_network_config(policy(transit(1)))
        assert lab.node.plane.policies[-1].transits == (Transit("10.7.0.2/32", "awg1", 7100, 7100),)


async def test_links_count_the_traffic_of_the_clients_that_are_sent_through_them(authority, t):
    async with t.one_node(authority) as lab:
        control, plane = lab.control, lab.node.plane
        await control.push_config(t.awg_push(1, [t.peer(1), t.peer(2)]))
        await control.configure_inner_link(link(t), 1)
        await control.configure_inner_link(link(t, "awg2", listen_port=51821), 1)
        lab.node.connect([t.key(1), t.key(2)], rx_rate=10, tx_rate=100)
        lab.clock.advance(5)
        assert plane.link_state("awg1").traffic == LinkTraffic(0, 0), "nobody is sent through it yet"
        await control.set_network_config(policy(transit(1)))
        lab.clock.advance(10)
        assert plane.link_state("awg1").traffic == LinkTraffic(1000, 100)
        await control.set_network_config(policy(transit(1, "awg2", 7101), transit(2)))
        lab.clock.advance(1)
        assert plane.link_state("awg1").traffic == LinkTraffic(1100, 110)
        assert plane.link_state("awg2").traffic == LinkTraffic(100, 10)
        found = network_of(lab.node)
        assert found["links"]["awg2"]["tx_bytes"] == 10
        assert [t["inner_interface"] for t in found["policy"]["transits"]] == ["awg2", "awg1"]
        plane.link_down("awg2")
        assert plane.link_state("awg2") is None


async def test_a_reboot_takes_links_and_a_repeated_revision_brings_one_back(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.configure_inner_link(link(t), 3)
        await lab.control.set_network_config(policy(transit(1)))
        await lab.node.restart()
        assert set(lab.node.plane.links) == {"awg1"}, "an agent restart leaves interfaces alone"
        await lab.node.reboot()
        assert lab.node.plane.links == {}
        assert lab.node.plane.policy.transits, "in force, and what it sends is refused until the link is back"
        assert (await lab.control.configure_inner_link(link(t), 3)).reloaded
        assert (await lab.control.configure_inner_link(link(t), 3)).reloaded is False
        assert set(lab.node.plane.links) == {"awg1"}


async def test_what_the_existing_agent_does_instead(authority, t):
    async with t.one_node(authority, existing_agent=True) as lab:
        control, plane = lab.control, lab.node.plane
        await control.configure_inner_link(link(t), 3)
        assert (await control.configure_inner_link(link(t, mtu=1300), 4)).reloaded
        assert plane.links["awg1"].mtu == 1340, "a changed MTU is accepted and ignored"
        xray = pb.XRayRealityConfig(dest="d.test:443", server_names=["d.test"], short_ids=[""], port=443)
        push = pb.PushConfigRequest(protocol=XRAY, revision=1, config=xray.SerializeToString())
        await control.push_config(push)
        await lab.node.restart()
        assert (await control.get_status()).services[1].running is False, "XRay is forgotten"
        assert (await control.remove_inner_link("awg1")).removed
        assert set(plane.links) == {"awg1"}, "it lies: it does not know the link any more"
        await control.configure_inner_link(link(t), 1)
        assert (await control.remove_inner_link("awg1")).removed
        assert plane.links == {}


async def test_the_existing_agent_does_not_come_back_from_a_reboot_with_transits(authority, t):
    async with t.one_node(authority, existing_agent=True) as lab:
        await lab.control.configure_inner_link(link(t), 3)
        await lab.control.set_network_config(policy(transit(1)))
        with pytest.raises(Refused, match="Cannot find device"):
            await lab.node.reboot()
        assert not lab.node.running
        lab.node.files.delete("netpolicy.json")
        lab.node._assemble()
        await lab.node.start()
        assert (await lab.control.configure_inner_link(link(t), 3)).reloaded is False, "a replay that repairs nothing"
        assert lab.node.plane.links == {}
        assert (await lab.control.configure_inner_link(link(t), 4)).reloaded
