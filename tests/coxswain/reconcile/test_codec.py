"""Between values and the wire. What a node sends is a value within bounds or ``NodeMisbehaved``, never anything else."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from coxswain.errors import NodeMisbehaved
from coxswain.messages.sessions import EventKind, NodeEvent
from coxswain.model import Obfuscation, Peer, Protocol
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange
from coxswain.reconcile import codec
from coxswain.reconcile.plan import plan, remember
from coxswain.reconcile.types import LinkMemory, SetPolicy
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.coxswain.reconcile.samples import AWG, key, peer, wanted

NOW = 1_800_000_000.0
UUID = "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55"
GOOD = Obfuscation(jc=4, jmin=40, jmax=800, s1=20, s2=30, s3=40, s4=50, h1=5, h2=6, h3=7, h4=8)


def status(**changes: object) -> pb.GetStatusResponse:
    message = pb.GetStatusResponse(
        agent_version="v1.2.3",
        uptime_seconds=10,
        applied_revision=5,
        services=[pb.ServiceStatus(protocol=pb.PROTOCOL_AMNEZIAWG, running=True, newest_handshake_age_seconds=-1)],
        amneziawg=pb.AmneziaWGInfo(public_key=key("node")),
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def listed(*states: pb.PeerState) -> pb.ListPeersResponse:
    return pb.ListPeersResponse(peers=states)


def state(number: int = 1, handshake: float | None = None, rx: int = 0, **fields: object) -> pb.PeerState:
    values = {"public_key": key(number), "allowed_ips": ["10.7.0.3/32"], "protocol": pb.PROTOCOL_AMNEZIAWG} | fields
    message = pb.PeerState(peer=pb.Peer(**values), rx_bytes=rx)  # type: ignore[arg-type]
    if handshake is not None:
        message.last_handshake.CopyFrom(Timestamp(seconds=int(handshake)))
    return message


# -- to the node


def test_a_push_carries_the_peers_in_order_as_they_are() -> None:
    psk = key("psk")
    xray = Peer("per_x", "nod_a", "dev_x", Protocol.XRAY_REALITY, UUID)
    request = codec.push_request(wanted(peer(2, ips=("10.7.0.9",), psk=psk), xray, peer(1), revision=7))
    assert (request.protocol, request.revision) == (pb.PROTOCOL_AMNEZIAWG, 7)
    first, second = pb.AmneziaWGConfig.FromString(request.config).peers
    assert (first.id, first.public_key, list(first.allowed_ips), first.preshared_key) == ("per_2", key(2), ["10.7.0.9"], psk)
    assert second.public_key == key(1)


def test_a_policy_goes_as_it_is() -> None:
    request = codec.policy_request(Policy(True, False, True))
    assert (request.forwarding, request.masquerade, request.isolation, list(request.transits)) == (True, False, True, [])
    transit = Transit("10.7.0.2/32", "awg1", 7100, 7100)
    [route] = codec.policy_request(Policy(True, True, False, (transit,))).transits
    assert (route.device_cidr, route.inner_interface, route.mark, route.table) == ("10.7.0.2/32", "awg1", 7100, 7100)


def test_ports_go_with_the_policy_in_fields_that_existing_agents_pass_over() -> None:
    plain = codec.policy_request(Policy(True, True))
    more = codec.policy_request(Policy(True, True, ports=PortRange(20000, 29999)))
    assert (more.endpoint_port_min, more.endpoint_port_max) == (20000, 29999)
    assert more.SerializeToString().startswith(plain.SerializeToString())
    assert (plain.endpoint_port_min, plain.endpoint_port_max) == (0, 0)
    fields = pb.NetworkConfig.DESCRIPTOR.fields_by_name
    assert all(fields[name].number > 1_000 for name in ("endpoint_port_min", "endpoint_port_max"))


def test_what_was_pushed_and_read_back_is_in_sync() -> None:
    desired = wanted(peer(1), peer(2, ips=("10.7.0.9", "fd00::9"), psk=key("psk")))
    pushed = pb.AmneziaWGConfig.FromString(codec.push_request(desired).config).peers
    live = status()
    live.services[0].peer_count = 2
    observed = codec.observed(live, listed(*(pb.PeerState(peer=p) for p in pushed)), NOW)
    [step] = plan(desired, observed, remember(LinkMemory(), observed, 0), 0).steps
    assert isinstance(step, SetPolicy)


# -- from the node


def test_a_status_is_read() -> None:
    message = status()
    message.amneziawg.obfuscation.CopyFrom(
        pb.AmneziaWGObfuscation(**{name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__})
    )
    observed = codec.observed(message, None, NOW)
    assert (observed.agent_version, observed.applied_revision, observed.uptime_s) == ("v1.2.3", 5, 10)
    assert (observed.wg_public_key, observed.obfuscation, observed.peers) == (key("node"), GOOD, None)
    assert observed.services[0].running
    assert not observed.tunnel_ipv6, "existing agents say nothing of it"
    message.tunnel_ipv6 = True
    assert codec.observed(message, None, NOW).tunnel_ipv6


def test_an_agent_that_says_more_is_understood_by_one_who_knows_less() -> None:
    """The field is ours. Existing controllers read the rest; what they do not know stays out of their way."""
    plain, more = status(), status(tunnel_ipv6=True, endpoint_port_min=20000, endpoint_port_max=29999)
    assert more.SerializeToString().startswith(plain.SerializeToString())
    fields = pb.GetStatusResponse.DESCRIPTOR.fields_by_name
    assert all(fields[name].number > 1_000 for name in ("tunnel_ipv6", "endpoint_port_min", "endpoint_port_max"))


def test_the_ports_that_a_node_maps_are_read() -> None:
    assert codec.observed(status(), None, NOW).mapped_ports == "", "existing agents say nothing of it"
    said = status(endpoint_port_min=20000, endpoint_port_max=20000)
    assert codec.observed(said, None, NOW).mapped_ports == "20000-20000"
    for low, high in ((0, 5), (5, 0), (6, 5), (1, 65_536), (2**32 - 1, 2**32 - 1)):
        with pytest.raises(NodeMisbehaved, match="endpoint_port"):
            codec.observed(status(endpoint_port_min=low, endpoint_port_max=high), None, NOW)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"applied_revision": -1}, "applied_revision"),
        ({"applied_revision": 2**62 + 1}, "applied_revision"),
        ({"uptime_seconds": -1}, "uptime_seconds"),
    ],
)
def test_numbers_that_cannot_be_true_are_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(NodeMisbehaved, match=field):
        codec.observed(status(**changes), None, NOW)


def test_a_key_of_the_wrong_length_is_named() -> None:
    message = status()
    message.amneziawg.public_key = "abc="
    with pytest.raises(NodeMisbehaved, match=r"amneziawg\.public_key"):
        codec.observed(message, None, NOW)


@pytest.mark.parametrize("text", ["A" * 65, 'A" onload="alert(1)' + "A" * 24, "A" * 42 + "\n", "a&b", "k#"])
def test_what_is_no_reality_key_is_told_to_no_device(text: str) -> None:
    message = status()
    message.xray.public_key = text
    assert codec.observed(message, None, NOW).xray_public_key == ""


@pytest.mark.parametrize(
    ("change", "field"),
    [({"h1": 4}, "h1"), ({"h2": 7}, "h1 to h4"), ({"jmin": 801}, "jmin"), ({"s2": 76}, "s2"), ({"i1": "x" * 5000}, "4096")],
)
def test_an_obfuscation_set_that_no_client_could_use_is_named(change: dict[str, object], field: str) -> None:
    message = status()
    values = {name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__} | change
    message.amneziawg.obfuscation.CopyFrom(pb.AmneziaWGObfuscation(**values))  # type: ignore[arg-type]
    with pytest.raises(NodeMisbehaved, match=field):
        codec.observed(message, None, NOW)


def test_too_many_services_or_peers_are_too_many() -> None:
    message = status()
    for _ in range(20):
        message.services.add()
    with pytest.raises(NodeMisbehaved, match="services"):
        codec.observed(message, None, NOW)
    many = listed(*[pb.PeerState()] * 50_001)
    with pytest.raises(NodeMisbehaved, match="peers"):
        codec.observed(status(), many, NOW)
    with pytest.raises(NodeMisbehaved, match="peers"):
        codec.peer_rows(status(), many, NOW)


def test_texts_are_cut_and_shown_without_control_characters() -> None:
    observed = codec.observed(status(agent_version="v1\x1b[31m\n" + "x" * 1000), None, NOW)
    assert observed.agent_version.isprintable()
    assert observed.agent_version.startswith("v1\ufffd[31m\ufffdxxx")
    assert len(observed.agent_version) == 256


def test_one_bad_row_does_not_cost_the_node() -> None:
    rows = listed(state(1, rx=5), state(public_key="nonsense\n"), state(2, rx=2**64 - 1))
    assert [(c.peer_key, c.rx_bytes) for c in codec.peer_rows(status(), rows, NOW).usable] == [(key(1), 5), (key(2), 2**60)]
    observed = codec.observed(status(), rows, NOW)
    assert observed.peers is not None
    assert [p.public_key for p in observed.peers] == [key(1), "nonsense\ufffd", key(2)]


def test_no_secret_is_in_what_may_be_printed() -> None:
    psk = key("psk")
    observed = codec.observed(status(), listed(state(1, preshared_key=psk)), NOW)
    assert psk not in repr(observed)
    assert psk not in repr(wanted(peer(1, psk=psk)))


# -- events


def event(**fields: object) -> NodeEvent | None:
    values: dict[str, object] = {
        "type": pb.EVENT_TYPE_PEER_CONNECTED,
        "protocol": pb.PROTOCOL_AMNEZIAWG,
        "peer_id": key(1),
        "at": Timestamp(seconds=int(NOW) - 1),
        "source_endpoint": "198.51.100.7:4000",
        "rx_bytes": 5,
        "tx_bytes": 6,
    } | fields
    return codec.event("nod_a", pb.Event(**values), NOW)  # type: ignore[arg-type]


def test_an_event_is_read() -> None:
    expected = NodeEvent(
        "nod_a", NOW - 1, NOW, EventKind.PEER_CONNECTED, AWG, key(1), "", "198.51.100.7:4000", rx_bytes=5, tx_bytes=6
    )
    assert event() == expected


def test_an_event_without_a_time_has_ours() -> None:
    for at in (None, Timestamp(seconds=-5), Timestamp(seconds=10**11)):
        read = event(at=at)
        assert read is not None
        assert read.at == NOW


def test_counters_of_events_are_bounded() -> None:
    read = event(rx_bytes=-7, tx_bytes=2**63 - 1)
    assert read is not None
    assert (read.rx_bytes, read.tx_bytes) == (0, 2**60)


def test_events_that_we_cannot_count_are_passed_over() -> None:
    assert event(type=77) is None
    assert event(protocol=9) is None
    assert event(peer_id="") is None
    assert event(peer_id=key(1) + "\n") is None
    assert event(protocol=pb.PROTOCOL_XRAY_REALITY) is None
    unspecified = event(protocol=0)
    assert unspecified is not None
    assert unspecified.protocol is AWG
    xray = event(protocol=pb.PROTOCOL_XRAY_REALITY, peer_id=UUID)
    assert xray is not None
    assert xray.protocol is Protocol.XRAY_REALITY
    assert event(type=pb.EVENT_TYPE_ERROR, peer_id="", message="awg show awg0 dump: exit status 1") is not None


# -- clocks


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize("age", [1, 100, 4000])
def test_a_nodes_clock_is_told_from_its_handshakes(skew: float, age: int) -> None:
    message = status()
    message.services[0].newest_handshake_age_seconds = age
    message.services[0].handshaking_peers = message.services[0].peer_count = 1 if age < 180 else 0
    rows = listed(state(1, NOW + skew - age), state(2, NOW + skew - age - 500), state(3))
    assert codec.peer_rows(message, rows, NOW).node_now == NOW + skew
    assert codec.observed(message, rows, NOW).clock_skew_s == skew


@pytest.mark.parametrize(("age", "handshaking"), [(-1, 0), (0, 0), (-5, 0), (2**62, 0)])
def test_agents_that_cannot_tell_are_taken_to_have_our_clock(age: int, handshaking: int) -> None:
    message = status()
    message.services[0].newest_handshake_age_seconds = age
    message.services[0].handshaking_peers = handshaking
    assert codec.peer_rows(message, listed(state(1, NOW - 5000)), NOW).node_now == NOW


def test_a_handshake_between_the_two_answers_is_no_skew() -> None:
    message = status()
    message.services[0].newest_handshake_age_seconds = 170
    message.services[0].handshaking_peers = 1
    assert codec.peer_rows(message, listed(state(1, NOW)), NOW).node_now == NOW


# -- fuzz


def check_bounds(node_event: NodeEvent) -> None:
    assert 0 <= node_event.rx_bytes <= 2**60
    assert node_event.message.isprintable()
    assert node_event.endpoint.isprintable()
    assert len(node_event.message) <= 256


awkward = st.one_of(st.text(max_size=300), st.sampled_from([key(1), key(2), "10.7.0.2/32", "1/2/3", "::/200", ":", "/"]))
stamps = st.builds(Timestamp, seconds=st.integers(-(2**62), 2**62), nanos=st.integers(-(2**31), 2**31 - 1))
pb_peers = st.builds(
    pb.Peer,
    id=awkward,
    public_key=awkward,
    preshared_key=awkward,
    allowed_ips=st.lists(awkward, max_size=3),
    endpoints=st.lists(awkward, max_size=2),
)
pb_states = st.builds(
    pb.PeerState,
    peer=pb_peers,
    last_handshake=st.none() | stamps,
    rx_bytes=st.integers(0, 2**64 - 1),
    tx_bytes=st.integers(0, 2**64 - 1),
)
uint32s = st.integers(0, 2**32 - 1)
pb_services = st.builds(
    pb.ServiceStatus,
    protocol=st.integers(-5, 5),
    running=st.booleans(),
    peer_count=uint32s,
    detail=awkward,
    newest_handshake_age_seconds=st.integers(-(2**63), 2**63 - 1),
    handshaking_peers=uint32s,
)
obfuscations = st.builds(pb.AmneziaWGObfuscation, h1=uint32s, h2=uint32s, h3=uint32s, h4=uint32s, i1=awkward)
pb_statuses = st.builds(
    pb.GetStatusResponse,
    agent_version=awkward,
    uptime_seconds=st.integers(-2, 2**63 - 1),
    applied_revision=st.integers(-2, 2**63 - 1),
    services=st.lists(pb_services, max_size=3),
    amneziawg=st.builds(
        pb.AmneziaWGInfo,
        public_key=st.sampled_from(["", key(1), "bad"]),
        obfuscation=st.none() | obfuscations,
    ),
)


pb_lists = st.lists(pb_states, max_size=4).map(lambda states: listed(*states))


def read_all(message: pb.GetStatusResponse, rows: pb.ListPeersResponse) -> None:
    """Reads a look at a node as a link does. Raises ``NodeMisbehaved``."""
    observed = codec.observed(message, rows, NOW)
    assert 0 <= observed.applied_revision <= 2**62
    assert all(len(p.public_key) <= 256 and p.public_key.isprintable() for p in observed.peers or ())
    assert all(0 <= c.rx_bytes <= 2**60 and c.last_handshake >= 0 for c in codec.peer_rows(message, rows, NOW).usable)
    assert 0 <= codec.peer_rows(message, rows, NOW).node_now <= 13_569_465_600
    plan(wanted(peer(1)), observed, remember(LinkMemory(), observed, 0.0), 0.0)


def check_look(message: pb.GetStatusResponse, rows: pb.ListPeersResponse) -> None:
    failure = ""
    try:
        read_all(message, rows)
    except NodeMisbehaved as error:
        failure = str(error)
    assert failure.isprintable()


@settings(max_examples=300)
@given(pb_statuses, pb_lists)
def test_awkward_answers_give_a_value_or_misbehaviour(message: pb.GetStatusResponse, rows: pb.ListPeersResponse) -> None:
    check_look(message, rows)


@settings(max_examples=300)
@given(pb_statuses, pb_lists, st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_spoilt_bytes_give_a_value_or_misbehaviour(
    message: pb.GetStatusResponse, rows: pb.ListPeersResponse, spoils: list[tuple[int, int]]
) -> None:
    one, two = bytearray(message.SerializeToString()), bytearray(rows.SerializeToString())
    for position, byte in spoils:
        for raw in (one, two):
            if raw:
                raw[position % len(raw)] = byte
    try:
        parsed = pb.GetStatusResponse.FromString(bytes(one)), pb.ListPeersResponse.FromString(bytes(two))
    except DecodeError:
        return  # gRPC would have said so
    check_look(*parsed)


@settings(max_examples=300)
@given(
    st.builds(
        pb.Event,
        at=st.none() | stamps,
        type=st.integers(-5, 9),
        protocol=st.integers(-5, 9),
        peer_id=awkward,
        message=awkward,
        source_endpoint=awkward,
        rx_bytes=st.integers(-(2**63), 2**63 - 1),
        tx_bytes=st.integers(-(2**63), 2**63 - 1),
    )
)
def test_awkward_events_give_a_value_or_none(message: pb.Event) -> None:
    read = codec.event("nod_a", message, NOW)
    if read is not None:
        check_bounds(read)
