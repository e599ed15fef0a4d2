"""What other operations did on the same since one failed: it was overtaken, or is not the next to be taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coxswain.errors import Conflict
from coxswain.operations.kinds import Kind
from coxswain.operations.model import Operation, OperationState, StepState
from coxswain.store import Store
from coxswain.store import operations as rows

__all__ = ["Others"]

_STOPPED = (OperationState.FAILED, OperationState.WAITING)


class Others:
    """Reads the journal; the rules are those of ``Kind.overtaken_by``."""

    def __init__(self, store: Store, kinds: Mapping[str, Kind]) -> None:
        self._store = store
        self._kinds = kinds

    def check_last(self, kind: Kind, operation: Operation) -> None:
        """What another one found on the same, that began later and failed as well, is what this one left there. So that one
        is taken back first.

        Raises:
            Conflict: there is such a one.
        """
        if not kind.overtaken_by:
            return
        mine = set(kind.locks(operation.params))
        with self._store.read() as tx:
            others = rows.list_operations(tx, states=_STOPPED, limit=1_000)
        for other in others:  # the newest first
            if (other.created_at, other.id) <= (operation.created_at, operation.id):
                return
            its_kind = self._kinds.get(other.kind)
            touched = any(step.state is not StepState.PENDING for step in other.steps)
            if other.kind not in kind.overtaken_by or its_kind is None or not touched:
                continue
            if mine.intersection(its_kind.locks(other.params)) and self.overtaker(other) is None:
                raise Conflict(
                    f"operation {operation.id}: {other.id} ({other.kind}) began later on the same, and failed as well",
                    remedy=f"Take that one back first: cox operations cancel {other.id}",
                )

    def overtaker(self, operation: Operation) -> rows.Done | None:
        """See ``overtakers``."""
        return self.overtakers([operation]).get(operation.id)

    def overtakers(self, operations: Sequence[Operation]) -> dict[str, rows.Done]:
        """Of those that failed, by id: the one that was done on the same since, and is what counts now. The journal is read
        once for all of them.
        """
        asked = [(o, kind) for o in operations if o.state in _STOPPED and (kind := self._kinds.get(o.kind)) is not None]
        names = {name for _, kind in asked for name in kind.overtaken_by}
        if not names:
            return {}
        with self._store.read() as tx:
            since = rows.done_since(tx, sorted(names), since=min(o.updated_at for o, kind in asked if kind.overtaken_by))
        by_lock: dict[str, list[rows.Done]] = {}
        for other in since:
            its_kind = self._kinds.get(other.kind)
            for lock in its_kind.locks(other.params) if its_kind is not None else ():
                by_lock.setdefault(lock, []).append(other)
        found: dict[str, rows.Done] = {}
        for operation, kind in asked:
            later = [
                other
                for lock in kind.locks(operation.params)
                for other in by_lock.get(lock, ())
                if other.kind in kind.overtaken_by and other.finished_at > operation.updated_at
            ]
            if later:
                found[operation.id] = max(later, key=lambda other: (other.finished_at, other.id))
        return found
