"""The turns of waitress's polling thread, over epoll.

waitress's own loop tells the kernel about every connection anew before each wait, and asks each whether it wants to read
or write: at 1,500 connections, most of them idle, that is several milliseconds a turn, and a request takes a few turns. Here
only those are asked again that can have changed their mind: on which something happened, or of which a worker says so
(``look_again``). All are asked once in a while, which is what the loop's timers need, and makes up for whatever was
overlooked.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections import deque
from typing import Any

import waitress.wasyncore

__all__ = ["EpollTurns"]

_ALL_S = 1.0

_READ = select.EPOLLIN | select.EPOLLPRI
_WRITE = select.EPOLLOUT


class EpollTurns:
    """Used by one thread, but for ``look_again``. ``connections`` is the server's map of descriptors, which others may
    change between turns only through that thread.
    """

    def __init__(self, connections: dict[int, Any]) -> None:
        self._map = connections
        self._epoll = select.epoll()
        self._known: dict[int, tuple[Any, int]] = {}
        self._ask: set[int] = set()
        self._changed: deque[int] = deque()
        self._always: set[int] = set()
        self._asked_all = -_ALL_S

    def look_again(self, fd: int) -> None:
        """A connection may want something else now. On any thread; who waits in ``turn`` has to be woken after it."""
        self._changed.append(fd)

    def turn(self, timeout: float) -> None:
        """Waits for something to happen, at most ``timeout`` seconds, and lets it be dealt with."""
        while self._changed:
            self._ask.add(self._changed.popleft())
        for fd in self._ask | self._always:
            self._look_at(fd)
        now = time.monotonic()
        if now - self._asked_all >= _ALL_S or len(self._known) != len(self._map):
            self._asked_all = now
            self._look_at_all()
        happened = self._epoll.poll(timeout)
        self._ask = set()
        accepted = False
        for fd, flags in happened:
            connection = self._map.get(fd)
            if connection is None:
                self._forget(fd)
                continue
            waitress.wasyncore.readwrite(connection, flags)
            self._ask.add(fd)
            accepted = accepted or fd in self._always
        if accepted:
            # A descriptor that was closed in this turn may have come back as another connection.
            self._ask.update(fd for fd, one in self._map.items() if self._known.get(fd, (None, 0))[0] is not one)

    def close(self) -> None:
        self._epoll.close()

    def _look_at_all(self) -> None:
        for fd in [fd for fd in self._known if fd not in self._map]:
            self._forget(fd)
        self._always = {fd for fd, one in self._map.items() if one.accepting}
        for fd in list(self._map):
            self._look_at(fd)

    def _look_at(self, fd: int) -> None:
        connection = self._map.get(fd)
        if connection is None:
            self._forget(fd)
            return
        mask = _READ if connection.readable() else 0
        if not connection.accepting and connection.writable():
            mask |= _WRITE
        known, before = self._known.get(fd, (None, 0))
        if known is not connection:
            before = 0  # with the old connection's socket, the kernel has forgotten it
        if mask != before:
            self._tell(fd, mask, before)
        self._known[fd] = (connection, mask)

    def _tell(self, fd: int, mask: int, before: int) -> None:
        """What is wanted of a descriptor. One of which nothing is wanted is not watched: a client that hangs up while its
        request is worked on is noticed after that.
        """
        if not mask:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
            return
        try:
            if before:
                self._epoll.modify(fd, mask)
            else:
                self._epoll.register(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)
        except FileExistsError:
            self._epoll.modify(fd, mask)

    def _forget(self, fd: int) -> None:
        self._known.pop(fd, None)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(fd)
