"""Every row of node-contract.md section 4, over mTLS, against the real service with the simulated data plane."""

import asyncio
import re

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.fleet_sim import SimFleet
from coxswain.agent.redact import scrub
from coxswain.agent.rpc import SERVICE, RpcRefused
from coxswain.agent.writer import Writer
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

Code = grpc.StatusCode
AWG, XRAY = pb.PROTOCOL_AMNEZIAWG, pb.PROTOCOL_XRAY_REALITY
UUID = "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55"
UUID2 = "1b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c56"
PSK = "A" * 43 + "="
OBFUSCATION = pb.AmneziaWGObfuscation(jc=4, jmin=40, jmax=800, s1=20, s2=30, h1=5, h2=6, h3=7, h4=8)


def xray_push(revision, clients=(UUID,), **fields):
    given = {"port": 443, "dest": "www.example.org:443", "server_names": ["www.example.org"], "short_ids": [""]}
    config = pb.XRayRealityConfig(peers=[pb.Peer(public_key=c) for c in clients], **(given | fields))
    return pb.PushConfigRequest(protocol=XRAY, revision=revision, config=config.SerializeToString())


def link(t, **fields):
    exit_peer = t.peer(90, allowed_ips=["0.0.0.0/0"], endpoints=["192.0.2.7:443"])
    given = {"interface": "awg1", "listen_port": 51820, "mtu": 1340, "peer_obfuscation": OBFUSCATION, "exit": exit_peer}
    return pb.InnerLinkConfig(**(given | fields))


# -- GetStatus, GetMetrics, ListPeers


async def test_a_fresh_node_tells_who_it_is(authority, t):
    async with t.one_node(authority) as lab:
        lab.clock.advance(90.9)
        status = await lab.control.get_status()
        assert status.uptime_seconds == 90
        assert status.applied_revision == 0
        assert [s.protocol for s in status.services] == [AWG, XRAY]
        awg, xray = status.services
        assert (awg.running, awg.listening, awg.peer_count, awg.detail) == (False, False, 0, "awg0 not up")
        assert (awg.newest_handshake_age_seconds, awg.handshaking_peers) == (-1, 0)
        assert (xray.running, xray.detail, xray.newest_handshake_age_seconds) == (False, "not configured", -1)
        assert re.fullmatch(r"[A-Za-z0-9+/]{43}=", status.amneziawg.public_key)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", status.xray.public_key)
        assert status.amneziawg.obfuscation.h1 >= 5


async def test_status_counts_live_peers_and_handshakes_younger_than_180_s(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(i) for i in range(4)]))
        now = int(lab.clock.now())
        for number, age in ((0, 20), (1, 179), (2, 180)):
            lab.node.plane.set_live(t.key(number), handshake=now - age)
        awg = (await lab.control.get_status()).services[0]
        assert (awg.peer_count, awg.newest_handshake_age_seconds, awg.handshaking_peers) == (4, 20, 2)
        assert awg.detail == "awg0 up, 4 peers"
        lab.node.plane.set_live(t.key(0), handshake=now + 50)  # the node's clock was set back
        assert (await lab.control.get_status()).services[0].newest_handshake_age_seconds == 0


@pytest.mark.parametrize("carries", [True, False])
async def test_status_tells_whether_clients_have_ipv6(authority, t, carries):
    async with t.one_node(authority) as lab:
        lab.node.plane.carries_ipv6 = carries
        assert (await lab.control.get_status()).tunnel_ipv6 == carries


async def test_status_tells_which_ports_lead_to_the_clients_interface(authority, t):
    async with t.one_node(authority) as lab:

        async def mapped():
            status = await lab.control.get_status()
            return status.endpoint_port_min, status.endpoint_port_max

        assert await mapped() == (0, 0)
        await lab.control.set_network_config(pb.NetworkConfig(endpoint_port_min=20000, endpoint_port_max=29999))
        assert await mapped() == (20000, 29999)
        await lab.node.restart()
        assert await mapped() == (20000, 29999)
        lab.node.plane.maps_ports = False
        assert await mapped() == (0, 0)
        lab.node.plane.maps_ports = True
        await lab.control.set_network_config(pb.NetworkConfig(forwarding=True))
        assert await mapped() == (0, 0)


@pytest.mark.parametrize(("low", "high"), [(0, 5), (5, 0), (70_000, 70_001), (6, 5), (1, 2**31)])
async def test_a_range_that_is_none_is_refused_and_changes_nothing(authority, t, low, high):
    async with t.one_node(authority) as lab:
        before = pb.NetworkConfig(endpoint_port_min=20000, endpoint_port_max=29999)
        await lab.control.set_network_config(before)
        bad = pb.NetworkConfig(endpoint_port_min=low, endpoint_port_max=high)
        code, text = await t.refused(lab.control.set_network_config(bad))
        assert (code, "endpoint_port" in text) == (Code.INVALID_ARGUMENT, True)
        assert (await lab.control.get_status()).endpoint_port_max == 29999


async def test_an_existing_agent_passes_over_a_range(authority, t):
    async with t.one_node(authority, existing_agent=True) as lab:
        config = pb.NetworkConfig(forwarding=True, endpoint_port_min=20000, endpoint_port_max=29999)
        assert (await lab.control.set_network_config(config)).applied
        status = await lab.control.get_status()
        assert (status.endpoint_port_min, status.endpoint_port_max) == (0, 0)


async def test_status_never_fails(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        lab.node.plane.fail_next("dump", "awg show awg0 dump: exit status 1")
        awg = (await lab.control.get_status()).services[0]
        assert (awg.running, awg.peer_count, awg.newest_handshake_age_seconds) == (True, 0, -1)
        assert awg.detail == "awg show awg0 dump: exit status 1"


async def test_peers_are_listed_in_conf_order_with_live_state(authority, t):
    async with t.one_node(authority) as lab:
        peers = [t.peer(3, preshared_key=PSK), t.peer(1, endpoints=["", "192.0.2.1:51820"]), t.peer(2)]
        await lab.control.push_config(t.awg_push(1, peers))
        lab.node.plane.set_live(t.key(1), handshake=1_767_000_000, rx=7, tx=9)
        for protocol in (0, AWG):
            listed = (await lab.control.list_peers(protocol)).peers
            assert [p.peer.public_key for p in listed] == [t.key(3), t.key(1), t.key(2)]
            assert [p.peer.id for p in listed] == ["", "", ""]
            assert {p.peer.protocol for p in listed} == {AWG}
            assert listed[0].peer.preshared_key == PSK
            assert list(listed[0].peer.endpoints) == []
            assert list(listed[1].peer.endpoints) == ["192.0.2.1:51820"]
            assert (listed[1].rx_bytes, listed[1].tx_bytes, listed[1].last_handshake.seconds) == (7, 9, 1_767_000_000)
            assert not listed[0].HasField("last_handshake")
            assert list(listed[2].peer.allowed_ips) == ["10.7.0.3/32"]
        metrics = await lab.control.get_metrics()
        assert (len(metrics.peers), metrics.total_rx_bytes, metrics.total_tx_bytes) == (3, 7, 9)


async def test_a_failing_dump_is_swallowed_by_lists_and_an_unreadable_conf_is_not(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        lab.node.plane.fail_next("dump", "no", times=2)
        assert len((await lab.control.list_peers(AWG)).peers) == 1
        assert len((await lab.control.get_metrics()).peers) == 1
        lab.node.plane.fail_next("configured", "awg0.conf: unreadable", times=2)
        assert (await t.refused(lab.control.list_peers(AWG)))[0] == Code.INTERNAL
        assert await t.refused(lab.control.get_metrics()) == (Code.INTERNAL, "GetMetrics: awg0.conf: unreadable")


async def test_metrics_count_handshakes_and_errors_since_the_start(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        await lab.fleet.poll()
        lab.node.plane.set_live(t.key(1), handshake=int(lab.clock.now()))
        await lab.fleet.poll()
        lab.node.plane.fail_next("dump", "no")
        await lab.fleet.poll()
        metrics = await lab.control.get_metrics()
        assert (metrics.handshakes_total, metrics.errors_total) == (1, 1)


# -- PushConfig of AmneziaWG


async def test_revisions(authority, t):
    async with t.one_node(authority) as lab:
        push = lab.control.push_config

        async def pushed(revision, *numbers):
            answer = await push(t.awg_push(revision, [t.peer(n) for n in numbers]))
            return answer.applied_revision, answer.reloaded, lab.node.peers

        # 0 on a node at 0 is no replay: it applies every time.
        assert await pushed(0, 1) == (0, True, [t.key(1)])
        assert await pushed(0, 2) == (0, True, [t.key(2)])
        assert (await t.refused(push(t.awg_push(-1, []))))[0] == Code.FAILED_PRECONDITION
        assert await pushed(5, 1, 2) == (5, True, [t.key(1), t.key(2)])
        assert await pushed(5, 3) == (5, False, [t.key(1), t.key(2)])  # a replay's payload is not looked at
        code, text = await t.refused(push(t.awg_push(4, [])))
        assert (code, text) == (Code.FAILED_PRECONDITION, "PushConfig: revision 4 is older than the applied 5")
        assert lab.node.peers == [t.key(1), t.key(2)]
        assert (await lab.control.get_status()).applied_revision == 5
        # Empty bytes are an empty list: everybody goes.
        answer = await push(pb.PushConfigRequest(protocol=AWG, revision=6))
        assert (answer.applied_revision, answer.reloaded, lab.node.peers) == (6, True, [])


async def test_a_failed_push_keeps_the_revision_and_can_be_retried(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(3, [t.peer(1)]))
        lab.node.plane.fail_next("replace_peers", f"awg-quick: cannot use key {t.key(7)}\nPresharedKey = {PSK}")
        code, text = await t.refused(lab.control.push_config(t.awg_push(4, [t.peer(2)])))
        assert code == Code.INTERNAL
        assert t.key(7) not in text
        assert PSK not in text
        assert t.key(7)[:8] in text
        assert (await lab.control.get_status()).applied_revision == 3
        assert (await lab.control.push_config(t.awg_push(4, [t.peer(2)]))).reloaded


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"public_key": ""}, "peers[1].public_key"),
        ({"public_key": "short"}, "peers[1].public_key"),
        ({"public_key": "B" * 43 + "="}, "peers[1].public_key"),  # not canonical: the spare bits are set
        ({"allowed_ips": ["10.0.0.0/33"]}, "peers[1].allowed_ips[0]"),
        ({"allowed_ips": ["10.0.0.1/32", "10.0.0.2\nPostUp = sh"]}, "peers[1].allowed_ips[1]"),
        ({"allowed_ips": ["fe80::1%eth0"]}, "peers[1].allowed_ips[0]"),
        ({"endpoints": ["192.0.2.1"]}, "peers[1].endpoints"),
        ({"endpoints": ["192.0.2.1:0"]}, "peers[1].endpoints"),
        ({"preshared_key": "secretsecret"}, "peers[1].preshared_key"),
    ],
)
async def test_bad_peers_are_refused_before_anything_is_touched(authority, t, fields, named):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        code, text = await t.refused(lab.control.push_config(t.awg_push(2, [t.peer(5), t.peer(6, **fields)])))
        assert code == Code.INVALID_ARGUMENT
        assert text.startswith(f"PushConfig: {named}:")
        assert "secretsecret" not in text
        assert lab.node.peers == [t.key(1)]
        assert (await lab.control.get_status()).applied_revision == 1


async def test_of_a_key_that_comes_twice_the_last_one_counts(authority, t):
    async with t.one_node(authority) as lab:
        last = t.peer(1, allowed_ips=["10.7.9.9/32"])
        assert (await lab.control.push_config(t.awg_push(1, [t.peer(1), t.peer(2), last]))).reloaded
        listed = [(p.peer.public_key, list(p.peer.allowed_ips)) for p in (await lab.control.list_peers(AWG)).peers]
        assert listed == [(t.key(2), ["10.7.0.3/32"]), (t.key(1), ["10.7.9.9/32"])]


async def test_undecodable_config_and_foreign_protocols(authority, t):
    async with t.one_node(authority) as lab:
        for protocol in (AWG, XRAY):
            request = pb.PushConfigRequest(protocol=protocol, revision=1, config=b"\xff\xff")
            assert (await t.refused(lab.control.push_config(request)))[0] == Code.INVALID_ARGUMENT
        for protocol in (0, 3, 99):
            assert (await t.refused(lab.control.push_config(pb.PushConfigRequest(protocol=protocol))))[
                0
            ] == Code.UNIMPLEMENTED
            assert (await t.refused(lab.control.remove_peer(protocol, "x")))[0] == Code.UNIMPLEMENTED
            assert (await t.refused(lab.control.add_peer(t.peer(1, protocol=protocol))))[0] == Code.UNIMPLEMENTED
            assert (await t.refused(lab.control.restart_service(protocol)))[0] == Code.UNIMPLEMENTED
        assert (await t.refused(lab.control.list_peers(99)))[0] == Code.UNIMPLEMENTED


# -- PushConfig of XRay, and its clients


async def test_xray_revisions(authority, t):
    async with t.one_node(authority) as lab:
        push = lab.control.push_config
        answer = await push(xray_push(7))
        assert (answer.applied_revision, answer.reloaded) == (7, True)
        assert (await push(xray_push(7, ()))).reloaded is False
        # Stale is INTERNAL here, not FAILED_PRECONDITION.
        assert (await t.refused(push(xray_push(6))))[0] == Code.INTERNAL
        status = await lab.control.get_status()
        assert (status.services[1].running, status.services[1].peer_count) == (True, 1)
        assert status.services[1].detail == "REALITY :443"
        assert status.applied_revision == 0
        assert (await push(xray_push(8, (UUID, UUID2)))).reloaded


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"port": 0}, Code.INVALID_ARGUMENT),
        ({"clients": ("",)}, Code.INVALID_ARGUMENT),
        # The rest is what xray-core says of a configuration, which is INTERNAL (node-contract.md 8.3).
        ({"port": 70000}, Code.INTERNAL),
        ({"dest": ""}, Code.INTERNAL),
        ({"dest": "www.example.org"}, Code.INTERNAL),
        ({"dest": "70000"}, Code.INTERNAL),
        ({"dest": "/run/a\nb"}, Code.INTERNAL),
        ({"server_names": []}, Code.INTERNAL),
        ({"short_ids": []}, Code.INTERNAL),
        ({"short_ids": ["abc"]}, Code.INTERNAL),
        ({"clients": ("not-a-uuid",)}, Code.INTERNAL),
    ],
)
async def test_bad_xray_configs_are_refused(authority, t, fields, code):
    async with t.one_node(authority) as lab:
        assert (await t.refused(lab.control.push_config(xray_push(1, **fields))))[0] == code
        assert (await lab.control.get_status()).services[1].running is False


@pytest.mark.parametrize(
    "fields", [{"dest": "8443"}, {"dest": "/run/decoy.sock"}, {"dest": "@decoy"}, {"clients": (UUID.replace("-", ""),)}]
)
async def test_what_xray_core_understands_is_taken(authority, t, fields):
    async with t.one_node(authority) as lab:
        assert (await lab.control.push_config(xray_push(1, **fields))).reloaded
        assert (await lab.control.get_status()).services[1].running


async def test_xray_clients(authority, t):
    async with t.one_node(authority) as lab:
        client = pb.Peer(id="per_1", protocol=XRAY, public_key=UUID, flow="xtls-rprx-vision")
        early = await lab.control.add_peer(client)
        assert (early.peer_id, early.applied) == (UUID, True)  # nothing runs, and yet
        await lab.control.push_config(xray_push(1, (UUID,)))
        again = await lab.control.add_peer(client)
        assert (again.peer_id, again.applied) == (UUID, False)
        by_id = await lab.control.add_peer(pb.Peer(id=UUID2, protocol=XRAY))
        assert (by_id.peer_id, by_id.applied) == (UUID2, True)
        assert (await t.refused(lab.control.add_peer(pb.Peer(protocol=XRAY))))[0] == Code.INVALID_ARGUMENT
        odd = pb.Peer(protocol=XRAY, public_key=UUID2, flow="none-such")
        assert (await t.refused(lab.control.add_peer(odd)))[0] == Code.INTERNAL
        listed = [(p.peer.id, p.peer.public_key, p.peer.protocol) for p in (await lab.control.list_peers(XRAY)).peers]
        assert listed == [(UUID, UUID, XRAY), (UUID2, UUID2, XRAY)]
        gone = await lab.control.remove_peer(XRAY, UUID)
        assert (gone.peer_id, gone.applied) == ("", True)
        assert (await lab.control.remove_peer(XRAY, UUID)).applied is False
        assert (await t.refused(lab.control.remove_peer(XRAY, "")))[0] == Code.INVALID_ARGUMENT
        assert (await lab.control.restart_service(XRAY)).restarted


async def test_a_data_plane_without_xray_answers_unimplemented(authority, t):
    async with t.one_node(authority) as lab:
        lab.node.plane.has_xray = False
        control = lab.control
        calls = [
            control.push_config(xray_push(1)),
            control.add_peer(pb.Peer(protocol=XRAY, public_key=UUID)),
            control.remove_peer(XRAY, UUID),
            control.list_peers(XRAY),
            control.restart_service(XRAY),
        ]
        assert [(await t.refused(call))[0] for call in calls] == [Code.UNIMPLEMENTED] * 5
        assert [s.protocol for s in (await control.get_status()).services] == [AWG, XRAY]


# -- AddPeer, RemovePeer, RestartService


async def test_add_peer_upserts_in_place(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1), t.peer(2)]))
        new = await lab.control.add_peer(t.peer(3))
        changed = await lab.control.add_peer(t.peer(1, id="echo", allowed_ips=["10.9.9.9/32"], preshared_key=PSK))
        assert (new.peer_id, new.applied) == ("per_3", True)
        assert (changed.peer_id, changed.applied) == ("echo", True)
        listed = (await lab.control.list_peers(AWG)).peers
        assert [p.peer.public_key for p in listed] == [t.key(1), t.key(2), t.key(3)]
        assert (list(listed[0].peer.allowed_ips), listed[0].peer.preshared_key) == (["10.9.9.9/32"], PSK)
        assert (await lab.control.get_status()).applied_revision == 1


async def test_add_peer_without_peer_or_key(authority, t):
    async with t.one_node(authority) as lab:
        call = lab.control._channel.unary_unary(f"/{SERVICE}/AddPeer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() == Code.INVALID_ARGUMENT
        assert (await t.refused(lab.control.add_peer(t.peer(1, public_key=""))))[0] == Code.INTERNAL
        code, text = await t.refused(lab.control.add_peer(t.peer(1, public_key="bad")))
        assert (code, text.startswith("AddPeer: peer.public_key:")) == (Code.INVALID_ARGUMENT, True)


async def test_add_peer_on_a_fresh_node_stays_in_the_conf(authority, t):
    async with t.one_node(authority) as lab:
        assert (await t.refused(lab.control.add_peer(t.peer(1))))[0] == Code.INTERNAL
        assert len((await lab.control.list_peers(AWG)).peers) == 1
        assert (await lab.control.restart_service(AWG)).restarted
        assert (await lab.control.get_status()).services[0].peer_count == 1


async def test_remove_peer_is_always_true(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        for _ in range(2):
            answer = await lab.control.remove_peer(AWG, t.key(1))
            assert (answer.peer_id, answer.applied) == ("", True)
        assert lab.node.peers == []
        assert (await t.refused(lab.control.remove_peer(AWG, "")))[0] == Code.INVALID_ARGUMENT
        assert (await t.refused(lab.control.remove_peer(AWG, "a\nb")))[0] == Code.INVALID_ARGUMENT


async def test_restart_service_is_true_even_with_nothing_to_restart(authority, t):
    async with t.one_node(authority) as lab:
        assert (await lab.control.restart_service(AWG)).restarted
        assert (await lab.control.restart_service(XRAY)).restarted
        lab.node.plane.fail_next("up", "awg-quick: exit status 1")
        assert (await t.refused(lab.control.restart_service(AWG)))[0] == Code.INTERNAL


# -- SetNetworkConfig


async def test_policies(authority, t):
    async with t.one_node(authority, record=True) as lab:
        call = lab.control._channel.unary_unary(f"/{SERVICE}/SetNetworkConfig")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() == Code.INVALID_ARGUMENT
        for bad in (
            pb.NetworkConfig(masquerade=True),
            pb.NetworkConfig(isolation=True),
            pb.NetworkConfig(transits=[pb.TransitRoute(device_cidr="10.0.0.1/32", inner_interface="awg1", mark=1)]),
            pb.NetworkConfig(forwarding=True, transits=[pb.TransitRoute(inner_interface="awg1", mark=1, table=1)]),
            pb.NetworkConfig(
                forwarding=True,
                transits=[pb.TransitRoute(device_cidr="10.0.0.1 -j X", inner_interface="awg1", mark=1, table=1)],
            ),
            pb.NetworkConfig(
                forwarding=True,
                transits=[pb.TransitRoute(device_cidr="10.0.0.1/32", inner_interface="awg1", mark=1, table=254)],
            ),
        ):
            assert (await t.refused(lab.control.set_network_config(bad)))[0] == Code.INVALID_ARGUMENT
        assert not lab.node.plane.commands
        assert (await lab.control.set_network_config(pb.NetworkConfig(forwarding=True, masquerade=True))).applied
        assert (await lab.control.set_network_config(pb.NetworkConfig())).applied
        assert [" ".join(argv) for argv in lab.node.plane.commands] == [
            "sysctl -w net.ipv4.conf.all.forwarding=1",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "iptables -A FORWARD -i awg0 -j ACCEPT",
            "iptables -A FORWARD -o awg0 -j ACCEPT",
            "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
            "iptables -D FORWARD -i awg0 -j ACCEPT",
            "iptables -D FORWARD -o awg0 -j ACCEPT",
            "iptables -t nat -D POSTROUTING -o eth0 -j MASQUERADE",
        ]


async def test_a_policy_that_fails_is_told_in_the_status_until_one_succeeds(authority, t):
    async with t.one_node(authority) as lab:
        lab.node.plane.fail_next("apply_policy", "iptables: exit status 4")
        assert (await t.refused(lab.control.set_network_config(pb.NetworkConfig())))[0] == Code.INTERNAL
        detail = (await lab.control.get_status()).services[0].detail
        assert detail == "awg0 not up; network policy not applied: iptables: exit status 4"
        await lab.control.set_network_config(pb.NetworkConfig())
        assert (await lab.control.get_status()).services[0].detail == "awg0 not up"


# -- inner links


@pytest.mark.parametrize(
    "fields",
    [
        {"interface": ""},
        {"interface": "awg0"},
        {"interface": "awg"},
        {"interface": "../../etc/x"},
        {"interface": "-x"},
        {"exit": None},
        {"exit": pb.Peer(endpoints=["192.0.2.7:443"])},
        {"exit": pb.Peer(public_key="A" * 43 + "=")},
        {"peer_obfuscation": None},
        {"listen_port": 70000},
        {"mtu": 67},
        {"mtu": 65_536},
    ],
)
async def test_bad_links_are_refused(authority, t, fields):
    async with t.one_node(authority) as lab:
        call = lab.control.configure_inner_link(link(t, **fields), 1)
        assert (await t.refused(call))[0] == Code.INVALID_ARGUMENT
        assert lab.node.plane.links == {}


@pytest.mark.parametrize("mtu", [68, 576, 1500, 9000, 65_535])
async def test_a_link_has_the_mtu_that_its_controller_thinks_fit(authority, t, mtu):
    async with t.one_node(authority) as lab:
        assert (await lab.control.configure_inner_link(link(t, mtu=mtu), 1)).reloaded
        assert lab.node.plane.links["awg1"].mtu == mtu


async def test_only_a_revision_that_was_applied_has_its_link_looked_for(authority, t, monkeypatch):
    """Of another one the tools are asked once, in the order that the contract measured (4.4)."""
    async with t.one_node(authority) as lab:
        looks, look = [], lab.node.plane.link_is_up

        async def counted(interface):
            looks.append(interface)
            return await look(interface)

        monkeypatch.setattr(lab.node.plane, "link_is_up", counted)
        assert (await lab.control.configure_inner_link(link(t), 2)).reloaded
        assert (await t.refused(lab.control.configure_inner_link(link(t), 1)))[0] == Code.FAILED_PRECONDITION
        assert looks == []
        assert not (await lab.control.configure_inner_link(link(t), 2)).reloaded
        assert looks == ["awg1"]


async def test_links_have_revisions_of_their_own(authority, t):
    async with t.one_node(authority) as lab:
        control, plane = lab.control, lab.node.plane
        answer = await control.configure_inner_link(link(t, mtu=0), 3)
        assert (answer.applied_revision, answer.reloaded) == (3, True)
        assert (plane.links["awg1"].mtu, plane.links["awg1"].exit.endpoint) == (1420, "192.0.2.7:443")
        assert (await control.configure_inner_link(link(t, mtu=1300), 3)).reloaded is False
        assert (await t.refused(control.configure_inner_link(link(t), 2)))[0] == Code.FAILED_PRECONDITION
        no_endpoint = t.peer(91, allowed_ips=["0.0.0.0/0"], endpoints=[""])
        assert (await control.configure_inner_link(link(t, interface="awg2", exit=no_endpoint), 1)).reloaded
        assert (await control.get_status()).applied_revision == 0
        assert (await control.remove_inner_link("awg1")).removed
        assert (await control.remove_inner_link("awg1")).removed
        assert set(plane.links) == {"awg2"}
        assert (await control.configure_inner_link(link(t), 1)).reloaded  # its revision went with it
        assert (await t.refused(control.remove_inner_link("")))[0] == Code.INVALID_ARGUMENT
        assert (await t.refused(control.remove_inner_link("awg0")))[0] == Code.INTERNAL
        assert (await t.refused(control.remove_inner_link("a/b")))[0] == Code.INVALID_ARGUMENT


# -- what survives, what waits, what cannot be read


async def test_what_survives_a_restart_and_a_reboot(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(4, [t.peer(1), t.peer(2)]))
        await lab.control.push_config(xray_push(2))
        await lab.control.set_network_config(pb.NetworkConfig(forwarding=True))
        lab.node.plane.set_live(t.key(1), handshake=5, rx=6, tx=7)
        before = await lab.control.get_status()
        await lab.node.restart()
        after = await lab.control.get_status()
        assert (after.applied_revision, after.amneziawg, after.xray) == (4, before.amneziawg, before.xray)
        assert (after.services[0].peer_count, after.services[1].running) == (2, True)
        assert (await lab.control.list_peers(AWG)).peers[0].rx_bytes == 6
        await lab.node.reboot(forget_xray=True)
        rebooted = await lab.control.get_status()
        assert (rebooted.applied_revision, rebooted.services[0].peer_count) == (4, 2)
        assert rebooted.services[1].running is False
        assert (await lab.control.list_peers(AWG)).peers[0].rx_bytes == 0
        assert lab.node.plane.policy.forwarding


async def test_changes_outlive_their_rpc(authority, t):
    async with t.one_node(authority) as lab:
        held, original = asyncio.Event(), lab.node.plane.replace_peers

        async def slow(peers):
            await held.wait()
            await original(peers)

        lab.node.plane.replace_peers = slow
        request = t.awg_push(1, [t.peer(1)])
        call = lab.control._channel.unary_unary(f"/{SERVICE}/PushConfig")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request.SerializeToString(), timeout=0.2)
        assert caught.value.code() == Code.DEADLINE_EXCEEDED
        # A reading call does not wait for it, a changing one does.
        assert (await lab.control.get_status()).applied_revision == 0
        second = asyncio.create_task(lab.control.push_config(t.awg_push(2, [t.peer(2)])))
        held.set()
        assert (await second).applied_revision == 2
        assert lab.node.peers == [t.key(2)]


async def test_a_change_that_fails_after_its_caller_has_gone_is_logged(caplog, t):
    writer, held = Writer(), asyncio.Event()

    async def change():
        await held.wait()
        raise DataPlaneFailed("awg-quick: exit status 1")

    caller = asyncio.create_task(writer.run(change))
    await t.eventually(lambda: writer.busy)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not await writer.drain(0)
    held.set()
    assert await writer.drain(10)
    await t.eventually(lambda: "its caller had gone: DataPlaneFailed: awg-quick: exit status 1" in caplog.text)


async def test_bytes_that_are_no_request_are_answered_and_forgotten(authority, t):
    async with t.one_node(authority) as lab:
        for method in ("GetStatus", "PushConfig", "AddPeer", "SetNetworkConfig", "ConfigureInnerLink"):
            call = lab.control._channel.unary_unary(f"/{SERVICE}/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff\xff\xff")
            assert caught.value.code() == Code.INTERNAL
        unknown = lab.control._channel.unary_unary(f"/{SERVICE}/Reboot")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unknown(b"")
        assert caught.value.code() == Code.UNIMPLEMENTED
        assert (await lab.control.get_status()).agent_version


async def test_a_compressed_request_is_unimplemented(authority, t):
    async with t.one_node(authority) as lab:
        call = lab.control._channel.unary_unary(f"/{SERVICE}/GetStatus")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", compression=grpc.Compression.Gzip)
        assert caught.value.code() == Code.UNIMPLEMENTED


async def test_more_than_four_mebibytes_are_refused(authority, t):
    async with t.one_node(authority) as lab:
        request = pb.PushConfigRequest(protocol=AWG, revision=1, config=b"\0" * (4 * 1024 * 1024))
        assert (await t.refused(lab.control.push_config(request)))[0] == Code.RESOURCE_EXHAUSTED


METHODS = ["GetMetrics", "PushConfig", "AddPeer", "RemovePeer", "ListPeers", "RestartService", "SetNetworkConfig"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from([*METHODS, "ConfigureInnerLink", "RemoveInnerLink"]), request=st.binary(max_size=200))
def test_no_bytes_bring_a_service_down(method, request):
    """Below the wire, so that many can be tried: any bytes give an answer or one of the contract's codes."""

    async def scenario():
        service = SimFleet(1)[0].service
        try:
            await service.door.answer(method, request)
        except RpcRefused as refused:
            return refused.code, refused.text
        return Code.OK, ""

    code, text = asyncio.run(scenario())
    assert code in {Code.OK, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.INTERNAL, Code.UNIMPLEMENTED}
    assert "a defect of the agent" not in text


def test_scrubbing():
    text = scrub("Key AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= is bad\npreshared key is xyz\nfine")
    assert text == "Key AAAAAAAA… is bad\n(withheld)\nfine"
