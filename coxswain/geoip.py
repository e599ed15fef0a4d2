"""Where addresses are, by a GeoIP city database in a file (management-plane.md 11). Asks nobody over a network.

Names of hosts are not resolved, and addresses that are no public ones are nowhere.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coxswain.late import Late

if TYPE_CHECKING:
    import geoip2.database as geoip2_database
    import geoip2.errors as geoip2_errors
    import maxminddb
else:
    geoip2_database, geoip2_errors, maxminddb = Late("geoip2.database"), Late("geoip2.errors"), Late("maxminddb")

__all__ = [
    "UPDATED",
    "Credit",
    "GeoDatabase",
    "Location",
    "candidates",
    "check_database",
    "credit_of",
    "public_address",
]

_log = logging.getLogger(__name__)

UPDATED = "dbip-city-lite.mmdb"
"""In the state directory: the one that ``cox geoip update`` puts there."""

_NAMES = ("GeoLite2-City.mmdb", UPDATED)
_KEPT = 50_000
_LOOKED_AT = 4_096
"""Networks, from the first on, and addresses, all over the space."""

_ENGLISH = ("en",)


@dataclass(frozen=True, slots=True)
class Location:
    """Degrees; names in English, empty where the database does not know them."""

    latitude: float
    longitude: float
    city: str
    country: str
    country_code: str


@dataclass(frozen=True, slots=True)
class Credit:
    """What the licence of a database wants shown wherever its data are."""

    text: str
    url: str


def candidates(configured: str, state_dir: Path) -> tuple[Path, ...]:
    """Where a database may be, the one that is preferred first.

    A file in the working directory, which the existing controller also takes, is not looked for: where a daemon is started
    should not change what it shows.
    """
    found = tuple(state_dir / name for name in _NAMES)
    return (Path(configured), *found) if configured else found


def credit_of(source: str) -> Credit | None:
    """By the type that a database says it is of."""
    kind = source.lower()
    if "dbip" in kind or "db-ip" in kind:
        return Credit("IP Geolocation by DB-IP", "https://db-ip.com")
    if "geolite" in kind or "geoip" in kind:
        return Credit("GeoLite2 data created by MaxMind", "https://www.maxmind.com")
    return None


def check_database(path: Path) -> str:
    """Looks into a city database all over, before it is taken for one. Returns its type.

    Raises ``ValueError`` with a reason: it is damaged, of another kind, or knows no place.
    """
    try:
        with maxminddb.open_database(path) as reader:
            kind = reader.metadata().database_type
            if "city" not in kind.lower():
                raise ValueError(f"it knows no cities: it is a {kind[:60]}")
            placed = sum(_has_place(record) for _network, record in itertools.islice(reader, _LOOKED_AT))
            step = 2**32 // _LOOKED_AT
            for number in range(0, 2**32, step):  # damage may be anywhere
                placed += _has_place(reader.get(ipaddress.IPv4Address(number + 1)))
    except (OSError, maxminddb.InvalidDatabaseError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is no MMDB file, or damaged") from None
    if not placed:
        raise ValueError("it knows no place")
    return kind


def _has_place(record: object) -> bool:
    place = record.get("location") if isinstance(record, dict) else None
    return isinstance(place, dict) and isinstance(place.get("latitude"), float)


def public_address(host: str) -> str:
    """The address in ``host`` (``host``, ``host:port`` or ``[host]:port``), if it is a public one; else empty."""
    text = host.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(address) if address.is_global and not address.is_multicast else ""


class GeoDatabase:
    """The first readable one of some files; ``refresh`` notices that it was replaced. For one thread.

    A new one is to be put in the place of the old one by renaming: the old one is read until then, and never half of either.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)
        self._reader: geoip2_database.Reader | None = None
        self._seen: tuple[object, ...] | None = None
        self._cache: dict[str, Location | None] = {}
        self.source = ""
        self.file: Path | None = None

    def refresh(self) -> bool:
        """Opens what there is now, if that is not what was open already. True: something is different."""
        seen = tuple(_identity(path) for path in self._files)
        if seen == self._seen:
            return False
        self._seen = seen
        before = self._reader
        self._reader, self.source, self.file = self._open()
        self._cache.clear()
        if before is not None:
            before.close()
        return before is not None or self._reader is not None

    def locate(self, host: str) -> Location | None:
        """None: it is not public, or nobody knows."""
        if self._reader is None:
            return None
        if host in self._cache:
            return self._cache[host]
        address = public_address(host)
        found = _look_up(self._reader, address) if address else None
        if len(self._cache) >= _KEPT:
            self._cache.clear()
        self._cache[host] = found
        return found

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._seen = None
        self.source, self.file = "", None

    def _open(self) -> tuple[geoip2_database.Reader | None, str, Path | None]:
        for path in self._files:
            if not path.exists():
                continue
            try:
                reader = geoip2_database.Reader(path, locales=_ENGLISH)
            except (OSError, maxminddb.InvalidDatabaseError, UnicodeDecodeError) as error:
                _log.warning("%s is no database of places: %s", path, error)
                continue
            kind = reader.metadata().database_type
            if "city" not in kind.lower():
                _log.warning("%s knows no cities: it is a %.60s", path, kind)
                reader.close()
                continue
            return reader, kind, path
        return None, "", None


def _look_up(reader: geoip2_database.Reader, address: str) -> Location | None:
    try:
        found = reader.city(address)
    except (geoip2_errors.AddressNotFoundError, maxminddb.InvalidDatabaseError, TypeError, ValueError):
        return None
    latitude, longitude = found.location.latitude, found.location.longitude
    code = found.country.iso_code or ""
    if latitude is None or longitude is None or (latitude == longitude == 0 and not code):
        return None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None
    return Location(latitude, longitude, found.city.name or "", found.country.name or "", code)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Changes when a file is replaced or written."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a path may be anything that an operator wrote
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
