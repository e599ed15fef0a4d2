"""Two ends of a connection in memory, for tests of what runs over byte streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from coxswain.relay.byte_stream import SocketStream


async def pipe() -> tuple[SocketStream, SocketStream]:
    """Two ends of a socket pair: real buffers of the kernel, no ports."""
    one, other = socket.socketpair()
    return await _stream(one), await _stream(other)


async def _stream(end: socket.socket) -> SocketStream:
    return SocketStream(*await asyncio.open_unix_connection(sock=end))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - whoever makes it true knows nothing of us
        await asyncio.sleep(0.005)
