"""Names of users, devices and nodes that are gone: forgetting one before retention does."""

from __future__ import annotations

from actors.fleet.accounts import Did, change
from actors.fleet.state import FleetState, Handler
from coxswain.errors import NotFound
from coxswain.messages.accounts import Change
from coxswain.messages.audit import Committed
from coxswain.messages.names import ForgetName
from coxswain.store import Tx
from coxswain.store import names as rows

__all__ = ["CHANGES", "QUESTIONS"]


def _forget(fleet: FleetState, message: ForgetName) -> Committed[Change[int]]:
    """The audit record says that it was done, and not what the name was."""

    def work(tx: Tx) -> Did:
        known = rows.removed_named(tx, message.id)
        if known is None:
            what = f"removed: nothing that was removed has the id {message.id[:80]!r}, or its name is forgotten already"
            raise NotFound(what, remedy="See: cox removed")
        count = rows.forget(tx, known.id)
        return Did((known.kind, known.id), {"names": count}, count)

    return change(fleet, message.caller, "removed.forget", work)


CHANGES: dict[type, Handler] = {ForgetName: _forget}
QUESTIONS: dict[type, Handler] = {}
