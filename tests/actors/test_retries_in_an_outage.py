"""While others are away, whoever tries again does so once each time, however many reasons there were meanwhile."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from actors.node_links import NodeLinks
from actors.operations.keeper import Operations
from actors.ownership import SoloOwnership
from actors.relays.supervisor import Relays
from actors.servers import Servers
from actors.supervision import Actor, ChildSpec, Context, System, WhichChildren
from coxswain.clock import ManualClock
from coxswain.control_path.routes import Routes
from coxswain.errors import StoreUnavailable, Unavailable
from coxswain.keyring import KeySource, SealingSecret, open_keyring
from coxswain.messages import operations as op
from coxswain.messages import servers as sv
from coxswain.messages.audit import Caller
from coxswain.messages.ca import GetHopCredentials, GetLinkCredentials, GetRelayCredentials, RelayCredentials
from coxswain.messages.fleet import GetNodeSet
from coxswain.messages.links import NodeSetChanged
from coxswain.messages.relays import EMBEDDED, RelayCredentialsRenewed, RelaySetChanged
from coxswain.messages.servers import ListRelays
from coxswain.operations import Kind, Step
from coxswain.servers import Relay
from coxswain.store import open_store
from tests.support import eventually

OPS = Caller("ops", "session")


class Other(Actor):
    """Somebody who is asked: answers, or is away. Notes what came."""

    def __init__(self, context: Context, *, world: World) -> None:
        super().__init__(context)
        self.world = world

    def receive(self, message: Any) -> Any:
        self.world.heard.append(message)
        if self.world.away:
            raise Unavailable("away")
        return self.world.answers.get(type(message))


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.away = True
        self.heard: list[Any] = []
        self.answers: dict[type, Any] = {}
        self.system: System

    @contextmanager
    def running(self, child: ChildSpec, *others: str) -> Iterator[System]:
        children = (*(ChildSpec(name, Other, {"world": self}) for name in others), child)
        self.system = System(children=children, clock=self.clock, rng=random.Random(1), shutdown_s=20.0)
        self.system.start()
        try:
            assert self.system.wait_up(10)
            yield self.system
        finally:
            self.system.stop(10)

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.heard)

    def pending(self) -> int:
        """How many messages somebody will tell himself."""
        return sum(timer.call is not None for _, _, timer in list(self.system.timers._heap))

    def settled(self, name: str) -> Callable[[], bool]:
        actor: Any = self.system.directory.find(name)
        return lambda: actor.mailbox.empty() and actor.busy is None


@pytest.fixture
def world() -> World:
    return World()


def test_the_set_of_nodes_is_read_once_a_second_while_it_is_not_to_be_had(world: World) -> None:
    used: list[Any] = []
    services = SimpleNamespace(dialer=SimpleNamespace(use=lambda *given: used.append(given)))
    spec = ChildSpec("node_links", NodeLinks, {"services": services, "ownership": SoloOwnership()})
    world.answers = {GetLinkCredentials: "links", GetHopCredentials: "hops", GetNodeSet: {}}
    with world.running(spec, "certificate_authority", "fleet") as system:
        for _ in range(30):
            assert system.tell("node_links", NodeSetChanged())
        eventually(world.settled("node_links"))
        assert (world.count(GetLinkCredentials), world.pending()) == (1, 1)
        world.clock.advance(1.0)
        eventually(lambda: world.count(GetLinkCredentials) == 2)
        eventually(world.settled("node_links"))
        assert world.pending() == 1
        world.away = False
        world.clock.advance(1.0)
        eventually(lambda: used == [("links", "hops")])
        assert world.count(GetNodeSet) == 1 and world.pending() == 0


def test_a_bulk_import_has_the_set_of_nodes_read_now_and_again_and_the_last_change_counts(world: World) -> None:
    services = SimpleNamespace(dialer=SimpleNamespace(use=lambda *_: None))
    spec = ChildSpec("node_links", NodeLinks, {"services": services, "ownership": SoloOwnership()})
    world.away = False
    world.answers = {GetNodeSet: {}}
    with world.running(spec, "certificate_authority", "fleet") as system:
        for _ in range(100):
            assert system.tell("node_links", NodeSetChanged())
        eventually(world.settled("node_links"))
        assert (world.count(GetNodeSet), world.pending()) == (1, 1)
        world.clock.advance(0.2)
        eventually(lambda: world.count(GetNodeSet) == 2)
        world.clock.advance(0.2)
        system.ask("node_links", WhichChildren(), deadline=30)
        assert system.tell("node_links", NodeSetChanged())
        eventually(lambda: world.count(GetNodeSet) == 3)
        eventually(world.settled("node_links"))
        assert world.pending() == 0


SETTINGS = {
    "accounts.sync": True,
    "relay.remote": False,
    "relay.embedded": True,
    "relay.client_listen": ":8443",
    "relay.public_endpoint": "relay.example:8443",
}


class Holding(Relays):
    """The embedded relay is there; what stands for it is a child of the system, so that it is seen what it is told."""

    def __init__(self, context: Context, **given: Any) -> None:
        super().__init__(context, **given)
        self._held = {EMBEDDED: SETTINGS["relay.client_listen"]}


def relays() -> tuple[ChildSpec, Any]:
    services = SimpleNamespace(credentials=None)
    return ChildSpec("relays", Holding, {"services": services, "settings": SETTINGS}), services


def credentials(leaf: bytes, *serials: str) -> RelayCredentials:
    return RelayCredentials(leaf, b"key", b"fleet", b"device", 0.0, frozenset(serials))


def test_the_set_of_relays_is_read_once_a_second_while_it_is_not_to_be_had(world: World) -> None:
    spec, _ = relays()
    with world.running(spec, "servers", "certificate_authority", "embedded_relay") as system:
        for _ in range(30):
            assert system.tell("relays", RelaySetChanged())
            assert system.tell("relays", RelayCredentialsRenewed())
        eventually(world.settled("relays"))
        assert (world.count(ListRelays), world.pending()) == (1, 2), "the retry, and the look of every minute"
        world.clock.advance(1.0)
        eventually(lambda: world.count(ListRelays) == 2)
        eventually(world.settled("relays"))
        assert world.pending() == 2


def test_whoever_listens_is_told_of_a_renewed_certificate_that_was_not_to_be_had_at_once(world: World) -> None:
    spec, services = relays()
    world.away = False
    world.answers = {ListRelays: [], GetRelayCredentials: credentials(b"old")}
    with world.running(spec, "servers", "certificate_authority", "embedded_relay") as system:
        eventually(lambda: world.count(RelayCredentialsRenewed) == 1)
        world.away = True
        world.answers[GetRelayCredentials] = credentials(b"new")
        assert system.tell("relays", RelayCredentialsRenewed())
        eventually(lambda: world.pending() == 2)
        assert world.count(RelayCredentialsRenewed) == 1, "there is nothing new to show yet"
        world.away = False
        world.clock.advance(1.0)
        eventually(lambda: world.count(RelayCredentialsRenewed) == 2)
        assert services.credentials.chain_pem == b"new"
        world.answers[GetRelayCredentials] = credentials(b"new", "4711")
        assert system.tell("relays", RelaySetChanged())
        eventually(lambda: "4711" in services.credentials.relay_serials)
        eventually(world.settled("relays"))
        assert world.count(RelayCredentialsRenewed) == 2, "another relay is no other certificate of ours"


def test_the_control_path_is_read_once_a_second_while_it_cannot_be_read(
    world: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "app.db")
    with store.write() as tx:
        keyring = open_keyring(tx, SealingSecret(KeySource.FILE, b"k" * 32))
    spec = ChildSpec("servers", Servers, {"store": store, "keyring": keyring, "routes": Routes()})
    with world.running(spec) as system:
        added = system.ask("servers", sv.AddRelay(OPS, Relay("", "r1", endpoint="r1.example:8444")), deadline=30).value

        def away(_tx: Any) -> Any:
            raise StoreUnavailable("away")

        before = world.pending()
        monkeypatch.setattr("coxswain.store.control_paths.list_control_paths", away)
        for number in range(10):
            change = sv.EditRelay(OPS, added.id, {"region": f"r{number}"})
            system.ask("servers", change, deadline=30)
        assert world.pending() == before + 1
        monkeypatch.undo()
        world.clock.advance(1.0)
        eventually(lambda: world.pending() <= before)
    store.close()


def test_operations_that_cannot_begin_are_tried_again_together(world: World, tmp_path: pathlib.Path) -> None:
    store = open_store(tmp_path / "app.db")
    kind = Kind("test.do", lambda _params: [Step("do", "do it", lambda _work: None)], dict, lambda *_: ("thing", "1"))
    with world.running(
        ChildSpec("operations", Operations, {"store": store, "kinds": {kind.name: kind}}), "operation_runs"
    ) as system:
        eventually(world.settled("operations"))
        before = world.pending()
        for _ in range(10):
            system.ask("operations", op.StartOperation(OPS, kind.name, {}), deadline=30)
        eventually(world.settled("operations"))
        assert world.pending() == before + 1
        world.clock.advance(0.25)
        eventually(lambda: len(world.heard) == 11)
        eventually(world.settled("operations"))
        assert world.pending() == before + 1
    store.close()
