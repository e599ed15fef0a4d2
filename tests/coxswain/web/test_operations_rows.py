"""What the list and the page of operations say of one."""

from __future__ import annotations

import pytest

from coxswain.api.areas.operations import operation_view
from coxswain.operations import Operation, OperationState, StepRecord, StepState
from coxswain.web.render import render


@pytest.mark.parametrize("overtaken_by", ["", "op_2"])
def test_a_failure_that_another_one_has_overtaken_alarms_nobody(overtaken_by: str) -> None:
    steps = (StepRecord(0, "host", "connect", StepState.FAILED),)
    failed = Operation("op_1", "node.add", state=OperationState.FAILED, error="it broke", steps=steps)
    view = operation_view(failed) | {"overtaken_by": overtaken_by}
    row = render("_operations.html", {"operations": [view], "names": {}}).decode()
    page = render("_operation.html", {"o": view, "names": {}}).decode()
    for text in (row, page):
        assert ("/operations/op_2" in text) is bool(overtaken_by)
        assert ("/api/operations/op_1/retry" in text) is not bool(overtaken_by)
        assert "/api/operations/op_1/cancel" in text
        assert ("take back what it has changed" in text) is not bool(overtaken_by)
    assert ("it broke" in row) is not bool(overtaken_by)
    assert "it broke" in page
