"""Names of users, devices and nodes that are gone: forgetting one before retention does."""

from __future__ import annotations

from actors.fleet.state import FleetState, Handler
from coxswain.audit import record
from coxswain.errors import NotFound
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.names import ForgetName
from coxswain.store import Durability
from coxswain.store import names as rows

__all__ = ["CHANGES", "QUESTIONS"]


def _forget(fleet: FleetState, message: ForgetName) -> Committed[int]:
    """The audit record says that it was done, and not what the name was."""
    with fleet.changing(Durability.BATCHED) as tx:
        count = rows.forget(tx, message.id)
        if not count:
            what = f"removed: nothing that was removed has the id {message.id[:80]!r}, or its name is forgotten already"
            raise NotFound(what, remedy="See: cox removed")
        target = ("removed", message.id)
        outbox_id = record(tx, message.caller, "removed.forget", target, {"names": count}, now=fleet.now())
    fleet.context.tell("audit_writer", OutboxGrew())
    return Committed(count, outbox_id)


CHANGES: dict[type, Handler] = {ForgetName: _forget}
QUESTIONS: dict[type, Handler] = {}
