"""Users of the VPN (management-plane.md 3.2, 3.3)."""

from __future__ import annotations

from typing import Any

from coxswain.api.areas.arrival import ARRIVAL, WAIT, arrived
from coxswain.api.call import ALL, Call
from coxswain.api.paging import LIMIT, search
from coxswain.api.passwords import new_hash
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import stamp
from coxswain.messages import accounts
from coxswain.model import MASKED, User, UserStatus

__all__ = ["ROUTES", "USER", "user"]

_STATUS = choice(*UserStatus)
_KEYS = {
    "id": TEXT,
    "name": TEXT,
    "email": TEXT,
    "phone": TEXT,
    "role": choice("user", "admin"),
    "status": _STATUS,
    "version": INT,
    "created_at": nullable(STAMP),
}
USER = shape("VpnUser", obj(_KEYS))
USER_CHANGE = shape("VpnUserChange", obj(_KEYS | ARRIVAL))
"""A user, and the nodes that had to follow a change."""

_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))
_AFTER = Param("after", "the cursor of the page before: an id")


def user(call: Call, value: User) -> dict[str, Any]:
    """How to reach somebody is blotted out for credentials below admin; empty stays empty."""
    is_shown = call.sees_contacts
    return {
        "id": value.id,
        "name": value.name,
        "email": value.email if is_shown else value.email and MASKED,
        "phone": value.phone if is_shown else value.phone and MASKED,
        "role": value.role,
        "status": value.status,
        "version": value.version,
        "created_at": stamp(value.created_at),
    }


def _list(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    message = accounts.ListUsers(call.word("after") or "", limit + 1, wanted=call.wanted(), by_contact=call.sees_contacts)
    found = call.ask("fleet", message)
    page = [user(call, value) for value in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _add(call: Call) -> Any:
    body = call.body
    name, email = body.need("name", str), body.get("email", str) or ""
    message = accounts.AddUser(
        call.caller,
        name,
        email,
        body.get("phone", str) or "",
        new_hash(call, of=(name, email)) if body.secret("password") else "",
        bool(body.get("unique", bool)),
    )
    return user(call, call.change("fleet", message).value)


def _show(call: Call) -> Any:
    return user(call, call.user())


def _edit(call: Call) -> Any:
    body = call.body
    message = accounts.EditUser(
        call.caller,
        call.user().id,
        body.need("version", int),
        body.get("name", str),
        body.get("email", str),
        body.get("phone", str),
        body.get("status", str),
    )
    return _changed(call, message)


def _suspend(call: Call) -> Any:
    return _set_status(call, UserStatus.SUSPENDED, "user.suspend")


def _resume(call: Call) -> Any:
    return _set_status(call, UserStatus.ACTIVE, "user.resume")


def _set_status(call: Call, status: UserStatus, action: str) -> Any:
    version = call.body.get("version", int)
    return _changed(call, accounts.EditUser(call.caller, call.user().id, version, status=status, action=action))


def _changed(call: Call, message: Any) -> Any:
    change = call.change("fleet", message)
    return user(call, change.value) | arrived(call, change.revisions)


def _remove(call: Call) -> None:
    change = call.change("fleet", accounts.RemoveUser(call.caller, call.user().id, call.number("version")))
    arrived(call, change.revisions)


_ADMIN, _READ = Scope.ADMIN, Scope.READONLY
_STATUS_BODY = obj({}, {"version": nullable(INT)})
_UNIQUE = BOOL | {"description": "409 if somebody else has that name, and neither has an e-mail address or phone number"}

ROUTES = (
    Route(
        "GET", "/api/users", _READ, "All users of the VPN, oldest first. E-mail and phone are *** for scopes below admin.",
        _list, returns=array(USER), also=(404,),
        query=(search("name or, for scope admin, e-mail address or phone number"), _AFTER, LIMIT),
    ),
    Route(
        "POST", "/api/users", _ADMIN, "Adds a user.", _add, "user.add", "user", USER, 201, (409,),
        obj(
            {"name": TEXT},
            {"email": nullable(TEXT), "phone": nullable(TEXT), "password": nullable(TEXT), "unique": _UNIQUE},
        ),
    ),
    Route(
        "GET", "/api/users/{key}", _READ,
        "One user, by id or, for scope admin, e-mail address. E-mail and phone are *** below that.", _show, returns=USER,
        also=(404,),
    ),
    Route(
        "PATCH", "/api/users/{key}", _ADMIN, "Changes what is given of a user.", _edit, "user.update", "user", USER_CHANGE,
        also=(404, 409), query=(WAIT,),
        body=obj({"version": INT}, {"name": TEXT, "email": TEXT, "phone": TEXT, "status": _STATUS}),
    ),
    Route(
        "DELETE", "/api/users/{key}", _ADMIN, "Removes a user with all devices, from all nodes.", _remove, "user.rm", "user",
        status=204, also=(404, 409), query=(_VERSION, WAIT),
    ),
    Route(
        "POST", "/api/users/{key}/suspend", _ADMIN, "Takes a user's devices from all nodes, and keeps their keys.", _suspend,
        "user.suspend", "user", USER_CHANGE, also=(404, 409), body=_STATUS_BODY, query=(WAIT,),
    ),
    Route(
        "POST", "/api/users/{key}/resume", _ADMIN, "Brings a user's devices back, with the keys they had.", _resume,
        "user.resume", "user", USER_CHANGE, also=(404, 409), body=_STATUS_BODY, query=(WAIT,),
    ),
)  # fmt: skip
