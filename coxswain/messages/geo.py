"""Messages to ``geo_locator``, the owner of the GeoIP database."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GeoInfo", "GetGeoInfo", "Locate", "LookAgain"]


@dataclass(frozen=True, slots=True)
class Locate:
    """Asked by doors. Reply: dict of those ``hosts`` (as they are, with or without a port) whose place is known to their
    ``coxswain.geoip.Location``.
    """

    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GetGeoInfo:
    """Asked by doors. Reply: ``GeoInfo``."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Asked by ``geoip.update`` when it has put another file in place: not to be waited for. Reply: ``GeoInfo``."""


@dataclass(frozen=True, slots=True)
class GeoInfo:
    """``source``: what the database says it is; empty: there is none. ``text``, ``url``: the credit that it is due.
    ``file``: where it is.
    """

    source: str
    text: str = ""
    url: str = ""
    file: str = ""
