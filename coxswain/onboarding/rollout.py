"""``rollout``: an upgrade of many agents: a few canaries, then batches, each proven before the next one begins.

It does nothing on hosts by itself: each node is an operation of its own (``node.update``), which proves its link and puts
the previous agent back when that fails. A batch in which one failed is the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coxswain.errors import InvalidInput, NodeFailure, NotFound
from coxswain.messages import fleet
from coxswain.messages import operations as m
from coxswain.operations import Kind, Operation, OperationState, Step, Work
from coxswain.operations.model import FINAL
from coxswain.words import counted

__all__ = ["plan_batches", "rollout_kind"]

_BATCH_S = 3_600.0
_MAX_NODES = 10_000


def plan_batches(nodes: Sequence[Any], canary: int, batch: int) -> list[list[Any]]:
    """The first ``canary`` nodes, then ``batch`` at a time."""
    first = [list(nodes[:canary])] if canary else []
    rest = list(nodes[canary:])
    return first + [rest[i : i + batch] for i in range(0, len(rest), batch)]


def rollout_kind() -> Kind:
    """Params: ``nodes`` (list of ``{node_id, server_id, name}``), ``canary``, ``batch``, ``source``, ``force``,
    ``left_out`` (names).
    """
    return Kind(
        name="rollout",
        steps=_steps,
        check=_check,
        target=lambda _params, _data: ("fleet", "rollout"),
        locks=lambda _params: ("rollout",),
        light=True,
    )


def _check(params: Mapping[str, Any]) -> dict[str, Any]:
    nodes, canary, batch = params.get("nodes") or [], int(params.get("canary", 1)), int(params.get("batch", 5))
    if not 1 <= len(nodes) <= _MAX_NODES:
        raise InvalidInput(
            f"nodes: {len(nodes)} are not within 1 to {_MAX_NODES}; nodes on known machines are, if not stopped"
        )
    if canary < 0 or batch < 1:
        raise InvalidInput(f"canary, batch: {canary} and {batch}; canary is at least 0, and a batch at least 1")
    return {
        "nodes": list(nodes),
        "canary": canary,
        "batch": batch,
        "source": params["source"],
        "force": bool(params.get("force")),
        "left_out": list(params.get("left_out") or ()),
    }


def _steps(params: Mapping[str, Any]) -> list[Step]:
    steps: list[Step] = []
    for number, nodes in enumerate(plan_batches(params["nodes"], params["canary"], params["batch"])):
        canary = number == 0 and params["canary"]
        name = "canary" if canary else f"batch-{number if params['canary'] else number + 1}"
        names = ", ".join(node["name"] for node in nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        title = f"upgrade {'the canary' if canary else 'a batch'}: {names}"
        steps.append(Step(name, title, _upgrade(nodes), _roll_back(nodes, last=not steps), deadline_s=_BATCH_S))
    return steps


def _upgrade(nodes: Sequence[Mapping[str, Any]]) -> Any:
    def do(work: Work) -> None:
        p = work.params
        stands = {node["node_id"]: _left_out(work, node) for node in nodes}
        running = [node for node in nodes if not stands[node["node_id"]]]
        params = {"source": p["source"], "force": p["force"], "or_newer": True}
        over = _all_over(work, [_begin(work, "node.update", {**node, **params}, retry=True) for node in running])
        failed = [o for o in over if o.state is not OperationState.DONE and not o.overtaken_by]
        if failed:
            first = failed[0]
            raise NodeFailure(
                f"{len(failed)} of {len(nodes)} were not upgraded, and the rollout stopped; {first.params.get('name')}: "
                f"{first.error or first.state.value}",
                remedy=f"See: cox operations show {first.id}. Then retry the rollout, or cancel it to roll all of it back.",
            )
        other = [o for o in over if o.overtaken_by or o.data.get("newer")]
        same = [o for o in over if o.data.get("unchanged") and o not in other]
        work.say(f"{len(over) - len(same) - len(other)} upgraded")
        why = {
            "that agent is there and runs": [str(o.params.get("name")) for o in same],
            "they have another or a newer one by now": [str(o.params.get("name")) for o in other],
            "they were stopped since the rollout began": [n["name"] for n in nodes if stands[n["node_id"]] == "stopped"],
            "they were removed since": [n["name"] for n in nodes if stands[n["node_id"]] == "gone"],
            "they are stopped": list(p.get("left_out") or ()) if nodes[-1] == p["nodes"][-1] else [],
        }
        for reason, names in why.items():
            if names:
                work.say(f"not upgraded, as {reason}: {', '.join(names)}")

    return do


def _left_out(work: Work, node: Mapping[str, Any]) -> str:
    """Why a node is not to be upgraded any more; empty: it is."""
    try:
        view: fleet.NodeView = work.ask("fleet", fleet.GetNode(node["node_id"]))
    except NotFound:
        return "gone"
    return "" if view.node.enabled else "stopped"


def _roll_back(nodes: Sequence[Mapping[str, Any]], *, last: bool) -> Any:
    """``last``: no other batch is taken back after this one. So it is the one that fails, for all nodes that could not be
    rolled back: none of them keeps the others on an agent that nobody wants.
    """

    def undo(work: Work) -> None:
        mine = {str(node["node_id"]): None for node in nodes}
        if last:
            left = (o for o in _children(work, "node.rollback") if o.state is not OperationState.DONE)
            mine |= {str(o.params["node_id"]): None for o in left}
        children = [o for node_id in mine for o in _children(work, "node.update", node_id)]
        for child in children:
            if child.state not in FINAL:
                work.change("operations", m.CancelOperation(work.caller, child.id))
        back = [
            _begin(work, "node.rollback", {k: child.params[k] for k in ("node_id", "server_id", "name")}, retry=True)
            for child in _all_over(work, children)
            if child.state is OperationState.DONE and _is_its(work, child)
        ]
        failed = [o for o in _all_over(work, back) if o.state is not OperationState.DONE]
        if failed and last:
            raise NodeFailure(
                f"{counted(len(failed), 'node')} not rolled back; {failed[0].params.get('name')}: {failed[0].error}"
            )
        for each in failed:
            work.say(f"{each.params.get('name')}: not rolled back, and tried once more in the end: {each.error}")

    return undo


def _children(work: Work, kind: str, node_id: str = "") -> list[Operation]:
    """The operations on nodes that this one began, or those on one node; however many."""
    found: list[Operation] = []
    while True:
        before = found[-1].id if found else ""
        question = m.ListOperations(parent=work.id, kind=kind, target_id=node_id, before=before, limit=1_000)
        page: m.OperationsPage = work.ask("operations", question)
        found += page.operations
        if not page.more:
            return found


def _is_its(work: Work, child: Operation) -> bool:
    """Whether the agent on the host is the one that this upgrade put there; the one from before is of no use otherwise."""
    name = child.params.get("name")
    if not any("before" in step.data for step in child.steps):
        work.say(f"{name}: had that agent before")
        return False
    try:
        view: fleet.NodeView = work.ask("fleet", fleet.GetNode(str(child.params["node_id"])))
    except NotFound:
        work.say(f"{name}: is gone")
        return False
    if not view.node.enabled:
        work.say(f"{name}: is stopped, and would be started; it keeps its agent")
        return False
    for kind in ("node.add", "node.update", "node.rollback", "node.remove"):
        question = m.ListOperations(kind=kind, target_id=child.target_id, state=OperationState.DONE, limit=1)
        page: m.OperationsPage = work.ask("operations", question)
        if any(o.parent != work.id and o.finished_at > child.finished_at for o in page.operations):
            work.say(f"{name}: has another agent since ({page.operations[0].id}), and keeps it")
            return False
    return True


def _begin(work: Work, kind: str, params: Mapping[str, Any], *, retry: bool) -> Operation:
    """Starts a child, once; one that failed in an earlier attempt is tried again, if nobody did it otherwise since."""
    child: Operation = work.change("operations", m.StartOperation(work.caller, kind, params, parent=work.id))
    if child.state in FINAL and child.state is not OperationState.DONE:
        child = work.ask("operations", m.GetOperation(child.id))
    if retry and child.state in FINAL and child.state is not OperationState.DONE and not child.overtaken_by:
        child = work.change("operations", m.RetryOperation(work.caller, child.id))
    return child


def _all_over(work: Work, children: Sequence[Operation]) -> list[Operation]:
    def look() -> list[Operation]:
        found = [work.ask("operations", m.GetOperation(child.id)) for child in children]
        return found if all(o.state in FINAL for o in found) else []

    if not children:
        return []
    return work.wait_for(look, "the operations on the nodes", timeout=_BATCH_S - 60, every=0.3)
