"""yamux sessions on an asyncio loop: many byte streams over one (relay-contract.md 3.2).

Use ``async with Session(stream, client=True) as session``, then ``session.open_stream()`` or ``session.accept()``; each
gives a ``Stream``, which is a ``ByteStream`` and so carries TLS, and another session inside of that. A session ends by
``close`` or ``abort``, when the connection ends, when the other side breaks the protocol, does not take what is written
within ``write_timeout_s``, or leaves a ping unanswered; all its streams then raise ``SessionClosed``, and ``wait_closed``
says why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from coxswain.relay.byte_stream import CHUNK, ByteStream
from coxswain.relay.yamux_core import (
    Acknowledged,
    Core,
    Data,
    Event,
    Finished,
    GoneAway,
    Limits,
    Opened,
    Ponged,
    ProtocolError,
    Reset,
    Writable,
)

__all__ = ["Limits", "Session", "SessionClosed", "Stream", "StreamReset", "Timing"]

_HIGH_WATER = 256 * 1024
"""Bytes that wait for the connection; writers wait while there are more."""
_CONTROL_HIGH_WATER = 64 * 1024
"""Bytes of answers that wait for the connection; nothing more is read while there are more."""


class SessionClosed(ConnectionError):
    """The session is over, and every stream with it."""


class StreamReset(ConnectionResetError):
    """This stream is over, because one side dropped it."""


@dataclass(frozen=True)
class Timing:
    """Seconds.

    Attributes:
        ping_every_s: how often a sign of life is asked for; 0: never.
        ping_timeout_s: without it for so long, the session ends. A silent peer is thus noticed after the sum of both.
        write_timeout_s: the connection must take what is written within this time.
        open_timeout_s: a stream of ours that is not acknowledged by then is dropped.
        linger_s: a stream that we closed, and the other side does not end, is dropped after this time.
    """

    ping_every_s: float = 20.0
    ping_timeout_s: float = 10.0
    write_timeout_s: float = 10.0
    open_timeout_s: float = 75.0
    linger_s: float = 300.0


@dataclass(eq=False)
class Stream:
    """One stream of a session; a ``ByteStream``. Made by ``Session`` only.

    ``read`` raises ``StreamReset`` when the stream was dropped and ``SessionClosed`` when the session ended; what had come
    before that is given first.
    """

    session: Session = field(repr=False)
    id: int
    _parts: deque[bytes] = field(default_factory=deque, repr=False)
    _ended: bool = False
    _closed: bool = False
    _error: OSError | None = None
    _readable: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _writable: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    async def read(self, limit: int = CHUNK) -> bytes:
        while True:
            if self._parts:
                part = self._parts.popleft()
                if len(part) > limit:
                    self._parts.appendleft(part[limit:])
                    part = part[:limit]
                self.session._consumed(self.id, len(part))
                return part
            if self._error is not None:
                raise self._error
            if self._ended or self._closed:
                return b""
            self._readable.clear()
            await self._readable.wait()

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self._room()
            view = view[self.session._send(self.id, view) :]

    async def _room(self) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StreamReset(f"stream {self.id} is closed on our side")
            if not self.session._credit(self.id):
                self._writable.clear()
                await self._writable.wait()
            elif self.session._congested():
                await self.session._relieved()
            else:
                return

    async def write_eof(self) -> None:
        if self._error is not None:
            raise self._error
        self.session._finish(self.id)

    def close(self) -> None:
        if self._closed or self._error is not None:
            return
        self._closed = True
        unread = sum(map(len, self._parts))
        self._parts.clear()
        self._wake()
        self.session._closing(self, unread)

    def abort(self) -> None:
        if self._error is None:
            self.session._drop(self, StreamReset(f"stream {self.id} was dropped on our side"))

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()

    def _arm(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


class Session:
    """See the module.

    Args:
        stream: the connection; the session closes it.
        client: opens odd streams. Either side may open.
        timing, limits: as named.
    """

    def __init__(
        self, stream: ByteStream, *, client: bool, timing: Timing | None = None, limits: Limits | None = None
    ) -> None:
        self._stream = stream
        self._timing = timing or Timing()
        self._core = Core(client=client, limits=limits)
        self._streams: dict[int, Stream] = {}
        self._backlog: deque[Stream] = deque()
        self._pings: dict[int, asyncio.Future[float]] = {}
        self._something = asyncio.Event()  # to be written
        self._relief = asyncio.Event()  # somebody may write on
        self._arrival = asyncio.Event()  # a stream to accept, one acknowledged, or the end
        self._over: asyncio.Future[SessionClosed] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Begins to read and write. For who does not use ``async with``; ends with ``close`` or ``abort``."""
        loops = [self._read_loop(), self._write_loop()]
        if self._timing.ping_every_s:
            loops.append(self._ping_loop())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    # for whoever uses the session

    async def open_stream(self) -> Stream:
        """Opens a stream; it may be written to at once. Raises ``SessionClosed``, also when the other side takes none."""
        while not self._core.can_open():
            self._raise_if_over()
            self._arrival.clear()
            await self._arrival.wait()
        self._raise_if_over()
        try:
            number = self._core.open()
        except ProtocolError as error:
            raise SessionClosed(str(error)) from None
        stream = Stream(self, number)
        self._streams[number] = stream
        stream._arm(self._later(self._timing.open_timeout_s, stream, "was not accepted"))
        self._something.set()
        return stream

    async def accept(self) -> Stream:
        """The next stream that the other side opened. Raises ``SessionClosed``."""
        while not self._backlog:
            self._raise_if_over()
            self._arrival.clear()
            await self._arrival.wait()
        self._core.accepted()
        return self._backlog.popleft()

    async def ping(self, within_s: float | None = None) -> float:
        """The seconds that the other side took to answer. Raises ``SessionClosed``, or ``TimeoutError`` (an ``OSError``)."""
        self._raise_if_over()
        loop = asyncio.get_running_loop()
        value, answer, begun = self._core.ping(), loop.create_future(), loop.time()
        self._pings[value] = answer
        self._something.set()
        try:
            async with asyncio.timeout(self._timing.ping_timeout_s if within_s is None else within_s):
                await answer
        finally:
            self._pings.pop(value, None)
        return loop.time() - begun

    def go_away(self) -> None:
        """Takes no new streams; open ones go on. The first half of a graceful end, ``close`` is the second."""
        self._core.go_away()
        self._something.set()

    async def close(self) -> None:
        """Ends the session; what waits to be written is given a moment. Streams that are open raise ``SessionClosed``."""
        if not self._over.done():
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(min(1.0, self._timing.write_timeout_s)):
                    while self._core.waiting and not self._over.done():
                        self._relief.clear()
                        self._something.set()
                        await self._relief.wait()
        self._end(SessionClosed("closed on our side"))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abort(self, reason: str = "closed on our side") -> None:
        """Ends the session at once; what waits to be written is lost."""
        self._stream.abort()
        self._end(SessionClosed(reason))

    async def wait_closed(self) -> str:
        """Waits for the end of the session and says why."""
        return str(await asyncio.shield(self._over))

    @property
    def closed(self) -> bool:
        return self._over.done()

    @property
    def going_away(self) -> bool:
        """The other side takes no new streams."""
        return self._core.they_went_away

    @property
    def open_streams(self) -> int:
        return self._core.open_streams

    # for streams

    def _credit(self, stream: int) -> int:
        return self._core.credit(stream)

    def _congested(self) -> bool:
        return self._core.waiting > _HIGH_WATER

    async def _relieved(self) -> None:
        self._relief.clear()
        await self._relief.wait()

    def _send(self, stream: int, data: memoryview) -> int:
        sent = self._core.send(stream, data)
        self._something.set()
        return sent

    def _consumed(self, stream: int, count: int) -> None:
        self._core.consumed(stream, count)
        if self._core.waiting_control:
            self._something.set()

    def _finish(self, stream: int) -> None:
        self._core.finish(stream)
        self._something.set()

    def _closing(self, stream: Stream, unread: int) -> None:
        """The stream is closed on our side: FIN, and forgotten when the other side ends it too, or after a while."""
        self._core.discarded(stream.id, unread)
        self._finish(stream.id)
        if stream._ended:
            self._forget(stream)
        else:
            stream._arm(self._later(self._timing.linger_s, stream, "was not ended by the other side"))

    def _drop(self, stream: Stream, error: OSError) -> None:
        self._core.reset(stream.id)
        self._something.set()
        self._lost(stream, error)

    def _lost(self, stream: Stream, error: OSError) -> None:
        self._forget(stream)
        if stream._error is None:
            stream._error = error
        stream._wake()

    def _forget(self, stream: Stream) -> None:
        stream._arm(None)
        self._streams.pop(stream.id, None)

    def _later(self, seconds: float, stream: Stream, what: str) -> asyncio.TimerHandle:
        error = StreamReset(f"stream {stream.id} {what} within {seconds:g} s")
        return asyncio.get_running_loop().call_later(seconds, self._drop, stream, error)

    # the loops

    async def _read_loop(self) -> None:
        reason = "the other side ended the connection"
        try:
            while data := await self._stream.read():
                for event in self._core.receive(data):
                    self._take(event)
                if self._core.waiting:
                    self._something.set()
                while self._core.waiting_control > _CONTROL_HIGH_WATER:
                    await self._relieved()
        except ProtocolError as error:
            reason = str(error)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):  # the go-away
                    await self._stream.write(self._core.take(0))
        except OSError as error:
            reason = str(error) or type(error).__name__
        finally:
            self._end(SessionClosed(reason))

    async def _write_loop(self) -> None:
        reason = "closed on our side"
        try:
            while True:
                await self._something.wait()
                self._something.clear()
                while data := self._core.take():
                    async with asyncio.timeout(self._timing.write_timeout_s):
                        await self._stream.write(data)
                    self._relief.set()
        except TimeoutError:
            reason = f"the other side took nothing for {self._timing.write_timeout_s:g} s"
            self._stream.abort()
        except OSError as error:
            reason = str(error) or type(error).__name__
        finally:
            self._end(SessionClosed(reason))

    async def _ping_loop(self) -> None:
        while True:
            await asyncio.sleep(self._timing.ping_every_s)
            try:
                await self.ping()
            except TimeoutError:
                self.abort(f"no answer to a ping within {self._timing.ping_timeout_s:g} s")
            except OSError:
                return

    def _take(self, event: Event) -> None:
        match event:
            case Opened(number):
                self._streams[number] = stream = Stream(self, number)
                self._backlog.append(stream)
                self._arrival.set()
            case Acknowledged(number):
                self._arrival.set()
                if (known := self._streams.get(number)) is not None and not known._closed:
                    known._arm(None)
            case Data(number, body):
                known = self._streams.get(number)
                if known is None or known._closed:
                    self._core.discarded(number, len(body))
                else:
                    known._parts.append(body)
                    known._readable.set()
            case Finished(number):
                if (known := self._streams.get(number)) is not None:
                    known._ended = True
                    known._readable.set()
                    if known._closed:
                        self._forget(known)
            case Reset(number):
                if (known := self._streams.get(number)) is not None:
                    self._lost(known, StreamReset(f"stream {number} was dropped by the other side"))
            case Writable(number):
                if (known := self._streams.get(number)) is not None:
                    known._writable.set()
            case Ponged(value):
                if (answer := self._pings.get(value)) is not None and not answer.done():
                    answer.set_result(0.0)
            case GoneAway(code):
                if code:
                    raise ProtocolError(f"the other side ended the session with error {code}")

    def _raise_if_over(self) -> None:
        if self._over.done():
            raise SessionClosed(str(self._over.result()))

    def _end(self, reason: SessionClosed) -> None:
        if not self._over.done():
            self._over.set_result(reason)
        for stream in list(self._streams.values()):
            self._lost(stream, SessionClosed(str(self._over.result())))
        self._backlog.clear()
        for answer in self._pings.values():
            if not answer.done():
                answer.set_exception(SessionClosed(str(self._over.result())))
        self._arrival.set()
        self._relief.set()
        self._something.set()
        self._stream.close()
        ourselves = asyncio.current_task()
        for task in self._tasks:
            if task is not ourselves and not task.done():
                task.cancel()
