"""From the ring to all clients, on the I/O loop.

Each client has a place in the ring, and is sent what comes after it as fast as it reads. Bytes are made once for all clients
of one view. Whoever does not read has at most some 128 KB waiting, falls behind in the ring, and is told how much it missed
when it reads again. Nobody waits for anybody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable

from actors.io_loop import IoLoop
from actors.live.client import LiveClient
from coxswain.clock import Clock
from coxswain.errors import Unavailable
from coxswain.live.ring import EventRing
from coxswain.live.start import LiveStart, View
from coxswain.live.wire import Chunk, chunk_after
from coxswain.losses import LIVE, Losses
from coxswain.messages.access import WhoHolds
from coxswain.messages.hub import LiveCounts

__all__ = ["Fanout"]

_TICK_S = 0.025
"""Events wait this long at most for company: one write to each client for all of them."""

_LOOK_S = 5.0
_MOST = 2_000
_SEND_BUFFER = 64 * 1024
"""In the kernel, for each client; its default grows to megabytes, and a slow reader would see old news."""


class Fanout:
    """Outlives every actor and every loop. ``wake``, ``hand_over``, ``is_watched`` and ``counts`` are safe on every thread,
    all else is for the loop.
    """

    def __init__(self, io: IoLoop, ring: EventRing, clock: Clock, losses: Losses | None = None) -> None:
        self.ring = ring
        self.quiet = logging.getLogger("coxswain.live")
        self._io = io
        self._clock = clock
        self._losses = Losses(clock) if losses is None else losses
        self._clients: set[LiveClient] = set()
        self._chunks: dict[tuple[View, int], Chunk] = {}
        self._chunks_of = -1
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._missed = self._gone = self._served = 0

    # -- from other threads

    def wake(self) -> None:
        """There is something new in the ring. With nobody there, nobody is woken: who comes looks at the ring by himself."""
        if self._clients and not self._woken:
            self._woken = True
            self._io.call(self._schedule)

    def hand_over(self, sock: socket.socket, head: bytes, start: LiveStart) -> None:
        """Takes a connection over. ``head``: the answer's, which was not sent yet."""
        try:
            self._io.submit(self._adopt(sock, head, start))
        except Unavailable:
            sock.close()

    def is_watched(self) -> bool:
        return bool(self._clients)

    def counts(self) -> LiveCounts:
        return LiveCounts(len(self._clients), self._served, self._missed, self._gone)

    # -- on the loop

    def reset(self) -> None:
        """A new loop: the sockets of the old one are closed; whoever wants to, comes back and resumes."""
        for client in list(self._clients):
            client.drop()
        self._clients.clear()
        self._timer = None
        self._woken = False
        asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return self._clock.now()

    def add(self, client: LiveClient) -> bool:
        """False: there are as many as there may be."""
        if len(self._clients) >= _MOST:
            return False
        self._clients.add(client)
        self._served += 1
        return True

    def remove(self, client: LiveClient) -> None:
        self._clients.discard(client)

    def count_missed(self, missed: int | None, *, was_away: bool) -> None:
        """``was_away``: it came back too late for them. That is told to it, and is no loss on the way."""
        self._missed += missed or 0
        if not was_away:
            self._losses.add(LIVE, missed or 0)

    def count_gone(self) -> None:
        self._gone += 1

    def chunk(self, view: View, seq: int) -> Chunk:
        """The next bytes of a view after a place; made once for all who are there."""
        last = self.ring.last
        if self._chunks_of != last:
            self._chunks.clear()
            self._chunks_of = last
        found = self._chunks.get((view, seq))
        if found is None:
            found = self._chunks[view, seq] = chunk_after(self.ring, seq, view)
        return found

    def due(self, before: float, wall: float) -> dict[WhoHolds, float]:
        """The credentials last looked at before ``before`` (of ``now``), or that expire by ``wall``, with the oldest look
        at each.
        """
        found: dict[WhoHolds, float] = {}
        for client in self._clients:
            credential, expires_at = client.start.credential, client.start.expires_at
            if credential is not None and (client.checked_at < before or (expires_at or wall) < wall):
                found[credential] = min(client.checked_at, found.get(credential, client.checked_at))
        return found

    def note_good(self, credentials: Iterable[WhoHolds]) -> None:
        """They still are."""
        good, now = frozenset(credentials), self.now()
        for client in self._clients:
            if client.start.credential in good:
                client.checked_at = now

    def end_where(self, wanted: Callable[[LiveStart], bool], code: int, reason: str) -> None:
        """Closes the streams that are wanted closed."""
        for client in list(self._clients):
            if wanted(client.start):
                client.end(code, reason)

    # -- inside

    async def _adopt(self, sock: socket.socket, head: bytes, start: LiveStart) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            await loop.connect_accepted_socket(lambda: LiveClient(self, head, start), sock)
        except OSError:
            sock.close()

    def _schedule(self) -> None:
        self._woken = False
        if self._timer is None:
            delay = max(0.0, self._flushed_at + _TICK_S - self.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._flush)

    def _flush(self) -> None:
        self._timer = None
        self._flushed_at = self.now()
        for client in list(self._clients):
            client.pump()

    def _look(self) -> None:
        asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now = self.now()
        for client in list(self._clients):
            client.tick(now)
