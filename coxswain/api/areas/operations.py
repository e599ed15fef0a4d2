"""Operations: changes of several steps, what they are doing, and what an operator can do about them."""

from __future__ import annotations

from typing import Any

from coxswain.api.bodies import one_line
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import stamp
from coxswain.errors import InvalidInput
from coxswain.messages import operations as m
from coxswain.operations.model import Direction, Operation, OperationState, Secrets, StepState

__all__ = ["OPERATION", "ROUTES", "operation_view", "secrets_of"]

_STATES = tuple(state.value for state in OperationState)
_STEP = shape(
    "OperationStep",
    obj(
        {
            "name": TEXT,
            "title": TEXT,
            "state": choice(*(state.value for state in StepState)),
            "attempts": INT,
            "output": TEXT,
            "error": TEXT,
            "started_at": nullable(STAMP),
            "finished_at": nullable(STAMP),
        }
    ),
)
OPERATION = shape(
    "Operation",
    obj(
        {
            "id": TEXT,
            "kind": TEXT,
            "target_type": TEXT,
            "target_id": TEXT,
            "state": choice(*_STATES),
            "direction": choice(*(direction.value for direction in Direction)),
            "error": TEXT,
            "error_type": TEXT,
            "remedy": TEXT,
            "needs": array(TEXT),
            "notes": array(TEXT),
            "params": {"type": "object"},
            "data": {"type": "object"},
            "actor": TEXT,
            "parent": TEXT,
            "overtaken_by": TEXT,
            "version": INT,
            "created_at": nullable(STAMP),
            "started_at": nullable(STAMP),
            "finished_at": nullable(STAMP),
            "steps": array(_STEP),
        }
    ),
)


def operation_view(o: Operation) -> dict[str, Any]:
    """Nothing in it is secret: secrets are never in the journal."""
    return {
        "id": o.id,
        "kind": o.kind,
        "target_type": o.target_type,
        "target_id": o.target_id,
        "state": o.state.value,
        "direction": o.direction.value,
        "error": o.error,
        "error_type": o.error_type,
        "remedy": o.remedy,
        "needs": list(o.needs),
        "notes": list(o.notes),
        "params": dict(o.params),
        "data": dict(o.data),
        "actor": o.actor,
        "parent": o.parent,
        "overtaken_by": o.overtaken_by,
        "version": o.version,
        "created_at": stamp(o.created_at),
        "started_at": stamp(o.started_at),
        "finished_at": stamp(o.finished_at),
        "steps": [
            {
                "name": step.name,
                "title": step.title,
                "state": step.state.value,
                "attempts": step.attempts,
                "output": step.output,
                "error": step.error,
                "started_at": stamp(step.started_at),
                "finished_at": stamp(step.finished_at),
            }
            for step in o.steps
        ],
    }


def secrets_of(call: Call) -> Secrets:
    """What the body gives for the operation's memory alone."""
    return Secrets({"password": call.body.get("password", str) or ""})


def _list(call: Call) -> Any:
    state = call.word("state")
    if state is not None and state not in _STATES:
        raise InvalidInput(f"state: {state[:40]!r} is none of {', '.join(_STATES)}")
    page: m.OperationsPage = call.ask(
        "operations",
        m.ListOperations(
            state=None if state is None else OperationState(state),
            kind=call.word("kind") or "",
            target_id=call.word("target") or "",
            parent=call.word("parent") or "",
            open_only=call.flag("open") or False,
            before=call.word("after") or "",
            limit=call.limit(),
        ),
    )
    cursor = page.operations[-1].id if page.more else None
    return Reply([operation_view(operation) for operation in page.operations], after=cursor)


def _show(call: Call) -> Any:
    return operation_view(call.ask("operations", m.GetOperation(_id(call))))


def _retry(call: Call) -> Any:
    message = m.RetryOperation(call.caller, _id(call), call.body.get("version", int), secrets_of(call))
    return operation_view(call.change("operations", message))


def _cancel(call: Call) -> Any:
    return operation_view(
        call.change("operations", m.CancelOperation(call.caller, _id(call), call.body.get("version", int)))
    )


def _id(call: Call) -> str:
    return one_line("operation", call.path["id"])


ROUTES = (
    Route(
        "GET",
        "/api/operations",
        Scope.READONLY,
        "Operations, newest first.",
        _list,
        returns=array(OPERATION),
        query=(
            Param("state", "only those in this state", choice(*_STATES)),
            Param("kind", "only those of this kind, e.g. node.add"),
            Param("target", "only those about the thing with this id"),
            Param("parent", "only those that this operation started"),
            Param("open", "true: only those that are not over, or failed", BOOL),
            Param("after", "the cursor of the page before: the id of an operation"),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
        ),
    ),
    Route("GET", "/api/operations/{id}", Scope.READONLY, "One operation with its steps.", _show, returns=OPERATION),
    Route(
        "POST",
        "/api/operations/{id}/retry",
        Scope.ADMIN,
        "Goes on with an operation that failed or waits, or begins one anew that was taken back.",
        _retry,
        audit="operation.retry",
        target="operation",
        returns=OPERATION,
        status=202,
        body=obj({}, {"version": INT, "password": TEXT}),
    ),
    Route(
        "POST",
        "/api/operations/{id}/cancel",
        Scope.ADMIN,
        "Stops an operation and takes back what it changed.",
        _cancel,
        audit="operation.cancel",
        target="operation",
        returns=OPERATION,
        status=202,
        body=obj({}, {"version": INT}),
    ),
)
