"""Rows of the journal of operations. Plain functions of a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coxswain.clock import to_micros
from coxswain.errors import Unavailable
from coxswain.operations.model import FINAL, Direction, Operation, OperationState, StepRecord, StepState
from coxswain.store.api import Row, Tx, Value, in_lists

__all__ = [
    "Done",
    "Superseded",
    "being_removed",
    "claim_run",
    "delete_finished",
    "done_since",
    "get_operation",
    "insert_operation",
    "is_cancelled",
    "list_operations",
    "save_operation",
    "save_step",
    "set_ending",
    "unfinished",
]


class Superseded(Unavailable):
    """Another incarnation works on this operation; this one has nothing more to say."""


_COLUMNS = (
    "id, kind, target_type, target_id, params, data, state, direction, ending, error, error_type, remedy, needs, notes, "
    "actor, actor_kind, source_ip, parent, run, version, created_at, started_at, finished_at, updated_at"
)
_STEP_COLUMNS = "operation_id, position, name, title, state, attempts, data, output, error, started_at, finished_at"


def insert_operation(tx: Tx, operation: Operation) -> None:
    values = _values(operation)
    marks = ", ".join("?" * len(values))
    tx.execute(f"INSERT INTO operations ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - no foreign text in it
    marks = ", ".join("?" * 11)
    tx.executemany(
        f"INSERT INTO operation_steps ({_STEP_COLUMNS}) VALUES ({marks})",  # noqa: S608
        [_step_values(operation.id, step) for step in operation.steps],
    )


def get_operation(tx: Tx, operation_id: str) -> Operation | None:
    """With its steps."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM operations WHERE id = ?", (operation_id,))  # noqa: S608
    return _with_steps(tx, rows)[0] if rows else None


def claim_run(tx: Tx, operation_id: str) -> Operation | None:
    """Takes it over: from here on only writes under the new ``run`` succeed."""
    tx.execute("UPDATE operations SET run = run + 1 WHERE id = ?", (operation_id,))
    return get_operation(tx, operation_id)


def save_operation(tx: Tx, operation: Operation, *, now: float) -> Operation:
    """Writes all but id, kind, params, ``ending`` and the steps; raises the version. Returns it as it is now.

    Raises:
        Superseded: ``operation.run`` is not the present one, or it is gone.
    """
    rows = tx.execute(
        "UPDATE operations SET target_type = ?, target_id = ?, data = ?, state = ?, direction = ?, error = ?, "
        "error_type = ?, remedy = ?, needs = ?, notes = ?, started_at = ?, finished_at = ?, updated_at = ?, "
        "version = version + 1 WHERE id = ? AND run = ? RETURNING id",
        (
            operation.target_type,
            operation.target_id,
            json.dumps(operation.data),
            operation.state.value,
            operation.direction.value,
            operation.error,
            operation.error_type,
            operation.remedy,
            json.dumps(operation.needs),
            json.dumps(operation.notes),
            to_micros(operation.started_at),
            to_micros(operation.finished_at),
            to_micros(now),
            operation.id,
            operation.run,
        ),
    )
    if not rows:
        raise Superseded(f"operation {operation.id}: another incarnation works on it")
    saved = get_operation(tx, operation.id)
    if saved is None:
        raise Superseded(f"operation {operation.id} is gone")
    return saved


def set_ending(tx: Tx, operation_id: str, ending: OperationState) -> None:
    """What it becomes when it is taken back. Only its keeper writes this, beside whoever runs it."""
    tx.execute("UPDATE operations SET ending = ?, version = version + 1 WHERE id = ?", (ending.value, operation_id))


def is_cancelled(tx: Tx, operation_id: str) -> bool:
    """Whether an operator wants it taken back."""
    wanted = OperationState.CANCELLED.value
    return bool(tx.execute("SELECT 1 FROM operations WHERE id = ? AND ending = ?", (operation_id, wanted)))


def save_step(tx: Tx, operation: Operation, step: StepRecord) -> None:
    """Raises ``Superseded``: as ``save_operation``."""
    rows = tx.execute(
        "UPDATE operation_steps SET state = ?, attempts = ?, data = ?, output = ?, error = ?, started_at = ?, "
        "finished_at = ? WHERE operation_id = ? AND position = ? "
        "AND EXISTS (SELECT 1 FROM operations WHERE id = ? AND run = ?) "
        "RETURNING position",
        (
            step.state.value,
            step.attempts,
            json.dumps(step.data),
            step.output,
            step.error,
            to_micros(step.started_at),
            to_micros(step.finished_at),
            operation.id,
            step.position,
            operation.id,
            operation.run,
        ),
    )
    if not rows:
        raise Superseded(f"operation {operation.id}: another incarnation works on it")


def unfinished(tx: Tx) -> list[Operation]:
    """Those that were queued or running when the controller ended, oldest first."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM operations WHERE state IN ('queued', 'running') ORDER BY created_at, id"  # noqa: S608
    )
    return _with_steps(tx, rows)


def list_operations(
    tx: Tx,
    *,
    states: Iterable[OperationState] = (),
    kind: str = "",
    target_id: str = "",
    parent: str = "",
    before: str = "",
    limit: int = 100,
) -> list[Operation]:
    """Newest first; ``before`` is the id of one, unknown ids are as none."""
    where, params = ["1 = 1"], list[Value]()
    wanted = [state.value for state in states]
    if wanted:
        where.append(f"state IN ({', '.join('?' * len(wanted))})")
        params += wanted
    for column, value in (("kind", kind), ("target_id", target_id), ("parent", parent)):
        if value:
            where.append(f"{column} = ?")
            params.append(value)
    if before:
        found = tx.execute("SELECT created_at, id FROM operations WHERE id = ?", (before,))
        if found:
            where.append("(created_at < ? OR (created_at = ? AND id < ?))")
            params += [found[0][0], found[0][0], found[0][1]]
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM operations WHERE {' AND '.join(where)} "  # noqa: S608
        "ORDER BY created_at DESC, id DESC LIMIT ?",
        (*params, limit),
    )
    return _with_steps(tx, rows)


def being_removed(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """Of these nodes or relays, those that are being taken off their machines, with the operation that does it."""
    found: dict[str, str] = {}
    for target_id in ids:
        for (operation_id,) in tx.execute(
            "SELECT id FROM operations WHERE target_id = ? AND kind IN ('node.remove', 'relay.remove') "
            "AND state IN ('queued', 'running')",
            (target_id,),
        ):
            found[target_id] = operation_id
    return found


@dataclass(frozen=True, slots=True)
class Done:
    """Of an operation that was done, what says whether it overtook another one."""

    id: str
    kind: str
    params: Mapping[str, Any]
    finished_at: float


def done_since(tx: Tx, kinds: Sequence[str], *, since: float) -> list[Done]:
    """Those of ``kinds`` that were done after ``since`` (epoch seconds), newest first. There may be very many."""
    rows = tx.execute(
        f"SELECT id, kind, params, finished_at FROM operations WHERE state = ? AND finished_at > ? "  # noqa: S608
        f"AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY finished_at DESC, id DESC",
        (OperationState.DONE.value, to_micros(since), *kinds),
    )
    return [Done(row[0], row[1], json.loads(row[2]), row[3] / 1e6) for row in rows]


def delete_finished(tx: Tx, *, before: float, keep: int) -> int:
    """Deletes those that are over since before ``before`` (epoch seconds), but the newest ``keep``. Returns how many."""
    finals = sorted(state.value for state in FINAL)
    rows = tx.execute(
        f"DELETE FROM operations WHERE state IN ({', '.join('?' * len(finals))}) AND finished_at < ? AND id NOT IN "  # noqa: S608
        "(SELECT id FROM operations ORDER BY created_at DESC, id DESC LIMIT ?) RETURNING id",
        (*finals, to_micros(before), keep),
    )
    return len(rows)


def _with_steps(tx: Tx, rows: Sequence[Row]) -> list[Operation]:
    steps: dict[str, list[StepRecord]] = {row[0]: [] for row in rows}
    for part, marks in in_lists(list(steps)):
        found = tx.execute(
            f"SELECT {_STEP_COLUMNS} FROM operation_steps WHERE operation_id IN ({marks}) ORDER BY position",  # noqa: S608
            part,
        )
        for row in found:
            steps[row[0]].append(_step(row))
    return [_operation(row, tuple(steps[row[0]])) for row in rows]


def _values(o: Operation) -> list[Value]:
    return [
        o.id,
        o.kind,
        o.target_type,
        o.target_id,
        json.dumps(o.params),
        json.dumps(o.data),
        o.state.value,
        o.direction.value,
        o.ending.value,
        o.error,
        o.error_type,
        o.remedy,
        json.dumps(o.needs),
        json.dumps(o.notes),
        o.actor,
        o.actor_kind,
        o.source_ip,
        o.parent,
        o.run,
        o.version,
        to_micros(o.created_at),
        to_micros(o.started_at),
        to_micros(o.finished_at),
        to_micros(o.updated_at),
    ]


def _step_values(operation_id: str, step: StepRecord) -> list[Value]:
    return [
        operation_id,
        step.position,
        step.name,
        step.title,
        step.state.value,
        step.attempts,
        json.dumps(step.data),
        step.output,
        step.error,
        to_micros(step.started_at),
        to_micros(step.finished_at),
    ]


def _operation(row: Row, steps: tuple[StepRecord, ...]) -> Operation:
    named: dict[str, Any] = dict(zip(_COLUMNS.split(", "), row, strict=True))
    for name in ("params", "data"):
        named[name] = json.loads(named[name])
    for name in ("needs", "notes"):
        named[name] = tuple(json.loads(named[name]))
    for name in ("created_at", "started_at", "finished_at", "updated_at"):
        named[name] /= 1e6
    named |= {
        "state": OperationState(named["state"]),
        "direction": Direction(named["direction"]),
        "ending": OperationState(named["ending"]),
    }
    return Operation(**named, steps=steps)


def _step(row: Row) -> StepRecord:
    return StepRecord(
        position=row[1],
        name=row[2],
        title=row[3],
        state=StepState(row[4]),
        attempts=row[5],
        data=json.loads(row[6]),
        output=row[7],
        error=row[8],
        started_at=row[9] / 1e6,
        finished_at=row[10] / 1e6,
    )
