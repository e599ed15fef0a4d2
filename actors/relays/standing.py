"""What tunnels and the embedded relay have in common: something stands on the I/O loop, falls, and is put up again."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Any

from actors.io_loop import IoLoop
from actors.relays.services import RelayServices
from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError, Unavailable
from coxswain.messages.hub import Publish
from coxswain.messages.relays import TunnelReport, TunnelState, TunnelView
from coxswain.relay.tunnel import Redial, describe

__all__ = ["Standing"]

_CHECK_S = 5.0
_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class _Try:
    """To itself: put it up."""

    attempt: int


@dataclass(frozen=True, slots=True)
class _Stands:
    """From the loop."""

    attempt: int


@dataclass(frozen=True, slots=True)
class _Fell:
    """From the loop: it did not come to stand, or stands no more."""

    attempt: int
    reason: str


class _Check:
    """To itself: is the loop still the one on which it was put up?"""


class _Running:
    """One attempt on the loop, which can be ended from any thread. ``result`` is there when it has ended in order."""

    def __init__(self, io: IoLoop, work: Coroutine[Any, Any, str]) -> None:
        """Raises ``Unavailable``: there is no loop just now."""
        self._io = io
        self._task: asyncio.Task[Any] | None = None
        self._ended = False
        try:
            self.result: Future[str] = io.submit(self._carry_out(work))
        except Unavailable:
            work.close()
            raise
        self.result.add_done_callback(lambda _: self._task is not None or work.close())

    def end(self) -> None:
        self._io.call(self._end)

    def _end(self) -> None:
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    async def _carry_out(self, work: Coroutine[Any, Any, str]) -> str:
        self._task = asyncio.current_task()
        if self._ended:
            work.close()
            return "ended before it began"
        return await work


class Standing(Actor):
    """One thing that should stand. Each attempt has a number; what an old one still says is dropped.

    Subclasses give ``work``: a coroutine that calls what it is given when it stands, and lasts as long as it does.
    """

    up = TunnelState.CONNECTED

    def __init__(self, context: Context, *, relay_id: str, endpoint: str, services: RelayServices) -> None:
        super().__init__(context)
        self._services = services
        self._redial = Redial(context.rng)
        self._attempt = 0
        self._running: _Running | None = None
        self._loop = 0
        now = context.clock.now()
        self._view = TunnelView(relay_id, endpoint, TunnelState.CONNECTING, now)

    @abstractmethod
    def work(self, stands: Callable[[], None]) -> Coroutine[Any, Any, str]:
        """Raises ``CoxswainError`` if it cannot even be tried."""

    def started(self) -> None:
        self.context.on_void(self._cancel)
        self.context.tell("relays", TunnelReport(self._view))
        self._try()
        self.context.after(_CHECK_S, _Check())

    def stopping(self) -> None:
        """What is under way is given a moment to end in order."""
        running = self._running
        self._cancel()
        if running is not None:
            try:
                running.result.exception(_STOP_S)
            except (TimeoutError, CancelledError):
                return

    def receive(self, message: Any) -> Any:
        match message:
            case _Try(attempt) if attempt == self._attempt:
                self._try()
            case _Stands(attempt) if attempt == self._attempt:
                self._tell(self.up, connects=self._view.connects + 1)
            case _Fell(attempt, reason) if attempt == self._attempt:
                self._fell(reason)
            case _Check():
                if self._running is not None and self._loop != self._services.loops:
                    self._fell("the I/O loop was started anew")
                self.context.after(_CHECK_S, message)
        return None

    def again(self) -> None:
        """Ends what stands, and puts it up anew at once."""
        self._cancel()
        self._try()

    def _try(self) -> None:
        self._attempt += 1
        attempt, loop = self._attempt, self._services.loops
        if self._view.state is self.up:
            self._tell(TunnelState.CONNECTING)
        try:
            work = self.work(lambda: self._hear(_Stands(attempt)))
            self._running = _Running(self._services.io, work)
        except CoxswainError as error:
            self._fell(str(error))
            return
        self._loop = loop
        self._running.result.add_done_callback(lambda done: self._hear(_Fell(attempt, _reason(done))))

    def _fell(self, reason: str) -> None:
        stood = self.context.clock.now() - self._view.since if self._view.state is self.up else 0.0
        self._cancel()
        self._attempt += 1
        self._tell(TunnelState.WAITING, error=reason[:300])
        self.context.after(self._redial.after(stood), _Try(self._attempt))

    def _cancel(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.end()

    def _hear(self, message: object) -> None:
        """On the loop's thread; a void incarnation hears nothing."""
        self.context.tell_self_surely(message)

    def _tell(self, state: TunnelState, *, error: str = "", connects: int | None = None) -> None:
        before = self._view
        now = self.context.clock.now()
        count = before.connects if connects is None else connects
        since = before.since if state is before.state else now
        self._view = replace(before, state=state, error=error, since=since, connects=count)
        if (before.state, before.error) == (state, error):
            return
        self.context.log.info("relay %s: %s%s", before.endpoint, state.value, f": {error}" if error else "")
        self.context.tell("relays", TunnelReport(self._view))
        data = {"relay_id": before.relay_id, "endpoint": before.endpoint, "state": state.value, "error": error}
        self.context.tell("event_hub", Publish("relay.tunnel", now, data))


def _reason(done: Future[str]) -> str:
    if done.cancelled():
        return "the I/O loop ended"
    error = done.exception()
    if error is None:
        return done.result()
    return describe(error)


def need(credentials: Any) -> Any:
    """Raises ``Unavailable`` while there are none."""
    if credentials is None:
        raise Unavailable("the relay's certificate is not to be had just now")
    return credentials
