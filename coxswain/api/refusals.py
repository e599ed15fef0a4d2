"""Refusals and failures of requests leave a record in the audit log, whichever door they came through."""

from __future__ import annotations

import logging

from coxswain.api.call import Call
from coxswain.api.route import Route
from coxswain.errors import CoxswainError
from coxswain.messages.access import RecordRefusal
from coxswain.messages.audit import AwaitAudited, Committed
from coxswain.web.refusal import is_page

__all__ = ["record_failure"]

_REFUSALS = frozenset({401, 403, 429})
_WHERE_CHANGED = frozenset({409, 500, 502, 503, 504})
_RECORD_S = 5.0

_log = logging.getLogger(__name__)


def record_failure(route: Route, call: Call, status: int, error: CoxswainError) -> None:
    """Has it recorded, and waits for that. If it cannot be recorded just now, the log says so; the answer does not change.

    Refusals count on every route; failures inside, and what conflicts with what is there, where something was to be changed:
    a question whose answer is no (``/api/paths/plan``) is no attempt at anything. What the owning actor has recorded already
    (``CoxswainError.audited``) is only waited for.
    """
    if status not in _REFUSALS and not (route.audit and status in _WHERE_CHANGED):
        return
    if status == 401 and _only_opens_a_page(call):
        return
    try:
        outbox_id = _record(route, call, status, error) if error.audited is None else error.audited
        if outbox_id:
            call.ask("audit_writer", AwaitAudited(outbox_id), _RECORD_S)
    except Exception as failure:
        _log.warning(
            "%s %s was answered with %d, and that is in no audit record yet: %s", route.method, route.path, status, failure
        )


def _only_opens_a_page(call: Call) -> bool:
    """A browser without any credential that asks for a page is shown the login: no attempt at anything, and no refusal. One
    that brings a credential which is not good is recorded as everybody else.
    """
    request = call.request
    shown = request.get_header("Authorization") is not None or "cox_session=" in (request.get_header("Cookie") or "")
    return is_page(request) and not shown


def _record(route: Route, call: Call, status: int, error: CoxswainError) -> int:
    who = call.known
    message = RecordRefusal(
        caller=None if who is None else who.caller,
        address=call.address,
        route=f"{route.method} {route.path}",
        action=route.refused or route.audit or "auth.refused",
        target=(route.target, _printable(next(iter(call.path.values()), ""))),
        status=status,
        error=str(error),
    )
    committed: Committed[None] | None = call.ask("access", message, _RECORD_S)
    return 0 if committed is None else committed.outbox_id


def _printable(text: str) -> str:
    """What a stranger wrote into the path, fit for a record."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:100])
