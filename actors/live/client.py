"""One client of the live stream, on the I/O loop. No thread, no queue: a place in the ring, and what the socket holds."""

from __future__ import annotations

import asyncio
import http
from typing import TYPE_CHECKING, Any

from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.server import ServerProtocol

from coxswain.live.start import LiveStart
from coxswain.live.wire import notice

if TYPE_CHECKING:
    from actors.live.fanout import Fanout

__all__ = ["LiveClient"]

_HIGH = 64 * 1024
"""Bytes that may wait in this process for a client that does not read; then it falls behind in the ring."""

_MOST_FRAME = 4 * 1024
"""Of what a client may send, which nobody wants."""

_MOST_A_MINUTE = 64 * 1024
_NO_NUMBER = 1
PING_S = 25.0
SILENT_S = 75.0
"""Three pings without a word, or so long without taking a byte: nobody is there."""


class LiveClient(asyncio.Protocol):
    """Made by ``Fanout``; all methods are called on the loop."""

    __slots__ = (
        "_fanout",
        "_heard_bytes",
        "_is_away",
        "_minute",
        "_paused_at",
        "_peer",
        "_pinged_at",
        "_transport",
        "_written_at",
        "checked_at",
        "heard_at",
        "position",
        "start",
    )

    def __init__(self, fanout: Fanout, head: bytes, start: LiveStart) -> None:
        self._fanout = fanout
        self.start = start
        now = fanout.now()
        self.checked_at = self.heard_at = self._written_at = self._pinged_at = now
        self._paused_at: float | None = None
        self._minute = now
        self._heard_bytes = 0
        self._transport: Any = head  # until there is one
        self._peer: ServerProtocol | None = None
        last = fanout.ring.last
        after = last if start.after is None else start.after
        # A number that was not given yet is not one of this run: anything that is no number of it has all told again.
        self.position = after if after <= last else _NO_NUMBER
        self._is_away = True

    @property
    def is_open(self) -> bool:
        return isinstance(self._transport, asyncio.Transport) and not self._transport.is_closing()

    # -- of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket
        head, self._transport = self._transport, transport
        transport.set_write_buffer_limits(high=_HIGH, low=_HIGH // 4)
        if not self._fanout.add(self):
            transport.write(_refusal())
            transport.close()
            return
        transport.write(head)
        if self.start.resumes:
            self._greet()
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone, however
        self._fanout.remove(self)

    def pause_writing(self) -> None:
        self._paused_at = self._fanout.now()

    def resume_writing(self) -> None:
        self._paused_at = None
        self.heard_at = self._fanout.now()  # it took what waited, so it is there; pings had to wait as well
        self.pump()

    def data_received(self, data: bytes) -> None:
        """Nothing that a client says matters, but that it is there, and goodbye."""
        now = self.heard_at = self._fanout.now()
        if now - self._minute > 60.0:
            self._minute, self._heard_bytes = now, 0
        self._heard_bytes += len(data)
        if not self.start.view.websocket:
            if self._heard_bytes > _MOST_A_MINUTE:
                self._transport.abort()
            return
        peer = self._protocol()
        if self._heard_bytes > _MOST_A_MINUTE:
            self.end(CloseCode.POLICY_VIOLATION, "this stream goes one way")
            return
        peer.receive_data(data)
        peer.events_received()
        self._flush(peer)

    def eof_received(self) -> None:
        """Whoever will not say anything any more is gone, as for the server around this: the connection is closed."""

    # -- of the fan-out

    def pump(self) -> None:
        """Writes what is new, as long as the socket takes it."""
        fanout = self._fanout
        last = fanout.ring.last
        while self._paused_at is None and self.position < last and not self._transport.is_closing():
            chunk = fanout.chunk(self.start.view, self.position)
            if chunk.missed != 0:
                self._tell_missed(chunk.first - 1, chunk.missed)
            self.position = chunk.last
            if chunk.data:
                self._transport.write(chunk.data)
                self._written_at = fanout.now()
        self._is_away = False

    def tick(self, now: float) -> None:
        """Every few seconds: pings, and the end of who is not there."""
        if not self.is_open:
            return
        if self._paused_at is not None:
            is_gone = now - self._paused_at > SILENT_S  # it takes nothing: who reads slowly has this begin anew each time
        else:
            is_gone = self.start.view.websocket and now - self.heard_at > SILENT_S
        if is_gone:
            self._fanout.count_gone()
            self._transport.abort()
        elif self._paused_at is None:
            self._keep_alive(now)

    def end(self, code: int, reason: str) -> None:
        """Closes politely; whoever reads nothing finds the connection gone."""
        if not self.is_open:
            return
        if self._paused_at is not None:
            self._transport.abort()
        elif self.start.view.websocket:
            peer = self._protocol()
            if peer.state is State.OPEN:
                peer.send_close(code, reason)
            self._flush(peer)
            self._transport.close()
        else:
            self._transport.write(f": {reason}\n\n".encode())
            self._transport.close()

    def drop(self) -> None:
        """Lets the socket go without a loop."""
        if isinstance(self._transport, asyncio.Transport):
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock._sock.close()  # noqa: SLF001 - the transport's loop is gone, and nobody else closes it

    # -- inside

    def _greet(self) -> None:
        fanout, view = self._fanout, self.start.view
        if view.websocket:
            # A number from which to resume, should nothing happen before the connection breaks.
            hello = min(self.position, fanout.ring.last)
            self._transport.write(notice(view, "hello", hello, fanout.wall(), last_seq=fanout.ring.last))
        elif self.start.after is None:
            self._transport.write(b"id: %d\n\n" % self.position)

    def _keep_alive(self, now: float) -> None:
        """Says that we are there, where nothing else did for long; asks whether the client is, however busy the stream."""
        view, fanout = self.start.view, self._fanout
        if now - self._written_at >= PING_S:
            self._written_at = now
            if not view.websocket:
                self._transport.write(b": here\nid: %d\n\n" % self.position)
            elif self.start.resumes:
                self._transport.write(notice(view, "heartbeat", self.position, fanout.wall()))
        if view.websocket and now - max(self.heard_at, self._pinged_at) >= PING_S:
            self._pinged_at = now
            peer = self._protocol()
            peer.send_ping(b"")
            self._flush(peer)

    def _tell_missed(self, seq: int, missed: int | None) -> None:
        """``seq`` is below the numbers of all that follow: whoever breaks off here comes back to the same place."""
        fanout = self._fanout
        fanout.count_missed(missed, was_away=self._is_away)
        reason = "unknown" if missed is None else "behind"
        self._transport.write(notice(self.start.view, "dropped", seq, fanout.wall(), count=missed, reason=reason))

    def _protocol(self) -> ServerProtocol:
        if self._peer is None:
            self._peer = ServerProtocol(state=State.OPEN, max_size=_MOST_FRAME, logger=self._fanout.quiet)
        return self._peer

    def _flush(self, peer: ServerProtocol) -> None:
        for data in peer.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def _refusal() -> bytes:
    text = (
        b'{"type":"about:blank","title":"Unavailable","status":503,"error":"as many live streams as there may be are open"}'
    )
    status = http.HTTPStatus.SERVICE_UNAVAILABLE
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (status, status.phrase.encode(), len(text), text)
    )
