"""The hub keeps the last events under rising numbers, and tells who came late how many are gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from actors.event_hub import EventHub
from actors.supervision import ChildSpec, Harm, System
from coxswain.clock import ManualClock, SystemClock
from coxswain.live.ring import EventRing, Stretch
from coxswain.messages.hub import EventsAfter, Publish
from coxswain.store import Store, open_store
from coxswain.store.live_floor import read_floor
from tests.support import eventually


@contextmanager
def running(store: Store, ring: EventRing | None = None, clock: ManualClock | None = None) -> Iterator[System]:
    hub = ChildSpec("event_hub", EventHub, {"store": store, "ring": ring or EventRing()})
    system = System(children=(hub,), clock=clock or SystemClock(), rng=random.Random(1), allow_chaos=True)
    system.start()
    assert system.wait_up(10)
    try:
        yield system
    finally:
        assert system.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "app.db")
    yield store
    store.close()


@pytest.fixture
def system(embedded: Store) -> Iterator[System]:
    with running(embedded) as made:
        yield made


def publish(system: System, first: int, count: int) -> None:
    for number in range(first, first + count):
        assert system.tell("event_hub", Publish("test", 1.0, {"number": number}))


def is_in_life(system: System, life: int) -> bool:
    return system.tree().children[0].incarnation == life and system.wait_up(1)


def page(system: System, after: int, limit: int = 500) -> Stretch:
    found: Stretch = system.ask("event_hub", EventsAfter(after, limit), deadline=30)
    return found


def numbers(found: Stretch) -> list[int]:
    return [event.event.data["number"] for event in found.events]


def test_an_empty_hub(system: System) -> None:
    found = page(system, 0)
    assert (list(found.events), found.missed) == ([], 0)
    assert page(system, found.last) == found


def test_pages_follow_each_other_without_gap_or_repeat(system: System) -> None:
    publish(system, 1, 25)
    seen: list[int] = []
    after = 0
    while (found := page(system, after, 10)).events:
        seen += numbers(found)
        after = found.last
    assert seen == list(range(1, 26))
    assert page(system, after) == Stretch([], after + 1, after, 0)
    publish(system, 26, 1)
    assert numbers(page(system, after)) == [26]


def test_who_comes_late_is_told_how_many_are_gone(system: System) -> None:
    start = page(system, 0).last
    publish(system, 1, 10_250)
    found = page(system, start + 100)
    assert found.missed == 150
    assert numbers(found)[0] == 251
    assert len(found.events) == 500
    assert page(system, found.last).missed == 0
    assert page(system, start + 250).missed == 0


def test_killed_it_goes_on_where_it_was_and_says_that_something_may_be_missing(system: System) -> None:
    publish(system, 1, 50)
    before = page(system, 0)
    for life, how in enumerate((Harm.RAISE, Harm.EXIT, Harm.VANISH), start=2):
        assert system.harm("event_hub", how, 0)
        eventually(partial(is_in_life, system, life))
        found = page(system, before.last)
        assert [event.event.kind for event in found.events] == ["dropped"]
        assert found.events[0].event.data == {"count": None, "reason": "restart"}
        assert found.missed == 0
        publish(system, 51, 3)
        again = page(system, found.last)
        assert [event.seq for event in again.events] == [found.last + n for n in (1, 2, 3)]
        before = again


def test_numbers_rise_over_restarts_of_the_daemon_wherever_its_clock_stands(store: Store) -> None:
    clock = ManualClock()
    last = 0
    for step in (0.0, 3600.0, -7200.0, -86_400.0, 60.0):
        clock.advance(step)
        with running(store, clock=clock) as system:
            publish(system, 1, 5)
            found = page(system, last)
            assert found.missed is None or last == 0, "what was before this run, nobody knows"
            assert [event.seq for event in found.events] == [found.events[0].seq + n for n in range(5)]
            assert found.events[0].seq > last
            last = found.last
    with store.read() as tx:
        assert read_floor(tx) > last


def test_a_number_of_another_run_has_everything_told_again(system: System) -> None:
    publish(system, 1, 3)
    for strange in (5, 2**52):
        found = page(system, strange)
        assert (numbers(found), found.missed) == ([1, 2, 3], None)


def test_of_an_audited_change_everybody_is_told_what_changed_but_not_by_whom(system: System) -> None:
    record = {
        "action": "user.add",
        "target_type": "user",
        "target_id": "usr_1",
        "result": "ok",
        "actor": "eve",
        "detail": {},
    }
    for action, more in (("user.add", {}), ("user.add", {"result": "error"}), ("auth.login", {}), ("node.rm", {})):
        system.tell("event_hub", Publish("audit", 1.0, record | {"action": action} | more))
    found = page(system, 0).events
    assert [event.event.kind for event in found].count("audit") == 4
    told = [event.event.data for event in found if event.event_class == "inventory"]
    assert [(t["object"], t["id"], t["action"]) for t in told] == [
        ("user", "usr_1", "user.add"),
        ("user", "usr_1", "node.rm"),
    ]
    assert "eve" not in str(told)
