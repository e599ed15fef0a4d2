"""yamux without I/O: the exact bytes, the credit, and every frame that a hostile or broken peer may send."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coxswain.relay.yamux_core import (
    WINDOW,
    Acknowledged,
    Core,
    Data,
    Event,
    Finished,
    Flag,
    GoneAway,
    Kind,
    Limits,
    Opened,
    Ponged,
    ProtocolError,
    Reset,
    Writable,
    frame,
)


def _take(core: Core, data: bytes) -> list[Event]:
    return list(core.receive(data))


def _exchange(one: Core, other: Core) -> tuple[list[Event], list[Event]]:
    """Carries bytes until both are silent; what ``one`` and ``other`` saw."""
    seen: tuple[list[Event], list[Event]] = ([], [])
    while one.waiting or other.waiting:
        seen[1].extend(other.receive(one.take()))
        seen[0].extend(one.receive(other.take()))
    return seen


def _with_stream() -> tuple[Core, Core]:
    client, server = Core(client=True), Core(client=False)
    assert client.open() == 1
    _exchange(client, server)
    return client, server


def test_the_bytes_of_the_frames_that_matter() -> None:
    client, server = Core(client=True), Core(client=False)
    client.open()
    opening = client.take()
    assert opening.hex() == "000100010000000100000000"
    assert _take(server, opening) == [Opened(1)]
    assert server.take().hex() == "000100020000000100000000"
    client.send(1, bytes(1494))
    assert client.take() == bytes.fromhex("0000000000000001000005d6") + bytes(1494)
    client.finish(1)
    assert client.take().hex() == "000100040000000100000000"
    client.reset(1)
    assert client.take().hex() == "000100080000000100000000"
    assert client.ping() == 0
    assert client.take().hex() == "000200010000000000000000"
    assert _take(server, bytes.fromhex("0002000100000000deadbeef")) == []
    assert server.take().hex() == "0002000200000000deadbeef"
    server.go_away()
    assert server.take().hex() == "000300000000000000000000"


def test_ids_are_odd_for_the_client_and_even_for_the_server() -> None:
    assert [Core(client=True).open(), Core(client=False).open()] == [1, 2]
    client = Core(client=True)
    assert [client.open() for _ in range(3)] == [1, 3, 5]


def test_a_stream_is_acknowledged_once_and_at_once() -> None:
    client, server = Core(client=True), Core(client=False)
    stream = client.open()
    client.send(stream, b"early")
    assert _take(server, client.take()) == [Opened(1), Data(1, b"early")]
    answer = server.take()
    assert answer == frame(Kind.WINDOW_UPDATE, Flag.ACK, 1, 0)
    assert _take(client, answer) == [Acknowledged(1)]
    server.send(1, b"x")
    assert server.take() == frame(Kind.DATA, 0, 1, 1) + b"x"


def test_an_acknowledgement_may_come_on_a_data_frame() -> None:
    client = Core(client=True)
    client.open()
    assert _take(client, frame(Kind.DATA, Flag.ACK, 1, 2) + b"hi") == [Acknowledged(1), Data(1, b"hi")]


def test_no_more_is_sent_than_the_other_side_gave_credit_for() -> None:
    client, server = _with_stream()
    sent = 0
    while part := client.send(1, bytes(100_000)):
        sent += part
    assert sent == WINDOW
    assert client.credit(1) == 0
    _, seen = _exchange(client, server)
    assert sum(len(event.body) for event in seen if isinstance(event, Data)) == WINDOW
    server.consumed(1, WINDOW // 2 - 1)
    assert server.take() == b""
    server.consumed(1, 1)
    assert server.take() == frame(Kind.WINDOW_UPDATE, 0, 1, WINDOW // 2)
    assert _take(client, frame(Kind.WINDOW_UPDATE, 0, 1, WINDOW // 2)) == [Writable(1)]
    assert client.credit(1) == WINDOW // 2


def test_whoever_overruns_the_window_loses_the_session() -> None:
    _, server = _with_stream()
    with pytest.raises(ProtocolError, match="262145 bytes, 262144 allowed"):
        _take(server, frame(Kind.DATA, 0, 1, WINDOW + 1))
    assert server.take() == frame(Kind.GO_AWAY, 0, 0, 1)


def test_half_closed_streams_go_on_in_the_other_direction() -> None:
    client, server = _with_stream()
    client.finish(1)
    assert _exchange(client, server)[1] == [Finished(1)]
    server.send(1, b"answer")
    assert _exchange(client, server)[0] == [Data(1, b"answer")]
    server.finish(1)
    assert _exchange(client, server)[0] == [Finished(1)]
    assert (client.open_streams, server.open_streams) == (0, 0)


def test_the_end_is_said_once_and_behind_the_data() -> None:
    client, _ = _with_stream()
    client.send(1, b"last")
    client.finish(1)
    client.finish(1)
    assert client.credit(1) == 0
    assert client.take() == frame(Kind.DATA, 0, 1, 4) + b"last" + frame(Kind.WINDOW_UPDATE, Flag.FIN, 1, 0)


def test_a_second_end_is_fatal() -> None:
    _, server = _with_stream()
    _take(server, frame(Kind.WINDOW_UPDATE, Flag.FIN, 1, 0))
    with pytest.raises(ProtocolError, match="second end"):
        _take(server, frame(Kind.WINDOW_UPDATE, Flag.FIN, 1, 0))


def test_data_after_the_end_is_fatal() -> None:
    _, server = _with_stream()
    assert _take(server, frame(Kind.DATA, Flag.FIN, 1, 2) + b"ok") == [Data(1, b"ok"), Finished(1)]
    with pytest.raises(ProtocolError, match="after its end"):
        _take(server, frame(Kind.DATA, 0, 1, 1) + b"x")


@pytest.mark.parametrize("stream", [0, 2])
def test_ids_that_the_other_side_must_not_use_are_fatal(stream: int) -> None:
    with pytest.raises(ProtocolError, match="cannot be opened"):
        _take(Core(client=False), frame(Kind.WINDOW_UPDATE, Flag.SYN, stream, 0))


def test_a_live_id_used_again_is_fatal() -> None:
    _, server = _with_stream()
    with pytest.raises(ProtocolError, match="stream 1 cannot be opened"):
        _take(server, frame(Kind.WINDOW_UPDATE, Flag.SYN, 1, 0))


@pytest.mark.parametrize("wrong", [bytes.fromhex("01" + "00" * 11), frame(4, 0, 0, 0)])
def test_another_version_and_unknown_types_are_fatal(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        _take(Core(client=True), wrong)


def test_a_reset_drops_the_stream_and_what_still_comes_for_it_is_passed_over() -> None:
    client, server = _with_stream()
    assert _take(server, frame(Kind.DATA, Flag.RST, 1, 3) + b"abc") == [Reset(1)]
    assert _take(server, frame(Kind.DATA, 0, 1, 3) + b"abc" + frame(Kind.PING, Flag.ACK, 0, 9)) == [Ponged(9)]
    assert server.take() == b""
    assert client.open_streams == 1


def test_streams_beyond_the_backlog_are_reset() -> None:
    server = Core(client=False, limits=Limits(backlog=2))
    opening = b"".join(frame(Kind.WINDOW_UPDATE, Flag.SYN, number, 0) for number in (1, 3, 5))
    assert _take(server, opening) == [Opened(1), Opened(3)]
    assert server.take().endswith(frame(Kind.WINDOW_UPDATE, Flag.RST, 5, 0))
    server.accepted()
    assert _take(server, frame(Kind.WINDOW_UPDATE, Flag.SYN, 7, 0)) == [Opened(7)]


def test_streams_beyond_the_limit_are_reset_until_one_ends() -> None:
    server = Core(client=False, limits=Limits(max_streams=1))
    assert _take(server, frame(Kind.WINDOW_UPDATE, Flag.SYN, 1, 0)) == [Opened(1)]
    server.accepted()
    assert _take(server, frame(Kind.WINDOW_UPDATE, Flag.SYN, 3, 0)) == []
    server.reset(1)
    assert _take(server, frame(Kind.WINDOW_UPDATE, Flag.SYN, 5, 0)) == [Opened(5)]


def test_what_lies_unread_is_bounded_over_all_streams() -> None:
    server = Core(client=False, limits=Limits(max_unread=10))
    opening = b"".join(frame(Kind.WINDOW_UPDATE, Flag.SYN, number, 0) for number in (1, 3))
    _take(server, opening + frame(Kind.DATA, 0, 1, 8) + bytes(8))
    assert _take(server, frame(Kind.DATA, 0, 3, 8) + bytes(8)) == [Reset(3)]
    server.consumed(1, 8)
    assert _take(server, frame(Kind.DATA, 0, 1, 10) + bytes(10)) == [Data(1, bytes(10))]


def test_after_a_go_away_nothing_new_is_opened_and_the_rest_goes_on() -> None:
    client, server = _with_stream()
    server.go_away()
    assert _exchange(client, server)[0] == [GoneAway(0)]
    with pytest.raises(ProtocolError, match="remote end is not accepting connections"):
        client.open()
    client.send(1, b"still")
    assert _exchange(client, server)[1] == [Data(1, b"still")]
    assert _take(server, frame(Kind.WINDOW_UPDATE, Flag.SYN, 3, 0)) == []
    assert server.take() == frame(Kind.WINDOW_UPDATE, Flag.RST, 3, 0)


def test_no_more_streams_are_opened_than_the_other_side_acknowledges() -> None:
    client = Core(client=True, limits=Limits(backlog=2))
    client.open()
    client.open()
    assert not client.can_open()
    _take(client, frame(Kind.WINDOW_UPDATE, Flag.ACK, 1, 0))
    assert client.can_open()
    client.open()
    _take(client, frame(Kind.WINDOW_UPDATE, Flag.RST, 3, 0))
    assert client.can_open()


def test_credit_beyond_what_can_be_counted_is_fatal() -> None:
    client, _ = _with_stream()
    with pytest.raises(ProtocolError, match="credit"):
        _take(client, frame(Kind.WINDOW_UPDATE, 0, 1, 2**32 - 1))


def test_answers_go_before_data() -> None:
    client, server = _with_stream()
    client.send(1, bytes(30_000))
    client.send(1, bytes(30_000))
    list(client.receive(frame(Kind.PING, Flag.SYN, 0, 7)))
    assert client.take(1).startswith(frame(Kind.PING, Flag.ACK, 0, 7))
    assert server.open_streams == 1


_FRAMES = st.builds(
    lambda kind, flags, stream, length, body: frame(kind, flags, stream, length) + body,
    st.sampled_from([0, 0, 1, 1, 2, 3, 4]),
    st.integers(0, 15),
    st.integers(0, 6),
    st.sampled_from([0, 1, 5, WINDOW, WINDOW + 1, 2**32 - 1]),
    st.binary(max_size=6),
)


@given(st.lists(_FRAMES | st.binary(max_size=40), max_size=30), st.booleans(), st.lists(st.integers(1, 50), min_size=1))
@settings(max_examples=300)
def test_no_bytes_do_harm(pieces: list[bytes], client: bool, cuts: list[int]) -> None:
    """Whatever comes, in whatever pieces: events or a ``ProtocolError``, the same however it is cut, and bounded memory."""
    data = b"".join(pieces)
    assert _run(client, [data]) == _run(client, _cut(data, cuts))


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        size = cuts[len(parts) % len(cuts)]
        parts.append(data[at : at + size])
        at += size
    return parts


def _run(client: bool, parts: list[bytes]) -> tuple[list[object], str, bytes]:
    core = Core(client=client, limits=Limits(backlog=2, max_streams=3, max_unread=100_000_000))
    core.open()
    seen: list[object] = []
    failure = ""
    try:
        for part in parts:
            for event in core.receive(part):
                if isinstance(event, Data) and seen and isinstance(seen[-1], tuple) and seen[-1][0] == event.stream:
                    seen[-1] = (event.stream, seen[-1][1] + event.body)
                else:
                    seen.append((event.stream, event.body) if isinstance(event, Data) else event)
            assert len(core._inbox) < 12
    except ProtocolError as error:
        failure = str(error)
    assert core.open_streams <= 4
    return seen, failure, core.take(2**30)


@given(st.data())
@settings(max_examples=60)
def test_two_sides_agree_whatever_they_do(data: st.DataObject) -> None:
    """Bytes arrive once and in order, and when both have ended every stream none is left."""
    sides = (Core(client=True), Core(client=False))
    sent: dict[tuple[int, int], bytes] = {}
    got: dict[tuple[int, int], bytes] = {}
    live: set[int] = set()
    for step in range(data.draw(st.integers(0, 30))):
        side = data.draw(st.integers(0, 1))
        match data.draw(st.sampled_from(["open", "send", "carry"])):
            case "open":
                live.add(sides[side].open())
            case "send" if live:
                stream = data.draw(st.sampled_from(sorted(live)))
                body = bytes([step]) * data.draw(st.integers(0, 70_000))
                taken = sides[side].send(stream, body)
                sent[side, stream] = sent.get((side, stream), b"") + body[:taken]
            case _:
                _carry(sides, got)
    _carry(sides, got)
    for stream in live:
        for core in sides:
            core.finish(stream)
    _carry(sides, got)
    assert {key: value for key, value in sent.items() if value} == got
    assert [core.open_streams for core in sides] == [0, 0]


def _carry(sides: tuple[Core, Core], got: dict[tuple[int, int], bytes]) -> None:
    while sides[0].waiting or sides[1].waiting:
        for sender in (0, 1):
            receiver = sides[1 - sender]
            for event in receiver.receive(sides[sender].take()):
                if isinstance(event, Opened):
                    receiver.accepted()
                elif isinstance(event, Data):
                    key = (sender, event.stream)
                    got[key] = got.get(key, b"") + event.body
                    receiver.consumed(event.stream, len(event.body))
