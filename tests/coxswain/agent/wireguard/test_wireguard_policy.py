"""The network policy on the host: canonical rules by iptables, one transaction by nftables (node-contract.md 7)."""

import pytest

from coxswain.agent.dataplane import DataPlaneFailed, StoredPolicy
from coxswain.agent.wireguard.firewall import execute
from coxswain.agent.wireguard.nftables import ruleset
from coxswain.agent.wireguard.settings import FirewallChoice
from coxswain.netpolicy import Policy, Transit

SYSCTLS = ["sysctl -w net.ipv4.conf.all.forwarding=1", "sysctl -w net.ipv6.conf.all.forwarding=1"]
FULL = Policy(True, True, True, (Transit("10.7.0.2/32", "awg1", 7100, 7100),))
NAT = Policy(forwarding=True, masquerade=True)


async def test_iptables_in_the_order_of_the_contract(host):
    stored = await host.plane().apply_policy(FULL, None)
    assert host.lines() == [
        "ip route show default",
        *SYSCTLS,
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
        "sysctl -w net.ipv4.conf.default.rp_filter=0",
        "iptables -w -I FORWARD 1 -i awg0 -o awg0 -j DROP",
        "iptables -w -A FORWARD -i awg0 -j ACCEPT",
        "iptables -w -A FORWARD -o awg0 -j ACCEPT",
        "iptables -w -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "iptables -w -t mangle -A PREROUTING -i awg0 -s 10.7.0.2/32 -j MARK --set-mark 7100",
        "ip rule add fwmark 7100 lookup 7100",
        "ip route replace default dev awg1 table 7100",
    ]
    assert stored.policy == FULL
    assert [" ".join(argv) for argv in stored.down] == [
        "iptables -D FORWARD -i awg0 -o awg0 -j DROP",
        "iptables -D FORWARD -i awg0 -j ACCEPT",
        "iptables -D FORWARD -o awg0 -j ACCEPT",
        "iptables -t nat -D POSTROUTING -o eth0 -j MASQUERADE",
        "ip route del default dev awg1 table 7100",
        "ip rule del fwmark 7100 lookup 7100",
        "iptables -t mangle -D PREROUTING -i awg0 -s 10.7.0.2/32 -j MARK --set-mark 7100",
    ]


async def test_the_old_policy_goes_before_the_new_one_comes(host):
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    host.write("default", "default via 192.0.2.254 dev eth9\n")
    host.calls()
    host.failing("iptables -w -D*")  # nothing to take down: not missed
    stored = await plane.apply_policy(NAT, stored)
    lines = host.lines()
    assert lines[1] == "iptables -w -D FORWARD -i awg0 -j ACCEPT"
    assert lines[3] == "iptables -w -t nat -D POSTROUTING -o eth0 -j MASQUERADE"
    assert lines[-1] == "iptables -w -t nat -A POSTROUTING -o eth9 -j MASQUERADE"
    assert stored.down[-1] == ("iptables", "-t", "nat", "-D", "POSTROUTING", "-o", "eth9", "-j", "MASQUERADE")


async def test_no_forwarding_is_no_rules(host):
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    host.calls()
    assert await plane.apply_policy(Policy(), stored) == StoredPolicy(Policy())
    assert [words[2] for words in host.calls()] == ["-D", "-D", "-t"]


async def test_a_policy_that_fails_gives_way_to_the_one_before(host):
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    host.calls()
    host.failing("ip rule add*")
    with pytest.raises(DataPlaneFailed, match="step 10 of 11: ip rule add fwmark 7100 lookup 7100"):
        await plane.apply_policy(FULL, stored)
    lines = host.lines()
    broken = lines.index("ip rule add fwmark 7100 lookup 7100")
    assert "iptables -w -D FORWARD -i awg0 -o awg0 -j DROP" in lines[broken:], "what was installed is taken down"
    assert lines[-3:] == [
        "iptables -w -A FORWARD -i awg0 -j ACCEPT",
        "iptables -w -A FORWARD -o awg0 -j ACCEPT",
        "iptables -w -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
    ]


async def test_without_a_default_route_nothing_is_touched(host):
    plane = host.plane()
    stored = await plane.apply_policy(Policy(forwarding=True), None)
    host.write("default", "")
    host.calls()
    with pytest.raises(DataPlaneFailed, match="default route"):
        await plane.apply_policy(NAT, stored)
    assert host.lines() == ["ip route show default"]


@pytest.mark.parametrize("argv", [("reboot",), ("/bin/sh", "-c", "x"), ()])
async def test_stored_commands_run_nothing_but_the_three_programs(host, argv):
    with pytest.raises(DataPlaneFailed, match="none of sysctl, iptables, ip"):
        await execute(host.plane()._shell, argv)
    await host.plane().apply_policy(Policy(), StoredPolicy(Policy(), (argv,)))
    assert host.lines() == []


# -- nftables


def test_the_transaction():
    assert ruleset(FULL, "eth0") == (
        "table inet coxswain {}\n"
        "delete table inet coxswain\n"
        "table inet coxswain {\n"
        "  chain forward {\n"
        "    type filter hook forward priority filter; policy accept;\n"
        '    iifname "awg0" oifname "awg0" drop\n'
        '    iifname "awg0" accept\n'
        '    oifname "awg0" accept\n'
        "  }\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        '    meta nfproto ipv4 oifname "eth0" masquerade\n'
        "  }\n"
        "  chain prerouting {\n"
        "    type filter hook prerouting priority mangle; policy accept;\n"
        '    iifname "awg0" ip saddr 10.7.0.2/32 meta mark set 7100\n'
        "  }\n"
        "}\n"
    )
    assert ruleset(Policy(), "") == "table inet coxswain {}\ndelete table inet coxswain\n"


async def test_nftables_is_the_way_where_it_is(host):
    host.install("nft")
    plane = host.plane()
    stored = await plane.apply_policy(FULL, None)
    lines = host.lines()
    assert [line for line in lines if line.startswith("iptables")] == []
    assert lines[-1] == "nft -f -"
    assert host.stdin(len(lines)) == ruleset(FULL, "eth0")
    # What is stored is what the existing agent may run, too.
    assert [" ".join(argv) for argv in stored.down] == [
        "ip route del default dev awg1 table 7100",
        "ip rule del fwmark 7100 lookup 7100",
    ]
    await plane.apply_policy(NAT, stored)
    assert host.lines()[-3:] == ["nft -f -", *(" ".join(argv) for argv in stored.down)]


async def test_rules_of_the_other_agent_are_taken_down_after_ours_are_there(host):
    """A host that changes agents in place: its netpolicy.json names iptables commands."""
    other = await host.plane().apply_policy(FULL, None)
    host.calls()
    host.install("nft")
    await host.plane().apply_policy(FULL, other)
    lines = host.lines()
    after = lines[lines.index("nft -f -") + 1 :]
    assert [line.split()[0] for line in after] == ["iptables"] * 5, "transits are in use and stay"
    assert "ip route del default dev awg1 table 7100" not in lines


async def test_a_transaction_that_fails_leaves_the_old_rules(host):
    host.install("nft")
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    host.calls()
    host.failing("nft -f*")
    with pytest.raises(DataPlaneFailed, match="nft -f"):
        await plane.apply_policy(FULL, stored)
    lines = host.lines()
    assert lines[lines.index("nft -f -") + 1 :] == [
        "ip rule del fwmark 7100 lookup 7100",
        "ip route del default dev awg1 table 7100",
    ]


async def test_the_way_can_be_chosen(host):
    host.install("nft")
    await host.plane(FirewallChoice.IPTABLES).apply_policy(NAT, None)
    lines = host.lines()
    assert "nft list table inet coxswain" in lines, "nothing of the other way may remain"
    assert lines[-1].startswith("iptables")
