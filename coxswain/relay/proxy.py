"""The device-facing side of a relay: a transparent gRPC proxy in front of AccountSync (relay-contract.md 1.4 to 1.6, 2).

It knows no service. For each call it decides by the device's certificate, which TLS has verified if there is one, replaces
what names the device, and passes messages on as they come, a window at a time, in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable
from typing import TypeVar

import h2.errors as h2_errors

import coxswain
from coxswain.relay.backend import Backend
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.grpc_wire import (
    Code,
    GrpcFailure,
    MessageGate,
    certless_refusal,
    device_fingerprint,
    failure_headers,
    parse_timeout,
    request_headers,
    response_headers,
    trailers,
)
from coxswain.relay.http2 import Headers, Http2Connection, Http2Stream, StreamGone
from coxswain.relay.stream_tls import tls_over

__all__ = ["DeviceProxy"]

T = TypeVar("T")

_AGENT = f"coxswain-relay/{coxswain.__version__}"
_HANDSHAKE_S = 20.0
_CLAIMS_AT_ONCE = 32
_CLAIM_S = 60.0
"""Calls without a certificate are bounded in number and time, so that strangers cannot keep devices from the controller."""

_IDLE_S = 1_800.0
_STRANGER_S = 120.0
"""So long lives a connection without certificate, whatever comes over it: there are only so many places on the listener, and
strangers must not hold those of devices."""
_REFUSED_STREAM, _NO_ERROR = 7, 0


class DeviceProxy:
    """Handles the connections of one listener; ``serve`` is for ``Listener``.

    Args:
        context: TLS server context that asks for a device's certificate without requiring one, ALPN ``h2``.
        backend: the way to the controller.
        log: where bugs go.
    """

    def __init__(self, context: ssl.SSLContext, backend: Backend, log: logging.Logger) -> None:
        self._context = context
        self._backend = backend
        self._log = log
        self._calls: set[asyncio.Task[None]] = set()
        self._draining = False
        self._claims = 0

    def use(self, context: ssl.SSLContext) -> None:
        """Connections that come from now on are shown this; the others stay. Any thread."""
        self._context = context

    async def serve(self, stream: SocketStream) -> None:
        """One device's connection, from the handshake to its end."""
        over = await tls_over(stream, self._context, server_name=None, within_s=_HANDSHAKE_S)
        if over.alpn != "h2":
            return
        der = over.peer_certificate
        fingerprint = "" if der is None else device_fingerprint(der)
        ours: set[asyncio.Task[None]] = set()

        def begin(request: Http2Stream, headers: Headers) -> None:
            task = asyncio.create_task(self._call(request, headers, fingerprint))
            for group in (ours, self._calls):
                group.add(task)
                task.add_done_callback(group.discard)

        connection = Http2Connection(over, client=False, on_request=begin, idle_s=_IDLE_S)
        await connection.start()
        try:
            async with asyncio.timeout(None if fingerprint else _STRANGER_S):
                await connection.run()
        finally:
            for task in list(ours):
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)

    async def drain(self, within_s: float) -> None:
        """Takes no new calls, and waits for those that are under way."""
        self._draining = True
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=within_s)

    async def _call(self, device: Http2Stream, headers: Headers, fingerprint: str) -> None:
        try:
            if self._draining:
                await device.reset(_REFUSED_STREAM)  # a client tries that again elsewhere, by itself
                return
            call = _Call(device, headers, fingerprint, self._backend)
            if fingerprint:
                await call.run()
                return
            self._claims += 1
            try:
                await call.run(claims=self._claims)
            finally:
                self._claims -= 1
        except (StreamGone, OSError):
            return  # the device is gone
        except Exception:
            self._log.exception("a call failed")
            with contextlib.suppress(OSError):
                await device.reset(2)
        finally:
            await device.leave()


class _Call:
    """One call, both ways."""

    def __init__(self, device: Http2Stream, headers: Headers, fingerprint: str, backend: Backend) -> None:
        self._device = device
        self._headers = headers
        self._named = dict(headers.pairs)
        self._fingerprint = fingerprint
        self._backend = backend
        self._started = False

    async def run(self, *, claims: int = 0) -> None:
        """``claims``: how many calls without certificate there are, with this one."""
        if self._named.get(b":method") != b"POST" or not self._named.get(b"content-type", b"").startswith(
            b"application/grpc"
        ):
            await self._device.send_headers([(b":status", b"415")], last=True)
            await self._finish_device()
            return
        try:
            await self._within_deadline(claims)
        except GrpcFailure as failure:
            await self._device.send_headers(failure_headers(failure, started=self._started), last=True)
            await self._finish_device()

    async def _within_deadline(self, claims: int) -> None:
        path = self._named.get(b":path", b"")
        refusal = None if self._fingerprint else certless_refusal(path.decode("utf-8", "replace"))
        if refusal is not None:
            raise refusal
        given = self._named.get(b"grpc-timeout")
        timeout_s = None if given is None else parse_timeout(given)
        if claims:
            timeout_s = min(timeout_s or _CLAIM_S, _CLAIM_S)
        if claims > _CLAIMS_AT_ONCE:
            raise GrpcFailure(Code.RESOURCE_EXHAUSTED, "relay: too many devices are joining at once; try again")
        try:
            async with asyncio.timeout(timeout_s):
                await self._forward(path, timeout_s)
        except TimeoutError:
            raise GrpcFailure(Code.DEADLINE_EXCEEDED, "context deadline exceeded") from None

    async def _forward(self, path: bytes, timeout_s: float | None) -> None:
        headers = request_headers(
            self._headers.pairs, path, fingerprint=self._fingerprint, timeout_s=timeout_s, agent=_AGENT
        )
        controller = await self._backend.call(headers)
        ways = [asyncio.create_task(self._requests(controller)), asyncio.create_task(self._responses(controller))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await controller.leave()

    async def _requests(self, controller: Http2Stream) -> None:
        """Never returns: when the device has said all, or the controller wants no more of it, the answer ends the call."""
        with contextlib.suppress(_ControllerGone):
            await self._pass_on(controller)
        raise await self._device.gone()

    async def _pass_on(self, controller: Http2Stream) -> None:
        gate = MessageGate(self._named.get(b"grpc-encoding", b"identity"), Code.UNIMPLEMENTED)
        last = self._headers.last
        while not last:
            part = await self._device.receive()
            if isinstance(part, Headers):
                last = part.last  # trailers of a request: gRPC knows none
                continue
            gate.look(part.data)
            await _send(controller, part.data, last=False)
            await self._device.taken(part)
            last = part.last
        await _send(controller, b"", last=True)

    async def _responses(self, controller: Http2Stream) -> None:
        first = await _from_controller(controller.receive())
        if not isinstance(first, Headers):
            raise GrpcFailure(Code.INTERNAL, "the server sent data before headers")
        start = response_headers(first.pairs)
        if first.last:  # nothing but a status
            status = trailers(first.pairs)
            own = {name for name, _ in start}
            await self._device.send_headers(start + [pair for pair in status if pair[0] not in own], last=True)
            await self._finish_device()
            return
        await self._device.send_headers(start)
        self._started = True
        gate = MessageGate(dict(first.pairs).get(b"grpc-encoding", b"identity"), Code.INTERNAL)
        while True:
            part = await _from_controller(controller.receive())
            if isinstance(part, Headers):
                await self._device.send_headers(trailers(part.pairs), last=True)
                await self._finish_device()
                return
            gate.look(part.data)
            await self._device.send(part.data)
            await controller.taken(part)
            if part.last:
                raise GrpcFailure(Code.INTERNAL, "server closed the stream without sending trailers")

    async def _finish_device(self) -> None:
        """The answer is complete; what the device would still send is not wanted."""
        if not self._device.they_ended:
            await self._device.reset(_NO_ERROR)


class _ControllerGone(Exception):
    """The controller takes nothing more of this call; why, its answer says, or that there is none."""


async def _send(controller: Http2Stream, data: bytes, *, last: bool) -> None:
    try:
        await controller.send(data, last=last)
    except OSError:
        raise _ControllerGone from None


async def _from_controller(operation: Awaitable[T]) -> T:
    """What goes wrong on the controller's side is a status for the device."""
    try:
        return await operation
    except StreamGone as gone:
        if gone.code == h2_errors.ErrorCodes.CANCEL:
            raise GrpcFailure(Code.CANCELLED, "the call was cancelled by the server") from None
        raise GrpcFailure(Code.UNAVAILABLE, str(gone)) from None
    except OSError:
        raise GrpcFailure(Code.UNAVAILABLE, "error reading from server: unexpected EOF") from None
