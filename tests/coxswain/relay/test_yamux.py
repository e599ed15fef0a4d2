"""yamux sessions over real sockets: flow control, ends of every kind, silence, and many streams at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from coxswain.relay.byte_stream import ByteStream, SocketStream, splice
from coxswain.relay.yamux import Limits, Session, SessionClosed, StreamReset, Timing
from coxswain.relay.yamux_core import WINDOW, Flag, Kind, frame
from tests.coxswain.relay.pipes import pipe, until

Scenario = Callable[[], Coroutine[Any, Any, None]]


def run(scenario: Scenario) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def sessions(timing: Timing | None = None, limits: Limits | None = None) -> AsyncIterator[tuple[Session, Session]]:
    one, other = await pipe()
    async with (
        Session(one, client=True, timing=timing) as client,
        Session(other, client=False, limits=limits) as server,
    ):
        yield client, server


async def read_all(stream: ByteStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


def test_a_stream_carries_bytes_both_ways_and_half_closes() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            ours = await client.open_stream()
            await ours.write(b"question")
            await ours.write_eof()
            theirs = await server.accept()
            assert await read_all(theirs) == b"question"
            await theirs.write(b"answer")
            theirs.close()
            assert await read_all(ours) == b"answer"
            ours.close()
            await until(lambda: client.open_streams == server.open_streams == 0)

    run(scenario)


def test_either_side_may_open() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            assert [(await client.open_stream()).id, (await server.open_stream()).id] == [1, 2]
            assert [(await server.accept()).id, (await client.accept()).id] == [1, 2]

    run(scenario)


def test_what_is_not_read_holds_the_writer_back_and_no_other_stream() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            slow, quick = await client.open_stream(), await client.open_stream()
            writing = asyncio.create_task(slow.write(bytes(3 * WINDOW)))
            slow_end, quick_end = await server.accept(), await server.accept()
            await quick.write(b"x" * 100_000)
            await quick.write_eof()
            assert len(await read_all(quick_end)) == 100_000
            await client.ping()
            assert not writing.done()
            got = 0
            while got < 3 * WINDOW:
                got += len(await slow_end.read())
            await writing

    run(scenario)


def test_many_streams_at_once_keep_their_bytes_apart() -> None:
    async def echo(session: Session) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(echo_one(await session.accept()))

    async def echo_one(stream: ByteStream) -> None:
        while data := await stream.read():
            await stream.write(data)
        stream.close()

    async def speak(session: Session, number: int) -> None:
        stream = await session.open_stream()
        said = number.to_bytes(2) * 5_000
        await stream.write(said)
        await stream.write_eof()
        assert await read_all(stream) == said
        stream.close()

    async def scenario() -> None:
        async with sessions() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(echo(server))
            for number in range(200):
                group.create_task(speak(client, number))

    run(scenario)


def test_a_reset_ends_one_stream_only() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            ours, other = await client.open_stream(), await client.open_stream()
            theirs, other_end = await server.accept(), await server.accept()
            theirs.abort()
            with pytest.raises(StreamReset):
                await ours.read()
            with pytest.raises(StreamReset):
                await ours.write(b"x")
            await other.write(b"lives")
            assert await other_end.read() == b"lives"

    run(scenario)


def test_data_for_a_closed_stream_is_thrown_away_and_the_stream_dropped_after_a_while() -> None:
    async def scenario() -> None:
        async with sessions(Timing(linger_s=0.05)) as (client, server):
            ours = await client.open_stream()
            theirs = await server.accept()
            ours.close()
            assert await theirs.read() == b""
            await theirs.write(bytes(1000))
            await until(lambda: client.open_streams == server.open_streams == 0)
            with pytest.raises(StreamReset):
                await theirs.write(b"x")

    run(scenario)


def test_a_stream_that_nobody_acknowledges_is_dropped_alone() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        async with Session(near, client=True, timing=Timing(open_timeout_s=0.05)) as client:
            stream = await client.open_stream()
            with pytest.raises(StreamReset, match="was not accepted within"):
                await stream.read()
            assert not client.closed
            far.close()

    run(scenario)


def test_the_end_of_the_connection_ends_all() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        async with Session(near, client=True) as client:
            stream = await client.open_stream()
            reading = asyncio.create_task(stream.read())
            accepting = asyncio.create_task(client.accept())
            assert len(await far.read()) == 12
            far.close()
            for waiting in (reading, accepting):
                with pytest.raises(SessionClosed, match="ended the connection"):
                    await waiting
            assert await client.wait_closed() == "the other side ended the connection"
            with pytest.raises(SessionClosed):
                await client.open_stream()
            with pytest.raises(SessionClosed):
                await client.ping()

    run(scenario)


def test_what_came_before_the_end_is_still_read() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            stream = await client.open_stream()
            await stream.write(b"last words")
            end = await server.accept()
            await client.close()
            await server.wait_closed()
            assert await end.read() == b"last words"
            with pytest.raises(SessionClosed):
                await end.read()

    run(scenario)


def test_a_silent_peer_is_noticed() -> None:
    async def scenario() -> None:
        near, _far = await pipe()
        async with Session(near, client=True, timing=Timing(ping_every_s=0.02, ping_timeout_s=0.05)) as client:
            assert "no answer to a ping" in await client.wait_closed()

    run(scenario)


def test_a_peer_that_takes_nothing_is_noticed() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        async with Session(near, client=True, timing=Timing(ping_every_s=0, write_timeout_s=0.1)) as client:
            streams = [await client.open_stream() for _ in range(20)]
            for stream in streams:
                asyncio.create_task(_swallow(stream.write(bytes(WINDOW))))  # noqa: RUF006 - ends with the session
            assert "took nothing" in await client.wait_closed()
        far.close()

    async def _swallow(writing: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(SessionClosed):
            await writing

    run(scenario)


def test_whoever_breaks_the_protocol_is_told_and_loses_the_session() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        async with Session(near, client=False) as session:
            await far.write(frame(Kind.DATA, Flag.SYN, 1, WINDOW + 1))
            assert "allowed" in await session.wait_closed()
            assert (await read_all(far)).endswith(frame(Kind.GO_AWAY, 0, 0, 1))

    run(scenario)


def test_pings_that_are_never_read_do_not_fill_the_memory() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        async with Session(near, client=False, timing=Timing(ping_every_s=0, write_timeout_s=0.3)) as session:
            with contextlib.suppress(OSError):
                while not session.closed:
                    await far.write(frame(Kind.PING, Flag.SYN, 0, 1) * 1000)
                    assert session._core.waiting_control < 200_000
            assert "took nothing" in await session.wait_closed()

    run(scenario)


def test_a_go_away_lets_open_streams_finish() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            ours = await client.open_stream()
            theirs = await server.accept()
            server.go_away()
            await until(lambda: client.going_away)
            with pytest.raises(SessionClosed, match="remote end is not accepting connections"):
                await client.open_stream()
            await ours.write(b"still")
            assert await theirs.read() == b"still"

    run(scenario)


def test_more_streams_than_anybody_accepts_are_reset() -> None:
    async def scenario() -> None:
        async with sessions(limits=Limits(backlog=2)) as (client, server):
            streams = [await client.open_stream() for _ in range(3)]
            with pytest.raises(StreamReset):
                await streams[2].read()
            assert [(await server.accept()).id for _ in range(2)] == [1, 3]
            assert (await client.open_stream()).id == 7
            assert (await server.accept()).id == 7

    run(scenario)


def test_splice_ends_both_sides_when_one_ends() -> None:
    async def scenario() -> None:
        async with sessions() as (client, server):
            near, far = await pipe()
            ours = await client.open_stream()
            splicing = asyncio.create_task(splice(await server.accept(), near))
            await ours.write(b"ping")
            assert await far.read() == b"ping"
            await far.write(b"pong")
            assert await ours.read() == b"pong"
            far.close()
            assert await ours.read() == b""
            await splicing

    run(scenario)


def test_a_session_inside_a_stream_of_another() -> None:
    async def accept_and_read(session: Session) -> int:
        return len(await read_all(await session.accept()))

    async def scenario() -> None:
        async with (
            sessions() as (client, server),
            Session(await client.open_stream(), client=True) as inner,
            Session(await server.accept(), client=False) as inner_end,
        ):
            stream = await inner.open_stream()
            reading = asyncio.create_task(accept_and_read(inner_end))
            await stream.write(bytes(1_000_000))
            await stream.write_eof()
            assert await reading == 1_000_000

    run(scenario)


def test_closing_waits_for_what_was_written() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        session = Session(near, client=True)
        session.start()
        stream = await session.open_stream()
        await stream.write(b"x" * 1000)
        await session.close()
        assert (await read_all(far)).endswith(b"x" * 1000)

    run(scenario)


def test_the_peer_of_a_socket_is_named() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(SocketStream(reader, writer).peer)
            writer.close()

        server = await asyncio.start_server(serve, "::1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            await reader.read()
            writer.close()
        assert seen[0].startswith("[::1]:")

    run(scenario)
