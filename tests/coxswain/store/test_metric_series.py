"""Rows of time series, on both backends: they add up, come in every step, and are bounded."""

from __future__ import annotations

from coxswain.metering import FLEET, STEP_S, Cell
from coxswain.model import Protocol
from coxswain.sessions import Changes, OpenSession
from coxswain.store import Store
from coxswain.store import metric_series as rows
from coxswain.store import session_totals as totals

T = 500_000 * 3_600
FIRST = T // STEP_S


def put(store: Store, *cells: tuple[str, int, Cell]) -> None:
    with store.write() as tx:
        rows.add(tx, {(node_id, bucket): cell for node_id, bucket, cell in cells})


def read(store: Store, since: int, until: int, step: int, node_id: str = "n") -> dict[int, Cell]:
    with store.read() as tx:
        return rows.read(tx, node_id, since, until, step)


def test_what_is_added_to_a_stretch_adds_up_in_every_step(store: Store) -> None:
    minute = Cell(60, 59.9996, 60, 120, 45, 1_000, 2_000.4)
    put(store, ("n", FIRST, minute), ("n", FIRST + 12, minute), (FLEET, FIRST, minute))
    put(store, ("n", FIRST, minute), ("n", FIRST + 1, minute))
    one = Cell(60, 60, 60, 120, 45, 1_000, 2_000)
    two = Cell(120, 120, 120, 240, 90, 2_000, 4_000)
    three = Cell(180, 180, 180, 360, 135, 3_000, 6_000)
    assert read(store, T, T + 7_200, STEP_S) == {FIRST: two, FIRST + 1: one, FIRST + 12: one}
    assert read(store, T, T + 7_200, 3_600) == {T // 3_600: three, T // 3_600 + 1: one}
    day = read(store, T // 86_400 * 86_400, T + 86_400, 86_400)
    assert sum(cell.rx_bytes for cell in day.values()) == 4_000
    assert read(store, T, T + STEP_S, STEP_S, FLEET) == {FIRST: one}


def test_a_window_has_what_begins_in_it(store: Store) -> None:
    put(store, *(("n", FIRST + number, Cell(watched_s=1)) for number in range(4)))
    assert set(read(store, T + 1, T + 2 * STEP_S + 1, STEP_S)) == {FIRST + 1, FIRST + 2}
    assert read(store, T, T, STEP_S) == {}


def test_a_node_that_lies_makes_no_number_too_large(store: Store) -> None:
    for _ in range(3):
        put(store, ("n", FIRST, Cell(1, 1, 1, 1, 1, 2.0**60, 2.0**52)))
    (cell,) = read(store, T, T + STEP_S, STEP_S).values()
    assert (cell.rx_bytes, cell.tx_bytes) == (2**53, 2**53)


def test_fine_rows_are_kept_for_two_days_and_hours_as_long_as_sessions_but_not_for_ever(store: Store) -> None:
    day = 86_400 // STEP_S
    put(store, *(("n", FIRST - age * day, Cell(watched_s=1)) for age in (0, 1, 3, 6, 8, 365, 400)))

    def kept(step: int) -> int:
        return len(read(store, 0, T + 86_400, step))

    assert (kept(STEP_S), kept(3_600)) == (7, 7)
    for keep_days, fine, coarse in ((0, 2, 6), (7, 2, 4), (1, 2, 2)):
        with store.write() as tx:
            rows.purge(tx, float(T), keep_days)
        assert (kept(STEP_S), kept(3_600)) == (fine, coarse)


def test_what_sessions_moved_is_told_by_node_and_day(store: Store) -> None:
    changes = Changes()
    for number, (node_id, rx) in enumerate((("a", 5), ("a", 7), ("b", 11))):
        session = OpenSession(number + 1, (node_id, Protocol.AMNEZIAWG, f"key{number}"), T, T)
        session.begin_count(0, 0)
        session.count(rx, 2 * rx)
        changes.dirty[session.key] = session
    with store.write() as tx:
        for day in (3, 1, 0):
            totals.add(tx, changes, now=T - day * 86_400.0)
    today = T // 86_400
    with store.read() as tx:
        found = rows.moved(tx, float(T))
    assert found == {
        ("a", today): (12, 24), ("b", today): (11, 22), ("a", today - 1): (12, 24), ("b", today - 1): (11, 22),
    }  # fmt: skip
