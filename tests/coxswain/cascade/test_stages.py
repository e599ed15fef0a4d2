"""From one route to another: however far each node is, traffic goes one whole way, or nowhere; never out elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.cascade.stages import Spot, claims, crossing, parting, phases, staged
from coxswain.cascade.types import Phase

Route = tuple[str, ...]
Claimed = Mapping[Spot, str]

OTHERS = "abcd"
ROUTES = [("e", *rest) for length in (0, 1, 2) for rest in itertools.permutations(OTHERS, length)]
CHANGES = [(old, new) for old in ROUTES for new in ROUTES if old != new]


def follow(claimed: Claimed) -> Route | None:
    """The nodes that a packet from the client visits up to where it leaves; None: it is dropped on its way."""
    way = ["e"]
    while ("transit", way[-1]) in claimed:
        there = claimed["transit", way[-1]]
        if claimed.get(("edge", there)) != way[-1]:
            return None  # it does not belong to the peer that it came from
        assert there not in way, "it goes round in circles"
        way.append(there)
    return tuple(way)


def returns(claimed: Claimed, way: Route) -> bool:
    """Whether the answer finds its way back: each node sends it to the peer that has the address."""
    return all(claimed.get(("edge", here)) == before for before, here in itertools.pairwise(way))


def between(before: Claimed, after: Claimed) -> Iterator[Claimed]:
    """Every state on the way, if each node changes its peers first and then its transits, and nodes do so in any order."""
    nodes = sorted({spot[1] for spot in before.keys() | after.keys() if before.get(spot) != after.get(spot)})
    for done in itertools.product(range(3), repeat=len(nodes)):
        state = dict(before)
        for node, steps in zip(nodes, done, strict=True):
            spots: list[Spot] = [("edge", node), ("transit", node)]
            for spot in spots[:steps]:
                state.pop(spot, None)
                if spot in after:
                    state[spot] = after[spot]
        yield state


def stages(old: Route, new: Route) -> list[Claimed]:
    return [claims(old), *(staged(old, new, phase) for phase in phases(old, new)), claims(new)]


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_every_change_of_every_route_never_leaks_and_only_a_crossing_interrupts(*, backwards: bool) -> None:
    for old, new in CHANGES:
        every = stages(old, new)[:: -1 if backwards else 1]
        for before, after in itertools.pairwise(every):
            for state in between(before, after):
                way = follow(state)
                assert way in {old, new} or (way is None and crossing(old, new)), (old, new, way)
                assert way is None or returns(state, way)
        assert all(follow(stage) in {old, new} for stage in (every[0], every[-1]))


def test_the_old_route_stays_complete_until_the_new_one_carries() -> None:
    """What is left of it when the traffic has moved would carry again at once, if the parting went back."""
    for old, new in CHANGES:
        if crossing(old, new):
            continue
        moved = dict(staged(old, new, Phase.MOVED))
        assert follow(moved) == new
        spot: Spot = ("transit", old[parting(old, new)])
        moved.pop(spot, None)
        if spot in claims(old):
            moved[spot] = claims(old)[spot]
        assert follow(moved) == old, (old, new)


def test_only_one_node_changes_over_when_routes_do_not_cross() -> None:
    for old, new in CHANGES:
        if not crossing(old, new):
            ready = staged(old, new, Phase.PREPARING)
            moved = staged(old, new, Phase.MOVED)
            changed = {s for s in ready.keys() | moved.keys() if ready.get(s) != moved.get(s)}
            assert changed == {("transit", old[parting(old, new)])}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("eab", "ecd", (Phase.PREPARING, Phase.MOVED)),
        ("e", "eab", (Phase.PREPARING, Phase.MOVED)),
        ("eab", "e", (Phase.MOVED,)),
        ("eab", "eac", (Phase.PREPARING, Phase.MOVED)),
        ("eab", "ea", (Phase.MOVED,)),
        ("eab", "eb", (Phase.CROSSING, Phase.MOVED)),
        ("eb", "eab", (Phase.PREPARING, Phase.CROSSING, Phase.MOVED)),
        ("eab", "eba", (Phase.CROSSING, Phase.TURNING, Phase.MOVED)),
        ("eab", "eab", ()),
    ],
)
def test_the_stages_of_a_change(old: str, new: str, expected: tuple[Phase, ...]) -> None:
    assert phases(tuple(old), tuple(new)) == expected


@given(st.sampled_from(CHANGES))
def test_there_and_back_is_the_same_way(change: tuple[Route, Route]) -> None:
    old, new = change
    ways = [follow(stage) for stage in stages(old, new)]
    assert (ways[0], ways[-1]) == (old, new)


def test_routes_from_different_entries_are_not_one_change() -> None:
    with pytest.raises(ValueError, match="same entry"):
        staged(("a", "b"), ("c", "b"), Phase.MOVED)
