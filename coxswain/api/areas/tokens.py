"""API tokens for scripts (management-plane.md 10.1). A secret is shown once, when it is made."""

from __future__ import annotations

from typing import Any

from coxswain.access.secrets import parse_lifetime
from coxswain.api import access_views
from coxswain.api.call import ALL, CHANGE_S, Call
from coxswain.api.paging import LIMIT
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import INT, STAMP, TEXT, array, choice, limited, obj, shape
from coxswain.messages import access as m
from coxswain.messages.audit import Committed

__all__ = ["ROUTES"]

_SCOPE = choice("readonly", "monitor", "admin")
_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))
_KEYS = {"id": TEXT, "name": TEXT, "scope": _SCOPE, "prefix": TEXT, "created_at": STAMP, "version": INT}
_MORE = {"created_by": TEXT, "expires_at": STAMP, "last_used_at": STAMP, "revoked_at": STAMP}
TOKEN = shape("Token", obj(_KEYS, _MORE))
CREATED = shape("CreatedToken", obj(_KEYS | {"secret": TEXT | {"description": "shown this once"}}, _MORE))


def _list(call: Call) -> Any:
    page: m.TokenPage = call.ask("access", m.ListTokens(call.word("after") or "", call.limit(ALL, ALL)))
    found = [access_views.token(token) for token in page.tokens]
    return Reply(found, after=found[-1]["id"] if page.more else None)


def _create(call: Call) -> Any:
    body = call.body
    name, scope = body.need("name", str), body.get("scope", str) or "readonly"
    lifetime = parse_lifetime(body.get("expires", str) or "")
    made: m.CreatedToken = call.change("access", m.CreateToken(call.caller, name, scope, lifetime))
    return Reply(access_views.token(made.token) | {"secret": made.secret}, headers=(("Cache-Control", "no-store"),))


def _revoke(call: Call) -> None:
    message = m.RevokeToken(call.caller, call.path["id"], call.number("version"))
    found: Committed[m.Token] | m.Token = call.ask("access", message, CHANGE_S)
    if isinstance(found, Committed):
        call.committed(found)
    else:
        call.recorded = True  # it was revoked already, and that is in the log


ROUTES = (
    Route(
        "GET", "/api/tokens", Scope.ADMIN, "All tokens, newest first.", _list, returns=array(TOKEN), also=(404,),
        query=(
            Param("after", "the cursor of the page before: an id"),
            LIMIT,
        ),
    ),
    Route(
        "POST", "/api/tokens", Scope.ADMIN, "Makes a token.", _create, "token.create", "token", CREATED, 201,
        body=obj(
            {"name": TEXT},
            {"scope": _SCOPE, "expires": TEXT | {"description": "a duration such as 720h; empty: never"}},
        ),
    ),
    Route(
        "DELETE", "/api/tokens/{id}", Scope.ADMIN, "Revokes a token; once more is no error.", _revoke, "token.revoke",
        "token", status=204, also=(404, 409), query=(_VERSION,),
    ),
)  # fmt: skip
