"""Sends alerts out, one after the other, each tried again for some minutes. In memory: what a crash of the daemon takes is
still in the list of alerts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from actors.io_loop import IoLoop
from actors.supervision import Context
from coxswain.alerts.model import Alert, AlertStatus
from coxswain.alerts.view import alert_view
from coxswain.alerts.webhook import Hook, body_of, deliver
from coxswain.errors import Unavailable

__all__ = ["Delivered", "Notifier", "TryAgain"]

_MOST = 500
_PAUSES_S = (1.0, 5.0, 30.0, 120.0)

_OVERDUE_S = 30.0
"""Beyond the time that a POST has: what was on a loop that hung and was given up never ends."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """To the engine itself: how a POST went; empty: well. ``post``: which one."""

    problem: str
    post: int


@dataclass(frozen=True, slots=True)
class TryAgain:
    """To the engine itself: the pause is over."""


class Notifier:
    """Only the thread of ``alert_engine`` touches it.

    Args:
        context: of ``alert_engine``.
        io: the loop; None: nothing is sent.
        hook: where to, just now.
        on_lost: told of each alert that was given up.

    Attributes:
        sent, lost: alerts, since the start of this actor.
    """

    def __init__(
        self, context: Context, io: IoLoop | None, hook: Callable[[], Hook], on_lost: Callable[[], object] = lambda: None
    ) -> None:
        self._context = context
        self._io = io
        self._hook = hook
        self._on_lost = on_lost
        self._queue: deque[bytes] = deque()
        self._busy = False
        self._tries = 0
        self._post = 0
        self.sent = 0
        self.lost = 0

    def take(self, alert: Alert, *, new: bool) -> None:
        """Of changes that are not new, only that it is over is sent."""
        hook = self._hook()
        if self._io is None or not hook.url or alert.severity.rank < hook.severity.rank:
            return
        if not new and alert.status is not AlertStatus.RESOLVED:
            return
        if len(self._queue) >= _MOST:
            self._lose()
            return
        kind = "alert" if new else "alert_updated"
        self._queue.append(body_of(kind, alert_view(alert), self._context.clock.now()))
        self._go_on()

    def delivered(self, message: Delivered) -> None:
        if message.post != self._post:
            return  # it was given up
        self._post += 1
        if not message.problem:
            self._done(well=True)
            return
        if self._tries > len(_PAUSES_S):
            self._context.log.warning("an alert was not sent: %s", message.problem)
            self._done(well=False)
            return
        self._context.after(_PAUSES_S[self._tries - 1], TryAgain())

    def try_again(self) -> None:
        self._busy = False
        self._go_on()

    def _done(self, *, well: bool) -> None:
        self._queue.popleft()
        self._busy, self._tries = False, 0
        if well:
            self.sent += 1
        else:
            self._lose()
        self._go_on()

    def _lose(self) -> None:
        self.lost += 1
        self._on_lost()

    def _go_on(self) -> None:
        if self._busy or not self._queue or self._io is None:
            return
        self._busy = True
        self._tries += 1
        post, hook = self._post, self._hook()
        try:
            future = self._io.submit(deliver(hook, self._queue[0], now=self._context.clock.now()))
        except Unavailable as error:
            self.delivered(Delivered(str(error), post))
            return
        self._context.after(hook.timeout_s + _OVERDUE_S, Delivered("the I/O loop did not carry it out in time", post))
        future.add_done_callback(partial(self._report, post))

    def _report(self, post: int, future: Future[None]) -> None:
        """On the loop's thread."""
        error = None if future.cancelled() else future.exception()
        problem = "the I/O loop ended" if future.cancelled() else f"{error}" if error is not None else ""
        self._context.tell_self(Delivered(problem, post))
