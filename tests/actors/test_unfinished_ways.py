"""A device whose way from one path to another ended in its middle is moved on, or back, once its nodes are there again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.fleet import Fleet
from actors.fleet.actor import _Review
from actors.supervision import Actor, ChildSpec, Context, System
from coxswain.cascade.types import Phase
from coxswain.clock import ManualClock
from coxswain.config.live import LiveConfig
from coxswain.keyring import KeySource, SealingSecret, open_keyring
from coxswain.messages.accounts import SetDeviceStatus
from coxswain.messages.audit import Caller
from coxswain.messages.fleet import LinkReport
from coxswain.messages.operations import OfferRetry
from coxswain.messages.paths import AddPath, GetBinding, SettleBinding, StageBinding
from coxswain.model import Device, DeviceStatus, LinkState, NodeStatus, Peer, Protocol, User
from coxswain.operations import Operation, OperationState
from coxswain.store import open_store
from coxswain.store.fleet import insert_node, upsert_devices, upsert_users
from coxswain.store.operations import insert_operation
from coxswain.store.peers import put_peers
from tests.coxswain.cascade.samples import key, node

OPS = Caller("ops", "session")


class Operations(Actor):
    def __init__(self, context: Context, *, offered: list[Any]) -> None:
        super().__init__(context)
        self.offered = offered

    def receive(self, message: Any) -> None:
        self.offered.append(message)


class World:
    """Nodes a to c, the path p over all of them, and devices 1 to 9 at a."""

    def __init__(self, where: Path) -> None:
        self.clock = ManualClock()
        self.store = open_store(where / "app.db")
        self.offered: list[Any] = []
        now = self.clock.now()
        numbers = range(1, 10)
        with self.store.write() as tx:
            for name in "abc":
                insert_node(tx, node(name))
            upsert_users(tx, [User("usr_1", "Anna")], now=now)
            upsert_devices(tx, [Device(f"dev_{n}", "usr_1", f"phone {n}") for n in numbers], now=now)
            peers = [
                Peer(f"per_{n}", "nod_a", f"dev_{n}", Protocol.AMNEZIAWG, key(f"phone {n}"), (f"10.8.0.{n + 1}/32",))
                for n in numbers
            ]
            put_peers(tx, peers, now=now)
            keyring = open_keyring(tx, SealingSecret(KeySource.FILE, b"k" * 32))
        fleet = {"store": self.store, "keyring": keyring, "settings": LiveConfig.of_defaults()}
        children = (
            ChildSpec("operations", Operations, {"offered": self.offered}),
            ChildSpec("fleet", Fleet, fleet),
        )
        self.system = System(children=children, clock=self.clock, rng=random.Random(1))
        self.system.start()
        assert self.system.wait_up(10)
        self.ask(AddPath(OPS, "pth_p", "p", ("a", "b", "c"), "", ()))

    def ask(self, message: Any) -> Any:
        return self.system.ask("fleet", message, deadline=30)

    def say(
        self,
        *names: str,
        state: LinkState = LinkState.LIVE,
        status: NodeStatus = NodeStatus.ACTIVE,
        started: float | None = None,
    ) -> None:
        for name in names:
            report = LinkReport(f"nod_{name}", 1, self.clock.now(), state, status=status, agent_started_at=started)
            self.ask(report)

    def after(self, seconds: float) -> list[str]:
        """Who was offered a retry by a look so much later."""
        self.clock.advance(seconds)
        self.offered.clear()
        self.ask(_Review())
        self.system.ask("operations", "seen", deadline=30)
        return sorted(message.target_id for message in self.offered if isinstance(message, OfferRetry))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("actors.fleet.actor._REVIEW_S", 1e9)  # it looks when the test says so
    made = World(tmp_path)
    yield made
    made.system.stop(10)
    made.store.close()


def test_it_is_moved_when_those_that_its_way_waits_for_are_there_and_not_before(world: World) -> None:
    world.say("a", "b", "c")
    assert world.after(100) == []
    world.ask(StageBinding(OPS, "dev_1", "pth_p", Phase.PREPARING))
    world.ask(StageBinding(OPS, "dev_1", "pth_p", Phase.MOVED))
    world.say("a", state=LinkState.BACKING_OFF, status=NodeStatus.UNREACHABLE)
    assert world.after(0) == [], "its operation may have begun just now"
    assert world.after(1_000) == [], "the node where it goes in is not there"
    world.say("a")
    assert world.after(1) == ["dev_1"]
    assert world.after(200) == [], "it is being tried"
    assert world.after(200) == ["dev_1"]
    world.ask(SettleBinding(OPS, "dev_1", "pth_p", forward=False))
    assert world.after(1_000) == []


def tries(world: World, seconds: int) -> list[int]:
    """When it was offered a retry, by looks of so long, every 100 s."""
    return [at for at in range(100, seconds + 1, 100) if world.after(100)]


def test_one_that_cannot_be_moved_is_tried_ever_more_rarely_and_at_once_when_a_node_was_away(world: World) -> None:
    world.say("a", "b", "c")
    world.ask(StageBinding(OPS, "dev_1", "pth_p", Phase.PREPARING))
    assert world.after(0) == []
    assert tries(world, 12_000) == [100, 400, 1_000, 2_200, 4_600, 8_200, 11_800]
    world.say("a", state=LinkState.BACKING_OFF, status=NodeStatus.UNREACHABLE)
    assert world.after(2_000) == []
    world.say("a")
    assert world.after(1) == ["dev_1"], "whoever was away may have been why"
    assert tries(world, 1_000) == [300, 900], "and from there it is as at first"
    world.say("a", started=world.clock.now())
    assert tries(world, 300) == [200], "nor does an agent have to be seen away that was restarted"


def test_what_its_own_attempt_does_to_a_node_is_no_reason_for_another(world: World) -> None:
    world.say("a", "b", "c")
    world.ask(StageBinding(OPS, "dev_1", "pth_p", Phase.PREPARING))
    assert world.after(0) == []
    assert tries(world, 1_000) == [100, 400, 1_000]
    with world.store.write() as tx:
        insert_operation(tx, Operation("op_1", "path.switch", "device", "dev_1", state=OperationState.RUNNING))
    world.say("a", state=LinkState.DEGRADED, status=NodeStatus.ERROR)
    assert world.after(100) == []
    world.say("a")
    with world.store.write() as tx:
        tx.execute("UPDATE operations SET state = 'failed'")
    assert tries(world, 1_200) == [1_100]


def test_one_that_an_operation_moves_is_left_to_it_however_long_that_takes(world: World) -> None:
    world.say("a", "b", "c")
    world.ask(StageBinding(OPS, "dev_1", "pth_p", Phase.PREPARING))
    operation = Operation("op_1", "path.switch", "device", "dev_1", state=OperationState.RUNNING)
    with world.store.write() as tx:
        insert_operation(tx, operation)
    assert [world.after(300) for _ in range(12)] == [[]] * 12
    with world.store.write() as tx:
        tx.execute("UPDATE operations SET state = 'failed'")
    assert world.after(300) == ["dev_1"]


def test_many_are_moved_a_few_at_a_time_and_all_get_their_turn(world: World) -> None:
    world.say("a", "b", "c")
    devices = [f"dev_{n}" for n in range(1, 10)]
    for device in devices:
        world.ask(StageBinding(OPS, device, "pth_p", Phase.PREPARING))
    assert world.after(0) == []
    looks = [world.after(61), world.after(1), world.after(1), world.after(1)]
    assert [len(look) for look in looks] == [4, 4, 1, 0]
    assert sorted(device for look in looks for device in look) == devices


def test_one_that_is_revoked_on_its_way_is_not_put_on_a_path_by_what_ends_that(world: World) -> None:
    """What follows for paths is worked out a moment later; what comes in between finds the device still on its way."""
    world.say("a", "b", "c")
    world.ask(StageBinding(OPS, "dev_1", "pth_p", Phase.PREPARING))
    world.system.tell("fleet", SetDeviceStatus(OPS, "dev_1", DeviceStatus.REVOKED))
    world.system.tell("fleet", SettleBinding(OPS, "dev_1", "pth_p", forward=True))
    assert world.ask(GetBinding("dev_1")).phase is Phase.SETTLED
    with world.store.read() as tx:
        assert tx.execute("SELECT path_id FROM device_exits") == []
