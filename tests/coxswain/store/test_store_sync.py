"""When what was committed is on disk: before anybody is told so, together for all who wait, and not a moment pretended."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coxswain.errors import AlreadyExists, StoreUnavailable
from coxswain.store import Durability, Store, open_store
from coxswain.store.guards import SharedSync
from tests.support import eventually

BATCHED = Durability.BATCHED


def put(store: Store, number: int, durability: Durability = Durability.ACKNOWLEDGED) -> None:
    with store.write(durability) as tx:
        tx.execute("INSERT INTO things (id) VALUES (?)", (number,))


def make(store: Store) -> None:
    with store.write() as tx:
        tx.execute("CREATE TABLE things (id BIGINT PRIMARY KEY)")


class Disk:
    """What ``fdatasync`` has put on disk: a copy of the database as it was then, which is what a power cut would leave."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.syncs = 0
        self.fails = False
        self.go = threading.Event()
        self.go.set()
        monkeypatch.setattr("coxswain.store.sqlite.os.fdatasync", self._sync)

    def _sync(self, number: int) -> None:
        assert Path(f"/proc/self/fd/{number}").readlink() == Path(f"{self.path}-wal")
        assert self.go.wait(30)
        self.syncs += 1
        if self.fails:
            raise OSError(5, "Input/output error")
        for end in ("", "-wal"):
            shutil.copy(f"{self.path}{end}", f"{self.path}.after{end}")
        os.fsync(number)

    def after_power_cut(self) -> list[int]:
        left = sqlite3.connect(f"{self.path}.after")
        try:
            return [row[0] for row in left.execute("SELECT id FROM things ORDER BY id")]
        finally:
            left.close()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "app.db", monkeypatch)


@pytest.fixture
def lite(disk: Disk) -> Store:
    opened = open_store(disk.path)
    make(opened)
    return opened


def test_an_acknowledged_commit_is_on_disk_when_it_returns(lite: Store, disk: Disk) -> None:
    for number in range(5):
        put(lite, number)
        assert disk.after_power_cut() == list(range(number + 1))
    lite.close()


def test_batched_commits_are_on_disk_with_the_next_that_is_acknowledged_or_when_somebody_asks(
    lite: Store, disk: Disk
) -> None:
    syncs = disk.syncs
    put(lite, 1, BATCHED)
    assert (disk.syncs, lite.synced) == (syncs, lite.committed - 1)
    put(lite, 2)
    assert (disk.after_power_cut(), disk.syncs) == ([1, 2], syncs + 1)
    put(lite, 3, BATCHED)
    lite.sync()
    assert (disk.after_power_cut(), disk.syncs) == ([1, 2, 3], syncs + 2)
    lite.sync()
    assert disk.syncs == syncs + 2, "there was nothing to do"
    lite.close()


def test_a_transaction_that_is_rolled_back_waits_for_no_disk(lite: Store, disk: Disk) -> None:
    put(lite, 1)
    syncs = disk.syncs
    with pytest.raises(AlreadyExists):
        put(lite, 1)
    assert (disk.syncs, lite.synced) == (syncs, lite.committed)
    lite.close()


def test_nobody_holds_the_turn_while_the_disk_is_slow_and_those_who_wait_share_a_sync(lite: Store, disk: Disk) -> None:
    syncs, before = disk.syncs, lite.committed
    disk.go.clear()
    with ThreadPoolExecutor(12) as pool:
        writing = [pool.submit(put, lite, number) for number in range(12)]
        eventually(lambda: lite.committed == before + 12)  # all of them commit, though the first is not on disk
        assert not any(done.done() for done in writing), "and nobody is told before the disk says so"
        disk.go.set()
        for done in writing:
            done.result(30)
    assert set(range(12)) <= set(disk.after_power_cut())
    assert disk.syncs - syncs < 12
    lite.close()


def test_a_disk_that_fails_is_said_and_the_next_sync_tries_again(lite: Store, disk: Disk) -> None:
    disk.fails = True
    with pytest.raises(StoreUnavailable, match="cannot be synced"):
        put(lite, 1)
    with pytest.raises(StoreUnavailable, match="cannot be synced"):
        lite.sync()
    disk.fails = False
    put(lite, 2)
    assert disk.after_power_cut() == [1, 2]
    lite.close()


def test_every_store_counts_what_is_on_disk(store: Store) -> None:
    make(store)
    assert store.synced == store.committed
    put(store, 1, BATCHED)
    assert store.synced == store.committed - 1
    store.sync()
    assert store.synced == store.committed
    put(store, 2)
    assert store.synced == store.committed
    with store.read() as tx:
        assert tx.execute("SELECT id FROM things ORDER BY id") == [(1,), (2,)]


def test_one_that_waits_in_vain_does_not_leave_the_others_waiting() -> None:
    turns, began, fail = [], threading.Event(), threading.Event()

    def sync() -> None:
        turns.append(1)
        began.set()
        assert fail.wait(30)
        if len(turns) == 1:
            raise StoreUnavailable("the first one fails")

    syncs = SharedSync(sync)
    syncs.note_commit()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(syncs.wait)
        assert began.wait(30)
        others = [pool.submit(syncs.wait) for _ in range(3)]
        fail.set()
        with pytest.raises(StoreUnavailable):
            first.result(30)
        for other in others:
            other.result(30)
    assert (len(turns), syncs.synced) == (2, 1)
