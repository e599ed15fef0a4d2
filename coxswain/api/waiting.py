"""Requests that start an operation: answered at once with ``Prefer: respond-async`` (RFC 7240), else when it is over.

The operation goes on whatever becomes of the request: a client that goes away cancels nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from coxswain import errors
from coxswain.api.areas.operations import operation_view
from coxswain.api.call import Call
from coxswain.api.route import Reply
from coxswain.errors import CoxswainError, NodeFailure
from coxswain.messages import operations as m
from coxswain.operations.model import FINAL, Operation, OperationState, Secrets

__all__ = ["run_operation"]

_LONGEST_S = 600.0
_POLL_S = 0.1


def run_operation(
    call: Call,
    kind: str,
    params: Mapping[str, Any],
    render: Callable[[Operation], Any],
    *,
    secrets: Secrets | None = None,
) -> Any:
    """Starts an operation. 202 with the operation if the client does not want to wait, or it takes very long; else what
    ``render`` makes of it. Raises what it failed with.
    """
    message = m.StartOperation(call.caller, kind, params, secrets or Secrets())
    operation: Operation = call.change("operations", message)
    if "respond-async" in (call.request.get_header("Prefer") or "").lower():
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


def _accepted(operation: Operation) -> Reply:
    return Reply(operation_view(operation), 202, (("Location", f"/api/operations/{operation.id}"),))


def _failure(operation: Operation) -> CoxswainError:
    """As the class that it failed with, so that status and exit code are those of its cause."""
    cls = getattr(errors, operation.error_type, NodeFailure)
    if not (isinstance(cls, type) and issubclass(cls, CoxswainError)) or cls is CoxswainError:
        cls = NodeFailure
    sentence = operation.error or f"the operation is {operation.state}"
    remedy = operation.remedy or f"See: cox operations show {operation.id}"
    return cls(f"{sentence} (operation {operation.id})", remedy=remedy)
