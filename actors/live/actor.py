"""``live_streams``: looks after the clients of the live stream, whose sockets are on the I/O loop.

A stream may live for weeks, and the credential it was granted for may not: each is looked at again every minute. Ended when
it is not good any more, or when nobody has been able to say so for minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from websockets.frames import CloseCode

from actors.io_loop import IoLoop
from actors.live.fanout import Fanout
from actors.live.recheck import Due, check
from actors.supervision import Actor, Context
from coxswain.live.start import LiveStart
from coxswain.messages.access import WhoHolds
from coxswain.messages.hub import GetLiveCounts

__all__ = ["LiveStreams"]

_LOOK_S = 2.0
_RECHECK_S = 60.0


class _Look:
    """To itself: whose credential has to be looked at again?"""


class LiveStreams(Actor):
    """The streams themselves live on when this actor falls."""

    def __init__(self, context: Context, *, io: IoLoop, fanout: Fanout, recheck_s: float = _RECHECK_S) -> None:
        super().__init__(context)
        self._io = io
        self._fanout = fanout
        self._recheck_s = recheck_s
        self._look_s = min(_LOOK_S, recheck_s / 3)

    def started(self) -> None:
        self.context.after(self._look_s, _Look())

    def receive(self, message: Any) -> Any:
        match message:
            case _Look():
                self._io.call(self._find_due)
                self.context.after(self._look_s, message)
            case Due():
                self._settle(*check(self.context, message, self._recheck_s))
            case GetLiveCounts():
                return self._fanout.counts()
        return None

    def stopping(self) -> None:
        """The servers are gone by now, so nobody new comes."""
        self._io.call(lambda: self._fanout.end_where(lambda _start: True, CloseCode.GOING_AWAY, "the daemon stops"))

    def _find_due(self) -> None:
        """On the loop."""
        now = self._fanout.now()
        found = self._fanout.due(now - self._recheck_s, self._fanout.wall())
        if found:
            self.context.tell_self(Due(found, now))

    def _settle(self, good: Iterable[WhoHolds], ended: Iterable[WhoHolds]) -> None:
        gone = frozenset(ended)

        def is_gone(start: LiveStart) -> bool:
            return start.credential in gone

        def settle() -> None:
            self._fanout.note_good(good)
            self._fanout.end_where(is_gone, CloseCode.POLICY_VIOLATION, "the credential is not good any more")

        self._io.call(settle)
