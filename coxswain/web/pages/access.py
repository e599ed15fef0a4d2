"""Who and what may come in: admins, API tokens, and one's own account."""

from __future__ import annotations

import datetime as dt
from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Scope
from coxswain.web.page import ask, fragment, page, shortest_password

__all__ = ["PAGES"]

_ADMIN = Scope.ADMIN


def _tokens(call: Call) -> dict[str, Any]:
    return {"tokens": ask(call, "/api/tokens").value, "now": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")}


def _admins(call: Call) -> dict[str, Any]:
    found = ask(call, "/api/admins").value
    return {"admins": found, "who": call.who, "shortest_password": shortest_password(call)}


def _logins(call: Call) -> dict[str, Any]:
    return {"logins": ask(call, "/api/auth/sessions").value}


def _factor(call: Call) -> dict[str, Any]:
    return {"me": ask(call, "/api/auth/me").value}


def _account(call: Call) -> dict[str, Any]:
    return _factor(call) | _logins(call) | {"shortest_password": shortest_password(call)}


PAGES = (
    page("/tokens", "tokens.html", _tokens, title="API tokens", scope=_ADMIN),
    page("/admins", "admins.html", _admins, title="Admins", scope=_ADMIN),
    page("/account", "account.html", _account, title="My account", scope=_ADMIN),
    fragment("/ui/fragments/tokens", "_tokens.html", _tokens, scope=_ADMIN),
    fragment("/ui/fragments/admins", "_admins.html", _admins, scope=_ADMIN, personal=True),
    fragment("/ui/fragments/account/sessions", "_logins.html", _logins, scope=_ADMIN, personal=True),
)
