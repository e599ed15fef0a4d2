"""The last events, numbered. ``event_hub`` writes, the I/O loop reads; the ring outlives both.

Numbers rise for ever. Within one run of the daemon they have no gaps, so what is missing can be counted; the first one of a
run is the time in microseconds at which it began, so it is above all earlier ones without anybody having to remember them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coxswain.live.frames import class_of, render
from coxswain.messages.hub import Publish

__all__ = ["EventRing", "Numbered", "Stretch"]


class Numbered:
    """An event in the ring. Its text is made when somebody first wants it, and then kept."""

    __slots__ = ("_text", "event", "event_class", "seq")

    def __init__(self, seq: int, event: Publish) -> None:
        self.seq = seq
        self.event = event
        self.event_class = class_of(event.kind)
        self._text: bytes | None = None

    @property
    def text(self) -> bytes:
        """The JSON of its frame."""
        if self._text is None:
            self._text = render(self.seq, self.event)
        return self._text


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some events in a row.

    Attributes:
        events: in order.
        first: the number from which this tells.
        last: the number up to which this tells, also where nothing came.
        missed: how many came before ``events`` and are no longer there; None: nobody knows, because the reader's number is
            of another run.
    """

    events: Sequence[Numbered]
    first: int
    last: int
    missed: int | None = 0


class EventRing:
    """Safe on every thread. Nothing is in it before ``begin``."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._lock = threading.Lock()
        self._slots: list[Numbered | None] = [None] * capacity
        self._capacity = capacity
        self._began = 0
        self._last = 0
        self._of_kind: Counter[str] = Counter()

    @property
    def is_begun(self) -> bool:
        return self._began > 0

    @property
    def last(self) -> int:
        """The number of the newest event; before the first one, one below it."""
        return self._last

    def begin(self, after: int) -> None:
        """Numbers are above ``after`` from now on. Only the first call counts."""
        with self._lock:
            if not self._began:
                self._began = self._last = max(1, after)

    def append(self, events: Iterable[Publish]) -> int:
        """Numbers events and keeps them, in place of the oldest. Returns the number of the last one."""
        with self._lock:
            for event in events:
                self._last += 1
                self._of_kind[event.kind] += 1
                self._slots[self._last % self._capacity] = Numbered(self._last, event)
            return self._last

    def after(self, seq: int, limit: int) -> Stretch:
        """Up to ``limit`` events after ``seq``; see ``Stretch``. ``seq`` 0: from the oldest that is kept."""
        with self._lock:
            oldest = self._oldest()
            missed: int | None = 0
            if seq == 0:
                start = oldest
            elif seq < self._began or seq > self._last:
                start, missed = oldest, None
            else:
                start = max(oldest, seq + 1)
                missed = start - seq - 1
            end = min(self._last, start + limit - 1)
            found = [self._slots[number % self._capacity] for number in range(start, end + 1)]
        return Stretch([event for event in found if event is not None], start, end, missed)

    def count_up_to(self, seq: int, wanted: Callable[[str], bool]) -> int | None:
        """How many events of the wanted kinds this run had up to the number ``seq``; so what a reader missed between two
        places can be counted when it is no longer there. None: nobody knows, ``seq`` is no longer in reach.
        """
        with self._lock:
            if not max(self._began, self._oldest() - 1) <= seq <= self._last:
                return None
            return self._count_up_to(seq, wanted)

    def count_gone(self, wanted: Callable[[str], bool]) -> tuple[int, int]:
        """The number of the newest event that is gone, and ``count_up_to`` it: in one look, as the ring goes on."""
        with self._lock:
            seq = self._oldest() - 1
            return seq, self._count_up_to(seq, wanted)

    def _count_up_to(self, seq: int, wanted: Callable[[str], bool]) -> int:
        later = (self._slots[number % self._capacity] for number in range(seq + 1, self._last + 1))
        kept = sum(1 for event in later if event is not None and wanted(event.event.kind))
        return sum(count for kind, count in self._of_kind.items() if wanted(kind)) - kept

    def _oldest(self) -> int:
        return max(self._began + 1, self._last - self._capacity + 1)
