"""Answering when a change has arrived: which nodes have acknowledged it by now, and which follow by themselves."""

from __future__ import annotations

import threading
from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Param
from coxswain.api.schema import TEXT, array, limited, obj
from coxswain.errors import Unavailable
from coxswain.messages import accounts

__all__ = ["ARRIVAL", "GIVEN", "WAIT", "arrived", "given"]

_DEFAULT_S = 5
_LONGEST_S = 30
_WAITING = threading.BoundedSemaphore(8)
"""Requests at once that wait; each holds a worker of the server. Others are answered at once, with all nodes pending."""

WAIT = Param("wait", "seconds to wait for nodes to acknowledge; absent: 5", limited(0, _LONGEST_S))
ARRIVAL = {"pushed_nodes": array(TEXT), "pending_nodes": array(TEXT)}
"""Ids of nodes that have acknowledged the change, and of those that have not yet."""

_SKIPPED = obj({"profile_id": TEXT, "name": TEXT, "reason": TEXT})
GIVEN = ARRIVAL | {"skipped": array(_SKIPPED)}
"""The same, and the profiles that could not be served."""


def arrived(call: Call, revisions: dict[str, int]) -> dict[str, Any]:
    """Waits for as long as the request says. Never fails: the change is made, and the nodes follow."""
    seconds = call.number("wait", _DEFAULT_S, high=_LONGEST_S) or 0
    confirmed: tuple[str, ...] = ()
    pending: tuple[str, ...] = tuple(revisions)
    if revisions and seconds and _WAITING.acquire(blocking=False):
        try:
            answer = call.ask("fleet", accounts.AwaitApplied(revisions, seconds), seconds + 5.0)
            confirmed, pending = answer.confirmed, answer.pending
        except Unavailable:
            pass  # fleet restarts; what it was asked to wait for is known no more, but made
        finally:
            _WAITING.release()
    return {"pushed_nodes": sorted(confirmed), "pending_nodes": sorted(pending)}


def given(call: Call, change: accounts.Change[Any]) -> dict[str, Any]:
    """``arrived``, with the profiles that could not be served."""
    skipped = [{"profile_id": u.profile_id, "name": u.name, "reason": u.reason} for u in change.unserved]
    return arrived(call, change.revisions) | {"skipped": skipped}
