"""The clock in a real system; the fleet and the links around it are played by small actors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors.reconcile_clock import ReconcileClock
from actors.supervision import Actor, ChildSpec, Context, System
from coxswain.clock import SystemClock
from coxswain.errors import Unavailable
from coxswain.messages.fleet import GetNodeSet
from coxswain.messages.links import Look, NodeSetChanged
from coxswain.model import Node
from tests.support import eventually


class Inventory:
    def __init__(self, *nodes: Node) -> None:
        self.nodes = list(nodes)
        self.reads = 0
        self.refuse = 0
        self.looks: list[tuple[str, Look]] = []


class FleetOf(Actor):
    def __init__(self, context: Context, *, inventory: Inventory) -> None:
        super().__init__(context)
        self.inventory = inventory

    def receive(self, message: Any) -> Any:
        assert isinstance(message, GetNodeSet)
        self.inventory.reads += 1
        if self.inventory.refuse:
            self.inventory.refuse -= 1
            raise Unavailable("not now")
        return {node.id: node.enabled for node in self.inventory.nodes}


class Link(FleetOf):
    def receive(self, message: Any) -> Any:
        self.inventory.looks.append((self.context.name, message))


@contextmanager
def running(inventory: Inventory, *names: str) -> Iterator[System]:
    inventory_kwargs = {"inventory": inventory}
    system = System(
        children=(
            ChildSpec("fleet", FleetOf, inventory_kwargs),
            *(ChildSpec(f"node_link:{name}", Link, inventory_kwargs) for name in names),
            ChildSpec("reconcile_clock", ReconcileClock, {"interval_s": lambda: 0.5}),
        ),
        clock=SystemClock(),
        rng=random.Random(1),
    )
    system.start()
    try:
        yield system
    finally:
        system.stop()


def test_every_enabled_node_is_looked_at_again_and_again() -> None:
    inventory = Inventory(Node("a", "a"), Node("b", "b"), Node("c", "c", enabled=False))
    with running(inventory, "a", "b", "c"):
        eventually(lambda: [name for name, _ in inventory.looks].count("node_link:a") >= 3)
        eventually(lambda: [name for name, _ in inventory.looks].count("node_link:b") >= 3)
    assert {name for name, _ in inventory.looks} == {"node_link:a", "node_link:b"}
    assert {look for _, look in inventory.looks} == {Look()}
    assert inventory.reads == 1


def test_a_changed_set_is_read_again_but_not_for_every_change() -> None:
    inventory = Inventory()
    with running(inventory, "a") as system:
        eventually(lambda: inventory.reads == 1)
        inventory.nodes.append(Node("a", "a"))
        for _ in range(500):
            system.tell("reconcile_clock", NodeSetChanged())
        eventually(lambda: inventory.looks)
    assert inventory.reads <= 4


def test_a_fleet_that_is_away_is_asked_again() -> None:
    inventory = Inventory(Node("a", "a"))
    inventory.refuse = 1
    with running(inventory, "a"):
        eventually(lambda: inventory.looks)
    assert inventory.reads == 2


def test_a_node_without_a_link_disturbs_nobody() -> None:
    inventory = Inventory(Node("gone", "gone"), Node("a", "a"))
    with running(inventory, "a"):
        eventually(lambda: len(inventory.looks) >= 2)
