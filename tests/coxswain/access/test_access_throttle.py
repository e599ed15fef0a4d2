"""Pauses that grow, are forgotten, and cost bounded memory; refusals that are counted when they become many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.access.refusals import Refusals
from coxswain.access.throttle import Limits, Throttle

LIMITS = Limits(free=3, first_s=1.0, longest_s=8.0, forget_s=100.0, most_keys=5)


@pytest.mark.parametrize("began", [0.0, 1_767_225_600.0])
def test_the_pause_doubles_up_to_the_longest(began: float) -> None:
    throttle, now, pauses = Throttle(LIMITS), began, []
    for _ in range(8):
        throttle.attempt("k", now)
        pause = throttle.wait("k", now)
        pauses.append(pause)
        now += pause
    assert pauses == [0, 0, 1, 2, 4, 8, 8, 8]
    assert throttle.wait("other", now) == 0


def test_success_and_time_forgive() -> None:
    throttle = Throttle(LIMITS)
    for _ in range(4):
        throttle.attempt("k", 0.0)
    assert throttle.wait("k", 0.0) == 2.0
    throttle.succeeded("k")
    assert throttle.wait("k", 0.0) == 0
    for _ in range(4):
        throttle.attempt("k", 0.0)
    assert throttle.wait("k", 101.0) == 0
    throttle.attempt("k", 101.0)
    assert throttle.wait("k", 101.0) == 0, "it begins anew"


def test_many_at_once_are_each_counted() -> None:
    throttle = Throttle(LIMITS)
    for _ in range(100):
        throttle.attempt("k", 5.0)
    assert throttle.wait("k", 5.0) == 8.0


def test_ten_thousand_keys_cost_the_memory_of_a_few() -> None:
    throttle = Throttle(LIMITS)
    for n in range(10_000):
        throttle.attempt(str(n), 0.0)
    assert len(throttle) == 5


def test_the_one_that_was_quiet_longest_makes_room() -> None:
    throttle = Throttle(LIMITS)
    for key in ("guesses", "1", "2", "3", "4", "guesses", "5", "guesses", "6", "guesses"):
        throttle.attempt(key, 0.0)
    assert throttle.wait("guesses", 0.0) == 2.0, "others that come meanwhile do not make it new"


def test_a_try_in_time_is_not_forgiven() -> None:
    throttle = Throttle(LIMITS)
    for at in (0.0, 99.0, 198.0, 297.0):
        throttle.attempt("k", at)
    assert throttle.wait("k", 297.0) == 2.0, "a hundred seconds of nothing are needed"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.booleans()), max_size=60))
def test_nobody_ever_waits_longer_than_the_longest(steps: list[tuple[str, float, bool]]) -> None:
    throttle, now = Throttle(LIMITS), 0.0
    for key, pause, success in steps:
        now += pause
        if throttle.wait(key, now) == 0:
            throttle.attempt(key, now)
            if success:
                throttle.succeeded(key)
        assert 0 <= throttle.wait(key, now) <= LIMITS.longest_s


def test_the_first_refusals_have_records_and_the_rest_are_counted() -> None:
    refusals = Refusals(each=3)
    assert [refusals.note("a", "401 GET /x", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert refusals.note("b", "401 GET /x", 0.0), "each address has its own"
    assert not refusals.note("a", "403 PUT /y", 1.0)
    assert refusals.over(59.0) == []
    (summary,) = refusals.over(60.0)
    assert (summary.address, summary.since, summary.count) == ("a", 0.0, 3)
    assert summary.what == {"401 GET /x": 2, "403 PUT /y": 1}
    assert refusals.note("a", "401 GET /x", 61.0), "a new minute"
    assert refusals.over(61.0, all_of_them=True) == []


def test_a_flood_from_everywhere_costs_bounded_memory_and_records() -> None:
    refusals = Refusals(each=2, most_addresses=10, most_kinds=4)
    recorded = sum(refusals.note(f"10.0.{n // 250}.{n % 250}", f"401 GET /{n}", 0.0) for n in range(50_000))
    assert recorded == 10 + 2, "one of each address, and two of all others together"
    (summary,) = refusals.over(60.0)
    assert summary.count == 50_000 - recorded and len(summary.what) <= 5


def test_a_clock_that_is_set_back_does_not_hold_records_for_ever() -> None:
    refusals = Refusals(each=1)
    refusals.note("a", "401", 1_000.0)
    refusals.note("a", "401", 1_000.0)
    assert len(refusals.over(10.0)) == 1
