"""A change waits for the disk once, with its audit record; and nobody acts on one that a power cut may still take back."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from actors.audit_writer import AuditWriter
from actors.fleet import Fleet
from actors.node_link import link_name
from actors.supervision import Actor, ChildSpec, Context, System
from coxswain.audit.settings import AuditPaths
from coxswain.clock import SystemClock
from coxswain.config.live import LiveConfig
from coxswain.keyring import KeySource, SealingSecret, open_keyring
from coxswain.messages import accounts
from coxswain.messages import fleet as m
from coxswain.messages.audit import AwaitAudited, Caller
from coxswain.messages.links import IntentChanged
from coxswain.model import Node
from coxswain.store import open_store
from coxswain.store.fleet import insert_node
from tests.support import eventually

CALLER = Caller("ops", "session")


class Link(Actor):
    """Notes what it is told."""

    def __init__(self, context: Context, *, told: list[Any]) -> None:
        super().__init__(context)
        self.told = told

    def receive(self, message: Any) -> None:
        self.told.append(message)


class World:
    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk = threading.Event()
        self.disk.set()
        self.told: list[Any] = []
        real = os.fdatasync

        def sync(number: int) -> None:
            assert self.disk.wait(30)
            real(number)

        monkeypatch.setattr("coxswain.store.sqlite.os.fdatasync", sync)
        self.store = open_store(where / "app.db")
        with self.store.write() as tx:
            insert_node(tx, Node("nod_a", "ams-1", control_addr="192.0.2.1:8443"))
            keyring = open_keyring(tx, SealingSecret(KeySource.FILE, b"k" * 32))
        audit = {"store": self.store, "paths": AuditPaths.in_state(where)}
        fleet = {"store": self.store, "keyring": keyring, "settings": LiveConfig.of_defaults()}
        children = (
            ChildSpec("audit_writer", AuditWriter, audit),
            ChildSpec(link_name("nod_a"), Link, {"told": self.told}),
            ChildSpec("fleet", Fleet, fleet),
        )
        self.system = System(children=children, clock=SystemClock(), rng=random.Random(1))
        self.system.start()
        assert self.system.wait_up(10)
        eventually(lambda: IntentChanged() in self.told)  # which a fleet that starts says
        self.told.clear()

    def ask(self, message: Any, name: str = "fleet") -> Any:
        return self.system.ask(name, message, deadline=30)

    def version(self) -> int:
        found: m.NodeView = self.ask(m.GetNode("nod_a"))
        return found.node.version


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.disk.set()
    made.system.stop(10)
    made.store.close()


def test_what_no_node_is_touched_by_waits_for_the_disk_once_with_its_audit_record(world: World) -> None:
    version = world.version()
    world.disk.clear()
    with ThreadPoolExecutor(2) as pool:
        edited = world.ask(m.EditNode(CALLER, "ams-1", version, region="fra"))
        added = world.ask(accounts.AddUser(CALLER, "Ann"))
        awaited = [pool.submit(world.ask, AwaitAudited(one.outbox_id), "audit_writer") for one in (edited, added)]
        assert not any(one.done() for one in awaited)
        assert world.store.synced < world.store.committed
        world.disk.set()
        assert max(one.result(30) for one in awaited) == 2
    assert not world.told, "a region is nothing to a link"


def test_a_link_is_told_of_a_change_that_is_on_disk(world: World) -> None:
    version = world.version()
    world.disk.clear()
    with ThreadPoolExecutor(1) as pool:
        before = world.store.committed
        edited = pool.submit(world.ask, m.EditNode(CALLER, "ams-1", version, control_addr="192.0.2.2:8443"))
        eventually(lambda: world.store.committed > before)
        assert not edited.done()
        assert not world.told
        world.disk.set()
        edited.result(30)
    eventually(lambda: world.told == [IntentChanged()])


def test_a_link_that_asks_gets_an_intent_that_is_on_disk(world: World) -> None:
    version = world.version()
    world.disk.clear()
    world.ask(m.EditNode(CALLER, "ams-1", version, region="fra"))
    with ThreadPoolExecutor(1) as pool:
        edited = world.store.committed
        asked = pool.submit(world.ask, m.GetIntent("nod_a"))
        assert world.store.synced < edited
        assert not asked.done()
        world.disk.set()
        intent: m.Intent = asked.result(30)
    assert intent.node.region == "fra"
    assert world.store.synced >= edited
