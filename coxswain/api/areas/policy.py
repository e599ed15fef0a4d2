"""The network policy of nodes: what it would be as commands, and pushing it by itself (management-plane.md 3.2, 3.5)."""

from __future__ import annotations

import dataclasses
from typing import Any

from coxswain.api.bodies import Body
from coxswain.api.call import NODE_S, Call
from coxswain.api.route import Route, Scope
from coxswain.api.schema import BOOL, INT, TEXT, array, obj, shape
from coxswain.errors import CoxswainError
from coxswain.messages import fleet, links
from coxswain.model import NetworkPolicy
from coxswain.netpolicy import Policy, Transit, check, render
from coxswain.wire import validate
from coxswain.words import counted

__all__ = ["ROUTES"]

RULES = shape(
    "Rules", obj({"pre_up": array(TEXT), "post_up": array(TEXT), "post_down": array(TEXT)}, {"notes": array(TEXT)})
)
"""The exact commands of an agent, in order (node-contract.md 7.3); ``%i`` is its client interface, ``%e`` the way out.

``notes``: of a node, what of them its own settings do not say.
"""

_TRANSIT = obj({"device_cidr": TEXT, "inner_interface": TEXT, "mark": INT, "table": INT})


def _preview(call: Call) -> Any:
    body = call.body
    given = {name: body.get(name, bool) for name in ("forwarding", "masquerade", "isolation")}
    forwarding, masquerade, isolation = map(bool, given.values())
    found = Policy(forwarding, masquerade, isolation, _transits(body))
    node = body.get("node", str)
    notes = {}
    if node is not None:
        intent: fleet.Intent = call.ask("fleet", fleet.GetIntent(call.node(node).id))
        said = {name: value for name, value in given.items() if value is not None}
        policy = dataclasses.replace(intent.node.policy, **said)
        found = _with_transits(policy, found.transits or intent.cascade.transits)
        notes = {"notes": _notes(policy, found)}
    rules = render(check(found))
    return {"pre_up": list(rules.pre_up), "post_up": list(rules.post_up), "post_down": list(rules.post_down)} | notes


def _with_transits(policy: NetworkPolicy, transits: tuple[Transit, ...]) -> Policy:
    """They need forwarding (fleet-model.md 6.6)."""
    return Policy(policy.forwarding or bool(transits), policy.masquerade, policy.isolation, transits)


def _notes(policy: NetworkPolicy, found: Policy) -> list[str]:
    notes = []
    if found.forwarding and not policy.forwarding:
        notes.append("forwarding is off in its settings, and on all the same while paths lead on from here")
    if found.transits:
        addresses = counted(len(found.transits), "address", "addresses")
        links = counted(len({transit.mark for transit in found.transits}), "link")
        notes.append(
            f"{addresses} on {links}: said here for each address, as the contract has it; agents of ours keep one rule and "
            "one routing table for each link"
        )
    return notes


def _transits(body: Body) -> tuple[Transit, ...]:
    return tuple(_transit(found, f"transits[{position}]") for position, found in enumerate(body.objects("transits")))


def _transit(found: Body, where: str) -> Transit:
    transit = Transit(
        validate.cidr(f"{where}.device_cidr", found.need("device_cidr", str)),
        validate.interface(f"{where}.inner_interface", found.need("inner_interface", str)),
        validate.uint32(f"{where}.mark", found.need("mark", int)),
        validate.uint32(f"{where}.table", found.need("table", int)),
    )
    found.done()
    return transit


def _push(call: Call) -> Any:
    node = call.node()
    try:
        outcome: links.PolicyOutcome = call.ask(f"node_link:{node.id}", links.PushPolicy(), NODE_S)
    except CoxswainError as error:
        call.change("fleet", fleet.RecordPush(call.caller, node.id, error=str(error), action="node.push-policy"))
        raise
    call.change("fleet", fleet.RecordPush(call.caller, node.id, action="node.push-policy"))
    return {
        "forwarding": outcome.forwarding,
        "masquerade": outcome.masquerade,
        "isolation": outcome.isolation,
        "transits": outcome.transits,
        "applied": True,
    }


ROUTES = (
    Route(
        "POST",
        "/api/network-policy/preview",
        Scope.READONLY,
        "The exact commands that a policy becomes on a node; with a node, what that one has is filled in.",
        _preview,
        returns=RULES,
        body=obj({}, {"forwarding": BOOL, "masquerade": BOOL, "isolation": BOOL, "transits": array(_TRANSIT), "node": TEXT}),
        also=(404,),
    ),
    Route(
        "POST",
        "/api/nodes/{key}/push-policy",
        Scope.ADMIN,
        "Puts a node's network policy in force again, with its transits.",
        _push,
        audit="node.push-policy",
        target="node",
        returns=obj({"forwarding": BOOL, "masquerade": BOOL, "isolation": BOOL, "transits": INT, "applied": BOOL}),
        also=(404, 502),
        waits_for_node=True,
    ),
)
