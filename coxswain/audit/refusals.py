"""Keeps a flood of refusals out of the log, without losing their number. Pure."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass, field

from coxswain.messages.audit import RecordAction, RecordRefusal

__all__ = ["RefusalThrottle"]


@dataclass(slots=True)
class _Window:
    """What came from one source since ``began`` (epoch seconds)."""

    began: float
    last: float
    recorded: int = 0
    held_back: int = 0
    sample: RecordRefusal | None = None
    others: set[str] = field(default_factory=set)


class RefusalThrottle:
    """Each source gets ``burst`` records a window, and then one that counts the rest. Not thread-safe.

    A source is an address, or a caller where there is none. ``sources`` bounds the memory: beyond, the source that was
    silent for longest is told of at once. Everything together gets ``most`` single records a window, so that a flood
    from many addresses does not fill the log either.
    """

    def __init__(self, *, burst: int = 30, window_s: float = 60.0, sources: int = 2_000, most: int = 1_000) -> None:
        self._burst = burst
        self._window_s = window_s
        self._sources = sources
        self._most = most
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._all = _Window(0.0, 0.0)
        self._next_look = 0.0

    def take(self, refusal: RecordRefusal, now: float) -> tuple[bool, list[RecordAction]]:
        """Returns whether this one gets a record of its own, and summaries that are due. ``now``: epoch seconds."""
        due = self.due(now)
        if now - self._all.began >= self._window_s:
            self._all = _Window(now, now)
        source = refusal.caller.source_ip or f"{refusal.caller.kind} {refusal.caller.actor}"
        window = self._windows.pop(source, None)
        if window is None:
            window = _Window(now, now)
            if len(self._windows) >= self._sources:
                _, oldest = self._windows.popitem(last=False)
                due += _summary(oldest)
        self._windows[source] = window
        window.last = now
        if window.recorded < self._burst and self._all.recorded < self._most:
            window.recorded += 1
            self._all.recorded += 1
            return True, due
        window.held_back += 1
        window.sample = window.sample or refusal
        if len(window.others) < 20:
            window.others.add(refusal.action)
        return False, due

    def due(self, now: float) -> list[RecordAction]:
        """Summaries of windows that are over. Looks once a second at most."""
        if now < self._next_look:
            return []
        self._next_look = now + 1.0
        over = [source for source, window in self._windows.items() if now - window.began >= self._window_s]
        return [record for source in over for record in _summary(self._windows.pop(source))]

    def drain(self) -> list[RecordAction]:
        """Summaries of everything that was held back: at the end."""
        found = [record for window in self._windows.values() for record in _summary(window)]
        self._windows.clear()
        return found


def _summary(window: _Window) -> list[RecordAction]:
    sample = window.sample
    if sample is None:
        return []
    detail = {
        "refused": window.held_back,
        "actions": sorted(window.others),
        "first": _stamp(window.began),
        "last": _stamp(window.last),
    }
    return [RecordAction(sample.caller, "audit.refusals", sample.target, detail, f"{window.held_back} more refusals")]


def _stamp(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
