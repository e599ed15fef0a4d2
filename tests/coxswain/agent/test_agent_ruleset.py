"""The text of the nftables table, and where marked packets are sent (node-contract.md 7.3, 7.9)."""

import ipaddress
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coxswain.agent.wireguard.ruleset import HANDOVER_GROUP, ruleset, sources
from coxswain.agent.wireguard.transits import hops
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange


def transit(cidr, number=0):
    return Transit(cidr, f"awg{number + 1}", 7100 + number, 7100 + number)


@st.composite
def networks(draw):
    # A small space, so that networks meet, hold each other and come twice.
    version = draw(st.sampled_from([4, 6]))
    length = draw(st.integers(26, 32)) if version == 4 else draw(st.integers(122, 128))
    base = ipaddress.ip_address("10.7.0.0" if version == 4 else "fd07::") + draw(st.integers(0, 63))
    return f"{base}/{length}"


@settings(deadline=None)
@given(st.lists(st.tuples(networks(), st.integers(0, 3)), max_size=12))
def test_the_last_transit_that_covers_an_address_has_it(given_transits):
    transits = [transit(cidr, number) for cidr, number in given_transits]
    found = sources(transits)
    every = [n for nets in found.values() for n in nets]
    for start in ("10.7.0.0", "fd07::"):
        for offset in range(64):
            address = ipaddress.ip_address(start) + offset
            want = [t.mark for t in transits if address in ipaddress.ip_network(t.device_cidr, strict=False)]
            got = [mark for mark, nets in found.items() if any(address in n for n in nets)]
            assert got == want[-1:], address
            assert sum(address in n for n in every) <= 1, "sets do not meet: nft would refuse them"


def test_a_policy_without_forwarding_takes_the_table_away():
    assert ruleset(Policy(), "") == "table inet coxswain {}\ndelete table inet coxswain\n"


def test_what_each_part_of_a_policy_adds():
    plain = ruleset(Policy(True), "")
    assert "masquerade" not in plain
    assert "input" not in plain
    assert "169.254.0.0/16" in plain
    behind = ruleset(Policy(True, True), "ens3")
    assert 'meta nfproto ipv4 oifname "ens3" masquerade' in behind
    # Clients' own, by whatever way but an inner link; what came from elsewhere, or is routed, is not touched.
    assert 'iifname "awg0" ip6 saddr fc00::/7 oifname != "awg*" masquerade' in behind
    assert "fc00::/7" not in ruleset(Policy(True), "")
    isolated = ruleset(Policy(True, isolation=True), "")
    assert 'iifname "awg0" fib daddr oifname "awg0" drop' in isolated
    assert "fib" not in ruleset(Policy(True, isolation=True), "", lookups=False)
    assert isolated.index('oifname "awg0" drop') < isolated.index('iifname "awg0" accept')
    bound = ruleset(Policy(True, transits=(transit("10.7.0.2/32"), transit("fd07::2/128"), transit("10.7.0.9", 1))), "")
    assert "elements = { 10.7.0.2/32 }" in bound
    assert "ip6 saddr @mark7100_v6 meta mark set 7100" in bound
    assert "@mark7101_v6" not in bound
    assert 'meta mark 7101 oifname != { "awg2" } drop' in bound
    assert "maxseg" not in bound
    assert 'oifname "awg2" tcp flags & syn == syn tcp option maxseg size set 1300' in ruleset(
        Policy(True, transits=(transit("10.7.0.9", 1),)), "", {"awg2": 1340, "awg7": 1280}
    )


MAP = 'iifname != "awg*" fib daddr type local udp dport 20000-29999 redirect to :443'


@pytest.mark.parametrize("forwarding", [False, True])
def test_a_range_of_ports_is_mapped_whether_or_not_anything_is_forwarded(forwarding):
    policy = Policy(forwarding, ports=PortRange(20000, 29999))
    text = ruleset(policy, "")
    assert text.count(MAP) == 1
    assert "type nat hook prerouting priority dstnat" in text
    assert ("chain forward" in text) == forwarding
    plain = ruleset(Policy(forwarding), "")
    assert "redirect" not in plain
    # What is there for the rest of the policy is as it is without.
    mapping = text[text.index("  chain ports {") : text.index("  }", text.index("  chain ports {")) + 4]
    assert text.replace(mapping, "") == (plain if forwarding else plain + "table inet coxswain {\n}\n")


def test_a_kernel_that_cannot_tell_whose_an_address_is_maps_nothing():
    """Without the lookup, what a host's containers send to such ports elsewhere would end in the tunnel."""
    assert ruleset(Policy(ports=PortRange(20000, 29999)), "", lookups=False) == ruleset(Policy(), "")
    assert "redirect" not in ruleset(Policy(True, ports=PortRange(20000, 29999)), "", lookups=False)


@pytest.mark.netns
@pytest.mark.parametrize("isolation", [False, True])
def test_nft_takes_all_of_it(isolation):
    """Every construct at once, checked by the real tool without being put in force."""
    transits = [transit(f"10.{n >> 8}.{n & 255}.0/24", n % 3) for n in range(600)]
    transits += [transit("10.0.0.7/32", 2), transit("fd07::/64"), transit("fd07::5/128", 1)]
    text = ruleset(Policy(True, True, isolation, tuple(transits), PortRange(1024, 51819)), "eth0", {"awg1": 1340})
    subprocess.run(["nft", "-c", "-f", "-"], input=text, text=True, check=True, capture_output=True, timeout=30)
    for chain in ("forward", "prerouting", "postrouting"):
        head = text[text.index(f"chain {chain}") :].splitlines()[2]
        assert head.strip() == f"iifgroup {HANDOVER_GROUP} return", "an existing agent can put it out of force"


def test_a_link_needs_one_rule_and_one_table_however_many_it_carries():
    found = hops([transit("10.7.0.2/32"), transit("10.7.0.3/32"), transit("fd07::3/128"), transit("10.7.0.4/32", 1)])
    assert [(hop.family, hop.mark, hop.interface) for hop in found] == [
        (4, 7100, "awg1"),
        (6, 7100, "awg1"),
        (4, 7101, "awg2"),
    ]
    assert [" ".join(argv) for argv in found[0].down()] == [
        "ip rule del fwmark 7100 lookup 7100",
        "ip route del default dev awg1 table 7100",
        "ip route del unreachable default metric 4000 table 7100",
    ]


def test_what_another_agent_stored_unchecked_does_not_stop_a_teardown():
    assert [hop.family for hop in hops([transit("nonsense")])] == [4]
