import random

from hypothesis import given
from hypothesis import strategies as st

from coxswain.reconcile.pacing import heal_delay, reconnect_delay, verify_delay

seeds = st.integers(0, 2**32)


@given(st.floats(0, 59.9), seeds)
def test_the_first_minute_is_quick(lost_for: float, seed: int) -> None:
    assert 0.2 <= reconnect_delay(lost_for, random.Random(seed)) <= 1.2


@given(st.floats(60, 1e9), seeds)
def test_a_long_outage_costs_little_and_never_more_than_half_a_minute(lost_for: float, seed: int) -> None:
    assert 1.2 <= reconnect_delay(lost_for, random.Random(seed)) <= 30


@given(st.integers(1, 10**9), seeds)
def test_healing_slows_down_to_a_minute(failures: int, seed: int) -> None:
    assert 0.5 <= heal_delay(failures, random.Random(seed)) <= 60


def test_a_thousand_nodes_do_not_come_back_together() -> None:
    rng = random.Random(1)
    for draw in (lambda: reconnect_delay(0, rng), lambda: heal_delay(6, rng), lambda: verify_delay(rng)):
        drawn = sorted(draw() for _ in range(1000))
        width = drawn[-1] - drawn[0]
        for tenth in range(10):
            low = drawn[0] + width * tenth / 10
            assert 40 <= sum(low <= d <= low + width / 10 for d in drawn) <= 180
