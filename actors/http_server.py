"""A waitress server on a thread of its own, for the actors that are doors.

waitress does all socket work on one thread, which polls, and calls the application on worker threads. Requests are read
whole before a worker sees them, so a slow client holds none; what would hold its connection for ever is ended here.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import waitress.channel

__all__ = ["Channel", "ServerThread"]

_TURN_S = 0.2
_LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """One connection. ``began``: when the first byte of a request came whose last has not; 0: none is on its way."""

    began = 0.0

    def received(self, data: bytes) -> bool:
        """On the polling thread, with whatever came."""
        done = bool(super().received(data))
        if self.request is None:
            self.began = 0.0
        elif not self.began:
            self.began = time.monotonic()
        return done


class ServerThread:
    """Runs a server from ``start`` to ``stop``. Used from one thread, but for ``stopping``, which any may set.

    Args:
        server: what ``waitress.server.create_server`` returned for one socket.
        name: of the thread.
        request_s: seconds that a request may take to come in whole.
    """

    def __init__(self, server: Any, name: str, *, request_s: float = 30.0) -> None:
        self._server = server
        self._request_s = request_s
        self._looked = 0.0
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def lives(self) -> bool:
        return self._thread.is_alive()

    def stop(self, patience_s: float) -> None:
        """Ends it, and waits that long at most."""
        self.stopping.set()
        self._thread.join(patience_s)

    def _serve(self) -> None:
        server = self._server
        try:
            while not self.stopping.is_set():
                server.asyncore.loop(timeout=_TURN_S, map=server._map, use_poll=True, count=1)  # noqa: SLF001 - as its run() does
                self._end_slow_ones()
        finally:
            server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
            server.close()
            server.asyncore.close_all(server._map, ignore_all=True)  # noqa: SLF001 - the server's pipe is closed already

    def _end_slow_ones(self) -> None:
        """Waitress ends connections on which nothing comes; not those on which hardly anything does."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        for channel in list(self._server.active_channels.values()):
            began = getattr(channel, "began", 0.0)
            if began and now - began > self._request_s:
                _log.info("a request that took more than %g s to come in was cut off", self._request_s)
                channel.handle_close()
