"""Foreign bytes: whatever the agent reads from files, tools or the network, it understands it or says why not.

Each reader is given both noise and documents that are almost right; what it may raise is its own error and no other.
"""

import base64
import contextlib
import json
import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coxswain.agent import requests as convert
from coxswain.agent.config import load_config
from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.identity import load_or_create_awg, load_or_create_node_key, load_or_create_xray
from coxswain.agent.redact import scrub
from coxswain.agent.state import MemoryFiles, State
from coxswain.agent.wireguard.conf import parse_block, parse_peers, render
from coxswain.agent.wireguard.dump import parse_dump
from coxswain.agent.wireguard.ruleset import ruleset
from coxswain.agent.wireguard.transits import hops, hops_of
from coxswain.errors import CoxswainError, InvalidInput, Refused
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

bounded = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

NUMBERS = st.one_of(st.integers(), st.integers(-2, 2**33), st.floats(), st.just(10**400))
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=40), st.sampled_from(["", "10.7.0.2/32", "awg1", "7100"])
)


def documents(*names):
    """JSON of any shape in which the expected names are likely."""
    keys = st.one_of(st.sampled_from(names), st.text(max_size=10))
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6), max_leaves=20
    )


def encoded(value):
    return json.dumps(value).encode()


def noise(*names):
    return st.one_of(st.binary(max_size=300), documents(*names).map(encoded), st.just(b"[" * 100_000), st.just(b"1e999"))


def held(name, content):
    files = MemoryFiles()
    files.contents[name] = content
    return files


@bounded
@given(noise("policy", "down", "Forwarding", "Transits", "DeviceCIDR", "InnerInterface", "Mark", "Table"))
@example(b'{"policy": {"Transits": [{"DeviceCIDR": "x", "InnerInterface": "y", "Mark": 1e999, "Table": 1}]}}')
@example(b'{"policy": {"Transits": [{"DeviceCIDR": "\\" }\\n", "InnerInterface": "\\" ", "Mark": 1, "Table": 1}]}}')
def test_a_stored_policy(content):
    try:
        stored = State(held("netpolicy.json", content)).policy()
    except Refused:
        return
    assert set(hops_of(stored)) >= set(hops(stored.policy.transits))
    try:
        policy = convert.checked_policy(stored.policy)
    except InvalidInput:
        return
    text = ruleset(policy, "eth0", {"awg1": 1340})
    assert text.count("{") == text.count("}"), "nothing of the file becomes syntax"


@bounded
@given(noise("private_key", "obfuscation", "jc", "jmin", "jmax", "s1", "s2", "h1", "h2", "h3", "h4", "i1"))
@example(encoded({"private_key": base64.b64encode(bytes(32)).decode(), "obfuscation": {"jc": True}}))
@example(encoded({"private_key": base64.b64encode(bytes(32)).decode(), "obfuscation": {"h1": 10**400}}))
def test_identities(content):
    for name, load in (("awg-node.json", load_or_create_awg), ("xray-node.json", load_or_create_xray)):
        files = held(name, content)
        with_error = None
        try:
            load(files)
        except Refused as error:
            with_error = str(error)
        assert files.contents[name] == content, "an identity is never made over one that is there"
        assert with_error is None or len(with_error) < 500


@bounded
@given(noise("revision", "port", "dest", "server_names", "short_ids", "clients", "id", "flow"))
def test_a_remembered_reality_configuration(content):
    with contextlib.suppress(Refused):
        State(held("xray-config.json", content)).xray()


@bounded
@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"\A[-+ _\n0-9]{0,30}\Z")))
@example(b"9" * 5000)
def test_revisions(content):
    for name, read in (("awg-revision", State.awg_revision), ("awg1-revision", lambda state: state.link_revision("awg1"))):
        with contextlib.suppress(Refused):
            assert isinstance(read(State(held(name, content))), int)


@bounded
@given(st.binary(max_size=200))
def test_node_keys(content):
    files = held("node.key", content)
    with pytest.raises(Refused):
        load_or_create_node_key(files)
    assert files.contents["node.key"] == content


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["[Peer]", "[Interface]", "[peer", "PublicKey = k", "AllowedIPs = 10.0.0.1/32,", "Table = off", "#", "="]
        ),
        st.text(max_size=30),
        st.builds("{} = {}".format, st.sampled_from(["ListenPort", "MTU", "Jc", "H1", "PrivateKey"]), st.text(max_size=12)),
    ),
    max_size=12,
).map("\n".join)


@bounded
@given(LINES)
def test_confs(text):
    try:
        block, peers = parse_block(text), parse_peers(text)
    except DataPlaneFailed:
        return
    again = render(block, peers)
    assert parse_peers(again) == peers, "what is understood can be written and read again"


@bounded
@given(
    st.lists(
        st.lists(st.one_of(st.text("\x00\t (none)0123456789abc=", max_size=12), st.just("9" * 30)), max_size=10).map(
            "\t".join
        ),
        max_size=5,
    ).map("\n".join)
)
def test_dumps(text):
    try:
        live = parse_dump(text)
    except DataPlaneFailed:
        return
    assert all(peer.rx_bytes < 2**64 and peer.tx_bytes < 2**64 for peer in live.values())


@bounded
@given(st.one_of(st.binary(max_size=200), documents("control", "log", "data_plane", "listen_addr", "firewall").map(encoded)))
def test_configurations(content):
    class Directory:
        def __truediv__(self, name):
            return self

        def read_text(self, encoding):
            return content.decode(encoding)

    with contextlib.suppress(InvalidInput):
        load_config(Directory(), {})


def mutated(message, rng):
    """Bytes of a message with some of them changed, cut or doubled."""
    data = bytearray(message.SerializeToString())
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data)) if data else 0
        match rng.randint(0, 3):
            case 0 if data:
                data[place] = rng.randrange(256)
            case 1 if data:
                del data[place : place + rng.randint(1, 8)]
            case 2:
                data[place:place] = rng.randbytes(rng.randint(1, 8))
            case _:
                data += data[place : place + 16]
    return bytes(data)


SEEDS = [
    (pb.AmneziaWGConfig, "peers", lambda message: convert.peer_configs(message.peers)),
    (pb.XRayRealityConfig, "peers", convert.xray_config),
    (pb.NetworkConfig, "transits", convert.policy_from),
    (pb.InnerLinkConfig, "exit", convert.link_config),
]


@pytest.mark.parametrize(("kind", "_", "read"), SEEDS)
def test_requests_that_are_almost_right(kind, _, read):
    key = base64.b64encode(bytes(range(32))).decode()
    addresses = {"allowed_ips": ["10.7.0.2/32"], "endpoints": ["192.0.2.1:443"]}
    peer = pb.Peer(id="p", protocol=1, public_key=key, preshared_key=key, **addresses)
    obfuscation = pb.AmneziaWGObfuscation(jc=3, jmin=25, jmax=800, s1=15, s2=20, h1=5, h2=6, h3=7, h4=8)
    transit = pb.TransitRoute(device_cidr="10.7.0.2/32", inner_interface="awg1", mark=7100, table=7100)
    good = {
        pb.AmneziaWGConfig: pb.AmneziaWGConfig(peers=[peer]),
        pb.XRayRealityConfig: pb.XRayRealityConfig(
            peers=[pb.Peer(public_key="0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55")],
            dest="d.test:443", server_names=["d.test"], short_ids=["ab"], port=443,
        ),
        pb.NetworkConfig: pb.NetworkConfig(forwarding=True, masquerade=True, transits=[transit]),
        pb.InnerLinkConfig: pb.InnerLinkConfig(
            interface="awg1", listen_port=51820, mtu=1340, peer_obfuscation=obfuscation, exit=peer
        ),
    }[kind]  # fmt: skip
    read(good)
    rng = random.Random(7)
    understood = 0
    for _attempt in range(2000):
        message = kind()
        try:
            message.MergeFromString(mutated(good, rng))
        except DecodeError:
            continue
        try:
            read(message)
        except InvalidInput:
            continue
        understood += 1
    assert understood > 5, "not all of it is noise"


@bounded
@given(st.text(max_size=200))
def test_what_leaves_the_node_holds_no_key(text):
    secret = base64.b64encode(bytes(range(32))).decode()
    assert secret not in scrub(f"{text}{secret}{text}")
    assert secret not in scrub(f"{text} {secret} {text}")


def test_errors_are_the_projects_own():
    assert issubclass(DataPlaneFailed, CoxswainError)
