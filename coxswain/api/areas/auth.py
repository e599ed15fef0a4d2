"""Logging in and out, and what somebody who is logged in can do with their own account (management-plane.md 10.2, 10.3)."""

from __future__ import annotations

from typing import Any

from coxswain.api import access_views
from coxswain.api.call import Call
from coxswain.api.gate import set_cookie
from coxswain.api.passwords import NEW_PASSWORD, ask_again, challenge, new_hash
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.errors import Conflict, InvalidInput, NotFound
from coxswain.messages import access as m

__all__ = ["ROUTES", "USER"]

_USER_KEYS = {
    "id": TEXT,
    "name": TEXT,
    "email": TEXT,
    "phone": TEXT,
    "role": choice("admin", "user"),
    "status": choice("active", "disabled"),
    "version": INT,
}
USER = shape("User", obj(_USER_KEYS))
ME = shape(
    "Me",
    obj(
        _USER_KEYS
        | {
            "role": TEXT | {"description": "empty, as all of the account, for tokens and the control socket"},
            "status": TEXT,
            "kind": choice("cli", "token", "session"),
            "actor": TEXT | {"description": "what the audit log calls the caller"},
            "scope": choice("readonly", "monitor", "admin"),
            "credential_id": TEXT,
            "expires_at": nullable(STAMP),
            "totp": BOOL,
        }
    ),
)
LOGIN = shape(
    "Login",
    obj(
        {
            "id": TEXT,
            "user_id": TEXT,
            "user": TEXT,
            "source_ip": TEXT,
            "user_agent": TEXT,
            "created_at": nullable(STAMP),
            "seen_at": nullable(STAMP),
            "expires_at": nullable(STAMP),
            "current": BOOL | {"description": "the one that asks"},
        }
    ),
)


def _login(call: Call) -> Any:
    body = call.body
    username, password = body.need("username", str), body.secret("password")
    code = body.secret("code") or ""
    if password is None:
        raise InvalidInput("password: is missing; text is needed")
    found, right = challenge(call, username, password)
    agent = "".join(c if c.isprintable() else "?" for c in call.request.user_agent or "")
    done: m.LoggedIn = call.change("access", m.FinishLogin(found, call.address, right, code, agent))
    cookie = set_cookie(done.secret, done.lifetime_s, secure=call.door.secure(call.request))
    return Reply(access_views.user(done.admin), headers=(("Set-Cookie", cookie), ("Cache-Control", "no-store")))


def _logout(call: Call) -> Any:
    if call.who.kind != "session":
        raise Conflict("session: this caller did not log in, so there is nothing to log out from")
    call.change("access", m.Logout(call.caller, call.who.id))
    return Reply(headers=(("Set-Cookie", set_cookie("", 0, secure=call.door.secure(call.request))),))


def _me(call: Call) -> Any:
    who = call.who
    account = call.ask("access", m.GetAdmin(who.user_id)) if who.user_id else None
    return access_views.me(who, account)


def _password(call: Call) -> None:
    found = ask_again(call)
    if found is None:
        raise Conflict("password: this caller has none", remedy="Use: cox admins password NAME")
    call.change(
        "access",
        m.ChangePassword(
            call.caller,
            call.who.user_id,
            new_hash(call, "new_password", of=(found.username,)),
            found.password_hash,
            call.who.id,
            call.body.get("version", int),
        ),
    )


def _sessions(call: Call) -> Any:
    limit = call.limit()
    mine = "" if call.flag("all") or not call.who.user_id else call.who.user_id
    found: list[m.Login] = call.ask("access", m.ListLogins(mine, call.word("after") or "", limit + 1))
    page = [access_views.login(login, call.who.id) for login in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _revoke(call: Call) -> None:
    wanted = call.path["id"]
    if not any(login.id == wanted for login in call.ask("access", m.ListLogins(limit=10_000))):
        raise NotFound(f"session: there is no login session {wanted[:80]!r}", remedy="See: GET /api/auth/sessions")
    call.change("access", m.RevokeLogin(call.caller, wanted))


_READ, _ADMIN = Scope.READONLY, Scope.ADMIN

ROUTES = (
    Route(
        "POST", "/api/auth/login", Scope.NONE, "Logs an admin in; the answer sets a session cookie.", _login, "auth.login",
        "user", USER, also=(401, 403, 429), refused="auth.login_failed",
        body=obj({"username": TEXT, "password": TEXT}, {"code": TEXT | {"description": "of the second factor"}}),
    ),
    Route(
        "POST", "/api/auth/logout", _READ, "Ends the session that asks.", _logout, "auth.logout", "user",
        status=204, also=(409,),
    ),
    Route("GET", "/api/auth/me", _READ, "Who the credential says you are.", _me, returns=ME),
    Route(
        "POST", "/api/auth/password", _ADMIN, "Changes your password, and ends your other sessions.", _password,
        "admin.password", "user", status=204, also=(409, 429),
        body=obj(
            {"your_password": TEXT, "new_password": NEW_PASSWORD},
            {"version": nullable(INT)},
        ),
    ),
    Route(
        "GET", "/api/auth/sessions", _ADMIN, "Your login sessions, newest first.", _sessions, returns=array(LOGIN),
        also=(404,),
        query=(
            Param("all", "those of all admins", BOOL),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
            Param("after", "the cursor of the page before: an id"),
        ),
    ),
    Route(
        "DELETE", "/api/auth/sessions/{id}", _ADMIN, "Ends a login session.", _revoke, "auth.session_revoke", "session",
        status=204, also=(404,),
    ),
)  # fmt: skip
