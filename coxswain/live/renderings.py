"""What many browsers want at the same time is made once.

All open dashboards hear of a change within some milliseconds, and fetch the same piece of the same page. Each says up to
which event it has heard. A piece whose making began when that event was there already shows it, and is good for everybody
who has heard no later one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ["Renderings"]


class _Piece:
    __slots__ = ("began", "content", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.began = -1
        self.content = b""


class Renderings:
    """Thread-safe.

    Args:
        last: the number of the newest event.
        most: how many pieces are kept; those go first that were not wanted for longest.
    """

    def __init__(self, last: Callable[[], int], most: int = 200) -> None:
        self._last = last
        self._most = most
        self._lock = threading.Lock()
        self._pieces: OrderedDict[Hashable, _Piece] = OrderedDict()

    def get(self, key: Hashable, seen: int | None, make: Callable[[], bytes]) -> bytes:
        """The piece as it is when the event ``seen`` has happened, or later.

        ``seen`` None: anew, because whoever asks knows of something that may have had no event yet. Whoever wants a piece
        that is being made waits for it. What ``make`` raises is raised, and nothing kept.
        """
        if seen is None or seen > self._last():  # a number of another run of the daemon
            return make()
        piece = self._piece(key)
        with piece.lock:
            if piece.began < seen:
                began = self._last()
                piece.content = make()
                piece.began = began
            return piece.content

    def _piece(self, key: Hashable) -> _Piece:
        with self._lock:
            piece = self._pieces.pop(key, None) or _Piece()
            self._pieces[key] = piece
            while len(self._pieces) > self._most:
                self._pieces.popitem(last=False)
            return piece
