"""What a rollout of thousands finds of what it did, when it is taken back; the journal is played by the test."""

from __future__ import annotations

from typing import Any

import pytest

from coxswain.errors import NotFound
from coxswain.messages import operations as m
from coxswain.onboarding.rollout import rollout_kind
from coxswain.operations import Operation, OperationState
from coxswain.operations.model import StepRecord

NODES = 2_500


class Played:
    """A rollout whose nodes are all gone by now; each had been upgraded, and the rollback of some did not succeed."""

    id = "op_rollout"

    def __init__(self, not_rolled_back: set[int]) -> None:
        self.said: list[str] = []
        steps = (StepRecord(0, "switch", "switch", data={"before": "digest"}),)
        upgraded = [self._child("node.update", i, OperationState.DONE, steps) for i in range(NODES)]
        back = [
            self._child("node.rollback", i, OperationState.FAILED if i in not_rolled_back else OperationState.DONE)
            for i in range(NODES)
        ]
        self._newest_first = [*back, *upgraded]

    def _child(self, kind: str, number: int, state: OperationState, steps: tuple[StepRecord, ...] = ()) -> Operation:
        name = f"n{number}"
        params = {"node_id": f"nod_{number}", "name": name}
        return Operation(f"op_{kind}_{number}", kind, "node", f"nod_{number}", params, state=state, steps=steps)

    def ask(self, _actor: str, message: Any) -> Any:
        if isinstance(message, m.GetOperation):
            return next(o for o in self._newest_first if o.id == message.id)
        if not isinstance(message, m.ListOperations):
            raise NotFound("no such node")
        assert message.parent == self.id and message.limit <= 1_000
        ids = [o.id for o in self._newest_first]
        older = self._newest_first[ids.index(message.before) + 1 if message.before else 0 :]
        found = [o for o in older if o.kind == message.kind and message.target_id in ("", o.target_id)]
        return m.OperationsPage(tuple(found[: message.limit]), len(found) > message.limit)

    def wait_for(self, look: Any, _what: str, *, timeout: float, every: float) -> Any:
        assert timeout > every > 0
        return look()

    def say(self, text: str) -> None:
        self.said.append(text.partition(":")[0])


@pytest.mark.parametrize("step", [0, 1, 249])
def test_what_was_done_first_is_found_however_much_came_after_it(step: int) -> None:
    """And the batch that is taken back last has what is left of all others."""
    nodes = [{"node_id": f"nod_{i}", "server_id": "srv", "name": f"n{i}"} for i in range(NODES)]
    batch = rollout_kind().steps({"nodes": nodes, "canary": 0, "batch": 10, "source": {}, "force": False})
    work: Any = Played({1_234, 2_499})
    undo = batch[step].undo
    assert undo is not None
    undo(work)
    first = step * 10
    left = ["n1234", "n2499"] if step == 0 else []
    assert sorted(work.said) == sorted([*(f"n{i}" for i in range(first, first + 10)), *left])
