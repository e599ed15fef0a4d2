"""The version that an author saw is compared in the transaction of the change, on each backend."""

from __future__ import annotations

import threading

import pytest

from coxswain.cascade.types import Binding, Path, Phase
from coxswain.errors import NotFound, StaleVersion
from coxswain.messages.versions import Seen
from coxswain.model import Device, Node, User
from coxswain.store import Store, fleet, paths
from coxswain.store.versions import expect

NOW = 1_767_225_600.0


@pytest.fixture
def world(store: Store) -> Store:
    with store.write() as tx:
        for name in "ab":
            fleet.insert_node(tx, Node(f"nod_{name}", name, created_at=NOW, updated_at=NOW))
        fleet.upsert_users(tx, [User("usr_1", "Anna")], now=NOW)
        fleet.upsert_devices(tx, [Device("dev_1", "usr_1", "d1"), Device("dev_2", "usr_1", "d2")], now=NOW)
        paths.insert_path(tx, Path("pth_1", "far", ("nod_a", "nod_b"), created_at=NOW, updated_at=NOW))
        paths.put_exit(tx, Binding("dev_1", "dev_1", "pth_1", "", Phase.SETTLED), now=NOW)
    return store


def version(store: Store, table: str, key: str, value: str) -> int:
    with store.read() as tx:
        found: int = tx.execute(f"SELECT version FROM {table} WHERE {key} = ?", (value,))[0][0]
        return found


def test_as_it_was_seen_or_not(world: Store) -> None:
    for seen, table, key in (
        (Seen("node", "nod_a", 1, "a"), "nodes", "id"),
        (Seen("path", "pth_1", 1, "far"), "paths", "id"),
        (Seen("binding", "dev_1", 1, "of dev_1"), "device_exits", "device_id"),
    ):
        with world.write() as tx:
            expect(tx, seen)
        assert version(world, table, key, seen.id) == 1, "it is held, not changed"
        with pytest.raises(StaleVersion, match="version 7 was changed") as caught, world.write() as tx:
            expect(tx, Seen(seen.kind, seen.id, 7, seen.name))
        assert caught.value.current == 1 and seen.name in str(caught.value)


def test_nobody_looked_at_it(world: Store) -> None:
    with world.write() as tx:
        expect(tx, None)


def test_it_is_gone(world: Store) -> None:
    for kind in ("node", "path", "server", "relay", "operation"):
        with pytest.raises(NotFound, match="is gone"), world.write() as tx:
            expect(tx, Seen(kind, "none", 1, "none"))


def test_a_device_that_was_on_no_path_still_is(world: Store) -> None:
    with world.write() as tx:
        expect(tx, Seen("binding", "dev_2", 0))
    for seen in (Seen("binding", "dev_2", 3), Seen("binding", "dev_1", 0)):
        with pytest.raises(StaleVersion), world.write() as tx:
            expect(tx, seen)


def test_of_two_that_saw_the_same_one_is_refused(world: Store) -> None:
    """However they meet: the second waits for the first, and finds what it did."""
    begun, outcome = threading.Event(), []

    def second() -> None:
        begun.set()
        try:
            with world.write() as tx:
                expect(tx, Seen("path", "pth_1", 1, "far"))
                outcome.append("made")
        except StaleVersion as error:
            outcome.append(error.current)

    thread = threading.Thread(target=second)
    with world.write() as tx:
        expect(tx, Seen("path", "pth_1", 1, "far"))
        thread.start()
        begun.wait(30)
        tx.execute("UPDATE paths SET version = version + 1 WHERE id = 'pth_1'")
    thread.join(30)
    assert outcome == [2]
