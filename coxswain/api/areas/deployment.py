"""What is done to agents on their machines: upgrade, rollout, rollback, renewal, start, stop, removal."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.areas.nodes import NODE
from coxswain.api.areas.servers import sources
from coxswain.api.call import Call
from coxswain.api.route import Route, Scope
from coxswain.api.schema import BOOL, INT, TEXT, array, limited, nullable, obj
from coxswain.api.waiting import run_operation
from coxswain.errors import Conflict
from coxswain.inventory import check_runs
from coxswain.messages import fleet
from coxswain.model import Node
from coxswain.onboarding.beforehand import check_rollback
from coxswain.operations import Operation

__all__ = ["ROUTES"]

_SOURCE = {"binary_path": TEXT, "url": TEXT, "sha256": TEXT, "force": BOOL}
_SEEN = {"version": nullable(INT)}
"""Of the node; see ``Call.seen``."""


_RESTARTS = ("node.update", "node.rollback", "node.renew")
"""They start the agent, and prove its link."""


def _on_machine(call: Call) -> Node:
    node = call.node()
    if not node.server_id:
        raise Conflict(
            f"node {node.name}: it is on no machine that this controller can log in to",
            remedy=f"Do it on the host, or say on which machine it is: cox servers add, cox nodes edit {node.name} --server",
        )
    return node


def _about(node: Node) -> dict[str, Any]:
    return {"node_id": node.id, "server_id": node.server_id, "name": node.name}


def _source(call: Call) -> dict[str, str]:
    body = call.body
    given = {"path": body.get("binary_path", str), "url": body.get("url", str), "sha256": body.get("sha256", str)}
    return sources(call).node(given).as_params()


def _run(call: Call, kind: str, **params: Any) -> Any:
    node = _on_machine(call)
    if kind in _RESTARTS:
        check_runs(node)
    if kind == "node.rollback":
        check_rollback(call.ask, node)
    gone = kind == "node.remove"
    if gone:
        call.ask("fleet", fleet.CheckNodeUnused(node.id))  # refused at once, and not by an operation
    last = views.node(call.view(), None) if gone else {}

    def render(_operation: Operation) -> Any:
        return last if gone else views.node(call.view(node.id), None)

    return run_operation(call, kind, _about(node) | params, render, seen=call.seen("node", node.id, node.name))


def _update(call: Call) -> Any:
    _on_machine(call)  # 404 and 409 before what is said of the program: a caller is told of the node that it named
    return _run(call, "node.update", source=_source(call), force=call.body.get("force", bool) or False)


def _rollout(call: Call) -> Any:
    body = call.body
    keys = body.texts("nodes")
    views_: list[fleet.NodeView] = call.ask("fleet", fleet.ListNodes())
    on_machines = [v.node for v in views_ if v.node.server_id]
    left_out = [node.name for node in on_machines if not node.enabled] if keys is None else []
    nodes = [node for node in on_machines if node.enabled] if keys is None else [call.node(key) for key in keys]
    without = [node.name for node in nodes if not node.server_id]
    if without:
        raise Conflict(f"nodes: {', '.join(without[:5])} are on no machine that this controller can log in to")
    for node in nodes:
        check_runs(node)
    canary, batch = body.get("canary", int), body.get("batch", int)
    params = {
        "nodes": [_about(node) for node in nodes],
        "canary": 1 if canary is None else canary,
        "batch": batch or 5,
        "source": _source(call),
        "force": body.get("force", bool) or False,
        "left_out": left_out,
    }
    return run_operation(call, "rollout", params, lambda operation: {"operation_id": operation.id, "upgraded": len(nodes)})


def _action(path: str, kind: str, summary: str, audit: str) -> Route:
    return Route(
        "POST",
        f"/api/nodes/{{key}}/{path}",
        Scope.ADMIN,
        summary,
        lambda call: _run(call, kind),
        audit=audit,
        target="node",
        returns=NODE,
        also=(202, 502, 503),
        body=obj({}, _SEEN),
        waits_for_node=True,
    )


ROUTES = (
    Route(
        "POST",
        "/api/nodes/{key}/update-agent",
        Scope.ADMIN,
        "Upgrades the agent; the previous one comes back if its link does not come up.",
        _update,
        audit="node.update-agent",
        target="node",
        returns=NODE,
        also=(202, 502, 503),
        body=obj({}, _SOURCE | _SEEN),
        waits_for_node=True,
    ),
    _action("rollback", "node.rollback", "Puts the agent back that the last upgrade replaced.", "node.rollback"),
    _action("renew", "node.renew", "Issues and pushes a new certificate, and restarts the agent.", "node.renew"),
    Route(
        "POST",
        "/api/nodes/{key}/guard",
        Scope.ADMIN,
        "Limits who reaches the control port to what node.control_from says; taken back if this controller does not.",
        lambda call: _run(call, "node.guard", control_from=list(call.services.setting("node.control_from"))),
        audit="node.guard",
        target="node",
        returns=NODE,
        also=(202, 502, 503),
        body=obj({}, _SEEN),
        waits_for_node=True,
    ),
    _action("start", "node.start", "Starts the agent's service and holds a link to it.", "node.start"),
    _action("stop", "node.stop", "Closes the link and stops the agent's service.", "node.stop"),
    _action("remove", "node.remove", "Takes clients off, removes the agent from its machine and the node.", "node.remove"),
    Route(
        "POST",
        "/api/rollouts",
        Scope.ADMIN,
        "Upgrades many agents: canaries first, then batches; stops at the first batch in which one fails.",
        _rollout,
        audit="rollout",
        target="fleet",
        returns=obj({"operation_id": TEXT, "upgraded": INT}),
        also=(202, 404, 409, 502, 503),
        body=obj({}, {"nodes": array(TEXT), "canary": limited(0, 1_000), "batch": limited(1, 1_000)} | _SOURCE),
        waits_for_node=True,
    ),
)
