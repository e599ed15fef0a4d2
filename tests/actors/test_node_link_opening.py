"""A link that gives up what it is just opening: by another route, or because it ends. Nothing stays open behind its back."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import actors.node_link as tested
from actors.event_funnel import EventFunnel
from actors.io_loop import IoLoop
from actors.node_link import LinkServices, NodeLink, link_name
from actors.supervision import Actor, ChildSpec, DynamicSupervisor, Restart, StartChild, System, TerminateChild
from coxswain.clock import SystemClock
from coxswain.messages.control_paths import RouteChanged
from coxswain.messages.fleet import GetIntent, Intent
from coxswain.model import Node
from tests.support import eventually

NODE = Node("nod_a", "ams-1", control_addr="192.0.2.1:8443", server_names=("a.leaf",))
NAME = link_name(NODE.id)


class Fleet(Actor):
    """As much of ``fleet`` as a link asks."""

    def receive(self, message: Any) -> Any:
        return Intent(NODE, ()) if isinstance(message, GetIntent) else None


class Opened:
    """A connection."""

    server_name, number = "a.leaf", 0

    def __init__(self) -> None:
        self.closed = threading.Event()

    async def close(self) -> None:
        self.closed.set()


class Opening:
    """Stands for ``open_connection``, which lasts. ``heeds`` False: it comes to its end all the same, although cancelled."""

    def __init__(self) -> None:
        self.begun: list[Opened] = []
        self.cancelled = threading.Event()
        self.heeds = True

    async def __call__(self, *_: Any) -> tuple[Opened, Any]:
        made = Opened()
        self.begun.append(made)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            if self.heeds:
                raise
            await asyncio.sleep(0.02)
        return made, SimpleNamespace()


class World:
    """A link that is just opening its connection."""

    def __init__(self, system: System, opening: Opening, routes: SimpleNamespace) -> None:
        self.system = system
        self.opening = opening
        self.routes = routes


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    opening, routes, clock = Opening(), SimpleNamespace(number=1), SystemClock()
    monkeypatch.setattr(tested, "open_connection", opening)
    io = IoLoop(clock)
    io.start()
    dialer: Any = SimpleNamespace(routes=routes)
    services = LinkServices(io, dialer, EventFunnel("epoch", lambda _: None))
    link = ChildSpec(NAME, NodeLink, {"node_id": NODE.id, "services": services}, Restart.TEMPORARY)
    children = (ChildSpec("fleet", Fleet, {}), ChildSpec("links", DynamicSupervisor, {}))
    system = running(children, clock)
    try:
        system.ask("links", StartChild(link), deadline=30)
        eventually(lambda: opening.begun)
        yield World(system, opening, routes)
    finally:
        system.stop()
        io.stop()


def running(children: tuple[ChildSpec, ...], clock: SystemClock) -> System:
    system = System(children=children, clock=clock, rng=random.Random(1))
    system.start()
    assert system.wait_up(10)
    return system


@pytest.mark.parametrize("heeds", [True, False])
def test_what_is_being_opened_by_the_route_before_is_cancelled_or_closed(world: World, heeds: bool) -> None:
    world.opening.heeds = heeds
    world.routes.number = 2
    world.system.tell(NAME, RouteChanged())
    assert world.opening.cancelled.wait(30)
    eventually(lambda: len(world.opening.begun) == 2)
    if not heeds:
        assert world.opening.begun[0].closed.wait(30)
    assert not world.opening.begun[1].closed.is_set()


@pytest.mark.parametrize("heeds", [True, False])
def test_a_link_that_ends_while_it_opens_leaves_nothing_open(world: World, heeds: bool) -> None:
    world.opening.heeds = heeds
    world.system.ask("links", TerminateChild(NAME), deadline=30)
    assert world.opening.cancelled.wait(30)
    if not heeds:
        assert world.opening.begun[0].closed.wait(30)
