"""The live stream for commands: server-sent events, followed over broken connections and restarts of the daemon."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from coxswain.cli.client import Client
from coxswain.errors import DaemonNotRunning, Unavailable

__all__ = ["Follower", "follow"]

_SILENCE_S = 60.0
"""The daemon says something every 25 seconds, if only that it is there (docs/live.md)."""

_LONGEST_S = 10.0


def follow(
    asking: Client,
    *,
    classes: str = "",
    after: int | None = None,
    lost: Callable[[str], None] = lambda _why: None,
    wait: Callable[[float], object] = time.sleep,
    rng: random.Random | None = None,
) -> Iterator[dict[str, Any]]:
    """Events as they come, for ever. After a break it goes on where it was; what is missing the daemon tells (``dropped``).

    Args:
        asking: whom to ask.
        classes: only of these, separated by commas; empty: all.
        after: the number of the last event that was seen; None: from now on.
        lost: told why, each time the daemon went away after it was there.
        wait: how to wait, seconds; what it raises ends this.
        rng: source of jitter; its own by default, not that which the whole process shares.

    Raises:
        DaemonNotRunning: it was not there when this began.
        RemoteError: it does not let us.
    """
    query = {"class": classes} if classes else {}
    seen = "" if after is None else str(after)
    was_there, failures = False, 0
    rng = rng or random.Random()  # noqa: S311 - jitter
    while True:
        try:
            path = "/api/events" + (f"?{urlencode(query)}" if query else "")
            for name, value in _fields(asking.lines(path, {"Last-Event-ID": seen} if seen else {}, _SILENCE_S)):
                was_there, failures = True, 0
                if name == "id":
                    seen = value
                else:
                    yield asking.decoded(value, f"GET {path}")
        except (DaemonNotRunning, Unavailable) as error:
            if not was_there:
                raise
            lost(str(error))
        failures += 1
        wait(rng.uniform(0.1, min(_LONGEST_S, 0.25 * 2 ** min(failures, 6))))


def _fields(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The ids and data of a stream; an id comes after the data that it numbers."""
    number = data = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            number = value
        elif name == "data":
            data = value
        elif not line:
            if data:
                yield "data", data
            if number:
                yield "id", number
            number = data = ""


class _ClosedError(Exception):
    """Nobody draws any more."""


class Follower:
    """Follows on a thread of its own, for whoever draws meanwhile. ``take`` gives what came since the last time.

    ``close`` ends it when it next waits: a stream that stands may be silent for long, and the thread holds no process up.
    """

    def __init__(self, asking: Client, most: int = 5_000) -> None:
        self._asking = asking
        self._came: deque[dict[str, Any]] = deque(maxlen=most)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)
        self._thread.start()

    def take(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found = []
        while self._came:
            found.append(self._came.popleft())
        return found

    def close(self) -> None:
        """Nothing is taken any more."""
        self._over.set()

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                for event in follow(self._asking, after=0, wait=self._wait):  # what is still there of the past is news, too
                    self._came.append(event)
            except _ClosedError:
                return
            except Exception as error:
                self._came.append({"type": "lost", "message": str(error)})
            self._over.wait(1.0)

    def _wait(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise _ClosedError
