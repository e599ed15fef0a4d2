"""HTTP/2 connections, client and server, over any byte stream: what the gRPC proxy of a relay speaks on both legs.

``h2`` holds the protocol; here are the loop that feeds it, flow control that is passed on, and bounds: what a peer sends is
held only as far as its windows reach, and credit comes back when somebody has taken the bytes (``Http2Stream.taken``) or
nobody will (``Http2Stream.leave``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from coxswain.relay.byte_stream import ByteStream

__all__ = ["Body", "GoAwaySieve", "Headers", "Http2Connection", "Http2Stream", "StreamGone"]

Pairs = list[tuple[bytes, bytes]]

_STREAM_WINDOW = 1024 * 1024
_CONNECTION_WINDOW = 4 * 1024 * 1024
_MAX_STREAMS = 100
_MAX_HEADER_BYTES = 64 * 1024
_WRITE_S = 30.0
_PREFACE_S = 20.0
_FAREWELL_S = 5.0
_GOAWAY = 7
_FRAME_HEAD = 9
_MOST_FAREWELL = 16_384
_RESETS_SPARED = 200
"""Streams that a peer may open and drop, or have us drop for a mistake in them, beside twice as many as it sees through (the
floods of CVE-2023-44487 and CVE-2025-8671)."""


class StreamGone(ConnectionError):
    """The stream was reset by the other side, or its connection ended. ``code``: the reset's, None: the connection's end."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Headers:
    """A request's, a response's, or trailers. ``last``: nothing follows."""

    pairs: Pairs = field(repr=False)
    last: bool


@dataclass(frozen=True)
class Body:
    """Part of a body; may be empty. ``credit``: what it counts in flow control."""

    data: bytes = field(repr=False)
    credit: int
    last: bool


class Http2Stream:
    """One request and its response. Made by ``Http2Connection`` only."""

    def __init__(self, connection: Http2Connection, number: int) -> None:
        self._connection = connection
        self.id = number
        self._arrived: deque[Headers | Body] = deque()
        self._gone: StreamGone | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self.we_ended = False
        self.they_ended = False
        self._owed = 0

    async def receive(self) -> Headers | Body:
        """The next thing from the other side. Raises ``StreamGone``; after what is ``last`` there is nothing more."""
        while not self._arrived:
            if self._gone is not None:
                raise self._gone
            self._changed.clear()
            await self._changed.wait()
        return self._arrived.popleft()

    async def gone(self) -> StreamGone:
        """Waits until the stream is lost, and says how. It may have ended well before; then this never returns."""
        while self._gone is None:
            self._changed.clear()
            await self._changed.wait()
        return self._gone

    async def taken(self, body: Body) -> None:
        """Gives credit back for a part that was passed on."""
        credit = min(body.credit, self._owed)
        self._owed -= credit
        await self._connection.acknowledge(self.id, credit)

    async def leave(self) -> None:
        """Whoever reads it goes. Ends the stream if it is not over, and gives credit back for what came and was not taken,
        which would be missing for ever in the window that all streams of the connection share.
        """
        if self._connection.closed:
            return
        await self.reset()
        owed, self._owed = self._owed, 0
        with contextlib.suppress(OSError):
            await self._connection.acknowledge(self.id, owed)

    async def send_headers(self, pairs: Pairs, *, last: bool = False) -> None:
        """Raises ``StreamGone``."""
        self._must_live()
        self.we_ended = last
        await self._connection.send_headers(self.id, pairs, last=last)

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """As fast as the other side takes it. Raises ``StreamGone``."""
        view = memoryview(data)
        while view:
            room = await self._wait_for_room()
            await self._connection.send_data(self.id, bytes(view[:room]), last=False)
            view = view[room:]
        if last:
            self._must_live()
            self.we_ended = True
            await self._connection.send_data(self.id, b"", last=True)

    async def reset(self, code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        """Ends the stream; nothing happens when it is over already."""
        if self._gone is None and not (self.we_ended and self.they_ended):
            self._gone = StreamGone("reset on our side", code)
            await self._connection.send_reset(self.id, code)

    async def _wait_for_room(self) -> int:
        while True:
            self._must_live()
            room = self._connection.room(self.id)
            if room:
                return room
            self._room.clear()
            await self._room.wait()

    def _must_live(self) -> None:
        if self._gone is not None:
            raise self._gone

    # for the connection

    def arrive(self, what: Headers | Body) -> None:
        self._arrived.append(what)
        if isinstance(what, Body):
            self._owed += what.credit
        self.they_ended = self.they_ended or what.last
        self._changed.set()

    def lose(self, gone: StreamGone) -> None:
        if self._gone is None:
            self._gone = gone
        self.room_changed()
        self._changed.set()

    def room_changed(self) -> None:
        self._room.set()


class Http2Connection:
    """One connection. ``run`` reads until it ends; everything else may be called meanwhile.

    Args:
        stream: the connection beneath; ``run`` closes it.
        client: we open streams; otherwise the other side does.
        on_request: called for each stream that the other side opens, with its headers.
        idle_s: a connection without streams ends after this time; None: never.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        client: bool,
        on_request: Callable[[Http2Stream, Headers], None] | None = None,
        idle_s: float | None = None,
    ) -> None:
        self._stream = stream
        self._on_request = on_request
        self._idle_s = idle_s
        self._streams: dict[int, Http2Stream] = {}
        self._writing = asyncio.Lock()
        self._client = client
        self._answered = 0
        self._resets = 0
        self._greeted = False
        self.closed = False
        self._going_away = False
        self._sieve = GoAwaySieve() if client else None
        config = h2.config.H2Configuration(client_side=client, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=client,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
                **({h2.settings.SettingCodes.ENABLE_PUSH: 0} if client else {}),
            },
        )

    @property
    def takes_calls(self) -> bool:
        """False when it has ended, and when the other side only finishes what it has begun."""
        return not (self.closed or self._going_away)

    async def start(self) -> None:
        """Sends the preface. Raises ``OSError``."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - 65_535)
        await self._flush()

    async def run(self) -> None:
        """Reads until the connection ends, for whatever reason; never raises but ``CancelledError``."""
        reason = "EOF"
        try:
            while True:
                data = await self._read()
                if not data:
                    break
                if self._sieve is not None:
                    data, farewells = self._sieve.feed(data)
                    for last_stream, code in farewells:
                        self._on_farewell(last_stream, code)
                for event in self._h2.receive_data(data):
                    self._take(event)
                await self._flush()
                if self._going_away and not self._streams:
                    break
                if self._resets > _RESETS_SPARED + 2 * self._answered:
                    self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    break
        except (h2.exceptions.ProtocolError, h2.exceptions.RFC1122Error) as error:
            reason = f"HTTP/2: {type(error).__name__}"
        except TimeoutError:
            reason = "idle"
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._h2.close_connection()
        except _ServerLeavesError as error:
            reason = str(error)
        except OSError:
            reason = "unexpected EOF"  # what devices are used to (relay-contract.md 2), whatever broke beneath
        finally:
            self.closed = True
            for stream in list(self._streams.values()):
                stream.lose(StreamGone(f"error reading from server: {reason}"))
            self._streams.clear()
            with contextlib.suppress(OSError):
                await self._flush()
            self._stream.close()

    async def open(self, pairs: Pairs) -> Http2Stream:
        """Sends a request's headers. Raises ``StreamGone``: this connection takes none."""
        if not self.takes_calls:
            raise StreamGone("the connection is closed" if self.closed else "the server is going away")
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, pairs)
        except h2.exceptions.ProtocolError as error:
            raise StreamGone(f"no new stream: {type(error).__name__}") from None
        stream = self._streams[number] = Http2Stream(self, number)
        await self._flush()
        return stream

    # for streams

    def room(self, number: int) -> int:
        try:
            return min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
        except h2.exceptions.ProtocolError:
            raise StreamGone("the stream is over") from None

    async def send_headers(self, number: int, pairs: Pairs, *, last: bool) -> None:
        with _as_gone():
            self._h2.send_headers(number, pairs, end_stream=last)
        await self._sent(number)

    async def send_data(self, number: int, data: bytes, *, last: bool) -> None:
        with _as_gone():
            self._h2.send_data(number, data, end_stream=last)
        await self._sent(number)

    async def send_reset(self, number: int, code: int) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(number, code)
        self._streams.pop(number, None)
        with contextlib.suppress(OSError):
            await self._flush()

    async def acknowledge(self, number: int, credit: int) -> None:
        if credit:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._h2.acknowledge_received_data(credit, number)
            await self._flush()

    async def _sent(self, number: int) -> None:
        self._tidy(number)
        await self._flush()

    # beneath

    async def _read(self) -> bytes:
        if not self._greeted:
            async with asyncio.timeout(_PREFACE_S):
                data = await self._stream.read()
            self._greeted = True
            return data
        if self._idle_s is None:
            return await self._stream.read()
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    return await self._stream.read()
            except TimeoutError:
                if not self._streams:
                    raise

    async def _flush(self) -> None:
        async with self._writing:
            while data := self._h2.data_to_send(64 * 1024):
                async with asyncio.timeout(_WRITE_S):
                    await self._stream.write(data)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._request(event)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._arrive(event.stream_id, Headers(_pairs(event.headers), event.stream_ended is not None))
            case h2.events.DataReceived():
                credit = event.flow_controlled_length or 0
                if event.stream_id in self._streams:
                    self._arrive(event.stream_id, Body(event.data or b"", credit, event.stream_ended is not None))
                elif credit:  # reset on our side meanwhile
                    with contextlib.suppress(h2.exceptions.ProtocolError):
                        self._h2.acknowledge_received_data(credit, event.stream_id or 0)
            case h2.events.StreamReset():
                gone = self._streams.pop(event.stream_id or 0, None)
                if gone is not None:
                    self._resets += 1  # by whichever side: who makes a mistake on purpose drops a stream as well
                    gone.lose(StreamGone(f"reset by the other side ({event.error_code})", int(event.error_code or 0)))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    stream.room_changed()
            case h2.events.ConnectionTerminated():
                raise _ServerLeavesError

    def _on_farewell(self, last_stream: int, code: int) -> None:
        """Calls that the server has begun go on to their end; of the others it has seen nothing (RFC 9113, 6.8)."""
        if code != h2.errors.ErrorCodes.NO_ERROR:
            raise _ServerLeavesError
        self._going_away = True
        self._idle_s = _FAREWELL_S
        for number in [number for number in self._streams if number > last_stream]:
            self._streams.pop(number).lose(StreamGone("the server is going away", h2.errors.ErrorCodes.REFUSED_STREAM))

    def _request(self, event: h2.events.RequestReceived) -> None:
        number = event.stream_id or 0
        stream = self._streams[number] = Http2Stream(self, number)
        headers = Headers(_pairs(event.headers), event.stream_ended is not None)
        stream.they_ended = headers.last
        if self._on_request is not None:
            self._on_request(stream, headers)

    def _arrive(self, number: int | None, what: Headers | Body) -> None:
        stream = self._streams.get(number or 0)
        if stream is not None:
            stream.arrive(what)
            self._tidy(stream.id)

    def _tidy(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.we_ended and stream.they_ended:
            self._answered += 1
            del self._streams[number]


class _ServerLeavesError(ConnectionResetError):
    def __init__(self) -> None:
        super().__init__("the server is going away")


class GoAwaySieve:
    """Takes GOAWAY frames out of what a server sends: ``h2`` would take no frame after one, and a server that drains sends
    all the rest of the calls that are under way. Everything else passes as it is.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._passing = 0
        self._farewell = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        """What is for ``h2``, and of each GOAWAY the last stream and the error code. Raises ``ConnectionResetError`` for one
        that is none.
        """
        passed, farewells, at = bytearray(), [], 0
        while at < len(data):
            if self._passing:
                part = data[at : at + self._passing]
                passed += part
                self._passing -= len(part)
            elif self._wanted:
                part = data[at : at + self._wanted]
                self._farewell += part
                self._wanted -= len(part)
                if not self._wanted:
                    farewells.append((int.from_bytes(self._farewell[:4]) & 0x7FFF_FFFF, int.from_bytes(self._farewell[4:8])))
                    self._farewell.clear()
            else:
                part = data[at : at + _FRAME_HEAD - len(self._head)]
                self._head += part
                if len(self._head) == _FRAME_HEAD:
                    self._begin(passed)
            at += len(part)
        return bytes(passed), farewells

    def _begin(self, passed: bytearray) -> None:
        length = int.from_bytes(self._head[:3])
        if self._head[3] != _GOAWAY:
            passed += self._head
            self._passing = length
        elif 8 <= length <= _MOST_FAREWELL:
            self._wanted = length
        else:
            raise _ServerLeavesError
        self._head.clear()


@contextlib.contextmanager
def _as_gone() -> Iterator[None]:
    try:
        yield
    except h2.exceptions.ProtocolError as error:
        raise StreamGone(f"the stream is over: {type(error).__name__}") from None


def _pairs(headers: object) -> Pairs:
    """``h2`` gives tuples of its own kind, text or bytes."""
    return [(bytes(name), bytes(value)) for name, value in headers or ()]  # type: ignore[attr-defined]
