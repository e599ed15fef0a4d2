"""Requests that start an operation: answered at once with ``Prefer: respond-async`` (RFC 7240), else when it is over.

The operation goes on whatever becomes of the request: a client that goes away cancels nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from coxswain.api.areas.operations import operation_view
from coxswain.api.call import Call
from coxswain.api.problems import dumps
from coxswain.api.route import Reply
from coxswain.errors import Conflict, CoxswainError, class_called
from coxswain.messages import operations as m
from coxswain.messages.versions import Seen
from coxswain.operations.model import FINAL, Direction, Operation, OperationState, Secrets

__all__ = ["check_not_set_up", "run_operation"]

_LONGEST_S = 600.0
_POLL_S = 0.1


def check_not_set_up(call: Call, kind: str, target_id: str) -> None:
    """What an operation of this kind sets up just now is not to be forgotten: that would fail in its middle, and what it put
    on the host by then would go on there, out of sight. Raises ``Conflict``.
    """
    page: m.OperationsPage = call.ask("operations", m.ListOperations(kind=kind, target_id=target_id, open_only=True))
    for operation in page.operations:
        if operation.state in (OperationState.QUEUED, OperationState.RUNNING):
            raise Conflict(
                f"operation {operation.id} ({kind}) works on it just now",
                remedy=f"Wait for it: cox operations show {operation.id} --follow, "
                f"or stop it: cox operations cancel {operation.id}",
            )


def run_operation(
    call: Call,
    kind: str,
    params: Mapping[str, Any],
    render: Callable[[Operation], Any],
    *,
    secrets: Secrets | None = None,
    seen: Seen | None = None,
) -> Any:
    """Starts an operation. 202 with the operation if the client does not want to wait, or it takes very long; else what
    ``render`` makes of it. Raises what it failed with. ``seen``: what must be as its author saw it when it starts.
    """
    message = m.StartOperation(call.caller, kind, params, secrets or Secrets(), seen=seen)
    operation: Operation = call.change("operations", message)
    if _prefers_async(call):
        return _accepted(operation)
    until = time.monotonic() + _LONGEST_S
    while operation.state not in FINAL and operation.state is not OperationState.WAITING:
        if time.monotonic() > until:
            return _accepted(operation)
        time.sleep(_POLL_S)
        operation = call.ask("operations", m.GetOperation(operation.id))
    if operation.state is not OperationState.DONE:
        raise _failure(operation)
    return render(operation)


def _prefers_async(call: Call) -> bool:
    """``Prefer`` is a list, and may come more than once; what else is in it is not for us (RFC 7240, section 2)."""
    wishes = (call.request.get_header("Prefer") or "").lower().split(",")
    return any(wish.partition(";")[0].strip() == "respond-async" for wish in wishes)


def _accepted(operation: Operation) -> Reply:
    headers = (("Location", f"/api/operations/{operation.id}"),)
    return Reply(raw=dumps(operation_view(operation)).encode(), status=202, headers=headers)


def _failure(operation: Operation) -> CoxswainError:
    """As the class that it failed with, so that status and exit code are those of its cause."""
    sentence = operation.error or f"the operation is {operation.state}"
    remedy = operation.remedy or f"See: cox operations show {operation.id}"
    outcome = ""
    if operation.state is OperationState.UNDONE:
        outcome = "; it was taken back"
    elif operation.state is OperationState.FAILED and operation.direction is Direction.BACK:
        outcome = "; it could not be taken back yet"
    return class_called(operation.error_type)(f"{sentence}{outcome} (operation {operation.id})", remedy=remedy)
