"""The operation that has a path leave at another of its exits, everybody on it along with it.

The way is that of a device between two paths (``stages``): everything behind the node where both ways part is made ready,
that node changes over, what was left goes. The exits of a path never cross, so nothing stops in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coxswain.cascade.operations import check_patience, insist, needed_text, wait_for_nodes
from coxswain.cascade.types import Phase
from coxswain.errors import InvalidInput, NotFound
from coxswain.messages import exits as m
from coxswain.operations.kinds import Kind, OnFailure, Step, Work

__all__ = ["PATH_EXIT"]

_MORE_S = 20.0
"""On the way back, where giving up would leave the change in its middle."""

_MOST_REASON = 200


def _check(params: Mapping[str, Any]) -> dict[str, Any]:
    reason = params.get("reason", "")
    if not isinstance(reason, str) or len(reason) > _MOST_REASON:
        raise InvalidInput(f"reason: is no text of at most {_MOST_REASON} characters")
    return {
        "path_id": needed_text(params, "path_id"),
        "node_id": needed_text(params, "node_id"),
        "automatic": bool(params.get("automatic", False)),
        "reason": reason,
        "patience_s": check_patience(params),
    }


def _to(phase: Phase) -> Callable[[Work], None]:
    def do(work: Work) -> None:
        view = _view(work)
        if view.detour.phase is Phase.SETTLED and view.exit == work.params["node_id"]:
            work.say("it leaves there already")
            return
        _reach(work, phase)
        if phase is Phase.PREPARING:  # which is when it is known to be on its way there
            for note in _view(work).notes:
                work.say(f"! {note}")

    return do


def _back_to_preparing(work: Work) -> None:
    try:
        view = _view(work)
    except NotFound:
        return  # the path is gone
    if view.detour.phase is Phase.MOVED:
        _reach(work, Phase.PREPARING, back=True)


def _reach(work: Work, phase: Phase, *, back: bool = False) -> None:
    params = work.params
    insist(
        work,
        m.StageExit(work.caller, params["path_id"], params["node_id"], phase, params["reason"], params["automatic"]),
    )

    def look() -> bool:
        view = _view(work, back=back)
        return view.detour.phase is not phase or not view.waiting

    wait_for_nodes(work, look, lambda: "; ".join(_view(work, back=back).waiting), more_s=_MORE_S if back else 0.0)


def _settle(*, forward: bool) -> Callable[[Work], None]:
    def do(work: Work) -> None:
        params = work.params
        message = m.SettleExit(
            work.caller, params["path_id"], params["node_id"], forward, params["reason"], params["automatic"]
        )
        try:
            insist(work, message)
        except NotFound:
            if forward:
                raise

    return do


def _view(work: Work, *, back: bool = False) -> m.ExitView:
    view: m.ExitView = work.ask("fleet", m.GetExit(work.params["path_id"], back=back))
    return view


def _steps(params: Mapping[str, Any]) -> tuple[Step, ...]:
    deadline = params["patience_s"] + 30
    return (
        Step(
            "prepare",
            "make the way to the other exit ready",
            _to(Phase.PREPARING),
            _settle(forward=False),
            deadline_s=deadline,
        ),
        Step("move", "move the traffic", _to(Phase.MOVED), _back_to_preparing, deadline_s=deadline),
        Step("settle", "clear away what only the old exit needed", _settle(forward=True)),
    )


PATH_EXIT = Kind(
    name="path.exit",
    steps=_steps,
    check=_check,
    target=lambda params, _data: ("path", params["path_id"]),
    locks=lambda params: (f"path-exit:{params['path_id']}",),
    on_failure=OnFailure.UNDO,
    light=True,
)
