"""The canonical rules (node-contract.md 7.3), literally and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.netpolicy import Policy, Rules, Transit, check, render, resolve

TRANSIT = Transit("10.7.0.2/32", "awg1", 7100, 7101)


def test_everything_at_once_byte_for_byte():
    assert render(Policy(True, True, True, (TRANSIT,))) == Rules(
        pre_up=(
            "sysctl -w net.ipv4.conf.all.forwarding=1",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "sysctl -w net.ipv4.conf.all.rp_filter=0",
            "sysctl -w net.ipv4.conf.default.rp_filter=0",
        ),
        post_up=(
            "iptables -I FORWARD 1 -i %i -o %i -j DROP",
            "iptables -A FORWARD -i %i -j ACCEPT",
            "iptables -A FORWARD -o %i -j ACCEPT",
            "iptables -t nat -A POSTROUTING -o %e -j MASQUERADE",
            "iptables -t mangle -A PREROUTING -i %i -s 10.7.0.2/32 -j MARK --set-mark 7100",
            "ip rule add fwmark 7100 lookup 7101",
            "ip route replace default dev awg1 table 7101",
        ),
        post_down=(
            "iptables -D FORWARD -i %i -o %i -j DROP",
            "iptables -D FORWARD -i %i -j ACCEPT",
            "iptables -D FORWARD -o %i -j ACCEPT",
            "iptables -t nat -D POSTROUTING -o %e -j MASQUERADE",
            "ip route del default dev awg1 table 7101",
            "ip rule del fwmark 7100 lookup 7101",
            "iptables -t mangle -D PREROUTING -i %i -s 10.7.0.2/32 -j MARK --set-mark 7100",
        ),
    )


def test_plain_forwarding():
    rules = render(Policy(forwarding=True))
    assert len(rules.pre_up) == 2
    assert rules.post_up == ("iptables -A FORWARD -i %i -j ACCEPT", "iptables -A FORWARD -o %i -j ACCEPT")


def test_resolving():
    line = "iptables -t nat -A POSTROUTING -o %e -j MASQUERADE"
    assert resolve(line, "awg0", "ens3")[4:] == ("POSTROUTING", "-o", "ens3", "-j", "MASQUERADE")


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (Policy(False, True, True, (TRANSIT,)), "policy.masquerade"),
        (Policy(False, False, True, (TRANSIT,)), "policy.isolation"),
        (Policy(False, transits=(TRANSIT,)), "policy.transits"),
        (Policy(True, transits=(TRANSIT, Transit("", "", 0, 0))), "policy.transits[1].device_cidr"),
        (Policy(True, transits=(Transit("10.0.0.1", "", 0, 0),)), "policy.transits[0].inner_interface"),
        (Policy(True, transits=(Transit("10.0.0.1", "awg1", 0, 0),)), "policy.transits[0].mark"),
        (Policy(True, transits=(Transit("10.0.0.1", "awg1", 1, 0),)), "policy.transits[0].table"),
    ],
)
def test_the_first_broken_rule_is_named(policy, named):
    with pytest.raises(InvalidInput, match="^" + named.replace("[", r"\[").replace("]", r"\]") + ":"):
        check(policy)


words = st.from_regex(r"[a-z0-9./]{1,12}", fullmatch=True)
numbers = st.integers(1, 2**32 - 1)
policies = st.builds(
    Policy,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.builds(Transit, words, words, numbers, numbers)).map(tuple),
)


@given(policies)
def test_what_goes_up_comes_down(policy):
    """Each installed rule has exactly one teardown, and nothing else is torn down."""
    rules = render(policy)
    if not policy.forwarding:
        assert rules == Rules()
        return

    def undone(line):
        return (
            line.replace(" -A ", " -D ")
            .replace("-I FORWARD 1", "-D FORWARD")
            .replace("ip rule add", "ip rule del")
            .replace("route replace", "route del")
        )

    assert sorted(map(undone, rules.post_up)) == sorted(rules.post_down)
    assert {line.split()[0] for line in (*rules.pre_up, *rules.post_up, *rules.post_down)} <= {"sysctl", "iptables", "ip"}
