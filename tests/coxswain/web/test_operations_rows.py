"""What the list and the page of operations say of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from actors.tree import operation_kinds
from coxswain.api.areas.operations import operation_view
from coxswain.operations import Operation, OperationState, StepRecord, StepState
from coxswain.operations.model import Direction
from coxswain.web.pages.operations import names_of_targets
from coxswain.web.render import in_words, render


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


def shown(**given: Any) -> tuple[str, str]:
    steps = (StepRecord(0, "host", "connect", StepState.DONE), StepRecord(1, "take", "take it in", StepState.FAILED))
    view = operation_view(Operation("op_1", "node.add", state=OperationState.FAILED, error="it broke", steps=steps, **given))
    view |= {"overtaken_by": ""}
    row = render("_operations.html", {"operations": [view], "names": {}}).decode()
    return row, render("_operation.html", {"o": view, "names": {}}).decode()


def test_a_failure_says_which_step_of_how_many_and_what_retry_and_cancel_do() -> None:
    row, page = shown()
    assert "2 of 2" in row
    assert "Retry goes on at the step that failed. Cancel takes back" in page
    _, page = shown(direction=Direction.BACK)
    assert "It could not be taken back. Retry goes on with that." in page


def test_what_is_not_in_the_inventory_yet_has_the_name_that_it_will_have() -> None:
    row, page = shown(params={"name": "fra-new", "named": True})
    assert "fra-new" in row and "fra-new" in page
    assert "Named" not in page


def test_what_is_gone_from_the_inventory_has_the_name_that_it_had() -> None:
    def row(key: str, target: str, state: str, **params: str) -> dict[str, Any]:
        return {"id": key, "target_id": target, "state": state, "params": params}

    rows = [
        row("op_1", "pth_gone", "done", name="over-the-sea"),
        row("op_2", "pth_there", "done", name="as it was called then"),
        row("op_3", "rly_never", "undone", name="lighthouse"),
        row("op_4", "192.0.2.7", "failed", name="fra-host", ssh_host="192.0.2.7"),
        row("op_5", "nod_archive_silent", "done", name="fra-1"),
        row("op_6", "", "done"),
        row("op_7", "dev_nameless", "done", path_id="pth_gone"),
    ]
    found = names_of_targets(rows, {"pth_there": "renamed since"})
    assert found == {
        "pth_gone": "over-the-sea (removed)",
        "rly_never": "lighthouse",
        "192.0.2.7": "fra-host (192.0.2.7)",
        "nod_archive_silent": "fra-1",
    }
    view = operation_view(Operation("op_1", "path.add", target_type="path", target_id="pth_gone")) | {"overtaken_by": ""}
    shown_row = render("_operations.html", {"operations": [view], "names": found}).decode()
    assert '<span title="pth_gone">over-the-sea (removed)</span>' in shown_row, "and leads nowhere"


def test_what_failed_and_what_to_do_are_two_sentences() -> None:
    view = operation_view(Operation("op_1", "node.add", state=OperationState.FAILED, error="it broke", remedy="Mend it."))
    page = render("_operation.html", {"o": view | {"overtaken_by": ""}, "names": {}}).decode()
    assert "it broke. Mend it." in page


def test_an_operation_that_another_one_names_is_one_click_away() -> None:
    nodes = [{"node_id": "nod_1", "server_id": "srv_1", "name": "fra-1"}]
    rollout = Operation(
        "op_1", "rollout", target_type="fleet", target_id="rollout", state=OperationState.FAILED, params={"nodes": nodes},
        error="1 <of> 1 failed", remedy="See: cox operations show op_abcdefghijklmnop. Then retry.",
    )  # fmt: skip
    view = operation_view(rollout) | {"overtaken_by": ""}
    page = render("_operation.html", {"o": view, "names": {"nod_1": "fra-1"}}).decode()
    assert 'show <a href="/operations/op_abcdefghijklmnop">op_abcdefghijklmnop</a>. Then' in page
    assert "1 &lt;of&gt; 1 failed. See" in page
    assert '<a href="/nodes/nod_1">fra-1</a>' in page and "srv_1" not in page
    row = render("_operations.html", {"operations": [view], "names": {}}).decode()
    assert 'fleet<span class="under">1 node</span>' in row


def test_each_kind_is_said_in_words(tmp_path: Path) -> None:
    for kind in operation_kinds(cast("Any", None), tmp_path):
        assert in_words(kind) != kind
