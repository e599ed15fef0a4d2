"""The ingress role: devices on one port, the controller's reverse tunnel on another (relay-contract.md 2 and 3).

Beat: a tunnel counts when its TLS handshake is done and a ping was answered, not when somebody connects; so idle or foreign
connections keep nobody out. Several tunnels may stand at once, and a call takes the newest that works: a controller that
comes back need not wait until its old connection is noticed to be dead, and a stolen certificate displaces nobody.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from functools import partial

from coxswain.relay.backend import Way
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Limits, Session, Timing

__all__ = ["Tunnels"]

_MAX_TUNNELS = 8
_LIMITS = Limits(max_streams=16)
"""The controller opens none; a relay that is asked to carry streams inwards has been mistaken for another."""


class Tunnels:
    """The tunnels that stand; ``serve`` is for ``Listener``, ``ways`` for ``Backend``."""

    def __init__(self, context: ssl.SSLContext, log: logging.Logger, *, timing: Timing | None = None) -> None:
        self._context = context
        self._log = log
        self._timing = timing
        self._sessions: list[Session] = []
        self._proven: Session | None = None  # behind which the controller was found last

    async def serve(self, stream: SocketStream) -> None:
        """One connection of the controller, from the handshake to its end."""
        over = await tls_over(stream, self._context, server_name=None)
        async with Session(over, client=True, timing=self._timing, limits=_LIMITS) as session:
            await session.ping()
            while len(self._sessions) >= _MAX_TUNNELS:
                oldest = next(s for s in self._sessions if s is not self._proven)
                self._sessions.remove(oldest)
                oldest.abort("newer tunnels took its place")
            self._sessions.append(session)
            self._log.info("[relay] coxswain tunnel connected")
            try:
                await session.wait_closed()
            finally:
                with contextlib.suppress(ValueError):
                    self._sessions.remove(session)
                if self._proven is session:
                    self._proven = None
                self._log.info("[relay] coxswain tunnel closed — awaiting reconnect")

    def ways(self) -> list[Way]:
        """How to reach the controller, the newest tunnel first, but those behind which it was not found last."""
        return [
            Way(session.open_stream, partial(self._demote, session), partial(self._prove, session))
            for session in reversed(self._sessions)
        ]

    def _prove(self, session: Session) -> None:
        if session in self._sessions:
            self._proven = session

    def _demote(self, session: Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            self._sessions.insert(0, session)

    @property
    def standing(self) -> int:
        return len(self._sessions)
