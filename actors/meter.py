"""``meter``: what the fleet did over time, for charts.

It looks at what others have counted already (the fleet's links, the tracker's sessions, the totals in the store) four times
a minute, and once a minute writes the sums. So it costs the same however many events there are, and nothing on their way.
A minute that could not be written is forgotten, not written later: better a gap than a minute that counts twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError, StoreUnavailable
from coxswain.messages.fleet import GetPulses
from coxswain.messages.hub import Publish
from coxswain.messages.meter import GetSeries, Series
from coxswain.messages.sessions import GetActiveSessions
from coxswain.metering import Meter, Point, point, window
from coxswain.store import Durability, Store
from coxswain.store import metric_series as rows

__all__ = ["LOOKS_A_WRITE", "MeterActor"]

_LOOK_S = 15.0
LOOKS_A_WRITE = 4
_WRITES_A_PURGE = 60
_ASK_S = 5.0


class _Look:
    """To itself: the next look is due."""


class MeterActor(Actor):
    """After a crash it begins with the next look: what was not written is not known.

    Args:
        context: its place in the system.
        store: where series and totals are.
        keep_days: asked before each purge: for how many days sessions are kept; 0 or less: for ever.
        look_s: seconds between two looks.
    """

    def __init__(
        self, context: Context, *, store: Store, keep_days: Callable[[], int] = lambda: 0, look_s: float = _LOOK_S
    ) -> None:
        super().__init__(context)
        self._store = store
        self._keep_days = keep_days
        self._look_s = look_s
        self._meter = Meter()
        self._looks = 0

    def started(self) -> None:
        self.context.after(self._look_s, _Look())

    def receive(self, message: Any) -> Any:
        match message:
            case GetSeries():
                return self._series(message)
            case _Look():
                self._look()
                self.context.after(self._look_s, message)
        return None

    def stopping(self) -> None:
        self._write()

    def _look(self) -> None:
        try:
            pulses = self.context.ask("fleet", GetPulses(), deadline=_ASK_S)
            active = self.context.ask("session_tracker", GetActiveSessions(), deadline=_ASK_S)
            now = self.context.clock.now()
            with self._store.read() as tx:
                moved = rows.moved(tx, now)
        except CoxswainError as error:
            self.context.log.info("a look at the fleet came to nothing: %s", error)
            self._meter.missed()
        else:
            self._meter.look(now, pulses, active, moved)
        self._looks += 1
        if self._looks % LOOKS_A_WRITE == 0:
            self._write()

    def _write(self) -> None:
        cells = self._meter.take()
        if not cells:
            return
        now = self.context.clock.now()
        try:
            with self._store.write(Durability.BATCHED) as tx:
                rows.add(tx, cells)
                if self._looks % (LOOKS_A_WRITE * _WRITES_A_PURGE) == 0:
                    rows.purge(tx, now, self._keep_days())
        except StoreUnavailable as error:
            self.context.log.warning("a minute of the charts is not written: %s", error)
            return
        self.context.tell("event_hub", Publish("metrics.written", now, {}))

    def _series(self, query: GetSeries) -> Series:
        first, last, step = window(self.context.clock.now(), query.since, query.until, query.step)
        with self._store.read() as tx:
            cells = rows.read(tx, query.node_id, first * step, last * step, step)
        points = (point(cells[bucket]) if bucket in cells else Point() for bucket in range(first, last))
        return Series(first * step, step, tuple(points))
