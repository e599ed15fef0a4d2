"""What ``fleet`` answers an operation that changes the exit of a path, where something else came in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.fleet import Fleet
from actors.supervision import Actor, ChildSpec, Context, System
from coxswain.cascade.types import Phase
from coxswain.clock import SystemClock
from coxswain.config.live import LiveConfig
from coxswain.errors import Conflict, InvalidInput
from coxswain.keyring import KeySource, SealingSecret, open_keyring
from coxswain.messages.audit import Caller
from coxswain.messages.exits import GetExit, SettleExit, StageExit
from coxswain.messages.fleet import EditNode
from coxswain.messages.hub import Publish
from coxswain.messages.paths import AddPath, EditPath, GetBinding, PlanPath, SettleBinding, StageBinding
from coxswain.model import Device, NetworkPolicy, Peer, Protocol, User
from coxswain.store import open_store
from coxswain.store.fleet import insert_node, upsert_devices, upsert_users
from coxswain.store.peers import put_peers
from tests.coxswain.cascade.samples import key, node
from tests.support import eventually

CALLER = Caller("controller", "system")
NOW = 1_767_225_600.0


class Hub(Actor):
    """Keeps what it is told."""

    def __init__(self, context: Context, *, told: list[Publish]) -> None:
        super().__init__(context)
        self._told = told

    def receive(self, message: Any) -> Any:
        self._told.append(message)


class World:
    """Nodes a to e; the path p from a over b to c, with d and e to fall back on; a device that could be bound to it."""

    def __init__(self, where: Path) -> None:
        self.store = open_store(where / "app.db")
        peer = Peer("per_1", "nod_a", "dev_1", Protocol.AMNEZIAWG, key("phone"), ("10.8.0.2/32",))
        with self.store.write() as tx:
            for name in "abcde":
                insert_node(tx, node(name))
            upsert_users(tx, [User("usr_1", "Anna")], now=NOW)
            upsert_devices(tx, [Device("dev_1", "usr_1", "phone")], now=NOW)
            put_peers(tx, [peer], now=NOW)
            keyring = open_keyring(tx, SealingSecret(KeySource.FILE, b"k" * 32))
        fleet = {"store": self.store, "keyring": keyring, "settings": LiveConfig.of_defaults()}
        self.told: list[Publish] = []
        children = (ChildSpec("event_hub", Hub, {"told": self.told}), ChildSpec("fleet", Fleet, fleet))
        self.system = System(children=children, clock=SystemClock(), rng=random.Random(1))
        self.system.start()
        assert self.system.wait_up(10)
        made = self.ask(AddPath(CALLER, "pth_p", "p", ("a", "b", "c"), "", ("d", "e")))
        self.version: int = made.value.path.version

    def ask(self, message: Any) -> Any:
        return self.system.ask("fleet", message, deadline=30)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.system.stop(10)
    made.store.close()


def test_a_move_to_what_is_no_exit_any_more_can_be_taken_back(world: World) -> None:
    """Somebody took the fallback away between the moment at which the move was asked for, and its beginning."""
    world.ask(EditPath(CALLER, "pth_p", world.version, fallbacks=("d",)))
    with pytest.raises(InvalidInput, match="no exit of path p"):
        world.ask(StageExit(CALLER, "pth_p", "nod_e", Phase.PREPARING, automatic=True))
    back = world.ask(SettleExit(CALLER, "pth_p", "nod_e", forward=False))
    assert back.value.exit == "nod_c" and not back.outbox_id, "there was nothing to take back, and nothing was changed"
    with pytest.raises(InvalidInput, match="no exit of path p"):
        world.ask(SettleExit(CALLER, "pth_p", "nod_e", forward=True))


def test_a_device_that_is_stuck_on_its_way_keeps_nobody_on_an_exit_that_is_gone(world: World) -> None:
    world.ask(StageBinding(CALLER, "dev_1", "pth_p", Phase.PREPARING))
    with pytest.raises(Conflict, match="device dev_1 is on its way"):
        world.ask(StageExit(CALLER, "pth_p", "nod_d", Phase.PREPARING))
    for phase in (Phase.PREPARING, Phase.MOVED):
        world.ask(StageExit(CALLER, "pth_p", "nod_d", phase, "gone", automatic=True))
        assert world.ask(GetBinding("dev_1")).phase is Phase.PREPARING
    world.ask(SettleExit(CALLER, "pth_p", "nod_d", forward=True, automatic=True))
    assert world.ask(GetExit("pth_p")).exit == "nod_d"
    world.ask(StageBinding(CALLER, "dev_1", "pth_p", Phase.MOVED))
    settled = world.ask(SettleBinding(CALLER, "dev_1", "pth_p", forward=True)).value
    assert (settled.phase, settled.route) == (Phase.SETTLED, "pth_p"), "and it goes on from there"


def test_the_way_back_waits_for_those_who_carry_by_it(world: World) -> None:
    world.ask(StageExit(CALLER, "pth_p", "nod_d", Phase.PREPARING))
    forward, back = (world.ask(GetExit("pth_p", back=back)).waiting for back in (False, True))
    assert [reason.split()[0] for reason in forward] == ["a", "b", "d"]
    assert [reason.split()[0] for reason in back] == ["b"], "where both ways part; whether d is there has no part in it"


def test_an_exit_that_does_not_masquerade_is_said_to_as_in_a_plan(world: World) -> None:
    world.ask(EditNode(CALLER, "nod_d", 1, policy=NetworkPolicy(forwarding=True, masquerade=False)))
    world.ask(EditNode(CALLER, "nod_b", 1, policy=NetworkPolicy(forwarding=False, masquerade=False)))
    there = "d: masquerading is off: what leaves there keeps its tunnel address"
    plan = world.ask(PlanPath("", ("a", "b", "d")))
    assert plan.notes == ("b: forwarding is off, and is on while somebody is on the path", there)
    assert world.ask(GetExit("pth_p")).notes == ()
    world.ask(StageExit(CALLER, "pth_p", "nod_d", Phase.PREPARING))
    assert world.ask(GetExit("pth_p")).notes == (there,)


def test_each_stage_is_told_with_the_reason_of_this_move(world: World) -> None:
    for to, why in (("nod_d", "nod_c is unreachable"), ("nod_e", "nod_d is unreachable")):
        for phase in (Phase.PREPARING, Phase.MOVED):
            world.ask(StageExit(CALLER, "pth_p", to, phase, why, automatic=True))
        world.ask(SettleExit(CALLER, "pth_p", to, forward=True, reason=why, automatic=True))
    world.ask(StageExit(CALLER, "pth_p", "nod_c", Phase.PREPARING, "anna asked for it"))
    world.ask(SettleExit(CALLER, "pth_p", "nod_c", forward=False))
    stages = [(m.data["phase"], m.data["reason"]) for m in told_of_exits(world)]
    assert stages == [
        *((phase, "nod_c is unreachable") for phase in ("preparing", "moved", "settled")),
        *((phase, "nod_d is unreachable") for phase in ("preparing", "moved", "settled")),
        ("preparing", "anna asked for it"),
        ("settled", "nod_d is unreachable"),  # why it is where it still is
    ]


def told_of_exits(world: World) -> list[Publish]:
    """What was said about the exit."""
    eventually(lambda: sum(m.kind == "path.exit" for m in world.told) >= 8)
    return [m for m in world.told if m.kind == "path.exit"]
