"""The decisions: intensity, backoff, strategies, lateness. Pure, so tested with anything."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.supervision import Backoff, ChildSpec, Intensity, Restart, Strategy
from actors.supervision.actor import Actor
from actors.supervision.intensity import RestartCounter
from actors.supervision.lateness import LONGEST_STRETCH, Lateness, stretched
from actors.supervision.strategy import Plan, plan_restart, should_restart

seconds = st.floats(0, 1e6, allow_nan=False)


@given(st.integers(0, 6), st.floats(0.01, 100), st.lists(st.floats(0, 50), max_size=40))
def test_the_window_holds_exactly_the_restarts_of_the_period(most, period, gaps):
    counter = RestartCounter(Intensity(most, period))
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        times.append(now)
        within = [t for t in times if t > now - period]
        assert counter.count(now) == (len(within) <= most)


@given(st.floats(0, 10), st.floats(0, 1e5), st.floats(1, 1e12), st.integers(0, 100_000), st.integers(0, 2**32))
def test_a_backoff_stays_within_its_bounds(low, more, factor, failures, seed):
    backoff = Backoff(low, low + more, factor)
    assert low <= backoff.delay(failures, random.Random(seed)) <= low + more


@given(st.floats(0.001, 10), st.floats(0, 1e4), st.floats(1, 10), st.integers(1, 2_000))
def test_a_backoff_never_shrinks_with_more_failures(low, more, factor, failures):
    backoff = Backoff(low, low + more, factor)
    assert backoff.ceiling(failures) <= backoff.ceiling(failures + 1)


def test_a_backoff_is_spread_over_its_range():
    backoff, rng = Backoff(1.0, 64.0, 2.0), random.Random(3)
    delays = [backoff.delay(5, rng) for _ in range(2_000)]
    assert min(delays) < 3
    assert max(delays) > 30
    assert max(delays) <= 32


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff(min_s=2, max_s=1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(max_s=float("inf")),
        lambda: Intensity(-1),
        lambda: Intensity(1, 0),
        lambda: ChildSpec("", Actor),
        lambda: ChildSpec("a", Actor, hang_s=0),
        lambda: ChildSpec("a", Actor, shutdown_s=-1),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(ValueError):
        make()


ORDER = ("a", "b", "c", "d")
ALL_UP = frozenset(ORDER)


@pytest.mark.parametrize(
    ("strategy", "plan"),
    [
        (Strategy.ONE_FOR_ONE, Plan((), ("b",))),
        (Strategy.REST_FOR_ONE, Plan(("d", "c"), ("b", "c", "d"))),
        (Strategy.ONE_FOR_ALL, Plan(("d", "c", "a"), ORDER)),
    ],
)
def test_who_falls_with_b(strategy, plan):
    assert plan_restart(strategy, ORDER, "b", up=ALL_UP - {"b"}) == plan


def test_a_temporary_child_goes_down_with_the_others_and_stays_down():
    plan = plan_restart(Strategy.ONE_FOR_ALL, ORDER, "b", up=ALL_UP - {"b"}, temporary={"c"})
    assert plan == Plan(("d", "c", "a"), ("a", "b", "d"))


def test_who_ended_for_good_is_not_brought_back_by_the_failure_of_another():
    assert plan_restart(Strategy.ONE_FOR_ALL, ORDER, "b", up={"a", "d"}) == Plan(("d", "a"), ("a", "b", "d"))


def test_a_second_failure_does_not_forget_who_waits_from_the_first():
    plan = plan_restart(Strategy.REST_FOR_ONE, ORDER, "a", up={"b"}, pending={"c", "d"})
    assert plan == Plan(("b",), ORDER)


@given(
    st.sampled_from(Strategy),
    st.lists(st.text("xyz", min_size=1, max_size=4), min_size=1, max_size=8, unique=True),
    st.data(),
)
def test_every_plan_keeps_the_order_and_touches_no_bystander(strategy, order, data):
    some = st.sets(st.sampled_from(order))
    failed = data.draw(st.sampled_from(order))
    up, temporary, pending = data.draw(some) - {failed}, data.draw(some) - {failed}, data.draw(some)
    pending -= up | temporary
    plan = plan_restart(strategy, order, failed, up=up, temporary=temporary, pending=pending)
    assert list(plan.start) == [n for n in order if n in plan.start]
    assert list(plan.stop) == [n for n in reversed(order) if n in plan.stop]
    assert set(plan.stop) <= up
    assert failed in plan.start
    assert not set(plan.start) & temporary
    assert pending <= set(plan.start)
    assert set(plan.stop) - temporary <= set(plan.start), "who is taken down comes back"
    bystanders = {
        Strategy.ONE_FOR_ONE: set(order) - {failed},
        Strategy.REST_FOR_ONE: set(order[: order.index(failed)]),
        Strategy.ONE_FOR_ALL: set(),
    }[strategy]
    assert not set(plan.stop) & bystanders
    assert not (set(plan.start) - pending) & bystanders


@pytest.mark.parametrize("failed", [True, False])
def test_restart_types(failed):
    assert should_restart(Restart.PERMANENT, failed=failed)
    assert should_restart(Restart.TRANSIENT, failed=failed) is failed
    assert not should_restart(Restart.TEMPORARY, failed=failed)


@given(st.floats(0.001, 1e4), seconds, seconds, seconds)
def test_deadlines_stretch_with_lateness_and_never_shrink(deadline, lost, lag, more):
    assert stretched(deadline, (0, 0)) == deadline
    assert stretched(deadline, (lost, lag)) >= deadline
    assert stretched(deadline, (-lost, -lag)) == deadline
    assert stretched(deadline, (lost + more, lag)) >= stretched(deadline, (lost, lag))
    assert stretched(deadline, (lost, lag + more)) >= stretched(deadline, (lost, lag))
    assert stretched(deadline, (0, lag)) <= deadline * LONGEST_STRETCH * (1 + 1e-9)
    assert stretched(deadline, (lost, 0)) >= lost, "a stop of the whole process never makes anybody late"


def test_lost_time_adds_up_and_the_largest_lag_counts():
    lateness = Lateness()
    for at in range(10):
        lateness.note(float(at), tick_s=1.0, lag_s=float(at))
    assert lateness.since(0.0) == (10.0, 9.0)
    assert lateness.since(8.0) == (2.0, 9.0)
    assert lateness.since(9.5) == (0.0, 0.0)


def test_ordinary_jitter_is_not_lateness():
    lateness = Lateness()
    lateness.note(1.0, tick_s=0.01, lag_s=0.02)
    assert lateness.since(0.0) == (0.0, 0.0)
