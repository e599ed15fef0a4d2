"""One message to itself that is still to come, however many reasons there are for it."""

from __future__ import annotations

from typing import Any

from actors.supervision.context import Context
from actors.supervision.timers import Timer

__all__ = ["Pending"]


class Pending:
    """What an actor does again later, when it came to nothing: asked for twice, it comes once. Only on the actor's thread.

    Whoever takes the message in calls ``cancel`` first, so that there is none on the way any more while it works.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._timer: Timer | None = None

    @property
    def waits(self) -> bool:
        """Whether one is on its way."""
        return self._timer is not None

    def after(self, delay: float, message: Any) -> None:
        """In ``delay`` seconds, in place of one that waited already."""
        self.cancel()
        self._timer = self._context.after(delay, message)

    def cancel(self) -> None:
        """It is not to come, or has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
