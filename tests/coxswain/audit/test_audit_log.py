"""Outbox and log, on each backend: every committed change is recorded once, in order, without gaps; every edit shows."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from coxswain import audit
from coxswain.audit.tree import fill_nodes
from coxswain.audit.verify import verify as verify_log
from coxswain.messages.audit import AuditEntry, AuditHead, Caller
from coxswain.store import UniqueViolation, open_store

CALLER = Caller("root", "cli", "192.0.2.1")


class Crash(Exception):
    """What ends a transaction in the middle."""


def enqueue(store, *numbers, crash=False):
    """One change with a record for each number; returns outbox ids."""
    with store.write() as tx:
        ids = [audit.record(tx, CALLER, "node.add", ("node", str(n)), {"n": n}, now=1_767_225_600.0 + n) for n in numbers]
        if crash:
            raise Crash
    return ids


def append(store, *, crash=False, **kwargs):
    with store.write() as tx:
        moved = len(audit.append_outbox(tx, **kwargs))
        if crash:
            raise Crash
    return moved


def entries(store):
    """Oldest first."""
    with store.read() as tx:
        return audit.list_entries(tx, limit=10**6)[::-1]


def verify(store):
    with store.read() as tx:
        report = verify_log(tx)
    assert not report.findings
    return report.good, report.broken


def test_a_record_goes_through_the_outbox_into_the_log(store):
    (outbox_id,) = enqueue(store, 7)
    with store.read() as tx:
        assert audit.waiting(tx)
        assert audit.seq_of(tx, outbox_id) is None
        assert audit.head(tx) == AuditHead(0, "")
    assert append(store) == 1
    with store.read() as tx:
        assert not audit.waiting(tx)
        assert audit.seq_of(tx, outbox_id) == 1
        ((seq, entry),) = audit.list_entries(tx, limit=5)
        assert audit.head(tx) == AuditHead(1, audit.row_hash("", entry))
        assert audit.load_tree(tx).root() == audit.leaf_hash(1, audit.row_hash("", entry))
    assert seq == 1
    assert entry.id.startswith("aud_")
    expected = AuditEntry(entry.id, 1_767_225_607_000_000, "root", "cli", "node.add", "node", "7", "192.0.2.1", '{"n":7}')
    assert entry == expected
    assert append(store) == 0


def test_a_change_that_is_rolled_back_leaves_no_record(store):
    with pytest.raises(Crash):
        enqueue(store, 1, crash=True)
    enqueue(store, 2)
    append(store)
    assert [entry.target_id for _, entry in entries(store)] == ["2"]
    assert verify(store) == (1, None)


def test_a_crash_while_appending_appends_nothing_twice_and_loses_nothing(store):
    enqueue(store, 1, 2, 3)
    append(store, limit=1)
    with pytest.raises(Crash):
        append(store, crash=True)
    assert append(store) == 2
    assert [(seq, entry.target_id) for seq, entry in entries(store)] == [(1, "1"), (2, "2"), (3, "3")]


def test_appending_stops_where_it_is_told_to(store):
    ids = enqueue(store, *range(10))
    assert append(store, upto=ids[3]) == 4
    assert append(store, upto=ids[3]) == 0
    assert append(store, limit=2) == 2
    assert append(store) == 4
    assert verify(store) == (10, None)


def test_an_id_is_used_once(store):
    entry = AuditEntry("aud_x", 1, "a", "cli", "x", "", "")
    with store.write() as tx:
        audit.enqueue(tx, entry)
    with pytest.raises(UniqueViolation), store.write() as tx:
        audit.enqueue(tx, entry)


def test_the_log_is_read_in_pages_newest_first(store):
    enqueue(store, *range(1, 8))
    append(store)
    with store.read() as tx:
        page = audit.list_entries(tx, limit=3)
        assert [seq for seq, _ in page] == [7, 6, 5]
        assert [seq for seq, _ in audit.list_entries(tx, limit=3, before=5)] == [4, 3, 2]
        assert audit.list_entries(tx, limit=3, before=1) == []


def test_the_tree_of_the_store_is_the_tree_over_all_leaves(store):
    """Also where inner nodes are stored, which begins at 256 records."""
    for size in (1, 2, 255, 256, 257, 700, 1025):
        with store.read() as tx:
            have = audit.head(tx).size
        enqueue(store, *range(have, size))
        while append(store, limit=300):
            pass
        with store.read() as tx:
            leaves = [row[0] for row in tx.execute("SELECT leaf_hash FROM audit_log ORDER BY seq")]
            assert audit.load_tree(tx).root() == audit.root_of(leaves)
            assert len(leaves) == size
            nodes = tx.execute("SELECT count(*) FROM audit_node")[0][0]
        assert nodes == sum(size >> level for level in range(8, 12))
    assert verify(store) == (1025, None)


def test_a_log_from_before_inner_nodes_were_stored_gets_them(store):
    enqueue(store, *range(1100))
    while append(store):
        pass
    with store.write() as tx:
        kept = tx.execute("SELECT level, idx, hash FROM audit_node ORDER BY level, idx")
        tx.execute("DELETE FROM audit_node")
        root = audit.load_tree(tx).root()  # made from the leaves
        assert fill_nodes(tx) == 4
        assert tx.execute("SELECT level, idx, hash FROM audit_node ORDER BY level, idx") == kept
        assert audit.load_tree(tx).root() == root
        assert fill_nodes(tx) == 0


class Interleaving(RuleBasedStateMachine):
    """Changes, roll-backs, appends and crashes in any order."""

    store = None

    @initialize()
    def empty(self):
        with self.store.write() as tx:
            tx.execute("DELETE FROM audit_log")
            tx.execute("DELETE FROM audit_node")
            tx.execute("DELETE FROM audit_outbox")
        self.committed, self.number = [], 0

    def fresh(self, count):
        self.number += count
        return [*range(self.number - count, self.number)]

    @rule(count=st.integers(1, 4))
    def change(self, count):
        numbers = self.fresh(count)
        enqueue(self.store, *numbers)
        self.committed += numbers

    @rule(count=st.integers(1, 3))
    def change_that_crashes(self, count):
        with pytest.raises(Crash):
            enqueue(self.store, *self.fresh(count), crash=True)

    @rule(limit=st.integers(1, 5))
    def append(self, limit):
        append(self.store, limit=limit)

    @rule(limit=st.integers(1, 5))
    def append_that_crashes(self, limit):
        with pytest.raises(Crash):
            append(self.store, limit=limit, crash=True)

    @invariant()
    def log_is_a_gapless_prefix(self):
        log = entries(self.store)
        assert [seq for seq, _ in log] == [*range(1, len(log) + 1)]
        assert [int(entry.target_id) for _, entry in log] == self.committed[: len(log)]
        assert verify(self.store) == (len(log), None)

    def teardown(self):
        while append(self.store):
            pass
        assert len(entries(self.store)) == len(self.committed)
        self.log_is_a_gapless_prefix()


def test_any_order_of_changes_appends_and_crashes_gives_a_gapless_log_of_each_once(store):
    machine = type("OnThisStore", (Interleaving,), {"store": store})
    quiet = settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quiet)


def test_values_of_another_kind_are_found_too(tmp_path):
    """SQLite keeps anything in any column."""
    store = open_store(tmp_path / "app.db")
    enqueue(store, 1, 2, 3)
    append(store)
    for column, value in (
        ("at", "noon"),
        ("actor", b"\xff"),
        ("row_hash", 5),
        ("leaf_hash", "x"),
        ("at", 2**62),
        ("detail", 1.5),
    ):
        with store.write() as tx:
            before = tx.execute(f"SELECT {column} FROM audit_log WHERE seq = 2")[0]
            tx.execute(f"UPDATE audit_log SET {column} = ? WHERE seq = 2", (value,))
            report = verify_log(tx)
            assert (report.good, report.broken.seq) == (1, 2)
            tx.execute(f"UPDATE audit_log SET {column} = ? WHERE seq = 2", before)
    assert verify(store) == (3, None)
    store.close()


def test_a_cut_tail_is_whole_in_itself_and_shows_only_against_an_earlier_root(store):
    enqueue(store, *range(9))
    append(store)
    with store.read() as tx:
        kept = audit.load_tree(tx)
    with store.write() as tx:
        tx.execute("DELETE FROM audit_log WHERE seq > 7")
    assert verify(store) == (7, None)
    with store.read() as tx:
        now = audit.load_tree(tx)
    assert now.size < kept.size
    assert now.root() != kept.root()
