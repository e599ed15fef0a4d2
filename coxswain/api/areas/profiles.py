"""Profiles: what a device can connect to (management-plane.md 3.2, 3.3)."""

from __future__ import annotations

from typing import Any

from coxswain.api.areas.arrival import GIVEN, WAIT, arrived, given
from coxswain.api.bodies import naming
from coxswain.api.call import ALL, Call
from coxswain.api.paging import LIMIT
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import INT, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.errors import NotFound
from coxswain.messages import accounts
from coxswain.model import Profile, ProfileProtocol

__all__ = ["PROFILE", "ROUTES", "profile"]

_PROTOCOL = choice(*ProfileProtocol)
_NEEDED = {"id": TEXT, "user_id": TEXT, "device_id": TEXT, "name": TEXT, "protocol": _PROTOCOL, "version": INT}
_EGRESS = {"node_id": TEXT, "path_id": TEXT, "entry_ips": array(TEXT)}
PROFILE = shape("Profile", obj(_NEEDED, _EGRESS))
PROFILE_CHANGE = shape("ProfileChange", obj(_NEEDED | GIVEN, _EGRESS))

_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))


def profile(value: Profile) -> dict[str, Any]:
    """Keys that are empty are left out, as existing callers expect it."""
    found: dict[str, Any] = {
        "id": value.id,
        "user_id": value.user_id,
        "device_id": value.device_id,
        "name": value.name,
        "protocol": value.protocol.value,
        "version": value.version,
    }
    more = {"node_id": value.node_id, "path_id": value.path_id, "entry_ips": list(value.entry_ips)}
    return found | {key: item for key, item in more.items() if item}


def _list(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    device = call.word("device") or ""
    key = "" if device else call.word("user")  # the device wins (management-plane.md 3.2)
    try:
        owner = call.user(key).id if key else ""
    except NotFound:
        if key and key.startswith("usr_"):  # nobody with this id has any
            return []
        raise
    message = accounts.ListProfiles(device, owner, call.word("after") or "", limit + 1)
    found = call.ask("fleet", message)
    page = [profile(value) for value in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _add(call: Call) -> Any:
    body = call.body
    message = accounts.AddProfile(
        call.caller,
        body.need("device_id", str),
        body.need("name", str),
        body.get("protocol", str) or "amneziawg",
        body.get("node_id", str) or "",
        body.get("path_id", str) or "",
        body.texts("entry_ips") or (),
        body.get("user_id", str) or "",
    )
    with naming("device_id"):
        change = call.change("fleet", message)
    return profile(change.value) | given(call, change)


def _show(call: Call) -> Any:
    return profile(call.ask("fleet", accounts.GetProfile(call.path["key"])))


def _edit(call: Call) -> Any:
    body = call.body
    message = accounts.EditProfile(
        call.caller,
        call.path["key"],
        body.need("version", int),
        body.get("name", str),
        body.get("protocol", str),
        body.get("node_id", str),
        body.get("path_id", str),
        body.texts("entry_ips"),
    )
    change = call.change("fleet", message)
    return profile(change.value) | given(call, change)


def _remove(call: Call) -> None:
    change = call.change("fleet", accounts.RemoveProfile(call.caller, call.path["key"], call.number("version")))
    arrived(call, change.revisions)


_ADMIN, _READ = Scope.ADMIN, Scope.READONLY

ROUTES = (
    Route(
        "GET", "/api/profiles", _READ, "Profiles, oldest first.", _list, returns=array(PROFILE), also=(404,),
        query=(
            Param("device", "id of the device"),
            Param("user", "id or e-mail address of the user"),
            Param("after", "the cursor of the page before: an id"),
            LIMIT,
        ),
    ),
    Route(
        "POST", "/api/profiles", _ADMIN, "Adds a profile of a device, and provisions it.", _add, "profile.create", "profile",
        PROFILE_CHANGE, 201, (404, 409), query=(WAIT,),
        body=obj(
            {"device_id": TEXT, "name": TEXT},
            {
                "user_id": nullable(TEXT), "node_id": nullable(TEXT), "path_id": nullable(TEXT),
                "entry_ips": nullable(array(TEXT)), "protocol": _PROTOCOL,
            },
        ),
    ),
    Route("GET", "/api/profiles/{key}", _READ, "One profile.", _show, returns=PROFILE, also=(404,)),
    Route(
        "PATCH", "/api/profiles/{key}", _ADMIN, "Changes what is given of a profile, and provisions its device.", _edit,
        "profile.update", "profile", PROFILE_CHANGE, also=(404, 409), query=(WAIT,),
        body=obj(
            {"version": INT},
            {"name": TEXT, "node_id": TEXT, "path_id": TEXT, "entry_ips": array(TEXT), "protocol": _PROTOCOL},
        ),
    ),
    Route(
        "DELETE", "/api/profiles/{key}", _ADMIN, "Removes a profile with its keys, and provisions its device.", _remove,
        "profile.rm", "profile", status=204, also=(404, 409), query=(_VERSION, WAIT),
    ),
)  # fmt: skip
