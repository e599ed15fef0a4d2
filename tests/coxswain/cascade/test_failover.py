"""When a path is led to another of its exits, and when back: by what was seen for a while, never by one look."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.cascade.failover import AT_ONCE, Move, Rules, Standing, Watched, decide, paced, standing, unfinished, watch
from coxswain.cascade.health import LinkHealth
from coxswain.cascade.resources import check_fallbacks
from coxswain.cascade.types import Detour, Path, Phase
from coxswain.errors import InvalidInput
from coxswain.model import LinkState, NodeStatus
from tests.coxswain.cascade.samples import NODES, bound, links_for, node, path, wired
from tests.coxswain.cascade.test_wiring import follow

RULES = Rules(after_s=180.0, back_after_s=600.0)
PATH = dataclasses.replace(path("three", "eab"), fallbacks=("nod_c", "nod_d"))
EXITS = ("nod_b", "nod_c", "nod_d")
DEVICE = "10.86.0.2/32"
NOW = 1_000_000.0
LOOK_S = 10.0

WELL, FOUGHT, UNSURE, BAD, AWAY = ((found, "gone" if found is Standing.BAD else "") for found in Standing)


def seen(*looks: tuple[Standing, str], rules: Rules = RULES) -> tuple[Watched, float]:
    """One look every ten seconds; and when the last one was."""
    watched = Watched()
    for number, look in enumerate(looks):
        watched = watch(watched, look, NOW + LOOK_S * number, rules)
    return watched, NOW + LOOK_S * (len(looks) - 1)


def well(now: float, seconds: float = 3_600.0) -> Watched:
    return Watched(well_since=now - seconds)


def on(exit_: str, *, automatic: bool = True, moved_at: float = NOW - 7_200) -> Path:
    """The path as it leaves elsewhere."""
    return dataclasses.replace(PATH, detour=Detour(exit_, automatic=automatic, moved_at=moved_at))


# -- what a look says


@pytest.mark.parametrize(
    ("status", "link_state", "link", "expected"),
    [
        (NodeStatus.ACTIVE, LinkState.LIVE, LinkHealth.UP, Standing.WELL),
        (NodeStatus.ACTIVE, LinkState.LIVE, LinkHealth.IDLE, Standing.WELL),
        (NodeStatus.ACTIVE, LinkState.LIVE, LinkHealth.DOWN, Standing.BAD),
        (NodeStatus.UNREACHABLE, LinkState.BACKING_OFF, LinkHealth.UNKNOWN, Standing.BAD),
        (NodeStatus.UNREACHABLE, LinkState.CONNECTING, LinkHealth.UP, Standing.BAD),
        (NodeStatus.ACTIVE, LinkState.BACKING_OFF, LinkHealth.UP, Standing.UNSURE),  # a missed poll or two
        (NodeStatus.ACTIVE, LinkState.DEGRADED, LinkHealth.UP, Standing.UNSURE),
        (NodeStatus.ERROR, LinkState.LIVE, LinkHealth.UP, Standing.UNSURE),
        (NodeStatus.ACTIVE, None, LinkHealth.UNKNOWN, Standing.UNSURE),  # the controller was just started
    ],
)
def test_what_one_look_says(status: NodeStatus, link_state: LinkState | None, link: LinkHealth, expected: Standing) -> None:
    assert standing(node("b", status=status), link_state, link)[0] is expected


@pytest.mark.parametrize(
    ("status", "link_state", "link", "expected"),
    [
        (NodeStatus.ACTIVE, LinkState.DEGRADED, LinkHealth.UP, Standing.CONTESTED),
        (NodeStatus.ACTIVE, LinkState.DEGRADED, LinkHealth.DOWN, Standing.BAD),
        (NodeStatus.ERROR, LinkState.DEGRADED, LinkHealth.UP, Standing.UNSURE),
        (NodeStatus.ACTIVE, LinkState.BACKING_OFF, LinkHealth.UP, Standing.UNSURE),
        (NodeStatus.UNREACHABLE, LinkState.BACKING_OFF, LinkHealth.UP, Standing.BAD),
    ],
)
def test_a_node_that_another_controller_pushes_to_as_well_is_there(
    status: NodeStatus, link_state: LinkState, link: LinkHealth, expected: Standing
) -> None:
    """It is degraded for that alone, and does what it is told."""
    assert standing(node("b", status=status), link_state, link, contested=True)[0] is expected


def test_what_an_operator_switched_off_is_neither_gone_nor_fit() -> None:
    off = node("b", enabled=False, status=NodeStatus.UNREACHABLE)
    assert standing(off, LinkState.BACKING_OFF, LinkHealth.DOWN)[0] is Standing.AWAY
    assert seen(BAD, AWAY)[0] == Watched()


# -- when it moves


def test_it_goes_to_one_that_another_controller_pushes_to_where_there_is_no_other() -> None:
    for c, d, expected in (
        (WELL, WELL, "nod_c"),
        (FOUGHT, WELL, "nod_d"),
        (FOUGHT, BAD, "nod_c"),
        (FOUGHT, FOUGHT, "nod_c"),
    ):
        looks = {name: seen(*[look] * 20) for name, look in (("nod_b", BAD), ("nod_c", c), ("nod_d", d))}
        now = NOW + 19 * LOOK_S
        move = decide(PATH, {name: watched for name, (watched, _) in looks.items()}, EXITS, RULES, now)
        assert move is not None and move.node_id == expected
    home = {name: well(NOW) for name in EXITS}
    assert decide(on("nod_c"), home, EXITS, RULES, NOW) is not None
    home["nod_b"] = dataclasses.replace(home["nod_b"], is_contested=True)
    assert decide(on("nod_c"), home, EXITS, RULES, NOW) is None, "nor back to it by itself"


def test_it_moves_after_its_patience_to_the_first_that_is_fit() -> None:
    for looks in range(1, 30):
        gone, now = seen(*[BAD] * looks)
        move = decide(PATH, {"nod_b": gone, "nod_c": well(now), "nod_d": well(now)}, EXITS, RULES, now)
        assert (move is not None) == (now - NOW >= 180)
    assert move == Move(PATH.id, "nod_c", "gone", NOW)


def test_who_is_not_fit_is_passed_over() -> None:
    gone, now = seen(*[BAD] * 20)
    only = {"nod_b": gone, "nod_c": well(now), "nod_d": well(now)}
    found = decide(PATH, only, ("nod_d",), RULES, now)  # a link that is not made, a node that does not acknowledge
    assert found is not None and found.node_id == "nod_d"
    found = decide(PATH, only | {"nod_c": well(now, 30)}, EXITS, RULES, now)  # has just come back
    assert found is not None and found.node_id == "nod_d"
    found = decide(PATH, only | {"nod_c": gone, "nod_d": gone}, EXITS, RULES, now)
    assert found == Move(PATH.id, "", "gone", NOW), "there is nowhere to go, and that is told"


def test_a_controller_that_sees_nobody_moves_nothing() -> None:
    gone, now = seen(*[BAD] * 100)
    found = decide(PATH, dict.fromkeys(EXITS, gone), (), RULES, now)
    assert found is not None and not found.node_id
    assert paced([found], 0) == []


def test_one_look_decides_nothing() -> None:
    assert seen(*[WELL] * 30, BAD)[0].bad_since == seen(*[WELL] * 30, BAD)[1]
    gone, now = seen(*[WELL] * 30, BAD, UNSURE, WELL)
    assert decide(PATH, {"nod_b": gone, "nod_c": well(now)}, EXITS, RULES, now) is None


def test_an_exit_that_answers_again_is_not_left_for_what_it_was() -> None:
    for looks in ([BAD] * 3 + [UNSURE] * 60, [BAD] * 19 + [UNSURE]):
        back, now = seen(*looks)
        assert decide(PATH, {"nod_b": back, "nod_c": well(now)}, EXITS, RULES, now) is None
    gone, now = seen(*[BAD] * 3, *[UNSURE] * 60, BAD)
    assert decide(PATH, {"nod_b": gone, "nod_c": well(now)}, EXITS, RULES, now) is not None


def test_an_exit_that_comes_and_goes_is_gone_once_it_is_gone_again() -> None:
    gone, now = seen(*([BAD] * 5 + [WELL]) * 4, BAD)
    found = decide(PATH, {"nod_b": gone, "nod_c": well(now)}, EXITS, RULES, now)
    assert found is not None and found.since == NOW


def test_a_minute_of_health_and_it_counts_anew() -> None:
    gone, now = seen(*[BAD] * 15, *[WELL] * 7, *[BAD] * 15)
    assert decide(PATH, {"nod_b": gone, "nod_c": well(now)}, EXITS, RULES, now) is None


def test_without_fallbacks_nothing_ever_moves() -> None:
    gone, now = seen(*[BAD] * 100)
    assert decide(dataclasses.replace(PATH, fallbacks=()), dict.fromkeys(EXITS, gone), EXITS, RULES, now) is None


def test_what_is_on_its_way_is_let_arrive() -> None:
    gone, now = seen(*[BAD] * 100)
    moving = dataclasses.replace(PATH, detour=Detour("", "nod_c", Phase.PREPARING))
    assert decide(moving, {"nod_b": gone, "nod_c": gone, "nod_d": well(now)}, EXITS, RULES, now) is None


# -- the way back


def test_it_comes_home_when_its_own_exit_has_been_well_for_long() -> None:
    for seconds in (0.0, 599.0, 600.0, 9_000.0):
        watched = {"nod_b": well(NOW, seconds), "nod_c": well(NOW)}
        move = decide(on("nod_c"), watched, EXITS, RULES, NOW)
        assert (move.node_id if move is not None else "") == ("nod_b" if seconds >= 600 else "")


def test_it_stays_away_if_nobody_said_that_it_may_come_back_by_itself() -> None:
    watched = {"nod_b": well(NOW), "nod_c": well(NOW)}
    assert decide(on("nod_c"), watched, EXITS, Rules(180.0, 0.0), NOW) is None
    assert decide(on("nod_c", automatic=False), watched, EXITS, RULES, NOW) is None, "an operator led it there"
    assert decide(on("nod_c", moved_at=NOW - 300), watched, EXITS, RULES, NOW) is None, "it has just gone there"


def test_a_fallback_that_is_gone_too_is_left_and_home_comes_first() -> None:
    gone, now = seen(*[BAD] * 20)
    for automatic in (False, True):
        away = on("nod_c", automatic=automatic)
        found = decide(away, {"nod_b": well(now), "nod_c": gone, "nod_d": well(now)}, EXITS, RULES, now)
        assert found is not None and found.node_id == "nod_b"
        found = decide(away, {"nod_b": gone, "nod_c": gone, "nod_d": well(now)}, EXITS, RULES, now)
        assert found is not None and found.node_id == "nod_d"


def test_a_move_that_is_neither_done_nor_taken_back_is_told_after_a_while() -> None:
    moving = dataclasses.replace(PATH, detour=Detour("", "nod_c", Phase.MOVED))
    assert decide(moving, {"nod_c": well(NOW)}, EXITS, RULES, NOW) is None
    assert unfinished(moving, NOW, NOW + 599) is None
    told = unfinished(moving, NOW, NOW + 660)
    assert told is not None and not told.node_id and told.since == NOW and "11 minutes ago" in told.reason


# -- whatever is seen


@given(
    st.lists(st.tuples(*[st.sampled_from([WELL, FOUGHT, UNSURE, BAD, AWAY])] * 3), min_size=1, max_size=120),
    st.sampled_from(["", "nod_c", "nod_d"]),
    st.booleans(),
)
def test_whatever_is_seen_these_hold(looks: Sequence[tuple[tuple[Standing, str], ...]], here: str, automatic: bool) -> None:
    """It never goes to an exit that was not well at every look of the last minute, never leaves one that was not bad at the
    last look unless for its own, and never earlier than after its patience.
    """
    at = on(here, automatic=automatic, moved_at=NOW - 10_000)
    watched = dict.fromkeys(EXITS, Watched())
    for number, row in enumerate(looks):
        now = NOW + LOOK_S * number
        for name, look in zip(EXITS, row, strict=True):
            watched[name] = watch(watched[name], look, now, RULES)
    move = decide(at, watched, EXITS, RULES, now)
    if move is None:
        return
    carrying = EXITS.index(at.route[-1])
    if move.node_id:
        assert move.node_id != at.route[-1]
        lately = [row[EXITS.index(move.node_id)][0] for row in looks[-7:]]
        assert len(lately) == 7 and set(lately) <= {Standing.WELL, Standing.CONTESTED}
    if looks[-1][carrying][0] is not Standing.BAD:
        assert move.node_id == PATH.exit and automatic
    else:
        assert now - NOW >= RULES.after_s
        assert all(row[carrying][0] is not Standing.AWAY for row in looks[-19:])


@given(st.integers(0, 20), st.integers(0, 20))
def test_few_move_at_once_the_longest_waiting_first(count: int, under_way: int) -> None:
    moves = [Move(f"pth_{number}", "nod_c", "gone", NOW - number) for number in range(count)]
    begun = paced(moves, under_way)
    assert len(begun) == min(count, max(0, AT_ONCE - under_way))
    assert begun == moves[::-1][: len(begun)]


# -- what nodes then have


def test_everybody_on_the_path_goes_along_and_at_each_stage_goes_one_whole_way() -> None:
    """A device that is bound to it, and a profile that leads over it."""
    here = dataclasses.replace(PATH, fallbacks=("nod_c",))
    riders = (bound("dev", here, DEVICE), dataclasses.replace(bound("dev_2", here, "10.86.0.3/32"), id="pspec_1"))
    ways = {Phase.PREPARING: "eab", Phase.MOVED: "eac"}
    for phase, (old, new) in itertools.product(ways, (("", "nod_c"), ("nod_c", ""))):
        moving = dataclasses.replace(here, detour=Detour(old, new, phase))
        cascade = wired([moving], *riders)
        wanted = moving.route if phase is Phase.PREPARING else moving.next_route
        for address in (DEVICE, "10.86.0.3/32"):
            assert follow(cascade, address) == wanted
        for exit_ in ("nod_b", "nod_c"):
            assert [len(edge.allowed_ips) for edge in cascade.of(exit_).edges] == [2], "both are complete behind the parting"
    for exit_, other in (("nod_b", "nod_c"), ("nod_c", "nod_b")):
        settled = dataclasses.replace(here, detour=Detour("" if exit_ == here.exit else exit_))
        cascade = wired([settled], *riders)
        assert follow(cascade, DEVICE) == ("nod_e", "nod_a", exit_)
        assert not cascade.of(other).edges


def test_links_to_fallbacks_stand_ready() -> None:
    assert PATH.edges == (("nod_e", "nod_a"), ("nod_a", "nod_b"), ("nod_a", "nod_c"), ("nod_a", "nod_d"))
    assert [link.interface for link in links_for(PATH) if link.entry_node_id == "nod_a"] == ["awg1", "awg2", "awg3"]
    assert len(wired([PATH]).of("nod_a").links) == 3
    assert set(NODES) >= {*PATH.hops, *PATH.fallbacks}


def test_a_fallback_is_another_node_and_named_once() -> None:
    assert check_fallbacks(PATH.hops, PATH.fallbacks) == PATH.fallbacks
    for wrong in (("nod_e",), ("nod_b",), ("nod_c", "nod_c"), tuple(f"nod_{n}" for n in range(5))):
        with pytest.raises(InvalidInput, match="fallback_ids"):
            check_fallbacks(PATH.hops, wrong)
