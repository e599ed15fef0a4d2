"""Operations on paths: one is built or taken back as a whole; a device's traffic is moved without being cut.

Their steps change what nodes should have and wait until those have acknowledged it; nobody but a node's link calls a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coxswain.cascade.health import said_of_down
from coxswain.cascade.resources import check_color
from coxswain.cascade.types import Phase
from coxswain.errors import DeadlineExceeded, InvalidInput, NotFound, StoreUnavailable
from coxswain.ids import new_id
from coxswain.messages import paths as m
from coxswain.messages.fleet import GetNode, NodeView
from coxswain.model import LinkState, NodeStatus
from coxswain.operations.kinds import Kind, OnFailure, Step, Work

__all__ = [
    "KINDS",
    "PATH_ADD",
    "PATH_PROVISION",
    "PATH_SWITCH",
    "check_patience",
    "insist",
    "needed_text",
    "wait_for_nodes",
]

PATIENCE_S = 45.0
"""For how long a stage waits for its nodes, unless it is told otherwise."""

_MORE_S = 20.0
"""On the way back, where giving up would leave the change in its middle."""

_MOST_PATIENCE_S = 3600.0

_NOT_THERE = frozenset({LinkState.CONNECTING, LinkState.BACKING_OFF})

_WELL_AGAIN = "See: cox nodes list. When the node is well again, repeat the command."
_GONE = "If it is gone, disable it (cox nodes disable) and repeat: then it is told when it returns."


# -- building a path


def _check_add(params: Mapping[str, Any]) -> dict[str, Any]:
    nodes = params.get("nodes")
    if not isinstance(nodes, list | tuple) or not all(isinstance(node, str) for node in nodes):
        raise InvalidInput("nodes: a list of nodes is needed, the entry first")
    fallbacks = params.get("fallbacks") or ()
    if not isinstance(fallbacks, list | tuple) or not all(isinstance(node, str) for node in fallbacks):
        raise InvalidInput("fallbacks: is no list of nodes")
    return {
        "path_id": params.get("path_id") or new_id("pth"),
        "name": needed_text(params, "name"),
        "nodes": list(nodes),
        "color": check_color(str(params.get("color") or "")),
        "fallbacks": list(fallbacks),
        "patience_s": check_patience(params),
    }


def _create(work: Work) -> None:
    params = work.params
    message = m.AddPath(
        work.caller,
        params["path_id"],
        params["name"],
        tuple(params["nodes"]),
        params["color"],
        tuple(params.get("fallbacks", ())),  # an operation of before a release that knows them has none
    )
    view: m.PathView = work.change("fleet", message)
    work.say(f"{' → '.join(view.nodes)}, {view.mtu} bytes for clients")


def _uncreate(work: Work) -> None:
    try:
        work.change("fleet", m.RemovePath(work.caller, work.params["path_id"]))
    except NotFound:
        work.say("the path is not there")


def _configure(work: Work) -> None:
    _until_in_place(work, lambda _view: [])


def _until_in_place(work: Work, lacking: Callable[[m.PathView], list[str]]) -> None:
    """``lacking``: what else has to be."""
    said: set[str] = set()

    def look() -> bool:
        view: m.PathView = work.ask("fleet", m.GetPath(work.params["path_id"]))
        for link in view.links:
            if link.active and link.link.id not in said:
                said.add(link.link.id)
                work.say(f"{link.entry}: inner link {link.link.interface} to {link.exit} is in place")
        return view.in_place and not lacking(view)

    def waiting() -> str:
        view: m.PathView = work.ask("fleet", m.GetPath(work.params["path_id"]))
        return "; ".join([link.waiting for link in view.links if link.waiting] or lacking(view) or _unwell(work, view))

    wait_for_nodes(work, look, waiting)


def _unwell(work: Work, view: m.PathView) -> list[str]:
    """What keeps a path from carrying whose links are all in place."""
    nodes: list[NodeView] = [work.ask("fleet", GetNode(node_id)) for node_id in view.path.route]
    ill = [f"{n.node.name} is not well: {n.link_reason}" for n in nodes if n.node.status is NodeStatus.ERROR]
    return [*ill, *said_of_down(view.links)]


PATH_ADD = Kind(
    name="path.add",
    steps=lambda params: (
        Step("create", "write the path down, with its links", _create, _uncreate),
        Step("configure", "have nodes configure their links", _configure, deadline_s=params["patience_s"] + 30),
    ),
    check=_check_add,
    target=lambda params, _data: ("path", params["path_id"]),
    locks=lambda params: (f"path:{params['name']}",),
    on_failure=OnFailure.UNDO,
    light=True,
)


def _check_provision(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"path_id": needed_text(params, "path_id"), "patience_s": check_patience(params)}


def _look_at(work: Work) -> None:
    work.ask("fleet", m.LookAtPath(work.params["path_id"]))


def _configure_again(work: Work) -> None:
    """What a node acknowledged is worth nothing while it is away: each that dials has to be there (fleet-model.md 6.5)."""

    def away(view: m.PathView) -> list[str]:
        dialling = view.path.route[:-1]
        nodes: list[NodeView] = [work.ask("fleet", GetNode(node_id)) for node_id in dialling]
        return [f"{n.node.name} is not connected: {n.link_reason}" for n in nodes if n.link_state in _NOT_THERE]

    _until_in_place(work, away)


PATH_PROVISION = Kind(
    name="path.provision",
    steps=lambda params: (
        Step("look", "have every node of the path looked at", _look_at),
        Step("configure", "wait until all links are in place", _configure_again, deadline_s=params["patience_s"] + 30),
    ),
    check=_check_provision,
    target=lambda params, _data: ("path", params["path_id"]),
    light=True,
)


# -- moving a device


def _check_switch(params: Mapping[str, Any]) -> dict[str, Any]:
    path_id = params.get("path_id", "")
    if not isinstance(path_id, str):
        raise InvalidInput("path_id: is not a text; the id of a path is needed, or an empty one for none")
    return {"device_id": needed_text(params, "device_id"), "path_id": path_id, "patience_s": check_patience(params)}


def _to(phase: Phase) -> Callable[[Work], None]:
    def do(work: Work) -> None:
        view = _binding(work)
        settled = view.phase is Phase.SETTLED
        if settled and view.route == work.params["path_id"]:
            work.say("it is there already")
        elif not settled and phase is not Phase.PREPARING and phase not in view.phases:
            work.say("nothing to do between these two routes")
        else:
            _reach(work, phase)

    return do


def _back_from(phase: Phase) -> Callable[[Work], None]:
    """Undoes a stage: to the one before it, and waits for it, because what comes next takes away what it stands on."""

    def undo(work: Work) -> None:
        try:
            view = _binding(work)
        except NotFound:
            return  # the device is gone, and its binding with it
        if view.phase is phase:
            earlier = [p for p in (Phase.PREPARING, *view.phases) if _ORDER.index(p) < _ORDER.index(phase)]
            _reach(work, earlier[-1], back=True)

    return undo


def _reach(work: Work, phase: Phase, *, back: bool = False) -> None:
    device_id, path_id = work.params["device_id"], work.params["path_id"]
    insist(work, m.StageBinding(work.caller, device_id, path_id, phase))

    def look() -> bool:
        view = _binding(work, back=back)
        return view.phase is not phase or not view.waiting

    wait_for_nodes(
        work,
        look,
        lambda: "; ".join(_binding(work, back=back).waiting),
        more_s=_MORE_S if back else 0.0,
        remedy=_WELL_AGAIN if path_id else f"{_WELL_AGAIN} {_GONE}",
    )


def _settle(*, forward: bool) -> Callable[[Work], None]:
    def do(work: Work) -> None:
        device_id, path_id = work.params["device_id"], work.params["path_id"]
        try:
            insist(work, m.SettleBinding(work.caller, device_id, path_id, forward))
        except NotFound:
            if forward:
                raise

    return do


_ORDER = (Phase.PREPARING, Phase.CROSSING, Phase.TURNING, Phase.MOVED)


def _switch_steps(params: Mapping[str, Any]) -> tuple[Step, ...]:
    deadline = params["patience_s"] + 30

    def stage(name: str, title: str, phase: Phase, undo: Callable[[Work], None]) -> Step:
        return Step(name, title, _to(phase), undo, deadline_s=deadline)

    return (
        stage("prepare", "make the new route ready", Phase.PREPARING, _settle(forward=False)),
        stage(
            "cross", "turn over nodes that both routes use: what they take in", Phase.CROSSING, _back_from(Phase.CROSSING)
        ),
        stage("turn", "turn over nodes that both routes use: where they send it", Phase.TURNING, _back_from(Phase.TURNING)),
        stage("move", "move the traffic", Phase.MOVED, _back_from(Phase.MOVED)),
        Step("settle", "clear away what only the old route needed", _settle(forward=True)),
    )


PATH_SWITCH = Kind(
    name="path.switch",
    steps=_switch_steps,
    check=_check_switch,
    target=lambda params, _data: ("device", params["device_id"]),
    locks=lambda params: (f"device-exit:{params['device_id']}",),
    on_failure=OnFailure.UNDO,
    light=True,
    overtaken_by=("path.switch",),  # what is stuck between two paths can be taken off both
)

KINDS = (PATH_ADD, PATH_PROVISION, PATH_SWITCH)


def _binding(work: Work, *, back: bool = False) -> m.BindingView:
    view: m.BindingView = work.ask("fleet", m.GetBinding(work.params["device_id"], back=back))
    return view


# -- what ``exit_operation`` uses as well


def insist(work: Work, message: object) -> None:
    """Has ``fleet`` change something. Where an answer is lost, nobody knows whether it was done; done twice, it is done
    once.
    """

    def attempt() -> bool:
        try:
            work.change("fleet", message)
        except StoreUnavailable as error:
            work.say(f"once more: {error}")
            return False
        return True

    work.wait_for(attempt, "the database", timeout=work.params["patience_s"])


def wait_for_nodes(
    work: Work, look: Callable[[], bool], waiting: Callable[[], str], *, more_s: float = 0.0, remedy: str = _WELL_AGAIN
) -> None:
    """Until ``look`` says so. Raises ``DeadlineExceeded`` with what ``waiting`` names."""
    patience = work.params["patience_s"] + more_s
    try:
        work.wait_for(look, "the nodes", timeout=patience)
    except DeadlineExceeded:
        raise DeadlineExceeded(
            f"after {patience:g} s: {waiting() or 'not all nodes have acknowledged it'}",
            remedy=remedy,
        ) from None


def needed_text(params: Mapping[str, Any], name: str) -> str:
    """Raises ``InvalidInput`` if it is none."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{name}: is missing")
    return value


def check_patience(params: Mapping[str, Any]) -> float:
    """Seconds. Raises ``InvalidInput``."""
    value = params.get("patience_s", PATIENCE_S)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST_PATIENCE_S:
        raise InvalidInput(f"patience_s: {str(value)[:40]} is not within 1 to {_MOST_PATIENCE_S:g} seconds")
    return float(value)
