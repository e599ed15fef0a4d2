"""yamux, protocol version 0, without I/O: bytes in, events out; calls in, bytes out (relay-contract.md 3.2).

``Core`` holds the state of one session: streams, credit, what waits to be sent. It never reads, writes or waits; that is
``coxswain.relay.yamux``. What comes from the other side is bounded: a body never exceeds the credit that was given, no
frame is kept whole, and at most ``backlog`` streams wait to be accepted, ``max_streams`` are open, ``max_unread`` bytes lie
unread in all of them together.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

__all__ = [
    "WINDOW",
    "Acknowledged",
    "Core",
    "Data",
    "Event",
    "Finished",
    "Flag",
    "GoAwayCode",
    "GoneAway",
    "Kind",
    "Limits",
    "Opened",
    "Ponged",
    "ProtocolError",
    "Reset",
    "Writable",
    "frame",
]

WINDOW = 262_144
"""Bytes of credit per stream and direction. Constant: existing peers never enlarge it."""

MAX_BODY = 32 * 1024
"""Bytes of a data frame that we send; small, so that a ping's reply never waits behind a long one."""

_HEADER = struct.Struct(">BBHII")
_MAX_CREDIT = 2**32 - 1
_MAX_ID = 2**31 - 1
"""Beyond it a session is not used further. It would take 34 years at one stream a second."""


class Kind(IntEnum):
    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    NONE = 0
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(IntEnum):
    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True)
class Limits:
    """What one session may cost.

    Attributes:
        backlog: streams that the other side opened and nobody accepted yet; further ones are reset. Also: streams that we
            opened and the other side did not acknowledge yet.
        max_streams: open streams of the other side; further ones are reset.
        max_unread: bytes that came and were not read yet, of all streams; the stream that exceeds it is reset.
    """

    backlog: int = 256
    max_streams: int = 4096
    max_unread: int = 64 * 1024 * 1024


class ProtocolError(Exception):
    """The other side does not speak yamux, or does what is fatal for a session."""


@dataclass(frozen=True)
class Opened:
    """The other side opened a stream; it is acknowledged already."""

    stream: int


@dataclass(frozen=True)
class Acknowledged:
    """The other side accepted a stream of ours."""

    stream: int


@dataclass(frozen=True)
class Data:
    """Bytes of a stream, in order. They count against its window until ``Core.consumed``."""

    stream: int
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """The other side sends nothing more on this stream."""

    stream: int


@dataclass(frozen=True)
class Reset:
    """The stream is gone, both ways."""

    stream: int


@dataclass(frozen=True)
class Writable:
    """The other side gave credit."""

    stream: int


@dataclass(frozen=True)
class Ponged:
    """The answer to a ping of ours."""

    value: int


@dataclass(frozen=True)
class GoneAway:
    """The other side takes no new streams (0), or ends the session because of an error (1, 2)."""

    code: int


Event = Opened | Acknowledged | Data | Finished | Reset | Writable | Ponged | GoneAway


def frame(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The 12 bytes of a header."""
    return _HEADER.pack(0, kind, flags, stream, length)


@dataclass
class _Stream:
    credit: int = WINDOW  # that we may still send
    window: int = WINDOW  # that the other side may still send
    unread: int = 0  # came, and not consumed yet
    owed: int = 0  # consumed, and not given back as credit yet
    ours: bool = False
    acknowledged: bool = False
    we_finished: bool = False
    they_finished: bool = False


class Core:
    """One session.

    Args:
        client: opens streams with odd ids; otherwise with even ones.
        limits: see ``Limits``.
    """

    def __init__(self, *, client: bool, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._next_id = 1 if client else 2
        self._their_parity = 0 if client else 1
        self._streams: dict[int, _Stream] = {}
        self._theirs = 0
        self._unaccepted = 0
        self._unacknowledged = 0
        self._unread = 0
        self._control = bytearray()
        self._data: deque[bytes] = deque()
        self._data_bytes = 0
        self._next_ping = 0
        self._inbox = bytearray()
        self._body: tuple[int, int, bool] | None = None  # stream (0: nobody's), bytes to come, FIN after them
        self.we_went_away = False
        self.they_went_away = False

    # what comes in

    def receive(self, data: bytes) -> Iterator[Event]:
        """Takes what was read from the connection. To be exhausted before the next call.

        Raises:
            ProtocolError: the session is over; send what ``take`` still gives, and close.
        """
        self._inbox += data
        while True:
            if self._body is not None:
                events = self._take_body(self._body)
                if events is None:
                    return
                yield from events
            elif len(self._inbox) >= _HEADER.size:
                version, kind, flags, stream, length = _HEADER.unpack_from(self._inbox)
                del self._inbox[: _HEADER.size]
                yield from self._take_header(version, kind, flags, stream, length)
            else:
                return

    def _take_body(self, body: tuple[int, int, bool]) -> list[Event] | None:
        stream, wanted, fin = body
        part = bytes(self._inbox[:wanted])
        if wanted and not part:
            return None
        del self._inbox[: len(part)]
        wanted -= len(part)
        self._body = (stream, wanted, fin) if wanted else None
        state = self._streams.get(stream)
        if state is None:
            return []  # unknown, or gone since: passed over
        events: list[Event] = []
        if part:
            if self._unread + len(part) > self._limits.max_unread:
                self.reset(stream)
                return [Reset(stream)]
            state.unread += len(part)
            self._unread += len(part)
            events.append(Data(stream, part))
        if fin and not wanted:
            events += self._finished(stream, state)
        return events

    def _take_header(self, version: int, kind: int, flags: int, stream: int, length: int) -> list[Event]:
        if version != 0:
            raise self._fatal(f"yamux: version {version}")
        match kind:
            case Kind.DATA | Kind.WINDOW_UPDATE:
                return self._take_stream_frame(kind, flags, stream, length)
            case Kind.PING:
                if flags & Flag.SYN:
                    self._control += frame(Kind.PING, Flag.ACK, 0, length)
                return [Ponged(length)] if flags & Flag.ACK else []
            case Kind.GO_AWAY:
                self.they_went_away = True
                return [GoneAway(length)]
            case _:
                raise self._fatal(f"yamux: frame of unknown type {kind}")

    def _take_stream_frame(self, kind: int, flags: int, stream: int, length: int) -> list[Event]:
        events: list[Event] = []
        if flags & Flag.SYN:
            events += self._opened(stream)
        state = self._streams.get(stream)
        if state is not None and flags & Flag.ACK:
            events += self._acknowledged(stream, state)
        if state is not None and flags & Flag.RST:
            self._forget(stream)
            events.append(Reset(stream))
            state = None
        if kind == Kind.DATA:
            self._body = (stream if state is not None else 0, length, bool(flags & Flag.FIN))
            if state is not None and length:
                if state.they_finished:
                    raise self._fatal(f"yamux: stream {stream}: data after its end")
                if length > state.window:
                    raise self._fatal(f"yamux: stream {stream}: {length} bytes, {state.window} allowed")
                state.window -= length
            return events
        if state is not None:
            if length:
                state.credit += length
                if state.credit > _MAX_CREDIT:
                    raise self._fatal(f"yamux: stream {stream}: more credit than can be counted")
                events.append(Writable(stream))
            if flags & Flag.FIN:
                events += self._finished(stream, state)
        return events

    def _opened(self, stream: int) -> list[Event]:
        if stream == 0 or stream % 2 != self._their_parity or stream in self._streams:
            raise self._fatal(f"yamux: stream {stream} cannot be opened")
        full = self._unaccepted >= self._limits.backlog or self._theirs >= self._limits.max_streams
        if self.we_went_away or full:
            self._control += frame(Kind.WINDOW_UPDATE, Flag.RST, stream, 0)
            return []
        self._streams[stream] = _Stream(acknowledged=True)
        self._theirs += 1
        self._unaccepted += 1
        self._control += frame(Kind.WINDOW_UPDATE, Flag.ACK, stream, 0)
        return [Opened(stream)]

    def _acknowledged(self, stream: int, state: _Stream) -> list[Event]:
        if state.acknowledged:
            return []
        state.acknowledged = True
        self._unacknowledged -= 1
        return [Acknowledged(stream)]

    def _finished(self, stream: int, state: _Stream) -> list[Event]:
        if state.they_finished:
            raise self._fatal(f"yamux: stream {stream}: a second end")
        state.they_finished = True
        if state.we_finished:
            self._forget(stream)
        return [Finished(stream)]

    def _forget(self, stream: int) -> None:
        state = self._streams.pop(stream, None)
        if state is None:
            return
        self._unread -= state.unread
        if not state.ours:
            self._theirs -= 1
        elif not state.acknowledged:
            self._unacknowledged -= 1

    def _fatal(self, text: str) -> ProtocolError:
        self.go_away(GoAwayCode.PROTOCOL_ERROR)
        return ProtocolError(text)

    # what goes out

    def can_open(self) -> bool:
        """False while too many streams of ours are not acknowledged."""
        return self._unacknowledged < self._limits.backlog

    def open(self) -> int:
        """Opens a stream and returns its id. Raises ``ProtocolError`` when the other side takes none or ids are used up."""
        if self.they_went_away:
            raise ProtocolError("remote end is not accepting connections")
        if self._next_id > _MAX_ID:
            raise ProtocolError("yamux: this session has no stream ids left")
        stream, self._next_id = self._next_id, self._next_id + 2
        self._streams[stream] = _Stream(ours=True)
        self._unacknowledged += 1
        self._control += frame(Kind.WINDOW_UPDATE, Flag.SYN, stream, 0)
        return stream

    def accepted(self) -> None:
        """Somebody took one of the opened streams out of the backlog."""
        self._unaccepted -= 1

    def credit(self, stream: int) -> int:
        """Bytes that may be sent now; 0 also when the stream is gone."""
        state = self._streams.get(stream)
        return 0 if state is None or state.we_finished else state.credit

    def send(self, stream: int, data: bytes | memoryview) -> int:
        """Queues as much of ``data`` as credit and one frame allow; returns how much that was."""
        part = bytes(data[: min(self.credit(stream), MAX_BODY)])
        if part:
            self._streams[stream].credit -= len(part)
            self._queue(frame(Kind.DATA, Flag.NONE, stream, len(part)) + part)
        return len(part)

    def finish(self, stream: int) -> None:
        """Ends our direction, behind what was sent; once only, because a second time is fatal for the whole session."""
        state = self._streams.get(stream)
        if state is None or state.we_finished:
            return
        state.we_finished = True
        self._queue(frame(Kind.WINDOW_UPDATE, Flag.FIN, stream, 0))
        if state.they_finished:
            self._forget(stream)

    def reset(self, stream: int) -> None:
        """Drops the stream both ways."""
        if stream in self._streams:
            self._forget(stream)
            self._queue(frame(Kind.WINDOW_UPDATE, Flag.RST, stream, 0))

    def consumed(self, stream: int, count: int) -> None:
        """``count`` bytes were read by whoever they are for: gives credit back, half a window at a time."""
        state = self._streams.get(stream)
        if state is None:
            return
        state.unread -= count
        self._unread -= count
        state.owed += count
        if state.owed >= WINDOW // 2 and not state.they_finished:
            state.window += state.owed
            self._control += frame(Kind.WINDOW_UPDATE, Flag.NONE, stream, state.owed)
            state.owed = 0

    def discarded(self, stream: int, count: int) -> None:
        """``count`` bytes were thrown away, because nobody reads this stream any more. No credit is given for them."""
        state = self._streams.get(stream)
        if state is not None:
            state.unread -= count
            self._unread -= count

    def ping(self) -> int:
        """Asks for a sign of life; ``Ponged`` with the value that is returned here is the answer."""
        value, self._next_ping = self._next_ping, (self._next_ping + 1) % 2**32
        self._control += frame(Kind.PING, Flag.SYN, 0, value)
        return value

    def go_away(self, code: int = GoAwayCode.NORMAL) -> None:
        """Says that we take no new streams; those that are open go on."""
        if not self.we_went_away or code != GoAwayCode.NORMAL:
            self._control += frame(Kind.GO_AWAY, Flag.NONE, 0, code)
        self.we_went_away = True

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._control) + self._data_bytes

    @property
    def waiting_control(self) -> int:
        """Bytes of them that are answers and announcements; who only provokes those must not fill our memory."""
        return len(self._control)

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def take(self, limit: int = 64 * 1024) -> bytes:
        """What is to be written next, in whole frames: answers and announcements first, then data up to about ``limit``."""
        parts = [bytes(self._control)]
        size = len(self._control)
        self._control.clear()
        while self._data and size < limit:
            part = self._data.popleft()
            self._data_bytes -= len(part)
            size += len(part)
            parts.append(part)
        return b"".join(parts)

    def _queue(self, part: bytes) -> None:
        self._data.append(part)
        self._data_bytes += len(part)
