"""What survives: SIGKILL of the writer, a crash, a restart and a long absence of the server."""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from coxswain.errors import StateDirectoryHeld, StoreUnavailable
from coxswain.store import Durability, open_store
from tests.support import eventually

WRITER = """
import sys
from coxswain.store import Durability, open_store

store, first = open_store(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 1_000_000):
    kind = Durability.ACKNOWLEDGED if number % 2 else Durability.BATCHED
    with store.write(kind) as tx:
        tx.execute("INSERT INTO pairs (id, half) VALUES (?, 1)", (number,))
        tx.execute("INSERT INTO pairs (id, half) VALUES (?, 2)", (number,))
    print(number, flush=True)
"""


def make_pairs(store):
    with store.write() as tx:
        tx.execute("CREATE TABLE pairs (id BIGINT, half BIGINT, PRIMARY KEY (id, half))")


def whole_pairs(store):
    """Ids; fails if half a transaction is there."""
    with store.read() as tx:
        counted = tx.execute("SELECT id, count(*) FROM pairs GROUP BY id")
    assert all(count == 2 for _, count in counted)
    return {row[0] for row in counted}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_killed_process_loses_nothing_that_it_acknowledged(fresh_where, seed):
    where, rng = fresh_where(), random.Random(seed)
    store = open_store(where)
    make_pairs(store)
    store.close()
    acknowledged = set()
    for round_ in range(3):
        command = [sys.executable, "-c", WRITER, where, str(round_ * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            for _ in range(rng.randrange(5, 200)):
                acknowledged.add(int(writer.stdout.readline()))
            writer.send_signal(signal.SIGKILL)
            acknowledged |= {int(line) for line in writer.stdout.read().splitlines() if line}
    store = open_store(where)
    there = eventually(lambda: (ids := whole_pairs(store)) >= acknowledged and ids)
    assert len(there) <= len(acknowledged) + 3, "at most the write that was in flight at each kill"
    store.close()


class Load:
    """Writes until it is stopped; remembers what was acknowledged. ``StoreUnavailable`` is the only error it bears."""

    def __init__(self, store):
        self.acknowledged, self.refused, self.error = [], 0, None
        self._store, self._stop = store, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                with self._store.write(Durability.ACKNOWLEDGED) as tx:
                    tx.execute("INSERT INTO pairs VALUES (?, 1)", (number,))
                    tx.execute("INSERT INTO pairs VALUES (?, 2)", (number,))
                self.acknowledged.append(number)
            except StoreUnavailable:
                self.refused += 1
            except Exception as error:
                self.error = error
                return

    def stop(self):
        self._stop.set()
        self._thread.join(30)
        assert self.error is None


@pytest.mark.parametrize("how", ["INT", "QUIT"])
def test_a_restart_of_the_server_in_the_middle_loses_nothing_and_needs_nobody(own_postgres, how):
    store = open_store(own_postgres.create_database(), exclusive=True)
    make_pairs(store)
    load = Load(store)
    for _ in range(2):
        before = len(load.acknowledged)
        eventually(lambda before=before: len(load.acknowledged) > before + 50)
        refused = load.refused
        own_postgres.stop(how)
        eventually(lambda refused=refused: load.refused > refused)
        own_postgres.start()
    before = len(load.acknowledged)
    eventually(lambda: len(load.acknowledged) > before + 50, timeout=30)
    load.stop()
    assert whole_pairs(store) >= set(load.acknowledged)
    store.close()


def test_a_server_that_stays_away_is_unavailable_within_seconds_and_welcome_back(own_postgres):
    store = open_store(own_postgres.create_database())
    own_postgres.stop()
    for enter in (store.write, store.read):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable), enter():
            pass
        assert time.monotonic() - began < 30  # a bound against hanging, not a figure
    own_postgres.start()

    def works():
        try:
            with store.write() as tx:
                return tx.execute("SELECT 1")
        except StoreUnavailable:
            return None

    eventually(works, timeout=30)
    store.close()


def test_a_session_that_is_cut_in_the_middle_of_a_transaction_changes_nothing(postgres_server):
    store = open_store(postgres_server.create_database())
    make_pairs(store)

    def cut():
        with store.write() as tx:
            tx.execute("INSERT INTO pairs VALUES (1, 1)")
            with store.read() as killer:
                mine = tx.execute("SELECT pg_backend_pid()")[0]
                killer.execute("SELECT pg_terminate_backend(?)", mine)
            tx.execute("INSERT INTO pairs VALUES (1, 2)")

    with pytest.raises(StoreUnavailable):
        cut()
    with store.read() as tx:
        assert tx.execute("SELECT count(*) FROM pairs") == [(0,)]
    store.close()


def test_the_holder_still_holds_after_a_restart_of_the_server(own_postgres):
    where = own_postgres.create_database()
    holder = open_store(where, exclusive=True)
    own_postgres.stop()
    own_postgres.start()
    eventually(lambda: writes(holder), timeout=30)
    with pytest.raises(StateDirectoryHeld):
        open_store(where, exclusive=True)
    holder.close()


@pytest.mark.parametrize("still_there", [True, False])
def test_a_holder_that_lost_the_database_to_another_daemon_writes_no_more(own_postgres, still_there):
    where = own_postgres.create_database()
    loser = open_store(where, exclusive=True)
    make_pairs(loser)
    own_postgres.stop()
    own_postgres.start()
    winner = open_store(where, exclusive=True)
    if not still_there:  # its mark remains: what the loser has in memory is old
        winner.close()

    def refused():
        try:
            writes(loser)
        except StateDirectoryHeld:
            return True
        return False

    eventually(refused, timeout=30)
    assert whole_pairs(loser) == set()
    if still_there:
        assert writes(winner)
        winner.close()
    loser.close()


def writes(store):
    try:
        with store.write() as tx:
            tx.execute("INSERT INTO meta VALUES ('probe', '1') ON CONFLICT (key) DO NOTHING")
    except StoreUnavailable:
        return False
    return True
