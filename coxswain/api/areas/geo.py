"""Where the fleet is: what the map shows, and which GeoIP database says so (management-plane.md 11)."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Route, Scope
from coxswain.api.schema import BOOL, NUMBER, TEXT, array, choice, nullable, obj, shape
from coxswain.api.waiting import run_operation
from coxswain.errors import Unavailable
from coxswain.fetch import shown
from coxswain.geoip import Location
from coxswain.messages.fleet import GetWhereabouts, Whereabouts
from coxswain.messages.geo import GeoInfo, GetGeoInfo
from coxswain.messages.servers import ListRelays
from coxswain.model import NodeStatus
from coxswain.operations import Secrets
from coxswain.regions import region
from coxswain.servers import Relay, relay_host

__all__ = ["ROUTES"]

_CREDIT = obj({"text": TEXT, "url": TEXT})
GEO_INFO = shape("GeoInfo", obj({"available": BOOL, "source": TEXT, "attribution": _CREDIT}))
_NODE = obj({"id": TEXT, "name": TEXT, "status": choice(*(status.value for status in NodeStatus)), "region": TEXT})
_PLACE = {"latitude": NUMBER, "longitude": NUMBER, "city": TEXT}
_RELAY = obj({**_PLACE, "id": TEXT, "name": TEXT, "status": TEXT, "country": TEXT, "source": choice("region", "geoip")})
MAP = shape(
    "Map",
    obj(
        {
            "places": array(
                obj({**_PLACE, "country": TEXT, "source": choice("region", "geoip"), "nodes": array(_NODE)})
            ),
            "elsewhere": array(_NODE),
            "relays": array(_RELAY),
            "controller": nullable(obj(_PLACE)),
            "credit": nullable(_CREDIT),
        }
    ),
)  # fmt: skip


def _geoip(call: Call) -> Any:
    info: GeoInfo = call.ask("geo_locator", GetGeoInfo())
    return {"available": bool(info.source), "source": info.source, "attribution": {"text": info.text, "url": info.url}}


def _map(call: Call) -> Any:
    """A region that is known goes before what a database says of an address: an operator wrote it down."""
    found: list[Whereabouts] = call.ask("fleet", GetWhereabouts())
    relays: list[Relay] = call.ask("servers", ListRelays())
    unplaced = [node.host for node in found if region(node.region) is None]
    unplaced += [relay_host(relay) for relay in relays if region(relay.region) is None]
    located = call.locate(unplaced)
    places: dict[tuple[float, float], dict[str, Any]] = {}
    elsewhere = []
    for node in found:
        shown = {"id": node.id, "name": node.name, "status": node.status.value, "region": node.region}
        at = _place(node.region, located.get(node.host))
        if at is None:
            elsewhere.append(shown)
            continue
        places.setdefault((at["latitude"], at["longitude"]), {**at, "nodes": []})["nodes"].append(shown)
    return {
        "places": list(places.values()),
        "elsewhere": elsewhere,
        "relays": [
            {"id": relay.id, "name": relay.name, "status": relay.status, **at}
            for relay in relays
            if (at := _place(relay.region, located.get(relay_host(relay)))) is not None
        ],
        "controller": _controller(call),
        "credit": _credit(call),
    }


def _place(code: str, seen: Location | None) -> dict[str, Any] | None:
    known = region(code)
    if known is not None:
        return _at(known.latitude, known.longitude, known.city, known.country, "region")
    if seen is not None:
        return _at(seen.latitude, seen.longitude, seen.city or seen.country, seen.country_code, "geoip")
    return None


def _at(latitude: float, longitude: float, city: str, country: str, source: str) -> dict[str, Any]:
    return {"latitude": latitude, "longitude": longitude, "city": city, "country": country, "source": source}


def _controller(call: Call) -> dict[str, Any] | None:
    """0, 0 stands for not set (management-plane.md 1.2)."""
    latitude, longitude = call.services.setting("control_location.lat"), call.services.setting("control_location.lon")
    if latitude == longitude == 0:
        return None
    return {"latitude": latitude, "longitude": longitude, "city": call.services.setting("control_location.city")}


def _credit(call: Call) -> dict[str, str] | None:
    """Due as soon as a database is in use, also where none of its places is shown just now."""
    try:
        attribution: dict[str, str] = _geoip(call)["attribution"]
    except Unavailable:
        return None
    return attribution if attribution["text"] else None


def _update(call: Call) -> Any:
    url, sha256 = call.body.get("url", str) or "", call.body.get("sha256", str) or ""
    params = {"url": url, "sha256": sha256}
    # What is secret is blotted out wherever it would be shown; of a URL without a query nothing is.
    secrets = Secrets({"url": url} if shown(url) != url else {})
    return run_operation(call, "geoip.update", params, lambda _over: _geoip(call), secrets=secrets)


ROUTES = (
    Route("GET", "/api/geoip", Scope.READONLY, "The GeoIP database in use, and its credit.", _geoip, returns=GEO_INFO),
    Route(
        "POST",
        "/api/geoip/update",
        Scope.ADMIN,
        "Fetches a fresh GeoIP database, looks into it, and puts it in the place of the old one.",
        _update,
        audit="geoip.update",
        target="geoip",
        returns=GEO_INFO,
        also=(202, 409, 502, 503),
        body=obj({}, {"url": TEXT, "sha256": TEXT}),
        waits_for_node=True,
    ),
    Route("GET", "/api/map", Scope.READONLY, "Where nodes are, by place, and relays.", _map, returns=MAP),
)
