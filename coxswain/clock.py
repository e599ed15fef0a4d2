"""Time as a parameter, so that backoff, expiry and rules are tested without sleeping."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "rfc3339", "to_micros"]


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch (UTC)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step back; only differences mean something."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when told; both readings move together. Safe to share between threads."""

    def __init__(self, now: float = 1_767_225_600.0) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> float:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Moves both readings forward."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds


def to_micros(seconds: float) -> int:
    """Epoch seconds to epoch microseconds, the store's unit for every time."""
    return round(seconds * 1_000_000)


def rfc3339(seconds: float) -> str:
    """RFC 3339 in UTC, to the second: how times are written in evidence (management-plane.md 7.2)."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
