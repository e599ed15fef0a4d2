"""A piece of a page is made once per change, and never shows less than whoever asks has heard of."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.live.renderings import Renderings


class World:
    """Something that changes with each event."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self.made = 0
        self.pieces = Renderings(lambda: self.last, most=3)

    def make(self) -> bytes:
        self.made += 1
        return b"%d" % self.last

    def get(self, seen: int | None, key: str = "k") -> int:
        return int(self.pieces.get(key, seen, self.make))


def test_all_who_have_heard_of_the_same_change_share_one_piece() -> None:
    world = World(5)
    assert [world.get(5) for _ in range(10)] == [5] * 10
    assert world.made == 1
    world.last = 6
    assert (world.get(5), world.made) == (5, 1), "one who has not heard of the sixth yet"
    assert (world.get(6), world.get(6), world.made) == (6, 6, 2)


def test_a_hundred_at_once_wait_for_one() -> None:
    world = World(1)
    gate = threading.Event()

    def slow() -> bytes:
        assert gate.wait(30)
        return world.make()

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(world.pieces.get, "k", 1, slow) for _ in range(100)]
        gate.set()
        assert {answer.result(30) for answer in asked} == {b"1"}
    assert world.made == 1


def test_a_change_during_the_making_is_made_again() -> None:
    world = World(1)

    def overtaken() -> bytes:
        made = world.make()
        world.last = 2
        return made

    assert world.pieces.get("k", 1, overtaken) == b"1"
    assert world.get(2) == 2


def test_who_asks_without_a_number_or_with_one_of_another_run_gets_it_anew() -> None:
    world = World(1)
    assert (world.get(1), world.get(None), world.get(99)) == (1, 1, 1)
    assert world.made == 3


def test_a_failure_is_told_and_not_kept() -> None:
    world = World(1)

    def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        world.pieces.get("k", 1, fail)
    assert world.get(1) == 1


def test_only_some_are_kept() -> None:
    world = World(1)
    for key in "abcd":
        world.get(1, key)
    world.get(1, "d")
    assert world.made == 4
    world.get(1, "a")
    assert world.made == 5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from("ab")), max_size=60))
def test_nobody_sees_less_than_they_have_heard_of(steps: list[tuple[bool, int, str]]) -> None:
    world = World()
    for changes, back, key in steps:
        world.last += changes
        seen = max(0, world.last - back)
        assert seen <= world.get(seen, key) <= world.last
