"""Which route everybody takes now: one value, written by ``servers``, read by whoever dials.

It fails closed. Until it was read from the store, while it is being changed, and when it cannot be read or followed, asking
for it raises, and nothing is dialled. There is no default: ``DIRECT`` is a value that somebody has to set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from coxswain.control_path.model import Route
from coxswain.errors import CoxswainError, Unavailable

__all__ = ["Routes"]


class Routes:
    """Every method is safe on every thread.

    ``number`` counts changes: what was dialled under an older one is on a route that was left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._route: Route | None = None
        self._refusal: CoxswainError | None = Unavailable("the control path is not known yet; nothing is dialled")
        self._number = 0
        self._listeners: list[Callable[[int, Route], None]] = []
        self.carried: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """How many connections go over relays now, and how many sessions with relays stand. Any thread."""

    def on_change(self, listener: Callable[[int, Route], None]) -> None:
        """Is called with number and route on the thread of ``set``; must not block."""
        self._listeners.append(listener)

    @property
    def number(self) -> int:
        return self._number

    @property
    def is_refused(self) -> bool:
        """Whether nothing may be dialled just now."""
        return self._refusal is not None

    def current(self) -> tuple[int, Route]:
        """Number and route. Raises what says why there is none just now: ``Refused``, ``Unavailable``."""
        with self._lock:
            if self._refusal is not None:
                raise type(self._refusal)(str(self._refusal), remedy=self._refusal.remedy)
            if self._route is None:
                raise Unavailable("the control path is not known yet; nothing is dialled")
            return self._number, self._route

    def refuse(self, why: CoxswainError) -> None:
        """Nothing is dialled until the next ``set``. What is connected stays."""
        with self._lock:
            self._refusal = why

    def set(self, route: Route) -> bool:
        """Returns whether it is another one than before."""
        with self._lock:
            self._refusal = None
            changed = route != self._route
            if changed:
                self._route = route
                self._number += 1
            number = self._number
        if changed:
            for listener in self._listeners:
                listener(number, route)
        return changed
