"""A byte stream in both directions: what TLS, yamux and the relays read and write, whatever it runs over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

__all__ = ["CHUNK", "ByteStream", "SocketStream", "WatchedStream", "WrappedStream", "splice"]

CHUNK = 64 * 1024
"""Bytes that are read in one go."""

_LINGER_S = 5.0
"""Seconds in which a peer has to take what was written before ``close``; a dead one would keep the socket for ever."""

_TCP = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""A peer that is gone without a word is noticed after a minute and a half. Onion circuits, and what an egress relay dials,
have no other sign of life: each would keep its sockets for ever."""


class ByteStream(Protocol):
    """One connection. Everything belongs to one asyncio loop; at most one reader and one writer at a time."""

    async def read(self, limit: int = CHUNK) -> bytes:
        """What is there, at most ``limit`` bytes; waits for the first. Empty: the other side sends no more.

        Raises:
            OSError: the connection broke.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Returns when all of it is on its way, or in a buffer that is bounded. Raises ``OSError``."""
        ...

    async def write_eof(self) -> None:
        """Says that nothing more will be written; reading goes on. Raises ``OSError``."""
        ...

    def close(self) -> None:
        """Ends both directions; what was written still arrives if the other side takes it. Never raises, at once."""
        ...

    def abort(self) -> None:
        """Ends both directions; what is still on its way is lost. Never raises, at once."""
        ...


class WrappedStream:
    """A stream that is another one, and something besides: subclasses change what they are about."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner

    async def read(self, limit: int = CHUNK) -> bytes:
        return await self._inner.read(limit)

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)

    async def write_eof(self) -> None:
        await self._inner.write_eof()

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()


class WatchedStream(WrappedStream):
    """Another stream, in all but one thing: ``on_end`` is called, once, when it is closed or aborted."""

    def __init__(self, inner: ByteStream, on_end: Callable[[], None]) -> None:
        super().__init__(inner)
        self._on_end = on_end
        self._open = True

    def close(self) -> None:
        super().close()
        self._ended()

    def abort(self) -> None:
        super().abort()
        self._ended()

    def _ended(self) -> None:
        if self._open:
            self._open = False
            self._on_end()


class SocketStream:
    """Over asyncio's own streams, a TCP or unix socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        opened: socket.socket | None = writer.get_extra_info("socket")
        if opened is not None and opened.family != socket.AF_UNIX:
            for level, option, value in _TCP:
                opened.setsockopt(level, option, value)

    @property
    def peer(self) -> str:
        """``host:port`` of the other side; empty over a unix socket."""
        name = self._writer.get_extra_info("peername")
        if not isinstance(name, tuple):
            return ""
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    async def read(self, limit: int = CHUNK) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone already
            self._writer.close()
            asyncio.get_running_loop().call_later(_LINGER_S, self._writer.transport.abort)

    def abort(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._writer.transport.abort()


async def splice(one: ByteStream, other: ByteStream) -> None:
    """Copies both ways until either side ends or breaks, then closes both (relay-contract.md 5.3: no half-close).

    Never raises but ``CancelledError``, and closes both then too.
    """
    ways = [asyncio.create_task(_copy(one, other)), asyncio.create_task(_copy(other, one))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        one.close()
        other.close()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _copy(source: ByteStream, target: ByteStream) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read():
            await target.write(data)
