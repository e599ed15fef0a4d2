"""Each node once in an interval, evenly spread, never more at once than allowed."""

import itertools
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from coxswain.reconcile.schedule import LookSchedule, phase

INTERVAL = 45.0
TICK = 0.25


def nodes(count: int, salt: int = 0) -> list[str]:
    return [f"nod_{salt}_{number}" for number in range(count)]


def run(schedule: LookSchedule, start: float, seconds: float) -> list[tuple[float, str]]:
    looks = []
    for tick in range(round(seconds / TICK)):
        now = start + tick * TICK
        looks += [(now, node) for node in schedule.take_due(now)]
    return looks


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(0, 2**32), st.floats(0, 1e6))
def test_each_node_once_in_an_interval_give_or_take_a_tenth(count: int, seed: int, start: float) -> None:
    schedule = LookSchedule(INTERVAL, 1000.0, random.Random(seed))
    schedule.replace_nodes(nodes(count, seed), start)
    looks = run(schedule, start, INTERVAL * 10)
    times: dict[str, list[float]] = {}
    for at, node in looks:
        times.setdefault(node, []).append(at)
    assert set(times) == set(nodes(count, seed))
    for seen in times.values():
        assert 9 <= len(seen) <= 11
        gaps = [b - a for a, b in itertools.pairwise(seen)]
        assert all(INTERVAL * 0.9 - 2 * TICK <= gap <= INTERVAL * 1.1 + 2 * TICK for gap in gaps)


def test_looks_are_spread_flat() -> None:
    schedule = LookSchedule(INTERVAL, 1000.0, random.Random(1))
    schedule.replace_nodes(nodes(5000), 0.0)
    per_second = Counter(int(at) for at, _ in run(schedule, 0.0, INTERVAL * 4))
    settled = [per_second[second] for second in range(10, 170)]
    average = 5000 / INTERVAL
    assert all(average * 0.6 <= looks <= average * 1.4 for looks in settled)


@settings(max_examples=50)
@given(st.integers(1, 400), st.floats(1, 200), st.floats(0, 1000), st.integers(0, 2**32))
def test_never_faster_than_the_rate_even_after_the_machine_stood_still(
    count: int, per_s: float, pause: float, seed: int
) -> None:
    schedule = LookSchedule(INTERVAL, per_s, random.Random(seed))
    schedule.replace_nodes(nodes(count), 0.0)
    run(schedule, 0.0, 30.0)
    looks = run(schedule, 30.0 + pause, 100.0)
    burst = max(1.0, per_s * 0.5)
    times = [at for at, _ in looks]
    for first in range(0, len(times), 7):
        for last in range(first, len(times), 11):
            assert last - first + 1 <= burst + (times[last] - times[first]) * per_s + 1e-6


def test_too_large_a_fleet_is_looked_at_less_often_but_nobody_is_forgotten() -> None:
    schedule = LookSchedule(INTERVAL, 10.0, random.Random(1))
    schedule.replace_nodes(nodes(1000), 0.0)
    looks = Counter(node for _, node in run(schedule, 0.0, 400.0))
    assert len(looks) == 1000
    assert max(looks.values()) - min(looks.values()) <= 2


def test_what_was_missed_is_not_made_up_for() -> None:
    schedule = LookSchedule(INTERVAL, 1000.0, random.Random(1))
    schedule.replace_nodes(nodes(10), 0.0)
    run(schedule, 0.0, 50.0)
    assert max(Counter(node for _, node in run(schedule, 3600.0, 5.0)).values()) == 1


def test_nodes_come_and_go() -> None:
    schedule = LookSchedule(INTERVAL, 1000.0, random.Random(1))
    schedule.replace_nodes(nodes(10), 0.0)
    schedule.replace_nodes(nodes(5), 1.0)
    schedule.replace_nodes(nodes(10), 2.0)  # five of them a second time
    assert len(schedule) == 10
    seen = Counter(node for _, node in run(schedule, 2.0, INTERVAL * 20))
    assert set(seen) == set(nodes(10))
    assert max(seen.values()) <= 21
    schedule.replace_nodes(nodes(3), 1000.0)
    assert {node for _, node in run(schedule, 1000.0, 100.0)} == set(nodes(3))


def test_a_phase_is_a_nodes_own_and_lies_in_the_interval() -> None:
    assert phase("nod_a", INTERVAL) == phase("nod_a", INTERVAL)
    assert 0 <= phase("nod_a", INTERVAL) < INTERVAL
    assert phase("nod_a", INTERVAL) != phase("nod_b", INTERVAL)
