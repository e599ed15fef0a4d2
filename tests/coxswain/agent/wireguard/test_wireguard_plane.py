"""What the data plane does to the host: the command lines of node-contract.md 6.5, and what comes when they fail."""

import asyncio
import time

import pytest

from coxswain.agent.dataplane import DataPlane, DataPlaneFailed, LinkConfig, LivePeer
from coxswain.agent.wireguard.changes import as_shown
from coxswain.agent.wireguard.conf import InterfaceBlock, parse_block, parse_peers, render
from coxswain.agent.wireguard.routes import BATCH_ABOVE
from coxswain.model import Obfuscation
from coxswain.netpolicy import Policy, Transit

SYSCTLS = ["sysctl -w net.ipv4.conf.all.rp_filter=0", "sysctl -w net.ipv4.conf.awg0.rp_filter=0"]
EXIT_SET = Obfuscation(4, 40, 900, 20, 30, 40, 50, 101, 102, 103, 104)


def test_it_is_a_data_plane(host):
    assert isinstance(host.plane(), DataPlane)


# -- the command table


async def test_a_push_on_a_dead_interface_brings_it_up(host, made):
    await host.plane().replace_peers([made.peer(2), made.peer(3, allowed_ips=("10.7.0.3/32", "0.0.0.0/0"))])
    assert host.lines() == [
        "awg show awg0",
        f"awg-quick up {host.confs}/awg0.conf",
        *SYSCTLS,
        "ip route replace 10.7.0.2/32 dev awg0",
        "ip route replace 10.7.0.3/32 dev awg0",
    ]
    assert (host.confs / "awg0.conf").stat().st_mode & 0o777 == 0o600
    assert (host.confs / "awg0.conf.good").stat().st_mode & 0o777 == 0o600
    assert host.conf().startswith("#")
    assert [p.public_key for p in parse_peers(host.conf())] == [made.key(2), made.key(3)]


async def test_a_push_on_a_live_interface_syncs_it(host, made):
    plane = host.plane()
    await plane.replace_peers([made.peer(2), made.peer(3)])
    host.calls()
    await plane.replace_peers([made.peer(3), made.peer(4)])
    assert host.lines() == [
        "awg show awg0",
        f"awg-quick strip {host.confs}/awg0.conf",
        "awg syncconf awg0 /dev/stdin",
        "ip route replace 10.7.0.3/32 dev awg0",
        "ip route replace 10.7.0.4/32 dev awg0",
        "ip route del 10.7.0.2/32 dev awg0",  # of the peer that vanished, after the new ones are there
    ]
    stripped = host.stdin(3)
    assert made.key(4) in stripped
    assert "MTU" not in stripped
    assert f"Jc = {host.identity.obfuscation.jc}\n" in stripped


async def test_adding_and_removing_a_peer(host, made):
    plane = host.plane()
    await plane.replace_peers([])
    host.calls()
    psk = made.key(99)
    await plane.upsert_peer(made.peer(2, preshared_key=psk, endpoint="192.0.2.9:443", allowed_ips=("10.7.0.2/32", "::/0")))
    await plane.upsert_peer(made.peer(3, allowed_ips=()))
    one, two = made.key(2), made.key(3)
    calls = host.calls()
    assert calls == [
        ["awg", "set", "awg0", "peer", one, "preshared-key", "/dev/stdin", "endpoint", "192.0.2.9:443",
         "allowed-ips", "10.7.0.2/32,::/0"],
        ["ip", "route", "replace", "10.7.0.2/32", "dev", "awg0"],
        ["awg", "set", "awg0", "peer", two, "allowed-ips", ""],
    ]  # fmt: skip
    assert host.stdin(1) == psk + "\n"
    assert psk not in str(calls)
    assert await plane.configured() == (
        made.peer(2, preshared_key=psk, endpoint="192.0.2.9:443", allowed_ips=("10.7.0.2/32", "::/0")),
        made.peer(3, allowed_ips=()),
    )
    await plane.remove_peer(one)
    assert host.lines() == [f"awg set awg0 peer {one} remove", "ip route del 10.7.0.2/32 dev awg0"]
    assert [p.public_key for p in await plane.configured()] == [two]
    await plane.remove_peer(one)  # an absent one is no error


async def test_an_upsert_keeps_the_place_and_takes_away_what_is_not_said_again(host, made):
    plane = host.plane()
    await plane.replace_peers([made.peer(2, preshared_key=made.key(99)), made.peer(3)])
    host.calls()
    await plane.upsert_peer(made.peer(2, allowed_ips=("10.7.0.9/32",)))
    assert host.lines() == [
        f"awg set awg0 peer {made.key(2)} preshared-key /dev/stdin allowed-ips 10.7.0.9/32",
        "ip route replace 10.7.0.9/32 dev awg0",
        "ip route del 10.7.0.2/32 dev awg0",
    ]
    assert host.stdin(1) == ""  # an empty file is how the tool forgets a preshared key
    assert await plane.configured() == (made.peer(2, allowed_ips=("10.7.0.9/32",)), made.peer(3))


async def test_a_route_that_another_peer_has_taken_over_stays(host, made):
    plane = host.plane()
    await plane.replace_peers([made.peer(2), made.peer(3, allowed_ips=("10.7.0.2/32",))])
    host.calls()
    await plane.remove_peer(made.key(2))
    assert host.lines()[0] == f"awg set awg0 peer {made.key(2)} remove"
    assert not [line for line in host.calls() if line[0] == "ip"]


async def test_an_address_goes_back_to_whom_it_was_taken_from(host, made):
    """A device's own peer and the edge peer of a path have its address; whoever is written last has it (contract 4.15)."""
    plane = host.plane()
    edge = made.peer(9, allowed_ips=("10.7.0.2/32", "10.7.0.3/32"))
    await plane.replace_peers([made.peer(2, preshared_key=made.key(99)), made.peer(3), edge])
    host.calls()
    await plane.upsert_peer(made.peer(9, allowed_ips=("10.7.0.3/32",)))
    assert host.lines() == [
        f"awg set awg0 peer {made.key(9)} allowed-ips 10.7.0.3/32",
        f"awg set awg0 peer {made.key(2)} preshared-key /dev/stdin allowed-ips 10.7.0.2/32",
        "ip route replace 10.7.0.3/32 dev awg0",
    ]
    await plane.remove_peer(made.key(9))
    assert host.lines() == [
        f"awg set awg0 peer {made.key(9)} remove",
        f"awg set awg0 peer {made.key(3)} allowed-ips 10.7.0.3/32",
    ]


async def test_a_preshared_key_that_goes_leaves_the_addresses_where_they_are(host, made):
    """Told with its addresses, the device's own peer would take back what the edge peer of its path has (contract 4.15)."""
    plane = host.plane()
    edge = made.peer(9, allowed_ips=("10.7.0.2/32",))
    await plane.replace_peers([made.peer(2, preshared_key=made.key(99)), edge])
    host.calls()
    await plane.replace_peers([made.peer(2), edge])
    lines = host.lines()
    assert lines[-1] == f"awg set awg0 peer {made.key(2)} preshared-key /dev/stdin"
    assert len([line for line in lines if line.startswith("awg set")]) == 1
    assert host.stdin(len(lines)) == ""


async def test_a_preshared_key_that_came_with_a_change_that_failed_goes_with_it(host, made):
    """Syncconf would leave it, and the device, which knows of none, would be deaf until the next push."""
    plane = host.plane()
    await plane.replace_peers([made.peer(2)])
    host.calls()
    host.failing("ip route replace 10.7.0.3/32*")
    with pytest.raises(DataPlaneFailed):
        await plane.replace_peers([made.peer(2, preshared_key=made.key(99)), made.peer(3)])
    lines = host.lines()
    assert lines[-2:] == [f"awg set awg0 peer {made.key(2)} preshared-key /dev/stdin", "ip route del 10.7.0.3/32 dev awg0"]
    assert host.stdin(len(lines) - 1) == ""


async def test_many_routes_are_one_command(host, made):
    count = BATCH_ABOVE + 1
    await host.plane().replace_peers([made.peer(n) for n in range(1, count + 1)])
    lines = host.lines()
    assert [line for line in lines if line.startswith("ip ")] == ["ip -batch -"]
    assert host.stdin(len(lines)).splitlines() == [f"route replace 10.7.0.{n}/32 dev awg0" for n in range(1, count + 1)]


async def test_status_and_dump(host, made):
    plane = host.plane()
    assert not (await plane.status()).up
    with pytest.raises(DataPlaneFailed, match="awg show awg0 dump: exit status 1"):
        await plane.dump()
    await plane.replace_peers([made.peer(2)])
    one = made.key(2)
    host.write("dump", f"a\tb\n{one}\t(none)\t192.0.2.7:5000\t10.7.0.2/32\t1767225600\t100\t200\toff\n")
    status = await plane.status()
    assert (status.up, status.error, status.note) == (True, "", "")
    assert await plane.dump() == {one: LivePeer(one, "192.0.2.7:5000", 1767225600, 100, 200)}
    host.write("dump", "a\tb\nnonsense\n")
    with pytest.raises(DataPlaneFailed, match="line 2"):
        await plane.dump()


# -- what fails


async def test_a_conf_that_cannot_be_synced_gives_way_to_the_one_before(host, made):
    plane = host.plane()
    await plane.replace_peers([made.peer(2, preshared_key=made.key(99))])
    before = host.conf()
    host.calls()
    host.failing("ip route replace 10.7.0.3/32*", words=f"PresharedKey = {made.key(98)}\n")
    with pytest.raises(DataPlaneFailed, match=r"10\.7\.0\.3") as caught:
        await plane.replace_peers([made.peer(3, preshared_key=made.key(98))])
    assert made.key(98) not in str(caught.value)
    assert host.conf() == before == (host.confs / "awg0.conf.good").read_text()
    lines = host.lines()
    last = [i for i, line in enumerate(lines, 1) if line.startswith("awg syncconf")][-1]
    assert made.key(2) in host.stdin(last), "the old peers are live again"
    assert lines[-2:] == ["ip route replace 10.7.0.2/32 dev awg0", "ip route del 10.7.0.3/32 dev awg0"]


async def test_a_first_push_that_fails_leaves_nothing(host, made):
    host.failing("ip route replace*")
    with pytest.raises(DataPlaneFailed):
        await host.plane().replace_peers([made.peer(2)])
    assert not host.is_up()
    assert not list(host.confs.iterdir())
    host.failing("awg-quick up*")
    with pytest.raises(DataPlaneFailed, match="awg-quick up"):
        await host.plane().replace_peers([made.peer(2)])
    assert not list(host.confs.iterdir())


async def test_a_peer_that_a_live_interface_refuses_does_not_stay_in_the_conf(host, made):
    plane = host.plane()
    await plane.replace_peers([made.peer(2)])
    before = host.conf()
    host.failing("awg set*")
    with pytest.raises(DataPlaneFailed, match="awg set"):
        await plane.upsert_peer(made.peer(3))
    assert host.conf() == before


async def test_on_a_dead_interface_the_conf_is_edited_all_the_same(host, made):
    """node-contract.md 4.7, 4.8: a later RestartService or PushConfig brings it live."""
    plane = host.plane()
    for number in (2, 3):
        with pytest.raises(DataPlaneFailed, match="No such device"):
            await plane.upsert_peer(made.peer(number))
    with pytest.raises(DataPlaneFailed, match="No such device"):
        await plane.remove_peer(made.key(2))
    assert await plane.configured() == (made.peer(3),)
    await plane.up()
    assert host.is_up()


async def test_a_start_without_a_conf_does_nothing(host):
    await host.plane().up()
    assert host.lines() == []


async def test_a_start_brings_up_what_the_conf_says(host, made):
    await host.plane().replace_peers([made.peer(2)])
    (host.directory / "up.awg0").unlink()
    host.calls()
    await host.plane().up()
    assert host.lines() == [
        "awg show awg0", f"awg-quick up {host.confs}/awg0.conf", *SYSCTLS, "ip route replace 10.7.0.2/32 dev awg0",
    ]  # fmt: skip
    await host.plane().up()
    assert host.lines()[1].startswith("awg-quick strip"), "sessions survive"


async def test_a_start_on_a_poisoned_conf_goes_back_to_the_last_good_one(host, made):
    await host.plane().replace_peers([made.peer(2)])
    good = host.conf()
    (host.confs / "awg0.conf").write_text(good + "\n[Peer]\nPublicKey = short\nAllowedIPs = 10.7.0.66/32\n")
    host.failing("ip route replace 10.7.0.66/32*")
    await host.plane().up()
    assert host.conf() == good
    (host.confs / "awg0.conf").write_text(good + "\n[Peer]\nnonsense\n")
    await host.plane().up()
    assert host.conf() == good


async def test_a_host_without_tools_says_so(bare_host, made):
    plane = bare_host.plane()
    status = await plane.status()
    assert (status.up, "neither awg nor wg" in status.error) == (False, True)
    with pytest.raises(DataPlaneFailed, match="neither awg nor wg"):
        await plane.replace_peers([made.peer(2)])
    assert not (bare_host.confs / "awg0.conf").exists()


async def test_a_directory_that_cannot_be_written_is_named(host, made):
    host.confs.write_text("a file in its place")
    with pytest.raises(DataPlaneFailed, match="amneziawg"):
        await host.plane().replace_peers([made.peer(2)])


# -- without root


async def test_an_agent_that_is_no_root_does_without_awg_quick(host, made):
    """Which insists on being root. What is written and what is in force are the same."""
    host.uid = 1000
    host.write("module", "")
    plane = host.plane()
    await plane.replace_peers([made.peer(2, preshared_key=made.key(99))])
    assert host.calls() == [
        ["awg", "show", "awg0"],
        ["ip", "link", "add", "dev", "awg0", "type", "amneziawg"],
        ["awg", "setconf", "awg0", "/dev/stdin"],
        ["ip", "link", "set", "mtu", "1420", "up", "dev", "awg0"],
        *[line.split() for line in SYSCTLS],
        ["ip", "route", "replace", "10.7.0.2/32", "dev", "awg0"],
    ]
    given = host.stdin(3)
    assert f"Jc = {host.identity.obfuscation.jc}\n" in given and f"H4 = {host.identity.obfuscation.h4}\n" in given
    assert made.key(99) in given and "MTU" not in given
    assert (await plane.status()).note == "", "obfuscation is in force"
    host.calls()
    await plane.replace_peers([made.peer(3)])
    assert host.lines()[:2] == ["awg show awg0", "awg syncconf awg0 /dev/stdin"]


# -- hosts without AmneziaWG


async def test_plain_wireguard_in_userspace(plain_host, made):
    plane = plain_host.plane()
    await plane.replace_peers([made.peer(2, preshared_key=made.key(99))])
    assert plain_host.calls() == [
        ["wg", "show", "awg0"],
        ["ip", "link", "add", "dev", "awg0", "type", "wireguard"],
        ["wireguard-go", "awg0"],
        ["wg", "setconf", "awg0", "/dev/stdin"],
        ["ip", "link", "set", "mtu", "1420", "up", "dev", "awg0"],
        *[line.split() for line in SYSCTLS],
        ["ip", "route", "replace", "10.7.0.2/32", "dev", "awg0"],
    ]
    given = plain_host.stdin(4)
    assert "Jc" not in given
    assert "H1" not in given
    assert "MTU" not in given
    assert made.key(99) in given
    assert "Jc = " in plain_host.conf(), "the conf is that of every node"
    assert "plain WireGuard" in (await plane.status()).note
    plain_host.calls()
    await plane.replace_peers([made.peer(3)])
    assert plain_host.lines()[:3] == ["wg show awg0", "wg show awg0 dump", "wg syncconf awg0 /dev/stdin"]
    assert "Jc" not in plain_host.stdin(3)


async def test_plain_wireguard_is_told_only_what_it_does_not_have(plain_host, made):
    """All of it anew would cost packets of everybody's tunnel, under wireguard-go at least."""
    plane, block = plain_host.plane(), plain_host.identity
    peers = [made.peer(number) for number in range(2, 6)]
    await plane.replace_peers(peers)
    port = parse_block(plain_host.conf()).listen_port
    live = [f"{as_shown(block.private_text)}\tPUBLIC\t{port}\toff"]
    live += [f"{p.public_key}\t(none)\t192.0.2.1:7\t{p.allowed_ips[0]}\t0\t0\t0\toff" for p in peers]
    plain_host.write("dump", "\n".join(live) + "\n")
    plain_host.calls()
    await plane.replace_peers(peers)
    assert [line for line in plain_host.lines() if line.startswith("wg")] == ["wg show awg0", "wg show awg0 dump"]

    # One leaves, one has another address, one comes; the one between is not spoken of.
    await plane.replace_peers([peers[1], made.peer(4, allowed_ips=("10.7.0.44/32",)), peers[3], made.peer(9)])
    told = [line for line in plain_host.lines() if line.startswith("wg ")]
    assert told[2:] == [f"wg set awg0 peer {peers[0].public_key} remove", "wg addconf awg0 /dev/stdin"]
    given = plain_host.stdin(4)
    assert [line for line in given.splitlines() if line] == [
        "[Peer]", f"PublicKey = {peers[2].public_key}", "AllowedIPs = 10.7.0.44/32",
        "[Peer]", f"PublicKey = {made.peer(9).public_key}", "AllowedIPs = 10.7.0.9/32",
    ]  # fmt: skip

    # Another port is the interface's, and it is told everything.
    plain_host.write("dump", "\n".join(live).replace(f"\t{port}\t", f"\t{port + 1}\t") + "\n")
    plain_host.calls()
    await plane.replace_peers(peers)
    assert "wg syncconf awg0 /dev/stdin" in plain_host.lines()


async def test_plain_wireguard_forgets_a_preshared_key_that_is_not_the_confs(plain_host, made):
    """Whoever gave it: to leave it out, as it is in a conf, is to leave it."""
    plane = plain_host.plane()
    await plane.replace_peers([made.peer(2)])
    live = f"{as_shown(plain_host.identity.private_text)}\tPUBLIC\t443\toff\n"
    live += f"{made.key(2)}\t{made.key(99)}\t(none)\t10.7.0.2/32\t0\t0\t0\toff\n"
    plain_host.write("dump", live)
    plain_host.calls()
    await plane.replace_peers([made.peer(2)])
    assert plain_host.lines()[2] == "wg addconf awg0 /dev/stdin"
    assert f"PresharedKey = {'A' * 43}=\n" in plain_host.stdin(3)


async def eventually_seen(host, line):
    async with asyncio.timeout(30):
        while line not in host.seen():  # noqa: ASYNC110 - another program writes it
            await asyncio.sleep(0.01)


async def test_nobody_looks_at_an_interface_while_it_is_made(plain_host, made):
    """``wg show`` removes a socket that is bound and does not listen yet, and wireguard-go ends without its socket."""
    plane = plain_host.plane()
    plain_host.slow("wireguard-go")
    making = asyncio.create_task(plane.replace_peers([made.peer(2)]))
    await eventually_seen(plain_host, "wireguard-go awg0")
    looks = [asyncio.create_task(look) for look in (plane.status(), plane.dump(), plane.status())]
    other = await plane.link_is_up("awg7")  # has a socket of its own
    assert not other and not any(look.done() for look in looks)
    during = plain_host.seen()
    plain_host.slow("")
    await making
    assert (await looks[0]).up and (await looks[1]) == {}
    await looks[2]
    assert [line for line in during if line.startswith("wg")] == ["wg show awg0", "wg show awg7"]


async def test_plain_wireguard_in_the_kernel(plain_host, made):
    plain_host.write("module", "")
    await plain_host.plane().replace_peers([made.peer(2)])
    lines = plain_host.lines()
    assert "wireguard-go awg0" not in lines
    assert "ip link add dev awg0 type wireguard" in lines


async def test_a_named_userspace_program_is_used(plain_host, made, monkeypatch):
    monkeypatch.setenv("WG_QUICK_USERSPACE_IMPLEMENTATION", "another-go")
    plain_host.install("another-go")
    await plain_host.plane().replace_peers([made.peer(2)])
    lines = plain_host.lines()
    assert "another-go awg0" in lines
    assert "wireguard-go awg0" not in lines


async def test_an_interface_that_cannot_be_set_up_is_taken_away_again(plain_host, made):
    plain_host.failing("ip link set mtu*")
    with pytest.raises(DataPlaneFailed, match="ip link set mtu"):
        await plain_host.plane().replace_peers([made.peer(2)])
    assert not plain_host.is_up()


# -- inner links


def link(made, **fields):
    leave = made.peer(50, allowed_ips=("0.0.0.0/0",), preshared_key=made.key(51), endpoint="203.0.113.1:443")
    return LinkConfig(
        **{"interface": "awg1", "listen_port": 51820, "mtu": 1340, "obfuscation": EXIT_SET, "exit": leave} | fields
    )


async def test_an_inner_link_has_its_own_conf_and_no_routes(host, made):
    plane = host.plane()
    await plane.configure_link(link(made))
    assert host.lines() == [
        "awg show awg1", f"awg-quick up {host.confs}/awg1.conf",
        SYSCTLS[0], "sysctl -w net.ipv4.conf.awg1.rp_filter=0",
    ]  # fmt: skip
    block = InterfaceBlock(host.identity.private_text, 51820, 1340, EXIT_SET, routed=False)
    assert host.conf("awg1") == render(block, [link(made).exit])
    # The same link with another exit is synced; with another MTU or port it is made anew.
    await plane.configure_link(link(made, exit=made.peer(60, allowed_ips=("0.0.0.0/0",))))
    assert [words[:2] for words in host.calls()] == [["awg", "show"], ["awg-quick", "strip"], ["awg", "syncconf"]]
    await plane.configure_link(link(made, mtu=1300))
    assert [" ".join(words[:2]) for words in host.calls()][:4] == ["awg show", "awg-quick down", "awg show", "awg-quick up"]
    assert "MTU = 1300" in host.conf("awg1")


async def test_whether_an_interface_is_up_is_what_the_tools_say(host, made):
    """As the contract has it (node-contract.md 6.5); a repeated revision is one only while the link is up."""
    plane = host.plane()
    assert not await plane.link_is_up("awg1")
    await plane.configure_link(link(made))
    await plane.replace_peers([made.peer(1)])
    assert await plane.link_is_up("awg1")
    assert (await plane.status()).note == ""
    host.calls()
    await plane.heal(None)
    assert host.changes() == [], "both are up: there is nothing to mend"
    for interface in ("awg0", "awg1"):
        (host.directory / f"up.{interface}").unlink()
    assert not await plane.link_is_up("awg1")
    await plane.heal(None)
    assert [line for line in host.changes() if "awg-quick" in line] == [
        f"awg-quick up {host.confs}/awg1.conf",
        f"awg-quick up {host.confs}/awg0.conf",
    ]


async def test_a_link_that_cannot_be_made_anew_comes_back_with_its_transits(host, made):
    plane = host.plane()
    await plane.configure_link(link(made))
    transit = Transit("10.7.0.9/32", "awg1", 7100, 7100)
    await plane.apply_policy(Policy(forwarding=True, masquerade=False, isolation=False, transits=(transit,)), None)
    host.failing_once(f"awg-quick up {host.confs}/awg1.conf")
    host.calls()
    with pytest.raises(DataPlaneFailed):
        await plane.configure_link(link(made, mtu=1300))
    assert "MTU = 1340" in host.conf("awg1")
    assert host.lines()[-1] == "ip route replace default dev awg1 table 7100"


async def test_an_interface_that_is_no_link_of_ours_is_left_alone(host, made):
    with pytest.raises(DataPlaneFailed, match="lo is there and is not an inner link"):
        await host.plane().configure_link(link(made, interface="lo"))
    assert host.lines() == []
    assert not (host.confs / "lo.conf").exists()


async def test_links_of_an_earlier_process_are_restored_and_removed(host, made):
    await host.plane().configure_link(link(made))
    await host.plane().configure_link(link(made, interface="awg2"))
    for interface in ("awg1", "awg2"):
        (host.directory / f"up.{interface}").unlink()
    host.failing(f"awg-quick up {host.confs}/awg2.conf")
    sentences = await host.plane().restore_links()
    assert host.is_up("awg1")
    assert len(sentences) == 1
    assert "awg2 not restored" in sentences[0]
    await host.plane().remove_link("awg1")
    assert not host.is_up("awg1")
    assert not list(host.confs.glob("awg1*"))
    await host.plane().remove_link("awg2")  # it is not up, which is tolerated
    await host.plane().remove_link("awg7")  # there never was one
    assert not list(host.confs.glob("awg2*"))


async def test_an_operators_own_tunnel_is_left_alone(host, made):
    host.confs.mkdir()
    theirs = "[Interface]\nPrivateKey = 4BZvVpQx0FqzVqWc1mXYBzYb3cU0iTQ3cyG2tO9VQWM=\nTable = off\nJc = x\n"
    (host.confs / "home.conf").write_text(theirs.replace("Jc = x\n", ""))
    (host.confs / "odd.conf").write_text(theirs)
    plane = host.plane()
    assert [s for s in await plane.restore_links() if "home" in s] == []
    for change in (plane.remove_link("home"), plane.configure_link(link(made, interface="home"))):
        with pytest.raises(DataPlaneFailed, match="not an inner link of this node"):
            await change
    assert (host.confs / "home.conf").exists()
    assert not [line for line in host.lines() if line.startswith("awg-quick")]


async def test_a_link_that_cannot_be_taken_down_keeps_its_conf(host, made):
    plane = host.plane()
    await plane.configure_link(link(made))
    host.failing("awg-quick down*")
    with pytest.raises(DataPlaneFailed, match="awg-quick down"):
        await plane.remove_link("awg1")
    assert (host.confs / "awg1.conf").exists()


async def test_a_new_link_is_woken_before_clients_are_sent_through_it(host, made, monkeypatch):
    monkeypatch.setattr("coxswain.agent.wireguard.knock.PATIENCE_S", 0.3)
    plane = host.plane()
    monkeypatch.setattr("coxswain.agent.wireguard.plane.is_there", lambda _: False)
    leave = made.peer(50, allowed_ips=("0.0.0.0/0",), preshared_key=made.key(99), endpoint="192.0.2.9:443")
    await plane.configure_link(link(made, exit=leave))
    monkeypatch.setattr("coxswain.agent.wireguard.plane.is_there", lambda _: True)
    policy = Policy(forwarding=True, transits=(Transit("10.7.0.9/32", "awg1", 7100, 7100),))
    host.calls()
    stored = await plane.apply_policy(policy, None)
    lines = [line for line in host.lines() if "awg show" not in line]
    woken = f"awg set awg1 peer {made.key(50)} preshared-key /dev/stdin endpoint 192.0.2.9:443"
    assert lines[:3] == [
        f"awg set awg1 peer {made.key(50)} remove",  # an attempt that was in vain would have to be waited for
        f"{woken} persistent-keepalive 1 allowed-ips 0.0.0.0/0",
        f"{woken} persistent-keepalive 0 allowed-ips 0.0.0.0/0",
    ]
    assert "iptables -w -A FORWARD -i awg0 -j ACCEPT" in lines, "an exit that does not answer does not hold up the policy"
    # A link that is in use, or whose session is fresh, is left alone.
    await plane.apply_policy(policy, stored)
    host.write("dump", f"x\n{made.key(50)}\t(none)\t192.0.2.9:443\t0.0.0.0/0\t{int(time.time())}\t1\t1\toff\n")
    await plane.apply_policy(policy, None)
    assert not [line for line in host.lines() if line.startswith("awg set")]
    # One whose session is old is asked again, without losing it.
    host.write("dump", f"x\n{made.key(50)}\t(none)\t192.0.2.9:443\t0.0.0.0/0\t1\t1\t1\toff\n")
    await plane.apply_policy(policy, None)
    assert [line.split()[-3] for line in host.lines() if line.startswith("awg set")] == ["1", "0"]
