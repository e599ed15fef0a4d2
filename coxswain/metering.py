"""Time series of the fleet: from looks at its state, seconds apart, to sums over stretches of time.

Everything is kept as sums (seconds, session-seconds, bytes), so coarser stretches are sums of finer ones, and a rate is a
quotient of two sums taken when somebody asks. What is not known is in neither part of a quotient: it becomes a gap and
never a 0. Used by ``actors.meter``; knows nothing of where its figures come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from coxswain.errors import InvalidInput

__all__ = ["FLEET", "STEPS", "STEP_S", "Cell", "Meter", "Moved", "Point", "Pulse", "Uptime", "point", "spread", "window"]

STEP_S = 300
"""Seconds of the finest stretch that is kept."""

STEPS = (STEP_S, 3_600, 86_400)
"""Seconds of the stretches that can be asked for."""

FLEET = ""
"""Stands for the whole fleet where a node's id is expected."""

_SOME = 400
_MOST = 1_100
"""Points in one answer: three years of days."""

_DAY_S = 86_400

_TOO_LONG_S = 600.0
"""Bytes that were moved in a longer time than this, unseen, cannot be said to have been moved at any time."""

Moved = Mapping[tuple[str, int], tuple[int, int]]
"""By node and UTC day (since 1970): bytes received from clients and sent to them on that day, as far as they are counted."""


@dataclass(frozen=True, slots=True)
class Uptime:
    """For how long a link was up, kept at each of its changes, so that no outage is too short to be counted.

    Attributes:
        began: when it was first heard of; who forgets it and begins anew has another one (epoch seconds).
        up: how it is since ``since``.
        up_s: for how long it was up before ``since``.
    """

    began: float
    up: bool
    since: float
    up_s: float = 0.0

    def total(self, at: float) -> float:
        """Seconds from ``began`` to ``at``, which is after ``since``."""
        return self.up_s + (max(0.0, at - self.since) if self.up else 0.0)

    def changed(self, at: float, *, up: bool) -> Uptime:
        """With what was heard of it at ``at``."""
        return self if up is self.up else replace(self, up=up, since=max(at, self.since), up_s=self.total(at))


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a node's link is now. ``since``: when that began; ``counted_at``: when counters were last read (epoch seconds).
    ``uptime``: of its changes before that, where somebody keeps it.
    """

    up: bool
    since: float
    counted_at: float
    uptime: Uptime | None = None


@dataclass(slots=True)
class Cell:
    """Sums over one stretch of time, of one node or of the fleet. Seconds of the fleet are node-seconds, but ``known_s``.

    Attributes:
        watched_s: for how long it was watched and meant to be up.
        up_s: for how long of that its link was up.
        known_s: for how long the number of sessions was known.
        session_s: sessions times seconds, within ``known_s``.
        traffic_s: for how long it is known how much was moved: ``rx_bytes`` from clients, ``tx_bytes`` to them.
    """

    watched_s: float = 0.0
    up_s: float = 0.0
    known_s: float = 0.0
    session_s: float = 0.0
    traffic_s: float = 0.0
    rx_bytes: float = 0.0
    tx_bytes: float = 0.0

    def add(self, share: float, **amounts: float) -> None:
        """Adds ``share`` (0 to 1) of each amount."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + share * amount)

    def whole(self) -> tuple[int, ...]:
        """In the order of the fields, as whole numbers: what is stored. Times are milliseconds in there."""
        times = self.watched_s, self.up_s, self.known_s, self.session_s, self.traffic_s
        return (*(round(1e3 * time) for time in times), round(self.rx_bytes), round(self.tx_bytes))

    @staticmethod
    def of_whole(whole: tuple[int, ...]) -> Cell:
        """What ``whole`` made whole."""
        *times, rx_bytes, tx_bytes = whole
        watched, up, known, session, traffic = (time / 1e3 for time in times)
        return Cell(watched, up, known, session, traffic, rx_bytes, tx_bytes)


@dataclass(frozen=True, slots=True)
class Point:
    """What a stretch of time looks like. None: not known. Sessions are the mean, rates are bytes per second."""

    sessions: float | None = None
    rx_rate: float | None = None
    tx_rate: float | None = None
    availability: float | None = None


def point(cell: Cell) -> Point:
    """The quotients.

    Of a fleet, some nodes' traffic may be known for a shorter time than others'. So its rate is that of a mean node, times
    the mean number of nodes that were up.
    """
    if not (cell.watched_s or cell.known_s or cell.traffic_s):
        return Point()
    up = cell.up_s / cell.known_s if cell.known_s else 0.0
    known = cell.traffic_s > 0 and up > 0
    return Point(
        sessions=cell.session_s / cell.known_s if cell.known_s else None,
        rx_rate=cell.rx_bytes / cell.traffic_s * up if known else None,
        tx_rate=cell.tx_bytes / cell.traffic_s * up if known else None,
        availability=min(1.0, cell.up_s / cell.watched_s) if cell.watched_s else None,
    )


def spread(start: float, end: float, step: int = STEP_S) -> Iterator[tuple[int, float]]:
    """Which stretches the time from ``start`` to ``end`` touches, and which share (together 1) of it lies in each."""
    if end <= start:
        return
    for bucket in range(int(start // step), int(end // step) + 1):
        within = min(end, (bucket + 1) * step) - max(start, bucket * step)
        if within > 0:
            yield bucket, within / (end - start)


def window(now: float, since: int | None, until: int | None, step: int | None) -> tuple[int, int, int]:
    """The stretches between two times: number of the first one, of the one after the last, and seconds of each.

    Args:
        since: epoch seconds, within the first stretch; None: a day before ``until``.
        until: epoch seconds, not before the end of the last stretch; None: now.
        step: one of ``STEPS``; None: one that makes some hundreds of points at most.

    Raises:
        InvalidInput: it is empty, or there would be too many points.
    """
    end = int(now) + 1 if until is None else until
    begin = max(0, end - _DAY_S if since is None else since)
    if begin >= end:
        raise InvalidInput("since: it is not before until")
    length = step or next((step for step in STEPS if (end - begin) // step <= _SOME), STEPS[-1])
    first, last = begin // length, -(-end // length)
    if last - first > _MOST:
        raise InvalidInput(f"step: {length} s make more than {_MOST} points; take a longer step, or a shorter time")
    return first, last, length


class Meter:
    """Takes looks in, gives sums out. What was not looked at for too long, or could not be seen, is left out of the sums."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int], Cell] = {}
        self._at: float | None = None
        self._up: dict[str, Pulse] = {}
        self._counted: dict[str, float] = {}
        self._gained: dict[str, tuple[int, int]] = {}
        self._moved: Moved | None = None

    def look(self, now: float, pulses: Mapping[str, Pulse], active: Mapping[str, int], moved: Moved) -> None:
        """One look at the whole fleet.

        Args:
            now: epoch seconds.
            pulses: of every node that is meant to be up.
            active: open sessions by node; nodes without any may be left out.
            moved: of today and yesterday.
        """
        before = self._at
        if before is not None and 0 < now - before <= _TOO_LONG_S:
            parts = list(spread(before, now))
            for node_id, pulse in pulses.items():
                self._note_link(parts, node_id, pulse, before, now)
                if pulse.up:
                    self._note(parts, node_id, known_s=now - before, session_s=active.get(node_id, 0) * (now - before))
            self._note_sessions(parts, now - before, pulses, active)
        self._note_traffic(pulses, moved)
        self._at = now
        self._up = dict(pulses)

    def missed(self) -> None:
        """A look came to nothing: nobody knows what was meanwhile. What is counted later is counted all the same."""
        self._at = None

    def take(self) -> dict[tuple[str, int], Cell]:
        """The sums since the last time, by node and stretch; ``FLEET`` is among the nodes."""
        taken, self._cells = self._cells, {}
        return taken

    def _note(self, parts: list[tuple[int, float]], node_id: str, **amounts: float) -> None:
        for bucket, share in parts:
            self._cells.setdefault((node_id, bucket), Cell()).add(share, **amounts)

    def _note_link(self, parts: list[tuple[int, float]], node_id: str, pulse: Pulse, before: float, now: float) -> None:
        elapsed = now - before
        up = _up_between(self._up.get(node_id), pulse, before, now)
        for owner in (node_id, FLEET):
            self._note(parts, owner, watched_s=elapsed, up_s=up)

    def _note_sessions(
        self, parts: list[tuple[int, float]], elapsed: float, pulses: Mapping[str, Pulse], active: Mapping[str, int]
    ) -> None:
        seen = [node_id for node_id, pulse in pulses.items() if pulse.up]
        if seen:
            sessions = sum(active.get(node_id, 0) for node_id in seen)
            self._note(parts, FLEET, known_s=elapsed, session_s=sessions * elapsed)

    def _note_traffic(self, pulses: Mapping[str, Pulse], moved: Moved) -> None:
        """Bytes are counted when a node is looked at, so they were moved since the look before that."""
        self._gain(moved)
        for node_id in self._counted.keys() - pulses.keys():
            self._forget(node_id)
        for node_id, pulse in pulses.items():
            since = self._counted.get(node_id)
            if not pulse.up:
                self._forget(node_id)
            elif since is None or pulse.counted_at > since:
                rx, tx = self._gained.pop(node_id, (0, 0))
                self._counted[node_id] = pulse.counted_at
                if since is None or pulse.counted_at - since > _TOO_LONG_S:
                    continue
                parts = list(spread(since, pulse.counted_at))
                for owner in (node_id, FLEET):
                    self._note(parts, owner, traffic_s=pulse.counted_at - since, rx_bytes=rx, tx_bytes=tx)

    def _gain(self, moved: Moved) -> None:
        """What is new in ``moved`` waits until its node is known to have been looked at."""
        before, self._moved = self._moved, moved
        if before is None:
            return
        for key, (rx, tx) in moved.items():
            was_rx, was_tx = before.get(key, (0, 0))
            have_rx, have_tx = self._gained.get(key[0], (0, 0))
            self._gained[key[0]] = have_rx + max(0, rx - was_rx), have_tx + max(0, tx - was_tx)

    def _forget(self, node_id: str) -> None:
        self._counted.pop(node_id, None)
        self._gained.pop(node_id, None)


def _up_between(was: Pulse | None, pulse: Pulse, before: float, now: float) -> float:
    """For how many seconds of those between two looks a link was up. Outages shorter than that, and several, count."""
    past = was.uptime if was is not None else None
    if past is not None and pulse.uptime is not None and past.began == pulse.uptime.began:
        return min(now - before, max(0.0, pulse.uptime.total(now) - past.total(before)))
    # It changed in between at most once, as far as can be seen; when, is known.
    changed = min(now, max(before, pulse.since)) if was is None or was.up != pulse.up else before
    return now - changed if pulse.up else changed - before
