"""The meter in a real system, on both stores; the fleet and the tracker are played by small actors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors.event_hub import EventHub
from actors.meter import LOOKS_A_WRITE, MeterActor
from actors.supervision import Actor, ChildSpec, Context, Harm, System
from coxswain.clock import SystemClock
from coxswain.errors import Unavailable
from coxswain.live.ring import EventRing
from coxswain.messages.fleet import GetPulses
from coxswain.messages.hub import EventsAfter
from coxswain.messages.meter import GetSeries, Series
from coxswain.messages.sessions import GetActiveSessions
from coxswain.metering import Pulse
from coxswain.store import Store
from tests.support import eventually


class World:
    """What the played actors say."""

    def __init__(self) -> None:
        self.up = True
        self.sessions = 3
        self.silent = False
        self.asked = 0


class Played(Actor):
    def __init__(self, context: Context, *, world: World) -> None:
        super().__init__(context)
        self._world = world

    def receive(self, message: Any) -> Any:
        self._world.asked += 1
        if self._world.silent:
            raise Unavailable("not now")
        match message:
            case GetPulses():
                now = self.context.clock.now()
                return {"nod_a": Pulse(self._world.up, now - 60, now)}
            case GetActiveSessions():
                return {"nod_a": self._world.sessions}
        raise AssertionError(message)


@contextmanager
def running(store: Store, world: World) -> Iterator[System]:
    system = System(
        children=(
            ChildSpec("event_hub", EventHub, {"store": store, "ring": EventRing()}),
            ChildSpec("fleet", Played, {"world": world}),
            ChildSpec("session_tracker", Played, {"world": world}),
            ChildSpec("meter", MeterActor, {"store": store, "look_s": 0.02}),
        ),
        clock=SystemClock(),
        rng=random.Random(1),
        allow_chaos=True,
    )
    system.start()
    try:
        assert system.wait_up(10)
        yield system
    finally:
        assert system.stop()


def series(system: System, node_id: str = "") -> Series:
    found: Series = system.ask("meter", GetSeries(node_id=node_id), deadline=30)
    return found


def newest(system: System, node_id: str = "") -> Any:
    """The last point of which anything is known."""
    return next((point for point in reversed(series(system, node_id).points) if point.availability is not None), None)


def test_what_was_looked_at_is_there_and_told(store: Store) -> None:
    with running(store, World()) as system:
        for node_id in ("nod_a", ""):
            seen = eventually(lambda node_id=node_id: newest(system, node_id))
            assert (seen.availability, round(seen.sessions)) == (1.0, 3)
        found = series(system)
        assert len(found.points) in (288, 289)
        assert found.points[0].sessions is None, "a day ago nobody looked"
        told = system.ask("event_hub", EventsAfter(0, 100), deadline=30)
        assert "metrics.written" in {event.event.kind for event in told.events}


def test_a_look_that_came_to_nothing_is_no_zero(store: Store) -> None:
    world = World()
    world.silent = True
    with running(store, world) as system:
        eventually(lambda: world.asked > 2 * LOOKS_A_WRITE)
        assert newest(system) is None
        world.silent = False
        assert eventually(lambda: newest(system)).availability == 1.0


def test_it_falls_and_goes_on_and_what_was_written_stays(store: Store) -> None:
    world = World()
    with running(store, world) as system:
        eventually(lambda: newest(system))
        world.silent = True
        assert system.harm("meter", Harm.RAISE, 0)
        eventually(lambda: system.tree().children[-1].restarts >= 1)
        assert eventually(lambda: newest(system)).sessions == pytest.approx(3, rel=0.05)
        world.silent = False
        asked = world.asked
        eventually(lambda: world.asked > asked + LOOKS_A_WRITE)


def test_what_is_not_written_yet_is_written_when_it_stops(store: Store) -> None:
    with running(store, World()) as system:
        eventually(lambda: newest(system))
    with running(store, World()) as system:
        assert newest(system) is not None
