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
from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError, Refused, Unauthenticated
from coxswain.live.start import LiveStart
from coxswain.messages.access import WhoHolds
from coxswain.messages.hub import GetLiveCounts

__all__ = ["LiveStreams"]

_LOOK_S = 2.0
_RECHECK_S = 60.0
_UNKNOWN_S = 300.0
_ASK_S = 5.0
_AT_ONCE = 50
"""Credentials that are looked at in one go; the others wait two seconds."""

_MONITOR = frozenset({"monitor", "admin"})


class _Look:
    """To itself: whose credential has to be looked at again?"""


class _Due:
    """To itself, from the loop."""

    def __init__(self, found: dict[WhoHolds, float], now: float) -> None:
        self.found = found
        self.now = now


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
            case _Due():
                self._check(message)
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
            self.context.tell_self(_Due(found, now))

    def _check(self, due: _Due) -> None:
        oldest_first = sorted(due.found.items(), key=lambda item: item[1])[:_AT_ONCE]
        good: list[WhoHolds] = []
        ended: list[WhoHolds] = []
        for credential, checked_at in oldest_first:
            try:
                found = self.context.ask("access", credential, deadline=_ASK_S)
            except (Unauthenticated, Refused):
                ended.append(credential)
            except CoxswainError as error:
                if due.now - checked_at > self._recheck_s + _UNKNOWN_S:
                    ended.append(credential)
                self.context.log.warning("the credential of a live stream cannot be looked at just now: %s", error)
                break  # the others would have to wait as long, for the same answer
            else:
                (good if found.scope in _MONITOR else ended).append(credential)
        self._settle(good, ended)

    def _settle(self, good: Iterable[WhoHolds], ended: Iterable[WhoHolds]) -> None:
        gone = frozenset(ended)

        def is_gone(start: LiveStart) -> bool:
            return start.credential in gone

        def settle() -> None:
            self._fanout.note_good(good)
            self._fanout.end_where(is_gone, CloseCode.POLICY_VIOLATION, "the credential is not good any more")

        self._io.call(settle)
