"""TLS over any byte stream: a TCP connection, a yamux stream, or another TLS inside of one (relay-contract.md 5.5)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from coxswain.relay.byte_stream import CHUNK, ByteStream

__all__ = ["HANDSHAKE_S", "TlsStream", "tls_over"]

HANDSHAKE_S = 10.0
"""Seconds that a handshake may take; a busy relay otherwise keeps its caller for ever (relay-contract.md 5.5)."""

_RECORD = 16 * 1024


class TlsStream:
    """A ``ByteStream`` whose bytes are encrypted over another one. Made by ``tls_over``."""

    def __init__(self, inner: ByteStream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._inner = inner
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = asyncio.Lock()

    @property
    def peer_certificate(self) -> bytes | None:
        """DER of the other side's leaf, if it presented one; it was verified then."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def alpn(self) -> str | None:
        """The protocol that both agreed on."""
        return self._tls.selected_alpn_protocol()

    async def read(self, limit: int = CHUNK) -> bytes:
        while True:
            try:
                return self._tls.read(limit)
            except ssl.SSLWantReadError:
                if not await self._feed():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        async with self._writing:  # records must not overtake each other
            while view:
                while view and self._outgoing.pending < CHUNK:
                    view = view[self._tls.write(view[:_RECORD]) :]
                await self._flush()

    async def write_eof(self) -> None:
        async with self._writing:
            with contextlib.suppress(ssl.SSLError):  # wants the other side's farewell, which the reader will meet
                self._tls.unwrap()
            await self._flush()
        await self._inner.write_eof()

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise ConnectionResetError("the connection ended during the TLS handshake") from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert that tells the other side why
                raise
            else:
                await self._flush()
                return

    async def _feed(self) -> bool:
        data = await self._inner.read()
        if data:
            self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        while data := self._outgoing.read(CHUNK):
            await self._inner.write(data)


async def tls_over(
    stream: ByteStream, context: ssl.SSLContext, *, server_name: str | None, within_s: float = HANDSHAKE_S
) -> TlsStream:
    """Does a handshake and returns the encrypted stream; closes ``stream`` when it fails.

    In TLS 1.3 a client is done before the server has judged its certificate: a refusal comes as ``ssl.SSLError`` from the
    first ``read``. So nothing is connected before the other side has said something (relay-contract.md 1.3).

    Args:
        context: of the client or the server.
        server_name: the name or address that the server's certificate must be for; None: we are the server.
        within_s: seconds.

    Raises:
        OSError: of which ``ssl.SSLError`` and ``TimeoutError`` are kinds.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=server_name is None, server_hostname=server_name)
    over = TlsStream(stream, tls, incoming, outgoing)
    try:
        async with asyncio.timeout(within_s):
            await over.handshake()
    except TimeoutError:
        stream.abort()
        raise TimeoutError(f"no TLS handshake within {within_s:g} s") from None
    except BaseException:
        stream.close()
        raise
    return over
