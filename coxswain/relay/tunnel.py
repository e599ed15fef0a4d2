"""The controller's end of a reverse tunnel: dial a relay, and join each of its streams with AccountSync's socket
(relay-contract.md 3.3). One attempt is one coroutine; when to make the next one, ``Redial`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path

from coxswain.relay.byte_stream import SocketStream, splice
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Limits, Session, SessionClosed, Stream, Timing

__all__ = ["Redial", "carry", "describe"]

_DIAL_S = 10.0
_LOCAL_S = 5.0
_LIMITS = Limits(max_streams=64)
"""A relay opens one stream for all its calls; more than these are a mistake or an attack."""


class Redial:
    """How long to wait before the next attempt: from 1 s, doubling up to 60 s; half of it is chance, so that relays that
    fell together do not come back together. A tunnel that stood for five seconds starts it anew.
    """

    FIRST_S, LONGEST_S, STOOD_S = 1.0, 60.0, 5.0

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_s = self.FIRST_S

    def after(self, stood_s: float) -> float:
        """Seconds to wait after a tunnel that stood for ``stood_s``; 0: the attempt failed."""
        if stood_s >= self.STOOD_S:
            self._next_s = self.FIRST_S
            return self._rng.uniform(0, self.FIRST_S)  # at once, but not all at the same instant
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self.LONGEST_S)
        return self._rng.uniform(wait_s / 2, wait_s)


def describe(error: BaseException) -> str:
    """What an operator reads of a failed attempt."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


async def carry(
    endpoint: str,
    context: ssl.SSLContext,
    socket: Path,
    connected: Callable[[], None],
    timing: Timing | None = None,
    *,
    vouch: Callable[[bytes], None],
) -> str:
    """One tunnel, from the dial to its end; says why it ended.

    Args:
        endpoint: ``host:port`` of the relay; its certificate must be for the host.
        context: TLS client context with the ``relay`` service leaf, which trusts the Fleet CA.
        socket: where AccountSync is served.
        connected: called once, when a ping was answered. Before that the relay may still refuse our certificate.
        timing: of the session; tests have less of it.
        vouch: given the relay's certificate (DER), which is of the Fleet CA and for the host; raises if it is not let in.

    Raises:
        OSError: it did not come to be.
        CoxswainError: what ``vouch`` raised.
    """
    host, _, port = endpoint.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    async with asyncio.timeout(_DIAL_S):
        stream = SocketStream(*await asyncio.open_connection(host, int(port)))
        over = await tls_over(stream, context, server_name=host)
    try:
        vouch(over.peer_certificate or b"")
    except BaseException:
        over.abort()
        raise
    session = Session(over, client=False, timing=timing, limits=_LIMITS)
    session.start()
    joined: set[asyncio.Task[None]] = set()
    try:
        try:
            await session.ping()
        except SessionClosed as error:
            raise ConnectionError(f"the relay did not take our certificate: {error}") from None
        connected()
        with contextlib.suppress(SessionClosed):
            while True:
                task = asyncio.create_task(_join(await session.accept(), socket))
                joined.add(task)
                task.add_done_callback(joined.discard)
        return await session.wait_closed()
    finally:
        session.go_away()
        await session.close()
        for task in list(joined):
            task.cancel()
        await asyncio.gather(*joined, return_exceptions=True)


async def _join(stream: Stream, socket: Path) -> None:
    try:
        async with asyncio.timeout(_LOCAL_S):
            near = SocketStream(*await asyncio.open_unix_connection(socket))
    except OSError:
        stream.abort()  # AccountSync is not served just now; the relay tells its devices
        return
    await splice(stream, near)
