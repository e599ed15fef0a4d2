"""What a route is made of beside sessions: a TCP connection to its first relay, and a circuit over onion relays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coxswain.control_path.onion import Keystream
from coxswain.errors import NodeUnreachable
from coxswain.relay.byte_stream import CHUNK, ByteStream, SocketStream

__all__ = ["OnionStream", "dial_tcp"]


class OnionStream:
    """A circuit: what is written and read goes through the keystreams of all hops. A ``ByteStream``."""

    def __init__(self, inner: ByteStream, keys: Sequence[bytes]) -> None:
        self._inner = inner
        self._forward = Keystream(keys, forward=True)
        self._back = Keystream(keys, forward=False)

    async def read(self, limit: int = CHUNK) -> bytes:
        return self._back.apply(await self._inner.read(limit))

    async def write(self, data: bytes) -> None:
        await self._inner.write(self._forward.apply(data))

    async def write_eof(self) -> None:
        await self._inner.write_eof()

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()


async def dial_tcp(endpoint: str, within: float) -> SocketStream:
    """Connects to ``host:port``. Raises ``NodeUnreachable`` without saying what it was for."""
    host, _, port = endpoint.rpartition(":")
    try:
        async with asyncio.timeout(within):
            return SocketStream(*await asyncio.open_connection(host.strip("[]"), int(port)))
    except TimeoutError:
        raise NodeUnreachable(f"{endpoint}: no TCP connection within {within:g} s") from None
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        raise NodeUnreachable(f"{endpoint}: {'connection refused' if refused else error.strerror or error}") from None
