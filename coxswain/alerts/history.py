"""What is kept of a device's past when its events are gone: a few hundred bytes that no retention takes. Pure.

Events are put in when they leave the rules' window, in the order of time: it is always about what was *before* that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Event", "History", "Place", "decode", "encode", "median_volume"]

_DAY_S = 86_400
_HOUR_S = 3_600
_PER_OCTAVE = 8
"""Buckets of volumes for each doubling: the median is right to within 5 %."""

_MOST_COUNTRIES = 300


class Event(NamedTuple):
    """One boundary event (management-plane.md 6.2). ``at``: epoch seconds; ``rx_bytes`` None: unknown; ``reason`` None: a
    connect.
    """

    seq: int
    at: float
    session_id: int
    node_id: str
    device_id: str
    user_id: str
    source_ip: str
    reason: str | None
    rx_bytes: int | None


class Place(NamedTuple):
    """Where an address is. Degrees."""

    latitude: float
    longitude: float
    city: str
    country: str
    code: str


@dataclass(slots=True)
class History:
    """Mutable: it is only ever added to.

    Attributes:
        connects: how many there were.
        last_connect: epoch seconds; 0: never.
        days: on how many UTC days there was one; ``last_day``: the last of them, days since 1970.
        hours: connects by UTC hour.
        countries: connects by country code, where that is known.
        volumes: sessions by what was uploaded, in buckets of an eighth of a doubling.
    """

    connects: int = 0
    last_connect: float = 0.0
    days: int = 0
    last_day: int = -1
    hours: list[int] = field(default_factory=lambda: [0] * 24)
    countries: dict[str, int] = field(default_factory=dict)
    volumes: dict[int, int] = field(default_factory=dict)

    def absorb(self, events: Iterable[Event], places: Mapping[str, Place]) -> None:
        """Adds what left the window. ``places``: of source addresses, where known."""
        for event in events:
            if event.reason is None:
                self._note_connect(event, places.get(event.source_ip))
            elif event.rx_bytes is not None and event.reason != "roamed":  # a part of a session says nothing of the whole
                bucket = _bucket(event.rx_bytes)
                self.volumes[bucket] = self.volumes.get(bucket, 0) + 1

    @property
    def sessions(self) -> int:
        """Those whose upload is known."""
        return sum(self.volumes.values())

    def _note_connect(self, event: Event, place: Place | None) -> None:
        self.connects += 1
        self.last_connect = max(self.last_connect, event.at)
        day = int(event.at // _DAY_S)
        if day > self.last_day:
            self.days += 1
            self.last_day = day
        self.hours[int(event.at % _DAY_S // _HOUR_S)] += 1
        code = place.code if place else ""
        if code and (code in self.countries or len(self.countries) < _MOST_COUNTRIES):
            self.countries[code] = self.countries.get(code, 0) + 1


def median_volume(history: History) -> int:
    """Bytes that half of the sessions stay below; 0: nothing known."""
    half = (history.sessions + 1) // 2
    for bucket in sorted(history.volumes):
        half -= history.volumes[bucket]
        if half <= 0:
            return 0 if bucket < 0 else round(2 ** ((bucket + 0.5) / _PER_OCTAVE))
    return 0


def encode(history: History) -> str:
    """As JSON text."""
    return json.dumps(
        {
            "connects": history.connects,
            "last": history.last_connect,
            "days": [history.days, history.last_day],
            "hours": history.hours,
            "countries": history.countries,
            "volumes": history.volumes,
        },
        separators=(",", ":"),
    )


def decode(text: str) -> History:
    """What ``encode`` made."""
    found = json.loads(text)
    return History(
        connects=found["connects"],
        last_connect=found["last"],
        days=found["days"][0],
        last_day=found["days"][1],
        hours=found["hours"],
        countries=found["countries"],
        volumes={int(bucket): count for bucket, count in found["volumes"].items()},
    )


def _bucket(size: int) -> int:
    return int(math.log2(size) * _PER_OCTAVE) if size > 0 else -1
