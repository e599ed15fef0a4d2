"""The rules about where a device is: they want a GeoIP database, and say nothing of an address without a place. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from coxswain.alerts.device_case import DeviceCase, Seen, finding_about
from coxswain.alerts.history import Event, Place
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import rfc3339

__all__ = ["claimed_elsewhere", "new_geo", "travel"]

_EARTH_KM = 6_371.0
_MOST_COUNTRIES = 32
_HOUR_S = 3_600


def travel(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    key = f"impossible_travel:{case.device_id}"
    handled = case.handled.get(key, 0.0)
    fastest: tuple[float, float, Event, Event] | None = None
    newest = 0.0
    previous_ip = ""
    last: Event | None = None
    for event in seen.connects:
        if not event.source_ip:
            continue
        same, previous_ip = event.source_ip == previous_ip, event.source_ip
        if same or event.source_ip not in case.places:
            continue
        before, last = last, event
        if before is None or before.source_ip == event.source_ip or event.at <= handled:
            continue
        distance = _distance_km(case.places[before.source_ip], case.places[event.source_ip])
        taken = event.at - before.at
        if distance < settings.travel_km or taken <= settings.skew_s:
            continue
        speed = distance / ((taken - settings.skew_s) / _HOUR_S)
        if speed > settings.travel_kmh:
            newest = event.at
            if fastest is None or speed > fastest[0]:
                fastest = speed, distance, before, event
    if fastest is None:
        return
    speed, distance, before, event = fastest
    yield finding_about(
        "impossible_travel",
        case,
        Severity.CRITICAL,
        at=event.at,
        evidence=newest,
        node_id=event.node_id,
        source_ips=(before.source_ip, event.source_ip),
        detail={
            "from": _end_of_travel(before, case.places[before.source_ip]),
            "to": _end_of_travel(event, case.places[event.source_ip]),
            "distance_km": round(distance, 2),
            "minutes": round((event.at - before.at) / 60, 2),
            "implied_kmh": round(speed, 2),
            "max_kmh": settings.travel_kmh,
        },
    )


def new_geo(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    """A country in which it never was, of a device whose places are known: its very first country is none."""
    known = set(case.history.countries)
    before = case.history.connects
    for event in seen.connects:
        place = case.places.get(event.source_ip)
        if place is not None and place.code and place.code not in known:
            if known or before >= settings.history_connects:
                yield finding_about(
                    "new_geo",
                    case,
                    Severity.INFO,
                    at=event.at,
                    about=place.code,
                    node_id=event.node_id,
                    source_ips=(event.source_ip,),
                    detail=_seen_in(place, event, known),
                )
            known.add(place.code)
        before += 1


def claimed_elsewhere(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    """A device that has just joined is first seen where no other one of its user ever was: whoever used the link may not be
    whom it was sent to (accounts-profiles.md 10.2-13). Where a claim itself comes from, relays do not say.
    """
    if not case.claimed_at or not case.others:
        return
    joined = case.claimed_at - settings.skew_s
    for event in seen.connects:
        place = case.places.get(event.source_ip)
        if event.at < joined or place is None or not place.code:
            continue
        if place.code not in case.others:
            yield finding_about(
                "claimed_elsewhere",
                case,
                Severity.WARNING,
                at=event.at,
                node_id=event.node_id,
                source_ips=(event.source_ip,),
                detail=_seen_in(place, event, case.others) | {"claimed_at": rfc3339(case.claimed_at)},
            )
        return  # where it goes from there is for the rule about new countries


def _seen_in(place: Place, event: Event, known: Iterable[str]) -> dict[str, Any]:
    return {
        "country": place.code,
        "country_name": place.country,
        "city": place.city,
        "source_ip": event.source_ip,
        "first_seen": rfc3339(event.at),
        "known_countries": sorted(known)[:_MOST_COUNTRIES],
    }


def _end_of_travel(event: Event, place: Place) -> dict[str, Any]:
    return {
        "ip": event.source_ip,
        "city": place.city,
        "country": place.code,
        "lat": place.latitude,
        "lon": place.longitude,
        "at": rfc3339(event.at),
    }


def _distance_km(one: Place, other: Place) -> float:
    """Along the surface (haversine)."""
    lat1, lon1, lat2, lon2 = map(math.radians, (one.latitude, one.longitude, other.latitude, other.longitude))
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(h)))
