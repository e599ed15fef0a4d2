"""Uploads take turns where they would wait for the controller's processors, and none where each waits for its own line or
its own host.

Twenty uploads at once to near hosts cost controller and hosts a third more than two at a time: threads take the interpreter
from each other packet by packet, and what is to be sent or read has left the processor's cache when its turn comes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["Turn"]

_AT_ONCE = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
_SMALL = 128 * 1024
"""Bytes that need no turn: certificates and units of one host do not wait for the programs of all others."""

_FAST = 30_000_000
"""Bytes a second, a quarter of a Gbit/s: what is slower, and waits for a line or for its host, gives its turn away."""

_BUSY = 0.4
"""Of a processor, what the controller takes where uploads wait for it: all of one, unless hosts on the same machine take
their share, as in a benchmark. Below this an upload is slow because its host is.
"""

_TRIED = 600_000
"""Bytes after which that is known: more than is on the way to a near host at once (``connection.py``)."""

_POLL_S = 0.5


class Turn:
    """Of one upload.

    Args:
        check: called while it waits; raises when that has no use any more.
        on_line: whether what was sent is on a line just now, and not with a host that is busy.
    """

    def __init__(self, check: Callable[[], None], on_line: Callable[[], bool]) -> None:
        self._check = check
        self._on_line = on_line
        self._holds = False
        self._has_had = False

    def give_away(self) -> None:
        """Others go on; it does not come back, and what is left is sent without. May be repeated."""
        if self._holds:
            self._holds, self._has_had = False, True
            _AT_ONCE.release()

    def taken_for(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """``blocks``, which wait for the turn once ``_SMALL`` bytes of them are sent. Raises what ``check`` raises."""
        sent, began, worked = 0, 0.0, 0.0
        try:
            for block in blocks:
                if sent >= _SMALL and not self._has_had and not self._holds:
                    while not _AT_ONCE.acquire(timeout=_POLL_S):
                        self._check()
                    self._holds, began, worked, sent = True, time.monotonic(), time.process_time(), 0
                yield block
                sent += len(block)
                took = time.monotonic() - began
                slow = sent > _TRIED and sent < _FAST * took
                if slow and (time.process_time() - worked < _BUSY * took or self._on_line()):
                    self.give_away()
        finally:
            self.give_away()
