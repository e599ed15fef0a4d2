"""Audit records beside the changes of this actor: what doors did that changes nothing here, and what they refused: of
refusals, the first of an address and minute each, then a count.
"""

from __future__ import annotations

import datetime as dt

from actors.access.logins import ANONYMOUS
from actors.access.state import AccessState, Handler
from coxswain.access.refusals import Summary
from coxswain.audit import record
from coxswain.errors import StoreUnavailable
from coxswain.messages import access as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.store import Tx

__all__ = ["HANDLERS", "write_summaries"]


def _record(access: AccessState, message: m.RecordRefusal) -> Committed[None] | None:
    caller = message.caller or Caller(ANONYMOUS, "session", message.address)
    who = message.address or caller.actor
    if not access.refusals.note(who, f"{message.status} {message.route}", access.now()):
        return None
    with access.changing() as tx:
        detail = {"route": message.route, "status": message.status}
        outbox_id = record(tx, caller, message.action, message.target, detail, now=access.now(), error=message.error)
    return access.committed(None, outbox_id)


def _record_action(access: AccessState, message: m.RecordAction) -> Committed[None]:
    with access.changing() as tx:
        detail = dict(message.detail)
        outbox_id = record(tx, message.caller, message.action, message.target, detail, now=access.now())
    return access.committed(None, outbox_id)


def write_summaries(access: AccessState, *, all_of_them: bool = False) -> None:
    """Of the minutes that are over."""
    found = access.refusals.over(access.now(), all_of_them=all_of_them)
    if not found:
        return
    try:
        with access.changing() as tx:
            for summary in found:
                _write(access, tx, summary)
    except StoreUnavailable as error:
        total = sum(summary.count for summary in found)
        access.context.log.warning("%d refusals are in no audit record: %s", total, error)
        return
    access.context.tell("audit_writer", OutboxGrew())


def _write(access: AccessState, tx: Tx, summary: Summary) -> None:
    since = dt.datetime.fromtimestamp(summary.since, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    detail = {"count": summary.count, "since": since, "what": summary.what}
    caller = Caller(ANONYMOUS, "session", summary.address)
    error = f"{summary.count} more refusals within a minute"
    record(tx, caller, "auth.refused_many", ("address", summary.address), detail, now=access.now(), error=error)


HANDLERS: dict[type, Handler] = {m.RecordRefusal: _record, m.RecordAction: _record_action}
