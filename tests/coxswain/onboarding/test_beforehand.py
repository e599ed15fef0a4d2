"""What is refused before an operation is begun; the journal is played by the test."""

from __future__ import annotations

from typing import Any

import pytest

from coxswain.errors import Conflict
from coxswain.messages.operations import ListOperations, OperationsPage
from coxswain.model import Node
from coxswain.onboarding.beforehand import check_rollback
from coxswain.operations import Operation, OperationState
from coxswain.operations.model import StepRecord

ADDED = Operation(
    "op_a",
    "node.add",
    target_id="nod_a",
    data={"agent_version": "v0.3.1"},
    state=OperationState.DONE,
    steps=(StepRecord(0, "agent", "install the agent", data={"before": ""}),),
)


def journal(_actor: str, message: Any) -> OperationsPage:
    assert isinstance(message, ListOperations)
    return OperationsPage((ADDED,) if message.kind == "node.add" else ())


def test_no_agent_from_before_is_known_for_certain_while_it_is_the_one_that_was_installed() -> None:
    with pytest.raises(Conflict, match="no previous agent"):
        check_rollback(journal, Node("nod_a", "a", agent_version="v0.3.1"))


def test_an_agent_that_the_journal_did_not_install_may_have_replaced_one() -> None:
    """As after a restore of a backup from before its upgrade."""
    check_rollback(journal, Node("nod_a", "a", agent_version="v0.4.0"))
