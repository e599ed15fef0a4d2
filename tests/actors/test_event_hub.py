"""The hub keeps the last events under rising numbers, and tells who came late how many are gone."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from actors.event_hub import EventHub
from actors.supervision import ChildSpec, Harm, System
from coxswain.clock import SystemClock
from coxswain.messages.hub import EventsAfter, EventsPage, Publish
from tests.support import eventually


@pytest.fixture
def system() -> Iterator[System]:
    hub = ChildSpec("event_hub", EventHub)
    running = System(children=(hub,), clock=SystemClock(), rng=random.Random(1), allow_chaos=True)
    running.start()
    assert running.wait_up(10)
    yield running
    assert running.stop()


def publish(system: System, first: int, count: int) -> None:
    for number in range(first, first + count):
        assert system.tell("event_hub", Publish("test", 1.0, {"number": number}))


def page(system: System, after: int, limit: int = 500) -> EventsPage:
    found: EventsPage = system.ask("event_hub", EventsAfter(after, limit), deadline=5)
    return found


def numbers(found: EventsPage) -> list[int]:
    return [event.data["number"] for _, event in found.events]


def test_an_empty_hub(system: System) -> None:
    assert page(system, 0) == EventsPage((), 0, 0)


def test_pages_follow_each_other_without_gap_or_repeat(system: System) -> None:
    publish(system, 1, 25)
    seen: list[int] = []
    after = 0
    while (found := page(system, after, 10)).events:
        seen += numbers(found)
        after = found.last_seq
    assert seen == list(range(1, 26))
    assert page(system, 25) == EventsPage((), 25, 0)
    publish(system, 26, 1)
    assert numbers(page(system, 25)) == [26]


def test_who_comes_late_is_told_how_many_are_gone(system: System) -> None:
    publish(system, 1, 10_250)
    found = page(system, 100)
    assert found.dropped == 150
    assert numbers(found)[0] == 251
    assert len(found.events) == 500
    assert page(system, found.last_seq).dropped == 0
    assert page(system, 250).dropped == 0


def test_numbers_of_an_earlier_life_start_over(system: System) -> None:
    publish(system, 1, 50)
    assert page(system, 40).last_seq == 50
    assert system.harm("event_hub", Harm.RAISE, 0)
    eventually(lambda: page(system, 0).last_seq == 0)
    publish(system, 1, 3)
    found = page(system, 50)
    assert numbers(found) == [1, 2, 3]
    assert found.dropped == 0
