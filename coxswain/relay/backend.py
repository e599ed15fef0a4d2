"""The relay's one connection to the controller's AccountSync, made when a call needs it (relay-contract.md 2, leg L3)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from coxswain.relay.byte_stream import ByteStream
from coxswain.relay.grpc_wire import Code, GrpcFailure
from coxswain.relay.http2 import Http2Connection, Http2Stream, StreamGone
from coxswain.relay.stream_tls import tls_over

__all__ = ["Backend", "NoTunnel"]

SERVER_NAME = "coxswain-grpc"
_DIAL_S = 10.0

Pairs = list[tuple[bytes, bytes]]


class NoTunnel(ConnectionError):
    """There is no way to the controller just now."""

    def __init__(self) -> None:
        super().__init__("relay: no coxswain tunnel connected")


class Backend:
    """Hands out streams of one HTTP/2 connection that all calls of all devices share; a lost one is made anew by the next
    call. There is no back-off: without a tunnel an attempt costs nothing, and with one the first call must succeed.

    Args:
        ways: says which ways to the controller there are, best first; each, when called, opens a byte stream or raises
            ``OSError``. None at all: ``NoTunnel``.
        context: TLS client context with the relay's leaf, which trusts the Fleet CA.
    """

    def __init__(self, ways: Callable[[], list[Callable[[], Awaitable[ByteStream]]]], context: ssl.SSLContext) -> None:
        self._ways = ways
        self._context = context
        self._connection: Http2Connection | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._dialling = asyncio.Lock()

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
            if self._connection is None or self._connection.closed:
                self._connection = await self._dial()
            return self._connection

    async def _dial(self) -> Http2Connection:
        failure: OSError = NoTunnel()
        for way in self._ways():
            try:
                async with asyncio.timeout(_DIAL_S):
                    stream = await way()
            except OSError as error:
                failure = error
                continue
            try:
                over = await tls_over(stream, self._context, server_name=SERVER_NAME)
                connection = Http2Connection(over, client=True)
                await connection.start()
            except OSError as error:
                stream.close()
                text = f'connection error: desc = "transport: authentication handshake failed: {error}"'
                raise GrpcFailure(Code.UNAVAILABLE, text) from None
            except BaseException:
                with contextlib.suppress(OSError):
                    stream.close()
                raise
            task = asyncio.create_task(connection.run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            return connection
        text = f'connection error: desc = "transport: Error while dialing: {failure}"'
        raise GrpcFailure(Code.UNAVAILABLE, text)
