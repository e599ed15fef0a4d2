"""The network policy on the host: canonical rules by iptables, one transaction by nftables (node-contract.md 7)."""

import json
from fnmatch import fnmatch

import pytest

from coxswain.agent.dataplane import DataPlaneFailed, StoredPolicy
from coxswain.agent.wireguard import plane as plane_module
from coxswain.agent.wireguard.ruleset import ruleset
from coxswain.agent.wireguard.settings import FirewallChoice
from coxswain.netpolicy import Policy, Transit, render, resolve
from coxswain.ports import PortRange

SYSCTLS = ["sysctl -w net.ipv4.conf.all.forwarding=1", "sysctl -w net.ipv6.conf.all.forwarding=1"]
LOOSE = ["sysctl -w net.ipv4.conf.all.rp_filter=0", "sysctl -w net.ipv4.conf.default.rp_filter=0"]
FULL = Policy(True, True, True, (Transit("10.7.0.2/32", "awg1", 7100, 7100),))
TWO = Policy(True, True, False, (Transit("10.7.0.2/32", "awg1", 7100, 7100), Transit("10.7.0.3/32", "awg1", 7100, 7100)))
NAT = Policy(forwarding=True, masquerade=True)
REFUSE = "unreachable default metric 4000 table 7100"
LINK_UP = [
    f"ip route replace {REFUSE}",
    "ip route replace default dev awg1 table 7100",
    "ip rule add fwmark 7100 lookup 7100",
]
LINK_DOWN = [
    "ip rule del fwmark 7100 lookup 7100",
    "ip route del default dev awg1 table 7100",
    f"ip route del {REFUSE}",
]
HAND_OVER = "ip link set dev awg0 group 7199"


def marks(*numbers):
    """What ``ip rule`` tells of rules for these marks."""
    return json.dumps([{"priority": 32765, "src": "all", "fwmark": hex(n), "table": str(n)} for n in numbers])


def by_the_existing_agent(policy):
    """What it stores (node-contract.md 7.6): the canonical teardown, resolved."""
    return StoredPolicy(policy, tuple(resolve(line, "awg0", "eth0") for line in render(policy).post_down))


def canonical(policy):
    """The iptables rules of a policy as the stand-in has them."""
    lines = (" ".join(resolve(line, "awg0", "eth0")) for line in render(policy).post_up)
    return [
        line.removeprefix("iptables ").replace("-I FORWARD 1", "@ FORWARD").replace("-A ", "@ ")
        for line in lines
        if line.startswith("iptables")
    ]


# -- iptables


async def test_the_canonical_rules_by_iptables(host):
    stored = await host.plane().apply_policy(FULL, None)
    assert host.changes() == [
        *SYSCTLS,
        *LOOSE,
        *LINK_UP,
        "iptables -w -I FORWARD 1 -i awg0 -o awg0 -j DROP",
        "iptables -w -A FORWARD -i awg0 -j ACCEPT",
        "iptables -w -A FORWARD -o awg0 -j ACCEPT",
        "iptables -w -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "iptables -w -t mangle -A PREROUTING -i awg0 -s 10.7.0.2/32 -j MARK --set-mark 7100",
    ]
    assert stored.policy == FULL
    assert [" ".join(argv) for argv in stored.down] == [
        "iptables -D FORWARD -i awg0 -o awg0 -j DROP",
        "iptables -D FORWARD -i awg0 -j ACCEPT",
        "iptables -D FORWARD -o awg0 -j ACCEPT",
        "iptables -t nat -D POSTROUTING -o eth0 -j MASQUERADE",
        "iptables -t mangle -D PREROUTING -i awg0 -s 10.7.0.2/32 -j MARK --set-mark 7100",
        *LINK_DOWN,
    ]


async def test_what_is_in_force_stays_and_what_has_changed_goes_last(host):
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    host.write("default", "default via 192.0.2.254 dev eth9\n")
    host.calls()
    stored = await plane.apply_policy(NAT, stored)
    assert host.changes() == [
        *SYSCTLS,
        "iptables -w -t nat -A POSTROUTING -o eth9 -j MASQUERADE",
        "iptables -w -t nat -D POSTROUTING -o eth0 -j MASQUERADE",
    ]
    assert stored.down[-1] == ("iptables", "-t", "nat", "-D", "POSTROUTING", "-o", "eth9", "-j", "MASQUERADE")
    host.write("rules", "")  # a reboot took them: what was stored is not what is there
    await plane.apply_policy(NAT, stored)
    assert host.rules() == [rule.replace("eth0", "eth9") for rule in canonical(NAT)]


async def test_a_rule_that_nobody_remembers_is_made_anew_where_it_belongs(host):
    """Somebody removed ``netpolicy.json``: the isolation that is left may be behind what accepts."""
    left = ["@ FORWARD -i awg0 -j ACCEPT", "@ FORWARD -i awg0 -o awg0 -j DROP"]
    host.write("rules", "".join(f"{rule}\n" for rule in left))
    policy = Policy(forwarding=True, isolation=True)
    stored = await host.plane().apply_policy(policy, None)
    assert host.rules() == canonical(policy)
    assert [line for line in host.changes() if "awg0 -o awg0" in line] == [
        "iptables -w -D FORWARD -i awg0 -o awg0 -j DROP",
        "iptables -w -I FORWARD 1 -i awg0 -o awg0 -j DROP",
    ]
    await host.plane().apply_policy(policy, stored)
    assert [line for line in host.changes() if "awg0 -o awg0" in line] == [], "what is remembered stays"


async def test_no_forwarding_is_no_rules(host):
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    assert await plane.apply_policy(Policy(), stored) == StoredPolicy(Policy())
    assert host.rules() == []


@pytest.mark.parametrize("broken", ["*rule add*", "*route replace default*", "*--set-mark*", "*MASQUERADE*", "*-I FORWARD*"])
async def test_a_policy_that_fails_leaves_the_one_before_untouched(host, broken):
    plane = host.plane()
    before = Policy(forwarding=True)
    stored = await plane.apply_policy(before, None)
    host.calls()
    host.failing(f"iptables {broken}", f"ip {broken}")
    with pytest.raises(DataPlaneFailed):
        await plane.apply_policy(FULL, stored)
    assert host.rules() == canonical(before)
    lines = host.changes()
    for up, down in zip(LINK_UP, reversed(LINK_DOWN), strict=True):
        assert (up in lines and not fnmatch(up, broken)) == (down in lines), lines


async def test_without_a_default_route_nothing_is_touched(host):
    plane = host.plane()
    stored = await plane.apply_policy(Policy(forwarding=True), None)
    host.write("default", "")
    host.calls()
    with pytest.raises(DataPlaneFailed, match="default route"):
        await plane.apply_policy(NAT, stored)
    assert host.lines() == ["ip route show default"]


@pytest.mark.parametrize(
    "argv", [("reboot",), ("/bin/sh", "-c", "x"), (), ("iptables", "-F"), ("ip", "link", "del", "eth0")]
)
async def test_stored_commands_run_nothing_but_removals_of_rules(host, argv):
    """The file could have been written by somebody else."""
    await host.plane().apply_policy(Policy(), StoredPolicy(Policy(), (argv,)))
    assert host.lines() == []


@pytest.mark.parametrize("word", ["\0", "\ud800"])
async def test_stored_commands_that_no_tool_can_be_given_are_passed_over(host, word):
    other = StoredPolicy(NAT, (("iptables", "-D", "FORWARD", "-i", word),))
    assert (await host.plane().apply_policy(NAT, other, restoring=True)).policy == NAT
    weird = StoredPolicy(Policy(True, transits=(Transit("10.7.0.2/32", word, 7100, 7100),)))
    assert (await host.plane().apply_policy(NAT, weird, restoring=True)).policy == NAT


@pytest.mark.parametrize("failing", SYSCTLS + LOOSE)
async def test_a_sysctl_that_cannot_be_set_is_forgiven_if_the_kernel_has_the_value(host, failing, monkeypatch):
    host.failing(failing)
    monkeypatch.setattr("coxswain.agent.wireguard.firewall._sysctl", lambda name: failing[-1] if name in failing else None)
    await host.plane().apply_policy(FULL, None)
    monkeypatch.setattr("coxswain.agent.wireguard.firewall._sysctl", lambda _: "7")
    with pytest.raises(DataPlaneFailed, match="sysctl"):
        await host.plane().apply_policy(FULL, None)
    monkeypatch.setattr("coxswain.agent.wireguard.firewall._sysctl", lambda _: None)
    if "ipv6" in failing:  # a host without IPv6 needs no forwarding of it
        await host.plane().apply_policy(FULL, None)


# -- transits


async def test_rules_that_the_existing_agent_has_piled_up_become_one(host):
    """One per client (node-contract.md 7.5): only one of them is of use, and only that many are ever taken away."""
    host.write("marks", marks(7100, 7100, 7100))
    await host.plane().apply_policy(TWO, by_the_existing_agent(TWO))
    lines = host.changes()
    assert lines.count("ip rule del fwmark 7100 lookup 7100") == 2
    assert "ip rule add fwmark 7100 lookup 7100" not in lines
    assert "ip route del default dev awg1 table 7100" not in lines


async def test_links_that_are_not_used_any_more_lose_rule_and_table(host):
    plane = host.plane()
    stored = await plane.apply_policy(TWO, None)
    host.write("marks", marks(7100, 9))
    host.calls()
    await plane.apply_policy(NAT, stored)
    assert host.changes()[-3:] == LINK_DOWN
    assert not [rule for rule in host.rules() if "MARK" in rule]


async def test_an_unreadable_list_of_rules_is_a_failure_before_and_none_after(host):
    host.write("marks", "[1]")
    with pytest.raises(DataPlaneFailed, match="ip rule show"):
        await host.plane().apply_policy(FULL, None)
    await host.plane().apply_policy(NAT, by_the_existing_agent(FULL))


async def test_where_the_rules_are_not_told_the_one_that_was_added_is_taken_away(host):
    """As by the teardown of the contract (7.3)."""
    host.write("marks", "")
    plane = host.plane()
    stored = await plane.apply_policy(FULL, None)
    assert LINK_UP[2] in host.changes()
    await plane.apply_policy(FULL, stored)
    assert LINK_DOWN[0] not in host.changes()
    await plane.apply_policy(NAT, stored)
    assert [line for line in host.changes() if line.startswith("ip ")] == LINK_DOWN


async def test_at_a_start_a_missing_link_costs_only_what_it_carries(host):
    host.failing("ip route replace default dev awg1*", words="Cannot find device awg1\n")
    stored = await host.plane().apply_policy(FULL, None, restoring=True)
    lines = host.changes()
    assert f"ip route replace {REFUSE}" in lines
    assert "ip rule add fwmark 7100 lookup 7100" in lines
    assert f"ip route del {REFUSE}" not in lines
    assert ("ip", *LINK_DOWN[1].split()[1:]) in stored.down


async def test_at_a_start_every_link_that_the_host_takes_a_route_to_gets_one(host):
    """Also one that cannot be seen: in a network namespace of its own, an agent may have the /sys of another."""
    await host.plane().apply_policy(FULL, None, restoring=True)
    assert [line for line in host.changes() if line.startswith("ip ")] == LINK_UP


async def test_at_a_start_a_link_that_is_there_and_gets_no_route_is_a_failure(host, monkeypatch):
    monkeypatch.setattr("coxswain.agent.wireguard.transits.is_there", lambda _: True)
    host.failing("ip route replace default dev awg1*")
    with pytest.raises(DataPlaneFailed, match="default dev awg1"):
        await host.plane().apply_policy(FULL, None, restoring=True)


# -- nftables


async def test_nftables_is_the_way_where_it_is(host):
    host.install("nft")
    plane = host.plane()
    stored = await plane.apply_policy(FULL, None)
    calls = host.lines()
    assert [line for line in calls if line.startswith("iptables")] == []
    number = calls.index("nft -f -") + 1
    assert host.stdin(number) == ruleset(FULL, "eth0")
    assert calls.index("ip rule add fwmark 7100 lookup 7100") < number, "what is marked has somewhere to go"
    # What is stored is what the existing agent may run, too; it puts the table out of force.
    assert [" ".join(argv) for argv in stored.down] == [HAND_OVER, *LINK_DOWN]
    host.write("marks", marks(7100))
    await plane.apply_policy(NAT, stored)
    lines = host.changes()
    assert lines[lines.index("nft -f -") + 1 :] == LINK_DOWN, "and it is not run while the table is wanted"


async def test_rules_of_the_other_agent_are_taken_down_after_ours_are_there(host):
    """A host that changes agents in place: its netpolicy.json names iptables commands."""
    host.write("rules", "\n".join(canonical(FULL)) + "\n")
    host.write("marks", marks(7100))
    host.install("nft")
    await host.plane().apply_policy(FULL, by_the_existing_agent(FULL))
    lines = host.changes()
    after = lines[lines.index("nft -f -") + 1 :]
    assert [line.split()[0] for line in after] == ["iptables"] * 5, "transits are in use and stay"
    assert host.rules() == []


async def test_a_transaction_that_fails_leaves_the_old_rules(host):
    host.install("nft")
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    host.calls()
    host.failing("nft -f*")
    with pytest.raises(DataPlaneFailed, match="nft -f"):
        await plane.apply_policy(FULL, stored)
    lines = host.changes()
    assert [line for line in lines[lines.index("nft -f -") :] if line != "nft -f -"] == LINK_DOWN


async def test_a_kernel_without_route_lookups_in_rules_isolates_as_well_as_it_can(host):
    host.install("nft")
    host.failing_once("nft -f*")
    await host.plane().apply_policy(FULL, None)
    calls = host.lines()
    second = len(calls) - calls[::-1].index("nft -f -")
    assert host.stdin(second) == ruleset(FULL, "eth0", lookups=False)


async def test_the_way_can_be_chosen(host):
    host.install("nft")
    await host.plane(FirewallChoice.IPTABLES).apply_policy(NAT, None)
    lines = host.lines()
    assert "nft list table inet coxswain" in lines, "nothing of the other way may remain"
    assert host.rules() == canonical(NAT)


async def test_an_nft_that_the_kernel_does_without_is_not_used(host):
    host.install("nft")
    host.failing("nft list tables")
    await host.plane().apply_policy(NAT, None)
    assert host.rules() == canonical(NAT)


@pytest.mark.parametrize("choice", list(FirewallChoice))
async def test_ipv6_is_served_where_the_rules_are_both_families(host, choice, monkeypatch):
    """The canonical rules neither mark nor masquerade it (node-contract.md 7.9)."""
    host.install("nft")
    monkeypatch.setattr(plane_module, "has_ipv6", lambda: True)
    plane = host.plane(choice)
    assert not plane.carries_ipv6, "nobody has looked yet"
    await plane.restore_links()
    assert plane.carries_ipv6 == (choice is not FirewallChoice.IPTABLES)
    monkeypatch.setattr(plane_module, "has_ipv6", lambda: False)
    assert not plane.carries_ipv6
    host.failing("nft list tables")
    monkeypatch.setattr(plane_module, "has_ipv6", lambda: True)
    plane = host.plane()
    await plane.apply_policy(NAT, None)
    assert not plane.carries_ipv6


PORTS = PortRange(20000, 29999)


@pytest.mark.parametrize("choice", list(FirewallChoice))
async def test_ports_are_mapped_by_nftables_alone(host, choice):
    host.install("nft")
    plane = host.plane(choice)
    assert plane.mapped_ports is None
    stored = await plane.apply_policy(Policy(True, ports=PORTS), None)
    assert plane.mapped_ports == (None if choice is FirewallChoice.IPTABLES else PORTS)
    assert stored.policy.ports == PORTS, "another firewall would map them"
    assert "20000" not in str(stored.down)
    await plane.apply_policy(Policy(True), stored)
    assert plane.mapped_ports is None


async def test_ports_that_the_kernel_cannot_map_are_not_said_to_be(host):
    host.install("nft")
    plane = host.plane()
    host.failing_once("nft -f*")
    stored = await plane.apply_policy(Policy(True, ports=PORTS), None)
    assert plane.mapped_ports is None
    host.failing("nft -f*")
    with pytest.raises(DataPlaneFailed):
        await plane.apply_policy(Policy(True, ports=PORTS), stored)
    assert plane.mapped_ports is None
    host.failing()
    await plane.apply_policy(Policy(True, ports=PORTS), stored)
    assert plane.mapped_ports == PORTS


async def test_ports_that_somebody_took_away_are_mapped_again(host):
    host.install("nft")
    plane = host.plane()
    stored = await plane.apply_policy(Policy(ports=PORTS), None)
    assert await plane.heal(stored) is None
    host.failing_once("nft -s list*")
    host.calls()
    assert await plane.heal(stored) == stored
    assert "nft -f -" in host.lines()


@pytest.mark.parametrize("firewall", list(FirewallChoice))
async def test_what_is_gone_is_noticed_and_applied_again(host, firewall):
    if firewall is not FirewallChoice.IPTABLES:
        host.install("nft")
    plane = host.plane(firewall)
    stored = await plane.apply_policy(TWO, None)
    host.write("marks", marks(7100))
    assert await plane.heal(stored) is None
    host.write("marks", "[]")  # a rule of ip
    host.calls()
    assert await plane.heal(stored) == stored
    assert "ip rule add fwmark 7100 lookup 7100" in host.lines()
    host.write("marks", marks(7100))
    host.write("routes", "[]")  # the link's table: it is not there, and its clients must not leave here
    assert await plane.heal(stored) == stored
    assert "ip route replace unreachable default metric 4000 table 7100" in host.lines()
    host.write("routes", '[{"type": "unreachable", "dst": "default", "metric": 4000}]')
    if firewall is FirewallChoice.IPTABLES:
        host.write("rules", "")
        assert await plane.heal(stored) == stored
        assert host.rules() == canonical(TWO)
    else:
        host.failing_once("nft -s list*")
        host.calls()
        assert await plane.heal(stored) == stored
        assert "nft -f -" in host.lines()
    assert await plane.heal(None) is None


# -- killed half way


@pytest.mark.parametrize("firewall", list(FirewallChoice))
async def test_before_a_change_all_is_on_disk_that_it_may_leave(host, firewall):
    host.install("nft")
    plane = host.plane(firewall)
    stored = await plane.apply_policy(NAT, None)
    other = Policy(True, True, False, (Transit("10.7.0.2/32", "awg2", 7101, 7101),))
    done = await plane.apply_policy(other, stored)
    kept = plane.journal[-1]
    assert kept.policy == NAT, "what is in force until then"
    assert set(kept.down) == {*stored.down, *done.down}

    async def full(_):
        raise OSError(28, "No space left on device")

    host.calls()
    with pytest.raises(OSError, match="No space"):
        await plane.apply_policy(FULL, done, full)
    assert host.changes() == [], "nothing was touched"


async def test_leftovers_of_an_interrupted_change_go_with_the_next(host):
    """On disk is the old policy with the commands that take down the new one as well."""
    plane = host.plane()
    stored = await plane.apply_policy(NAT, None)
    await plane.apply_policy(FULL, stored)  # killed before this was stored
    host.write("marks", marks(7100))
    host.calls()
    again = await host.plane().apply_policy(NAT, plane.journal[-1], restoring=True)
    assert again == stored
    assert host.rules() == canonical(NAT)
    assert host.changes()[-3:] == LINK_DOWN


async def test_no_stored_command_takes_a_route_of_the_host(host):
    down = [("ip", "rule", "del", "fwmark", "1", "lookup", table) for table in ("254", "main", "0", "x")]
    down += [("ip", "route", "del", "default", "dev", "eth0", "table", table) for table in ("254", "main", "0", "x")]
    host.write("marks", json.dumps([{"fwmark": "0x1", "table": "254"}]))
    await host.plane().apply_policy(Policy(), StoredPolicy(Policy(), tuple(down)))
    assert host.changes() == []


@pytest.mark.parametrize("firewall", list(FirewallChoice))
async def test_masquerading_follows_the_default_route(host, firewall):
    """The existing agent looks for it when the policy is set, and never again (node-contract.md 7.8)."""
    if firewall is not FirewallChoice.IPTABLES:
        host.install("nft")
    plane = host.plane(firewall)
    stored = await plane.apply_policy(NAT, None)
    host.write("default", "")
    assert await plane.heal(stored) is None, "one that is away for the moment is waited for"
    host.write("default", "default via 192.0.2.254 dev eth9\n")
    host.calls()
    again = await plane.heal(stored)
    if firewall is FirewallChoice.IPTABLES:
        assert host.rules() == [rule.replace("eth0", "eth9") for rule in canonical(NAT)]
        assert ("iptables", "-t", "nat", "-D", "POSTROUTING", "-o", "eth9", "-j", "MASQUERADE") in again.down
    else:
        assert host.stdin(host.lines().index("nft -f -") + 1) == ruleset(NAT, "eth9")
    assert await plane.heal(again) is None


async def test_a_policy_that_could_not_be_applied_at_the_start_is_tried_again(host):
    host.write("default", "")
    stored = by_the_existing_agent(NAT)
    plane = host.plane()
    with pytest.raises(DataPlaneFailed, match="default route"):
        await plane.apply_policy(NAT, stored, restoring=True)
    with pytest.raises(DataPlaneFailed, match="default route"):
        await plane.heal(stored)
    host.write("default", "default via 192.0.2.254 dev eth0\n")
    assert (await plane.heal(stored)).policy == NAT
    assert host.rules() == canonical(NAT)
