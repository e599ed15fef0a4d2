"""A TCP listener of the relay program: bounded in how many connections it holds, graceful at its end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from coxswain.errors import CoxswainError, InvalidInput
from coxswain.relay.byte_stream import SocketStream

__all__ = ["Listener", "listen_address"]

Handler = Callable[[SocketStream], Awaitable[None]]


def listen_address(text: str) -> tuple[str | None, int]:
    """``:8443``, ``host:8443`` or ``[v6]:8443``; host (None: all addresses) and port; 0: any. Raises ``InvalidInput``."""
    host, colon, digits = text.rpartition(":")
    if not (colon and digits.isascii() and digits.isdigit() and int(digits) <= 65535):
        raise InvalidInput(f"address: {text[:80]!r} is not host:port or :port")
    return host.removeprefix("[").removesuffix("]") or None, int(digits)


class Listener:
    """Accepts connections and runs ``handler`` for each, in a task of its own.

    Args:
        handler: gets the connection; whatever it raises ends this connection only. It is closed afterwards.
        log: where failures that are bugs go.
        limit: connections at once; further ones are closed at once, so that a flood costs no memory.
        per_host: of them, from one address, or one IPv6 network of 64 bits.
    """

    def __init__(self, handler: Handler, log: logging.Logger, *, limit: int = 4096, per_host: int = 256) -> None:
        self._handler = handler
        self._log = log
        self._limit = limit
        self._per_host = per_host
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hosts: Counter[str] = Counter()

    async def start(self, address: str) -> str:
        """Listens; returns ``host:port`` as it came to be. Raises ``OSError``, ``InvalidInput``."""
        host, port = listen_address(address)
        self._server = await asyncio.start_server(self._accept, host, port, backlog=512)
        bound = self._server.sockets[0].getsockname()
        return f"{address.rpartition(':')[0]}:{bound[1]}"

    @property
    def connections(self) -> int:
        return len(self._tasks)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Accepts nothing more and ends every connection."""
        self.stop_accepting()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = SocketStream(reader, writer)
        host = _network_of(stream.peer.rpartition(":")[0])
        if len(self._tasks) >= self._limit or self._hosts[host] >= self._per_host:
            stream.abort()
            return
        self._hosts[host] += 1  # here: of many who come at once, no task runs before all of them are accepted
        task = asyncio.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, stream, host))

    async def _serve(self, stream: SocketStream) -> None:
        try:
            await self._handler(stream)
        except (OSError, ssl.SSLError, CoxswainError):
            pass  # the other side's affair; whoever cares has logged it
        except Exception:
            self._log.exception("a connection from %s failed", stream.peer)

    def _ended(self, stream: SocketStream, host: str, task: asyncio.Task[None]) -> None:
        """Also of a connection that was cancelled before its task began."""
        self._tasks.discard(task)
        stream.close()
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


def _network_of(host: str) -> str:
    """Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, of which a single customer has all addresses."""
    try:
        address = ipaddress.IPv6Address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
