"""Whether a path should leave at another of its exits. Pure.

What is known of a node comes and goes, so nothing is decided by one look: an exit has to have been bad for a while, and well
for a while before it counts as well again (``watch``). A path is moved only where the move can be carried out and helps: all
that the other way needs has to be well. So a controller that is cut off itself, and sees nobody, moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from coxswain.cascade.health import LinkHealth
from coxswain.cascade.types import Path, Phase
from coxswain.model import LinkState, Node, NodeStatus

__all__ = ["AT_ONCE", "Move", "Rules", "Standing", "Watched", "decide", "paced", "standing", "unfinished", "watch"]

AT_ONCE = 4
"""Paths that change their exit at the same time."""

_MOVE_S = 600.0
"""Longer than a move takes with the patience that it has, way back included. One that is not over by then, and that no
operation carries out any more, ended in its middle, because neither it nor its way back could be carried out.
"""

_SETTLED_S = 60.0
"""For how long a node has to have been well to be called so, if nothing shorter is asked for."""


class Standing(Enum):
    """How an exit looks just now. ``CONTESTED``: it answers, and another controller that pushes to it as well may undo what
    it is told. ``UNSURE``: what was thought of it still goes. ``AWAY``: an operator switched it off.
    """

    WELL = auto()
    CONTESTED = auto()
    UNSURE = auto()
    BAD = auto()
    AWAY = auto()


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered of one exit of one path. Epoch seconds; 0: not so. ``reason``: why it is bad. ``is_bad``,
    ``is_contested``: it was at the last look.
    """

    bad_since: float = 0.0
    well_since: float = 0.0
    reason: str = ""
    is_bad: bool = False
    is_contested: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds. ``after_s``: for how long an exit has to be bad. ``back_after_s``: for how long a path's own one has to be
    well until it is used again; 0: an operator says when.
    """

    after_s: float = 180.0
    back_after_s: float = 0.0

    @property
    def settled_s(self) -> float:
        return min(_SETTLED_S, self.after_s)


@dataclass(frozen=True, slots=True)
class Move:
    """To the exit ``node_id``. Empty: there is a reason to move, and nowhere to go."""

    path_id: str
    node_id: str
    reason: str
    since: float


def standing(node: Node, link_state: LinkState | None, link: LinkHealth, *, contested: bool = False) -> tuple[Standing, str]:
    """How an exit looks, and why that is bad.

    Args:
        node: the exit. It is called unreachable after three missed polls, not after one.
        link_state: of the controller's link to it; None: not known yet.
        link: the inner link that leads to it.
        contested: if it is degraded, then only because another controller pushes to it as well.
    """
    if not node.enabled:
        return Standing.AWAY, f"{node.name} is disabled"
    if node.status is NodeStatus.UNREACHABLE and link_state is not LinkState.LIVE:
        return Standing.BAD, f"{node.name} is unreachable"
    if link is LinkHealth.DOWN:
        return Standing.BAD, f"the link to {node.name} is down"
    if node.status is NodeStatus.ACTIVE and link_state is LinkState.LIVE:
        return Standing.WELL, ""
    if node.status is NodeStatus.ACTIVE and link_state is LinkState.DEGRADED and contested:
        return Standing.CONTESTED, ""
    return Standing.UNSURE, ""


def watch(before: Watched, now_is: tuple[Standing, str], now: float, rules: Rules) -> Watched:
    """One more look."""
    found, reason = now_is
    if found is Standing.BAD:
        return Watched(before.bad_since or now, 0.0, reason, is_bad=True)
    if found in (Standing.WELL, Standing.CONTESTED):
        since = before.well_since or now
        bad_since = before.bad_since if now - since < rules.settled_s else 0.0
        return Watched(bad_since, since, before.reason, is_contested=found is Standing.CONTESTED)
    if found is Standing.AWAY:
        return Watched()
    return Watched(before.bad_since, 0.0, before.reason)


def decide(path: Path, watched: Mapping[str, Watched], usable: Iterable[str], rules: Rules, now: float) -> Move | None:
    """What should become of a path that is settled; None: it stays.

    Args:
        path: with its fallbacks.
        watched: its exits, by node id.
        usable: exits that the path could be led to now: nodes before them acknowledge, links stand.
        rules: how patient to be.
        now: epoch seconds.
    """
    if not path.fallbacks or path.detour.phase is not Phase.SETTLED:
        return None
    fit = {node_id for node_id in usable if _well_for(watched.get(node_id), now) >= rules.settled_s}
    here = path.route[-1]
    seen = watched.get(here, Watched())
    if seen.is_bad and now - seen.bad_since >= rules.after_s:
        others = [node_id for node_id in (path.exit, *path.fallbacks) if node_id in fit and node_id != here]
        to = min(others, key=lambda node_id: watched[node_id].is_contested, default="")
        return Move(path.id, to, seen.reason, seen.bad_since)
    own = watched.get(path.exit)
    if here == path.exit or not path.detour.automatic or not rules.back_after_s or path.exit not in fit:
        return None
    if own is not None and own.is_contested:
        return None
    well = _well_for(own, now)
    if well < rules.back_after_s or now - path.detour.moved_at < rules.back_after_s:
        return None
    return Move(path.id, path.exit, f"its own exit has been well for {well / 60:.0f} minutes", now - well)


def unfinished(path: Path, since: float, now: float) -> Move | None:
    """What keeps a path that is not settled in the middle of its move, if nobody carries that out any more; None: it is not
    long under way. ``since``: when it was first seen so.
    """
    if now - since < _MOVE_S:
        return None
    minutes = f"{(now - since) / 60:.0f} minutes"
    return Move(path.id, "", f"its change of exit began {minutes} ago and is neither done nor taken back", since)


def paced(moves: Iterable[Move], under_way: int) -> list[Move]:
    """Those that may begin now: the longest waiting first, a few at a time."""
    waiting = sorted((move for move in moves if move.node_id), key=lambda move: (move.since, move.path_id))
    return waiting[: max(0, AT_ONCE - under_way)]


def _well_for(seen: Watched | None, now: float) -> float:
    """Seconds; less than 0: it is not well."""
    return now - seen.well_since if seen is not None and seen.well_since else -1.0
