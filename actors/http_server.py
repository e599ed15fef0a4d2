"""A waitress server on a thread of its own, for the actors that are doors.

waitress does all socket work on one thread, which polls, and calls the application on worker threads. Requests are read
whole before a worker sees them, so a slow client holds none; what would hold its connection for ever is ended here.

A live stream would hold a worker for as long as it lives. So when the application grants one (``coxswain/live/start.py``),
the connection leaves the server: its socket is taken out of the poll and given away, with the head of the answer, which was
not sent yet. A client of either kind says nothing between its request and that head, so no byte is lost.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import waitress.channel
import waitress.task

from actors.epoll_turns import EpollTurns
from coxswain.live.start import CAN_HAND_OVER, HAND_OVER, LiveStart

__all__ = ["LOOKAHEAD", "Channel", "HandOver", "ServerThread"]

LOOKAHEAD = 1
"""``channel_request_lookahead`` of a server: a connection is read on while its request is worked on. So what is wanted of it
stays the same, and the polling thread need not hear of each answer.
"""

HandOver = Callable[[socket.socket, bytes, LiveStart], None]
"""Takes a connection over: socket, head of the answer, what was granted. Called on the polling thread; must not block."""

_TURN_S = 1.0
_LOOK_S = 1.0

_log = logging.getLogger(__name__)


class _Task(waitress.task.WSGITask):  # type: ignore[misc]
    """One request, on a worker thread."""

    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if getattr(self.channel.server, "hand_over", None) is not None:
            environ[CAN_HAND_OVER] = True
        return environ

    def write(self, data: bytes) -> None:
        """PERF: a whole answer goes out in one piece, where waitress sends the head first."""
        if self.complete and not self.wrote_header and data and self.has_body and self.content_length == len(data):
            self.channel.write_soon(self.build_response_header() + data)
            self.wrote_header = True
            self.content_bytes_written = len(data)
        else:
            super().write(data)

    def finish(self) -> None:
        start = (self.environ or {}).get(HAND_OVER)
        if start is None or not self.status.startswith(("101 ", "200 ")):
            super().finish()
            return
        self.wrote_header = True
        self.channel.leave(self._head(start), start)

    def _head(self, start: LiveStart) -> bytes:
        if start.accept:
            own = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", start.accept)]
        else:
            own = [("Connection", "close")]
        unwanted = {"content-length", "content-type", "connection"} if start.accept else {"content-length", "connection"}
        kept = [(name, value) for name, value in self.response_headers if name.lower() not in unwanted]
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in (*own, *kept)), "", ""]
        return "\r\n".join(lines).encode("latin-1")


class _Server:
    """The server as one of its channels sees it. waitress wakes the polling thread after each answer; here only if there is
    something for it to do.
    """

    def __init__(self, server: Any, channel: Channel) -> None:
        self._server = server
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def pull_trigger(self) -> None:
        if self._channel.wants_a_look():
            self._server.look_again(self._channel.number)
            self._server.pull_trigger()


class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """One connection.

    Attributes:
        began: when the first byte of a request came whose last has not; 0: none is on its way.
        is_leaving: it is about to be given away; nothing is read from it any more.
        number: of its descriptor.
    """

    task_class = _Task
    began = 0.0
    is_leaving = False
    connected: bool
    _spoke_early = False
    _is_heard = False

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, map: Any = None) -> None:  # noqa: A002
        self.number = sock.fileno()
        super().__init__(server, sock, addr, adj, map)
        self.server = _Server(server, self)

    def readable(self) -> bool:
        self._is_heard = False  # first, so that a worker that changes what follows does not overlook this look
        self._is_heard = not self.is_leaving and bool(super().readable())
        return self._is_heard

    def writable(self) -> bool:
        return not self.is_leaving and bool(super().writable())

    def wants_a_look(self) -> bool:
        """On a worker thread: whether the polling thread waits for something else than it should."""
        return not self._is_heard or self.writable()

    def leave(self, head: bytes, start: LiveStart) -> None:
        """On a worker thread: has the polling thread give the connection away."""
        with self.requests_lock:
            self.is_leaving = True
            self._spoke_early = len(self.requests) > 1 or self.request is not None
        self.server.trigger.pull_trigger(lambda: self._give_away(head, start))

    def _give_away(self, head: bytes, start: LiveStart) -> None:
        # Gone; or answers to earlier requests still wait, or it spoke on before it was answered: nobody does that.
        if not self.connected or self.total_outbufs_len or self._spoke_early:
            self.handle_close()
            return
        sock = self.socket
        self.del_channel()
        self.connected = False
        self.server.hand_over(sock, head, start)

    def received(self, data: bytes) -> bool:
        """On the polling thread, with whatever came."""
        if self.is_leaving:
            self._spoke_early = True
            return False
        done = bool(super().received(data))
        if self.request is None:
            self.began = 0.0
        elif not self.began:
            self.began = time.monotonic()
        return done


class ServerThread:
    """Runs a server from ``start`` to ``stop``. Used from one thread, but for ``halt``.

    Args:
        server: what ``waitress.server.create_server`` returned for one socket, with ``Workers``.
        name: of the thread.
        request_s: seconds that a request may take to come in whole.
    """

    def __init__(self, server: Any, name: str, *, request_s: float = 30.0) -> None:
        self._server = server
        self._turns = EpollTurns(server._map)  # noqa: SLF001 - as its run() does
        server.look_again = self._turns.look_again
        self._request_s = request_s
        self._looked = 0.0
        self._stopping = threading.Event()
        self._waking = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def lives(self) -> bool:
        return self._thread.is_alive()

    def halt(self) -> None:
        """Has it end, and waits for nothing: its address is free a moment later. From any thread, more than once."""
        self._stopping.set()
        with self._waking:
            if not self._ended:  # or the descriptor of its pipe may be somebody else's by now
                self._server.trigger.pull_trigger()

    def stop(self, patience_s: float) -> None:
        """Ends it, and waits that long at most."""
        self.halt()
        self._thread.join(patience_s)

    def _serve(self) -> None:
        server = self._server
        try:
            while not self._stopping.is_set():
                self._turns.turn(_TURN_S)
                self._look_after()
        finally:
            self._turns.close()
            # First the address, for which a successor may be waiting; the pipe last, as workers still write to it.
            server.del_channel()
            server.socket.close()
            server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
            with self._waking:
                self._ended = True
                server.close()
            server.asyncore.close_all(server._map, ignore_all=True)  # noqa: SLF001 - the server's pipe is closed already

    def _look_after(self) -> None:
        """Waitress ends connections on which nothing comes; not those on which hardly anything does."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self._server.task_dispatcher.rest()
        for channel in list(self._server.active_channels.values()):
            began = getattr(channel, "began", 0.0)
            if began and now - began > self._request_s:
                _log.info("a request that took more than %g s to come in was cut off", self._request_s)
                channel.handle_close()
