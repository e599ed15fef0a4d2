"""A node that does not answer: since when, how often in a row, and so how long its link waits before it dials again."""

from __future__ import annotations

from actors.supervision import Context
from coxswain.reconcile.pacing import reconnect_delay

__all__ = ["MISSES_UNTIL_UNREACHABLE", "Outage"]

MISSES_UNTIL_UNREACHABLE = 3
"""node-contract.md 11.5; management-plane.md 13.2.19."""

_PROVEN_S = 2.0
"""A connection that did not last for so long (node-contract.md 11.1) ends no outage: a node that answers absurdly, or whose
stream ends at once, is dialled ever less often, like one that does not answer."""


class Outage:
    """On the link's thread.

    Attributes:
        since: when its connection was lost, of the monotonic clock; None: there is no outage.
        missed: polls and connections in a row that came to nothing.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._opened_at = 0.0
        self.since: float | None = None
        self.missed = 0

    @property
    def is_unreachable(self) -> bool:
        return self.missed >= MISSES_UNTIL_UNREACHABLE

    def answered(self) -> None:
        self.missed = 0

    def opened(self) -> None:
        """A connection stands; whether that ends the outage shows when it is closed."""
        self._opened_at = self._context.clock.monotonic()
        self.missed = 0

    def closed(self) -> None:
        """The connection is closed, whoever closed it."""
        if self._context.clock.monotonic() - self._opened_at >= _PROVEN_S:
            self.over()

    def lost(self) -> float:
        """An attempt to connect failed, or the connection is ``closed`` because it was of no use any more. Returns the
        seconds until the next attempt.
        """
        now = self._context.clock.monotonic()
        if self.since is None:
            self.since = now
        self.missed += 1
        return reconnect_delay(now - self.since, self._context.rng)

    def over(self) -> None:
        self.since = None
