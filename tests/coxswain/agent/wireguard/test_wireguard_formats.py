"""Confs and dumps: exact text, round trips, and anything at all as input (node-contract.md 6.4, 6.5)."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.agent.dataplane import LivePeer, PeerConfig
from coxswain.agent.wireguard.conf import (
    COMMENT,
    ConfError,
    InterfaceBlock,
    parse_block,
    parse_peers,
    render,
    render_plain,
)
from coxswain.agent.wireguard.dump import DumpError, parse_dump
from coxswain.agent.wireguard.routes import routed
from coxswain.model import Obfuscation

PRIVATE, ONE, TWO, PSK = (base64.b64encode(bytes([n]) * 32).decode() for n in range(1, 5))
OBFUSCATION = Obfuscation(4, 40, 900, 20, 30, 40, 50, 101, 102, 103, 104)

keys = st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode())
addresses = st.one_of(st.ip_addresses(v=4).map(lambda a: f"{a}/32"), st.ip_addresses(v=6).map(lambda a: f"{a}/128"))
peer_configs = st.builds(
    PeerConfig,
    keys,
    st.lists(addresses, max_size=4).map(tuple),
    st.one_of(st.just(""), keys),
    st.sampled_from(["", "192.0.2.1:443", "[2001:db8::1]:443", "exit.example.net:51820"]),
)
numbers = st.integers(0, 2**32 - 1)
blocks = st.builds(
    InterfaceBlock,
    keys,
    st.integers(0, 65535),
    st.integers(1280, 1420),
    st.builds(Obfuscation, *[numbers] * 11, *[st.sampled_from(["", "<b 0xf6ab><t>", "a = b"])] * 5),
    st.booleans(),
)


def test_a_conf_has_these_lines_in_this_order():
    block = InterfaceBlock(PRIVATE, 443, 1420, OBFUSCATION)
    peers = [PeerConfig(ONE, ("10.7.0.2/32", "fd07::2/128"), PSK, "192.0.2.1:443"), PeerConfig(TWO)]
    assert render(block, peers) == (
        f"{COMMENT}\n[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 443\nMTU = 1420\n"
        "Jc = 4\nJmin = 40\nJmax = 900\nS1 = 20\nS2 = 30\nS3 = 40\nS4 = 50\nH1 = 101\nH2 = 102\nH3 = 103\nH4 = 104\n"
        f"\n[Peer]\nPublicKey = {ONE}\nPresharedKey = {PSK}\nAllowedIPs = 10.7.0.2/32, fd07::2/128\n"
        "Endpoint = 192.0.2.1:443\n"
        f"\n[Peer]\nPublicKey = {TWO}\n"
    )


def test_an_inner_links_conf_switches_routes_off_and_optional_packets_come_last():
    obfuscation = Obfuscation(4, 40, 900, 20, 30, 40, 50, 101, 102, 103, 104, i1="<b 0x01>", i3="<t>")
    lines = render(InterfaceBlock(PRIVATE, 51820, 1340, obfuscation, routed=False), []).splitlines()
    assert lines[3:6] == ["ListenPort = 51820", "MTU = 1340", "Table = off"]
    assert lines[-3:] == ["H4 = 104", "I1 = <b 0x01>", "I3 = <t>"]


def test_plain_tools_get_only_what_they_know():
    block = InterfaceBlock(PRIVATE, 443, 1420, OBFUSCATION, routed=False)
    plain = render_plain(block, [PeerConfig(ONE, ("10.7.0.2/32",))], obfuscated=False)
    names = {line.split(" = ")[0] for line in plain.splitlines()}
    assert names == {"[Interface]", "PrivateKey", "ListenPort", "", "[Peer]", "PublicKey", "AllowedIPs"}
    assert "Jc = 4\n" in render_plain(block, [], obfuscated=True)


@given(blocks, st.lists(peer_configs, max_size=5))
def test_what_is_written_is_read_back(block, peers):
    conf = render(block, peers)
    assert parse_block(conf) == block
    assert parse_peers(conf) == tuple(peers)


def test_reading_is_lenient_where_the_contract_says_so():
    conf = (
        f"; a remark\n[interface]\nprivatekey={PRIVATE}\nnonsense\nPostUp = reboot\n[PEER]\n  publickey={ONE}\n# {TWO}\n\n"
        f"ALLOWEDIPS =10.7.0.2/32 ,, 10.7.0.3\nPersistentKeepalive = 25\n[Other]\nPublicKey = {TWO}\n"
        f"[Peer]\nPublicKey = {TWO}\n"
    )
    assert parse_peers(conf) == (PeerConfig(ONE, ("10.7.0.2/32", "10.7.0.3")), PeerConfig(TWO))


def test_a_line_of_a_peer_that_is_no_setting_is_an_error_without_its_content():
    with pytest.raises(ConfError, match="line 3") as caught:
        parse_peers(f"[Peer]\nPublicKey = {ONE}\n{PSK[:-1]}\n")
    assert PSK[:20] not in str(caught.value)


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(["[Peer]", "[Interface]", "PublicKey = x", "Jc = ", "=", "[", "y"])).map("\n".join),
    )
)
def test_no_text_breaks_the_reader(text):
    for read in (parse_peers, parse_block):
        with contextlib.suppress(ConfError):
            read(text)


lives = st.builds(
    LivePeer, keys, st.sampled_from(["", "192.0.2.7:5000", "[2001:db8::7]:5000"]), *[st.integers(0, 2**64 - 1)] * 3
)


@given(st.lists(lives, unique_by=lambda live: live.public_key), st.integers(4, 40))
def test_a_dump_is_read_back(peers, width):
    lines = ["\t".join(["x"] * width)]
    for p in peers:
        columns = [
            p.public_key,
            "(none)",
            p.endpoint or "(none)",
            "10.7.0.2/32",
            p.last_handshake,
            p.rx_bytes,
            p.tx_bytes,
            "off",
        ]
        lines.append("\t".join(map(str, columns)))
    assert list(parse_dump("\n".join(lines) + "\n").values()) == peers


def test_the_interface_line_is_ignored_whatever_it_is():
    assert parse_dump("") == parse_dump("(none)\n") == parse_dump("a\tb\n") == {}


@pytest.mark.parametrize(
    "line",
    [
        f"{ONE}\t{PSK}\t(none)\t10.7.0.2/32\t0\t1",
        f"{ONE}\t{PSK}\t(none)\t10.7.0.2/32\tnow\t1\t2\toff",
        f"{ONE}\t{PSK}\t(none)\t10.7.0.2/32\t0\t-1\t2\toff",
        f"{ONE}\t{PSK}\t(none)\t10.7.0.2/32\t0\t²\t2\toff",
        "\t".join([ONE, PSK, "(none)", "10.7.0.2/32", "0", str(2**64), "2", "off"]),
        f"\t{PSK}\t(none)\t10.7.0.2/32\t0\t1\t2\toff",
        PSK,
    ],
)
def test_a_malformed_line_fails_the_dump_without_telling_its_content(line):
    good = f"{TWO}\t(none)\t(none)\t10.7.0.3/32\t0\t1\t2\toff"
    with pytest.raises(DumpError, match="line 3") as caught:
        parse_dump(f"interface\n{good}\n{line}\n")
    assert PSK[:12] not in str(caught.value)


@given(st.text(alphabet="a1\t\n\0²=", max_size=80))
def test_no_text_breaks_the_dump_reader(text):
    with contextlib.suppress(DumpError):
        parse_dump(text)


def test_what_is_routed():
    peers = [
        PeerConfig(ONE, ("10.7.0.2/32", "0.0.0.0/0", "fd07::2/128", "10.7.0.9")),
        PeerConfig(TWO, ("10.7.0.2/32", "::/0", "10.8.0.7/24", "fd07::2:1/112")),
    ]
    assert routed(peers) == ("10.7.0.2/32", "fd07::2/128", "10.7.0.9", "10.8.0.0/24", "fd07::2:0/112")
