"""When something that could not be brought to its end is tried again. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

__all__ = ["Attempts"]

_FIRST_S = 300.0
_LONGEST_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts so far. Epoch seconds.

    Attributes:
        not_before: nobody tries before then.
        last: when it was tried; 0: not yet.
        count: how often in a row, with nothing that could have made a difference in between.
    """

    not_before: float
    last: float = 0.0
    count: int = 0

    def once_more(self, now: float) -> Attempts:
        """It is being tried: the next time after twice as long, up to an hour."""
        wait = min(_LONGEST_S, _FIRST_S * 2.0**self.count)
        return Attempts(now + wait, now, self.count + 1)

    def later(self, now: float) -> Attempts:
        """Somebody else is at it."""
        return dataclasses.replace(self, not_before=now + _FIRST_S)

    def afresh(self) -> Attempts:
        """Something happened that may make a difference: as if the last attempt had been the first but for one."""
        return Attempts(min(self.not_before, self.last + _FIRST_S), self.last)
