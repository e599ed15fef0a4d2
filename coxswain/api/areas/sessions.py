"""Sessions: who was connected where, when, and how much went through (management-plane.md 6).

``/api/sessions`` has the contract's records: a connect and a disconnect for each stay at one address. Whole sessions, with
all their addresses, are below ``/api/sessions/history``; those that are open now, ``/api/sessions/active``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.errors import InvalidInput, NotFound
from coxswain.messages import sessions
from coxswain.messages.geo import GeoInfo, GetGeoInfo
from coxswain.messages.names import Named
from coxswain.messages.sessions import REASONS
from coxswain.model import Protocol
from coxswain.sessions import source_ip

__all__ = ["ROUTES"]

_BY = ("user", "device", "node")
_MAX = 2**53 - 1
_ENDS = tuple(reason for reason in REASONS if reason != "roamed")
_PROTOCOLS = {
    "AMNEZIAWG": Protocol.AMNEZIAWG,
    "XRAY_REALITY": Protocol.XRAY_REALITY,
    "amneziawg": Protocol.AMNEZIAWG,
    "xray-reality": Protocol.XRAY_REALITY,
}
_COUNTRY = re.compile(r"[A-Za-z]{2}")
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})")
_TOTALS_CURSOR = re.compile(r"(\d{1,18})-(.{0,200})")

_REMOVED = array(choice("node", "device", "user"))

SESSION = shape(
    "Session",
    obj(
        {
            "id": INT,
            "node_id": TEXT,
            "protocol": choice("amneziawg", "xray-reality"),
            "peer_key": TEXT,
            "device_id": nullable(TEXT),
            "user_id": nullable(TEXT),
            "opened_at": nullable(STAMP),
            "closed_at": nullable(STAMP),
            "last_at": nullable(STAMP),
            "endpoint": TEXT,
            "endpoints": array(obj({"since": nullable(STAMP), "endpoint": TEXT})),
            "roams": INT,
            "rx_bytes": nullable(INT),
            "tx_bytes": nullable(INT),
            "reason": TEXT,
            "country": TEXT | {"description": "ISO 3166, of where it came from last; empty: not known"},
            "node_name": nullable(TEXT),
            "device_name": nullable(TEXT),
            "user_name": nullable(TEXT),
            "removed": _REMOVED,
        }
    ),
)
RECORD = shape(
    "SessionRecord",
    obj(
        {
            "id": TEXT,
            "at": STAMP,
            "event_type": choice("connect", "disconnect"),
            "rx_bytes": nullable(INT),
            "tx_bytes": nullable(INT),
        },
        {
            "node_id": TEXT,
            "peer_id": TEXT,
            "device_id": TEXT,
            "user_id": TEXT,
            "protocol": choice("AMNEZIAWG", "XRAY_REALITY"),
            "source_ip": TEXT,
            "source_endpoint": TEXT,
            "reason": choice(*REASONS[1:]),
            "country": TEXT,
            "node_name": TEXT,
            "device_name": TEXT,
            "user_name": TEXT,
            "removed": _REMOVED,
        },
    ),
)
TOTAL = shape(
    "SessionTotal",
    obj(
        {"id": TEXT, "opened": INT, "closed": INT, "unknown": INT, "rx_bytes": INT, "tx_bytes": INT, "seconds": INT}
        | {"name": nullable(TEXT), "removed": BOOL},
    ),
)


def _records(call: Call) -> Any:
    limit = call.limit()
    ip = call.word("source_ip")
    query = sessions.ListRecords(
        **_of(call),
        source_ip=None if ip is None else source_ip(ip),
        since=_moment(call, "since"),
        until=_moment(call, "until"),
        protocol=_protocol(call),
        event_type=_one_of(call, "event_type", ("connect", "disconnect")),
        reason=_one_of(call, "reason", REASONS),
        limit=limit + 1,
        after=_record_cursor(call),
        country=_country(call),
    )
    found = call.ask("session_archive", query)
    _check_country(call, found, query.country)
    page = found[:limit]
    names = _names(call, page)
    return Reply(
        [views.session_record(record, names) for record in page],
        after=f"{page[-1].at_us}-{page[-1].seq}" if len(found) > limit else None,
    )


def _history(call: Call) -> Any:
    return _sessions(call, active=call.flag("active"))


def _active(call: Call) -> Any:
    return _sessions(call, active=True)


def _sessions(call: Call, *, active: bool | None) -> Any:
    limit = call.limit()
    query = sessions.ListSessions(
        active=active,
        **_of(call),
        limit=limit + 1,
        before=call.number("after"),
        protocol=_protocol(call),
        reason=None if active else _one_of(call, "reason", _ENDS),
        country=_country(call),
    )
    found = call.ask("session_archive", query)
    _check_country(call, found, query.country)
    names = _names(call, found[:limit])
    page = [views.session(view, names) for view in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _one(call: Call) -> Any:
    key = call.path["key"]
    if not re.fullmatch(r"[0-9]{1,15}", key):
        raise NotFound(f"session: there is none with the id {key[:80]!a}", remedy="See: cox sessions")
    found = call.ask("session_archive", sessions.GetSession(int(key)))
    return views.session(found, _names(call, [found]))


def _totals(call: Call) -> Any:
    limit = call.limit()
    query = sessions.ListTotals(
        by=_one_of(call, "by", _BY) or "user",
        since=_moment(call, "since"),
        until=_moment(call, "until"),
        **_of(call),
        limit=limit + 1,
        after=_totals_cursor(call),
    )
    found = call.ask("session_archive", query)
    page = found[:limit]
    names = call.names(total.id for total in page)
    return Reply(
        [views.total(total, names.get(total.id)) for total in page],
        after=f"{int(page[-1].moved)}-{page[-1].id}" if len(found) > limit else None,
    )


def _moment(call: Call, name: str) -> float | None:
    micros = call.instant(name)
    return None if micros is None else micros / 1e6


def _of(call: Call) -> dict[str, str | None]:
    """Whose history is asked for. It outlives them, so what was removed can be asked for like anything else."""
    user_id = call.meant("user")
    return {"user_id": user_id, "device_id": call.meant("device", user_id), "node_id": call.meant("node")}


def _names(call: Call, found: Sequence[sessions.SessionView | sessions.SessionRecord]) -> dict[str, Named]:
    return call.names(key for each in found for key in (each.node_id, each.device_id, each.user_id))


def _protocol(call: Call) -> Protocol | None:
    word = _one_of(call, "protocol", tuple(_PROTOCOLS))
    return None if word is None else _PROTOCOLS[word]


def _country(call: Call) -> str | None:
    word = call.word("country")
    if word is None:
        return None
    if not _COUNTRY.fullmatch(word):
        raise InvalidInput(f"country: {word[:40]!r} is no ISO 3166 code of two letters, such as DE")
    return word.upper()


def _check_country(call: Call, found: Sequence[Any], country: str | None) -> None:
    """Nothing found means nothing where nobody knew where anything is."""
    if country is None or found:
        return
    info: GeoInfo = call.ask("geo_locator", GetGeoInfo())
    if not info.source:
        raise InvalidInput(
            "country: there is no GeoIP database, so nothing is known of where sessions come from",
            remedy="Get one with: cox geoip update; sessions that are recorded from then on have their country.",
        )


def _one_of(call: Call, name: str, accepted: tuple[str, ...]) -> str | None:
    word = call.word(name)
    if word is not None and word not in accepted:
        raise InvalidInput(f"{name}: {word[:40]!r} is none of {', '.join(accepted)}")
    return word


def _record_cursor(call: Call) -> tuple[int, int] | None:
    match = _match_cursor(call, _CURSOR)
    return None if match is None else (int(match[1]), int(match[2]))


def _totals_cursor(call: Call) -> tuple[float, str] | None:
    match = _match_cursor(call, _TOTALS_CURSOR)
    return None if match is None else (float(match[1]), match[2])


def _match_cursor(call: Call, pattern: re.Pattern[str]) -> re.Match[str] | None:
    text = call.word("after")
    if text is None:
        return None
    match = pattern.fullmatch(text)
    if match is None:
        raise InvalidInput(f"after: {text[:40]!r} is no cursor; take it from the Link header of the page before")
    return match


_NODE = Param("node", "id or name of the node, also of one that was removed")
_DEVICE = Param("device", "id or name of the device, also of one that was removed; a name is looked for among those of user")
_USER = Param("user", "id, name or, for scope admin, e-mail address of the user, also of one that was removed")
_SINCE = Param("since", "not before this time", STAMP)
_UNTIL = Param("until", "not after this time", STAMP)
_PROTOCOL = Param("protocol", "the protocol", choice(*_PROTOCOLS))
_LIMIT = Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000))
_ENDED = Param("reason", "how it ended", choice(*_ENDS))
_BEFORE = Param("after", "the cursor of the page before", limited(0, _MAX))
_CURSOR_PARAM = Param("after", "the cursor of the page before")
_COUNTRY_PARAM = Param(
    "country",
    "ISO 3166 code of the country it came from; known of what was recorded while there was a GeoIP database",
    {"type": "string", "pattern": "^[A-Za-z]{2}$"},
)
_OF_SESSIONS = (_NODE, _DEVICE, _USER, _PROTOCOL, _COUNTRY_PARAM)

ROUTES = (
    Route(
        "GET",
        "/api/sessions",
        Scope.MONITOR,
        "Connects and disconnects, newest first.",
        _records,
        returns=array(RECORD),
        also=(404,),
        query=(
            *(_DEVICE, _USER, _NODE),
            Param("source_ip", "the address from which the device came"),
            *(_SINCE, _UNTIL, _PROTOCOL),
            Param("event_type", "only connects, or only disconnects", choice("connect", "disconnect")),
            Param("reason", "how the stay ended", choice(*REASONS)),
            *(_COUNTRY_PARAM, _LIMIT, _CURSOR_PARAM),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/active",
        Scope.MONITOR,
        "The sessions that are open now, newest first.",
        _active,
        returns=array(SESSION),
        also=(404,),
        query=(*_OF_SESSIONS, _LIMIT, _BEFORE),
    ),
    Route(
        "GET",
        "/api/sessions/history",
        Scope.MONITOR,
        "Sessions, open ones and others, newest first.",
        _history,
        returns=array(SESSION),
        also=(404,),
        query=(
            Param("active", "only those that are open, or only those that are not", BOOL),
            *_OF_SESSIONS,
            *(_ENDED, _LIMIT, _BEFORE),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/history/{key}",
        Scope.MONITOR,
        "One session, with the addresses it came from.",
        _one,
        returns=SESSION,
        also=(404,),
    ),
    Route(
        "GET",
        "/api/sessions/totals",
        Scope.MONITOR,
        "What users, devices or nodes moved, the largest first.",
        _totals,
        returns=array(TOTAL),
        also=(404,),
        query=(
            Param("by", "of whom; absent: user", choice(*_BY)),
            Param("since", "not before this day (UTC)", STAMP),
            Param("until", "not after this day (UTC)", STAMP),
            *(_USER, _DEVICE, _NODE, _LIMIT, _CURSOR_PARAM),
        ),
    ),
)
