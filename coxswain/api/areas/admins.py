"""Admins: accounts that may log in, and their second factors (management-plane.md 3.2, 10.2, 10.6)."""

from __future__ import annotations

from typing import Any

from coxswain.api import access_views
from coxswain.api.areas.auth import USER
from coxswain.api.call import ALL, Call
from coxswain.api.paging import LIMIT
from coxswain.api.passwords import NEW_PASSWORD, ask_again, new_hash
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.messages import access as m

__all__ = ["ROUTES"]

ADMIN = shape(
    "Admin",
    obj(
        {
            "id": TEXT,
            "name": TEXT,
            "email": TEXT,
            "phone": TEXT,
            "role": choice("admin"),
            "status": choice("active", "disabled"),
            "version": INT,
            "totp": BOOL | {"description": "has a second factor"},
            "built_in": BOOL,
            "can_log_in": BOOL,
            "created_at": nullable(STAMP),
        }
    ),
)
FACTOR = shape("SecondFactor", obj({"secret": TEXT, "url": TEXT}))

_YOURS = {"your_password": TEXT | {"description": "asked for again in a login session"}}
_SEEN = {"version": nullable(INT)}
_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))
_NO_STORE = (("Cache-Control", "no-store"),)


def _list(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    found: list[m.Admin] = call.ask("access", m.ListAdmins(call.word("after") or "", limit + 1))
    page = [access_views.admin(admin) for admin in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _show(call: Call) -> Any:
    return access_views.admin(_admin(call))


def _add(call: Call) -> Any:
    email, name = call.body.need("email", str), call.body.get("name", str) or ""
    return access_views.user(call.change("access", m.AddAdmin(call.caller, email, new_hash(call, of=(email, name)), name)))


def _edit(call: Call) -> Any:
    body = call.body
    message = m.EditAdmin(
        call.caller,
        call.path["key"],
        body.need("version", int),
        call.who.user_id,
        body.get("email", str),
        body.get("name", str),
        body.get("status", str),
    )
    return access_views.admin(call.change("access", message))


def _remove(call: Call) -> None:
    message = m.RemoveAdmin(call.caller, call.path["key"], call.who.user_id, call.number("version"))
    call.change("access", message)


def _set_password(call: Call) -> None:
    admin = _admin(call)
    ask_again(call)
    made = new_hash(call, "new_password", of=(admin.email, admin.name))
    call.change("access", m.ChangePassword(call.caller, admin.id, made, version=_seen(call)))


def _begin_factor(call: Call) -> Any:
    admin = _admin(call)
    ask_again(call)
    found: m.SecondFactor = call.change("access", m.BeginSecondFactor(call.caller, admin.id, _seen(call)))
    return Reply({"secret": found.secret, "url": found.url}, headers=_NO_STORE)


def _confirm_factor(call: Call) -> Any:
    code = call.body.secret("code") or ""
    codes = call.change("access", m.ConfirmSecondFactor(call.caller, _admin(call).id, code, _seen(call)))
    return Reply({"recovery_codes": list(codes)}, headers=_NO_STORE)


def _remove_factor(call: Call) -> None:
    admin = _admin(call)
    ask_again(call)
    call.change("access", m.RemoveSecondFactor(call.caller, admin.id, _seen(call)))


def _seen(call: Call) -> int | None:
    found: int | None = call.body.get("version", int)
    return found


def _admin(call: Call) -> m.Admin:
    found: m.Admin = call.ask("access", m.GetAdmin(call.path["key"]))
    return found


_ADMIN = Scope.ADMIN

ROUTES = (
    Route(
        "GET", "/api/admins", _ADMIN, "All admins, by e-mail.", _list, returns=array(ADMIN), also=(404,),
        query=(
            Param("after", "the cursor of the page before: an id"),
            LIMIT,
        ),
    ),
    Route(
        "POST", "/api/admins", _ADMIN, "Adds an admin.", _add, "admin.add", "user", USER, 201, (409, 429),
        obj({"email": TEXT, "password": NEW_PASSWORD}, {"name": TEXT}),
    ),
    Route("GET", "/api/admins/{key}", _ADMIN, "One admin, by id or e-mail.", _show, returns=ADMIN, also=(404,)),
    Route(
        "PATCH", "/api/admins/{key}", _ADMIN, "Changes what is given of an admin; disabling ends its sessions.", _edit,
        "admin.update", "user", ADMIN, also=(404, 409),
        body=obj({"version": INT}, {"email": TEXT, "name": TEXT, "status": choice("active", "disabled")}),
    ),
    Route(
        "DELETE", "/api/admins/{key}", _ADMIN, "Removes an admin, who is not built in, yourself, or the last.", _remove,
        "admin.rm", "user", status=204, also=(404, 409), query=(_VERSION,),
    ),
    Route(
        "POST", "/api/admins/{key}/password", _ADMIN, "Sets an admin's password, and ends its sessions.", _set_password,
        "admin.password", "user", status=204, also=(404, 409, 429),
        body=obj({"new_password": NEW_PASSWORD}, _YOURS | _SEEN),
    ),
    Route(
        "POST", "/api/admins/{key}/totp", _ADMIN, "Makes a second factor, which counts once it is confirmed.", _begin_factor,
        "admin.totp_begin", "user", FACTOR, 201, (404, 409, 429), obj({}, _YOURS | _SEEN),
    ),
    Route(
        "POST", "/api/admins/{key}/totp/confirm", _ADMIN, "Confirms a second factor; recovery codes are shown once.",
        _confirm_factor, "admin.totp_enable", "user", obj({"recovery_codes": array(TEXT)}), also=(404, 409),
        body=obj({"code": TEXT}, _SEEN),
    ),
    Route(
        "POST", "/api/admins/{key}/totp/remove", _ADMIN, "Takes a second factor away.", _remove_factor,
        "admin.totp_remove", "user", status=204, also=(404, 409, 429), body=obj({}, _YOURS | _SEEN),
    ),
)  # fmt: skip
