"""The relay's one connection to the controller's AccountSync, made when a call needs it (relay-contract.md 2, leg L3)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from coxswain.relay.byte_stream import ByteStream
from coxswain.relay.grpc_wire import Code, GrpcFailure
from coxswain.relay.http2 import Http2Connection, Http2Stream, StreamGone
from coxswain.relay.stream_tls import tls_over

__all__ = ["Backend", "NoTunnel", "Way"]

SERVER_NAME = "coxswain-grpc"
_DIAL_S = 10.0

Pairs = list[tuple[bytes, bytes]]


class NoTunnel(ConnectionError):
    """There is no way to the controller just now."""

    def __init__(self) -> None:
        super().__init__("relay: no coxswain tunnel connected")


def _shrug() -> None:
    """There is no other way from which this one would have to be told."""


@dataclass(frozen=True)
class Way:
    """One way to the controller. ``open`` raises ``OSError``; ``failed`` is told that it did not lead there, ``led`` that it
    did: who was met at its end has the controller's certificate.
    """

    open: Callable[[], Awaitable[ByteStream]]
    failed: Callable[[], None] = _shrug
    led: Callable[[], None] = _shrug


class Backend:
    """Hands out streams of one HTTP/2 connection that all calls of all devices share; a lost one is made anew by the next
    call. There is no back-off: without a tunnel an attempt costs nothing, and with one the first call must succeed.

    Args:
        ways: says which ways to the controller there are just now, best first.
        context: TLS client context with the relay's leaf, which trusts the Fleet CA.
    """

    def __init__(self, ways: Callable[[], list[Way]], context: ssl.SSLContext) -> None:
        self._ways = ways
        self._context = context
        self._connection: Http2Connection | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._dialling = asyncio.Lock()

    def use(self, context: ssl.SSLContext) -> None:
        """From the next dial on. Any thread."""
        self._context = context

    async def call(self, headers: Pairs) -> Http2Stream:
        """Starts a call. Raises ``GrpcFailure`` with the texts that devices are used to."""
        for attempt in (1, 2):  # the connection may end between look and use
            connection = await self._connected()
            try:
                return await connection.open(headers)
            except (StreamGone, OSError) as error:
                if self._connection is connection:
                    self._connection = None
                if attempt == 2:
                    raise GrpcFailure(Code.UNAVAILABLE, f"connection error: {error}") from None
        raise AssertionError

    async def close(self) -> None:
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _connected(self) -> Http2Connection:
        async with self._dialling:
            if self._connection is None or not self._connection.takes_calls:
                self._connection = await self._dial()
            return self._connection

    async def _dial(self) -> Http2Connection:
        text = f"transport: Error while dialing: {NoTunnel()}"
        for way in self._ways():
            try:
                async with asyncio.timeout(_DIAL_S):
                    stream = await way.open()
            except OSError as error:
                text = f"transport: Error while dialing: {error}"
                way.failed()
                continue
            try:
                over = await tls_over(stream, self._context, server_name=SERVER_NAME)
                connection = Http2Connection(over, client=True)
                await connection.start()
            except OSError as error:
                stream.close()
                text = f"transport: authentication handshake failed: {error}"
                way.failed()
                continue
            except BaseException:
                stream.close()
                raise
            way.led()
            task = asyncio.create_task(connection.run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            return connection
        raise GrpcFailure(Code.UNAVAILABLE, f'connection error: desc = "{text}"')
