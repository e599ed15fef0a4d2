"""Sums over time: nothing is lost between stretches, nothing is made up, and what nobody knows is no number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.metering import FLEET, STEP_S, Cell, Meter, Point, Pulse, Uptime, point, spread, window

T = 6_000_000 * STEP_S
DAY = T // 86_400
moments = st.floats(0, 4_000_000_000, allow_nan=False)


@given(moments, st.floats(0.001, 5_000), st.sampled_from((60, 300, 3_600)))
def test_shares_lie_within_the_time_and_are_together_all_of_it(start: float, length: float, step: int) -> None:
    parts = list(spread(start, start + length, step))
    assert sum(share for _, share in parts) == pytest.approx(1, abs=1e-6)
    assert all(0 < share <= 1 for _, share in parts)
    buckets = [bucket for bucket, _ in parts]
    assert buckets == list(range(buckets[0], buckets[-1] + 1))
    assert buckets[0] == start // step
    assert buckets[-1] * step <= start + length


@given(moments, st.floats(-100, 0))
def test_no_time_has_no_shares(start: float, length: float) -> None:
    assert list(spread(start, start + length)) == []


def looks(
    meter: Meter, count: int, *, up: bool = True, sessions: int = 3, rate: int = 100, start: float = T, every: float = 15.0
) -> None:
    """A node that is looked at each time, moves ``rate`` bytes a second from clients and twice that to them."""
    for number in range(count):
        now = start + number * every
        moved = {("n", DAY): (round(rate * (now - T)), round(2 * rate * (now - T)))}
        meter.look(now, {"n": Pulse(up, T - 10.0, now)}, {"n": sessions}, moved)


def total(cells: dict[tuple[str, int], Cell], node_id: str) -> Cell:
    found = Cell()
    for (owner, _), cell in cells.items():
        if owner == node_id:
            for name in ("watched_s", "up_s", "known_s", "session_s", "traffic_s", "rx_bytes", "tx_bytes"):
                setattr(found, name, getattr(found, name) + getattr(cell, name))
    return found


@given(st.integers(2, 80), st.floats(1, 30), st.integers(0, 50), st.integers(0, 10**9), st.floats(0, 600))
def test_a_steady_node_has_a_steady_rate_however_its_looks_fall(
    count: int, every: float, sessions: int, rate: int, off: float
) -> None:
    meter = Meter()
    looks(meter, count, sessions=sessions, rate=rate, every=every, start=T + off)
    cells = meter.take()
    for owner in ("n", FLEET):
        whole = total(cells, owner)
        seen = point(whole)
        assert whole.watched_s == pytest.approx((count - 1) * every)
        assert seen.sessions == pytest.approx(sessions)
        assert seen.availability == pytest.approx(1)
        assert seen.rx_rate == pytest.approx(rate, rel=1e-3, abs=1)
        assert seen.tx_rate == pytest.approx(2 * rate, rel=1e-3, abs=1)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=40))
def test_bytes_are_counted_once_wherever_takes_fall(gains: list[int]) -> None:
    meter, rx, taken = Meter(), 0, 0.0
    for number, gain in enumerate(gains):
        now = T + number * 40.0
        rx += gain
        meter.look(now, {"n": Pulse(True, T, now)}, {}, {("n", DAY): (rx, 0)})
        taken += sum(cell.rx_bytes for (owner, _), cell in meter.take().items() if owner == "n")
    assert taken == pytest.approx(sum(gains[1:]))


def test_what_nobody_knows_is_no_zero() -> None:
    assert point(Cell()) == Point()
    meter = Meter()
    looks(meter, 10, up=False)
    down = point(total(meter.take(), "n"))
    assert down == Point(availability=0.0)


def test_a_quiet_node_is_known_to_be_quiet() -> None:
    meter = Meter()
    looks(meter, 10, sessions=0, rate=0)
    assert point(total(meter.take(), "n")) == Point(0.0, 0.0, 0.0, 1.0)


def test_a_change_between_two_looks_counts_from_when_it_was() -> None:
    meter = Meter()
    meter.look(T, {"n": Pulse(True, T - 50, T)}, {}, {})
    meter.look(T + 20, {"n": Pulse(False, T + 5, T)}, {}, {})
    meter.look(T + 40, {"n": Pulse(True, T + 38, T + 38)}, {}, {})
    whole = total(meter.take(), "n")
    assert (whole.watched_s, whole.up_s) == (40, 5 + 2)


def up_of(changes: list[tuple[float, bool]], looks_at: list[float], forgotten_at: float = 0.0) -> tuple[float, float]:
    """What is made of a link that changes then, and is looked at then: seconds watched, and up."""
    meter, uptime, told = Meter(), None, iter([*changes, (float("inf"), True)])
    at, up = next(told)
    for now in looks_at:
        while at <= now:
            if uptime is not None and at >= forgotten_at > uptime.began:
                uptime = None  # who kept it was restarted
            uptime = (uptime or Uptime(at, up, at)).changed(at, up=up)
            at, up = next(told)
        assert uptime is not None
        meter.look(now, {"n": Pulse(uptime.up, uptime.since, now, uptime)}, {}, {})
    whole = total(meter.take(), "n")
    return whole.watched_s, whole.up_s


def test_an_outage_that_is_shorter_than_two_looks_is_counted() -> None:
    assert up_of([(T - 50, True), (T + 3, False), (T + 7, True)], [T, T + 15, T + 30]) == (30, 26)
    twice = [(T - 50, True), (T + 3, False), (T + 7, True), (T + 8, False), (T + 9, True)]
    assert up_of(twice, [T, T + 15, T + 30]) == (30, 25)
    short_life = [(T - 50, False), (T + 3, True), (T + 7, False)]
    assert up_of(short_life, [T, T + 15, T + 30]) == (30, 4)


def test_what_nobody_kept_is_as_the_looks_have_it() -> None:
    """The fleet was restarted meanwhile: it knows how long the link is up now, and not what was before."""
    assert up_of([(T - 50, True), (T + 3, True), (T + 20, True)], [T, T + 15, T + 30], forgotten_at=T + 2) == (30, 30)


@given(
    st.lists(st.floats(0.01, 40), min_size=1, max_size=60),
    st.lists(st.floats(0.5, 20), min_size=2, max_size=40),
    st.booleans(),
)
def test_a_link_was_up_for_as_long_as_it_was_however_the_looks_fall(
    lasting: list[float], between: list[float], first: bool
) -> None:
    times = [T - 5.0]
    for seconds in lasting:
        times.append(times[-1] + seconds)
    changes = [(at, first is (number % 2 == 0)) for number, at in enumerate(times)]
    looks_at = [T]
    for seconds in between:
        looks_at.append(looks_at[-1] + seconds)
    ends = [*(at for at, _ in changes[1:]), looks_at[-1]]
    true = sum(max(0.0, min(end, looks_at[-1]) - max(at, T)) for (at, up), end in zip(changes, ends, strict=True) if up)
    watched, up = up_of(changes, looks_at)
    assert watched == pytest.approx(looks_at[-1] - T)
    assert up == pytest.approx(true, abs=1e-3)


def test_after_an_outage_what_was_moved_meanwhile_is_at_no_time() -> None:
    meter = Meter()
    looks(meter, 3)
    meter.look(T + 60, {"n": Pulse(False, T + 50, T + 30)}, {"n": 3}, {("n", DAY): (3_000, 6_000)})
    meter.take()
    meter.look(T + 75, {"n": Pulse(True, T + 70, T + 75)}, {"n": 3}, {("n", DAY): (9_000_000, 6_000)})
    assert point(total(meter.take(), "n")).rx_rate is None
    meter.look(T + 90, {"n": Pulse(True, T + 70, T + 90)}, {"n": 3}, {("n", DAY): (9_001_500, 6_000)})
    assert point(total(meter.take(), "n")).rx_rate == pytest.approx(100)


def test_bytes_wait_for_the_look_that_counted_them() -> None:
    meter = Meter()
    looks(meter, 2)
    meter.look(T + 30, {"n": Pulse(True, T, T + 15.0)}, {}, {("n", DAY): (3_000, 0)})  # a client left; no look yet
    meter.look(T + 45, {"n": Pulse(True, T, T + 45.0)}, {}, {("n", DAY): (4_500, 0)})
    assert total(meter.take(), "n").rx_bytes == 4_500


def test_a_missed_look_is_a_gap_of_sessions_and_links_and_not_of_bytes() -> None:
    meter = Meter()
    looks(meter, 2)
    meter.missed()
    meter.look(T + 45, {"n": Pulse(True, T - 10, T + 45)}, {"n": 3}, {("n", DAY): (4_500, 0)})
    whole = total(meter.take(), "n")
    assert (whole.watched_s, whole.known_s, whole.traffic_s, whole.rx_bytes) == (15, 15, 45, 4_500)


def test_midnight_and_a_clock_that_was_set_back_make_no_bytes() -> None:
    meter = Meter()
    midnight = (DAY + 1) * 86_400.0
    meter.look(midnight - 10, {"n": Pulse(True, T, midnight - 10)}, {}, {("n", DAY): (500, 0)})
    meter.look(midnight + 5, {"n": Pulse(True, T, midnight + 5)}, {}, {("n", DAY): (600, 0), ("n", DAY + 1): (50, 0)})
    assert total(meter.take(), "n").rx_bytes == pytest.approx(150)
    meter.look(midnight - 300, {"n": Pulse(True, T, midnight - 300)}, {}, {("n", DAY): (600, 0)})
    assert total(meter.take(), "n").rx_bytes == 0


def test_the_fleet_s_rate_is_that_of_all_nodes_also_where_one_was_counted_less() -> None:
    meter = Meter()
    for number in range(5):
        now = T + number * 15.0
        seen = {"a": now, "b": T + (number // 3) * 45.0}
        moved = {(name, DAY): (round(100 * (at - T)), 0) for name, at in seen.items()}
        meter.look(now, {name: Pulse(True, T - 5, at) for name, at in seen.items()}, {"a": 2, "b": 1}, moved)
    fleet = point(total(meter.take(), FLEET))
    assert fleet.rx_rate == pytest.approx(200)
    assert fleet.sessions == pytest.approx(3)


def test_windows() -> None:
    assert window(T + 10.0, None, None, None) == ((T + 11 - 86_400) // 300, T // 300 + 1, 300)
    assert window(T, T - 7 * 86_400, T, None) == ((T - 7 * 86_400) // 3_600, -(-T // 3_600), 3_600)
    assert window(T, 0, T, None)[2:] == (86_400,) if T < 400 * 86_400 else True
    assert window(T, T - 1, T, 300) == (T // 300 - 1, T // 300, 300)
    with pytest.raises(InvalidInput, match="since"):
        window(T, T, T, None)
    with pytest.raises(InvalidInput, match="step"):
        window(T, T - 30 * 86_400, T, 300)


@given(st.integers(0, 10**9), st.integers(1, 86_400 * 366), st.sampled_from((None, 300, 3_600, 86_400)))
def test_a_window_covers_what_was_asked_for(since: int, length: int, step: int | None) -> None:
    try:
        first, last, found = window(0.0, since, since + length, step)
    except InvalidInput:
        assert step is not None
        return
    assert first * found <= since < (first + 1) * found
    assert (last - 1) * found < since + length <= last * found
