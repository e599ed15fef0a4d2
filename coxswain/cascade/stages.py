"""How a binding gets from one route to another, cut into stages none of which cuts it off. Pure.

A route is a list of node ids; no route is the entry alone, where traffic then leaves. On each node that a route passes it
needs up to two *claims*: the edge peer that its traffic comes in by, and the link that it goes on by. A node can give an
address to one edge peer and one link at a time. So of two routes from one entry, everything behind the node where they part
can be made ready while the old one carries; then that one node changes over; then what was left of the old one goes::

    SETTLED(old) ⇄ PREPARING ⇄ MOVED ⇄ SETTLED(new)

Where both use a node behind the parting, but reach it from different sides (a→b→c to a→c), it cannot serve both. Then
``CROSSING`` comes between, and until the parting follows nothing gets through: such nodes take only what comes by the new
route. Nothing leaves at the wrong place either. ``TURNING`` is apart from it because a node changes peers before transits,
in both directions: had both been undone in one stage, it would for a moment take in what it does not send on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from coxswain.cascade.types import Phase

__all__ = ["Claims", "Spot", "claims", "crossing", "parting", "phases", "staged"]

Spot = tuple[Literal["edge", "transit"], str]
"""``edge``: whose peer the address belongs to on that node. ``transit``: which node it is sent on to."""

Claims = Mapping[Spot, str]
"""The other node of each spot."""


def claims(route: Sequence[str]) -> dict[Spot, str]:
    """All that ``route`` needs."""
    found: dict[Spot, str] = {}
    for here, there in pairwise(route):
        found["transit", here] = there
        found["edge", there] = here
    return found


def parting(old: Sequence[str], new: Sequence[str]) -> int:
    """The position of the last node that both have in common from the entry on; -1: not even that."""
    common = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        common += 1
    return common - 1


def crossing(old: Sequence[str], new: Sequence[str]) -> frozenset[str]:
    """The nodes behind the parting that both use: in different places, or they would not be behind it."""
    at = parting(old, new)
    return frozenset(old[at + 1 :]) & frozenset(new[at + 1 :])


def phases(old: Sequence[str], new: Sequence[str]) -> tuple[Phase, ...]:
    """The stages between ``old`` and ``new`` that change anything, without the settled ends; backwards they undo it."""
    found: list[Phase] = []
    before = staged(old, new, Phase.SETTLED)
    for phase in (Phase.PREPARING, Phase.CROSSING, Phase.TURNING, Phase.MOVED):
        after = staged(old, new, phase)
        if after != before:
            found.append(phase)
            before = after
    return tuple(found)


def staged(old: Sequence[str], new: Sequence[str], phase: Phase) -> dict[Spot, str]:
    """What is claimed in ``phase`` of the way from ``old`` to ``new``, which begin at the same entry."""
    at = parting(old, new)
    if at < 0:
        raise ValueError("routes of one change begin at the same entry")
    before, after = claims(old), claims(new)
    both = crossing(old, new)
    behind_old, behind_new = frozenset(old[at + 1 :]), frozenset(new[at + 1 :])
    match phase:
        case Phase.SETTLED:
            return before
        case Phase.MOVED:
            return {spot: to for spot, to in before.items() if spot[1] in behind_old - both} | after
        case _:
            ready = {spot: to for spot, to in after.items() if spot[1] in behind_new - both}
            crossed = {spot: to for spot, to in after.items() if spot[1] in both}
    found = before | ready
    if phase is not Phase.PREPARING:
        found |= {spot: to for spot, to in crossed.items() if spot[0] == "edge"}
    if phase is Phase.TURNING:
        found = {spot: to for spot, to in found.items() if spot[0] == "edge" or spot[1] not in both}
        found |= {spot: to for spot, to in crossed.items() if spot[0] == "transit"}
    return found
