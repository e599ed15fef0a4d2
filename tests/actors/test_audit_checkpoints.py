"""The writer signs, at fixed intervals and when it stops, everywhere; and does not sign what it cannot stand for."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading

import pytest

from actors.audit_reader import AuditReader
from actors.audit_writer import AuditWriter
from actors.event_hub import EventHub
from actors.supervision import ChildSpec, System
from actors.supervision.signals import Harm
from coxswain import audit
from coxswain.audit.checkpoint import open_checkpoint
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import load_audit_key
from coxswain.audit.settings import AuditPaths, AuditSettings
from coxswain.audit.tree import StoredTree
from coxswain.audit.verify import verify
from coxswain.clock import ManualClock, SystemClock
from coxswain.errors import Conflict, Unavailable
from coxswain.live.ring import EventRing
from coxswain.messages.audit import (
    AcceptBreak,
    AwaitAudited,
    Caller,
    DescribeAudit,
    ExportAudit,
    GetAuditFindings,
    GetAuditHead,
    ProveInclusion,
)
from coxswain.messages.hub import EventsAfter
from tests.audit_log import entries_of, put_back, rewrite, take_copy
from tests.support import eventually

CALLER = Caller("ci", "token")


class Running:
    """A system with an audit writer, on a store and a directory; may be stopped and started again."""

    def __init__(self, store, directory, *, clock=None, hang_s=2.0, **settings):
        self.store, self.paths, self.settings = store, AuditPaths.in_state(directory), settings
        self.clock, self.hang_s = clock or SystemClock(), hang_s
        self.ring = EventRing()
        self.number = 0
        self.start()

    def start(self):
        arguments = {"store": self.store, "paths": self.paths, "settings": lambda: AuditSettings(**self.settings)}
        specs = (
            ChildSpec("event_hub", EventHub, {"store": self.store, "ring": self.ring}),
            ChildSpec("audit_writer", AuditWriter, arguments, hang_s=self.hang_s),
            ChildSpec("audit_reader", AuditReader, {"store": self.store, "paths": self.paths}),
        )
        self.system = System(children=specs, clock=self.clock, rng=random.Random(1), allow_chaos=True)
        self.system.start()
        assert self.system.wait_up(10)

    def stop(self):
        self.system.stop(10)

    def ask(self, message, name="audit_writer"):
        return self.system.ask(name, message, deadline=10)

    def change(self, count=1):
        for _ in range(count):
            self.number += 1
            with self.store.write() as tx:
                outbox_id = audit.record(tx, CALLER, "node.add", ("node", str(self.number)), {}, now=self.clock.now())
            self.ask(AwaitAudited(outbox_id))

    def published(self, kind):
        page = self.system.ask("event_hub", EventsAfter(0, 5_000), deadline=10)
        return [numbered.event for numbered in page.events if numbered.event.kind == kind]

    def filed(self):
        verifier = load_audit_key(self.paths.key).verifier
        return [open_checkpoint(note, [verifier]) for note in CheckpointFile(self.paths.checkpoints).notes()]

    def report(self):
        verifier = load_audit_key(self.paths.key).verifier
        with self.store.read() as tx:
            return verify(tx, verifier, tuple(CheckpointFile(self.paths.checkpoints).notes()))


@pytest.fixture
def running(store, tmp_path):
    found = Running(store, tmp_path, checkpoint_records=10)
    yield found
    found.stop()


def test_a_checkpoint_is_due_after_so_many_records(running, caplog):
    caplog.set_level(logging.INFO, "coxswain.actors")
    running.change(25)
    eventually(lambda: [c.size for c in running.filed()][-2:] == [10, 20])
    last = running.filed()[-1]
    with running.store.read() as tx:
        assert StoredTree(tx).root_at(20) == last.root
        stored = [row[0] for row in tx.execute("SELECT note FROM audit_checkpoint ORDER BY number")]
    assert stored[-1] == last.note
    assert last.root_text in caplog.text, "and in the log of the daemon"
    assert {event.data["note"] for event in running.published("audit.checkpoint")} >= {last.note}
    state = running.ask(DescribeAudit())
    assert (state.size, state.checkpoint_size, state.checkpoint, state.findings) == (25, 20, last.note, ())
    assert running.report().ok


def test_a_checkpoint_is_due_after_so_long_though_nothing_happens(store, tmp_path):
    """So that silence means something."""
    clock = ManualClock()
    running = Running(store, tmp_path, clock=clock, checkpoint_s=300.0)
    running.change(3)
    before = len(running.filed())

    def three_more():
        clock.advance(100.0)
        return len(running.filed()) >= before + 3

    eventually(three_more, timeout=30)
    found = running.filed()
    assert [c.size for c in found[-3:]] == [3, 3, 3]
    assert all(later.at - earlier.at >= 300 for earlier, later in zip(found[-3:], found[-2:], strict=False)), "it is signed"
    with store.read() as tx:
        rows = tx.execute("SELECT count(*) FROM audit_checkpoint WHERE size = 3")
    assert rows[0][0] == 1, "the database keeps one of each size"
    running.stop()


def test_a_checkpoint_is_made_at_the_stop_and_the_next_start_begins_there(running):
    running.change(7)
    running.stop()
    assert running.filed()[-1].size == 7
    running.start()
    assert running.ask(DescribeAudit()).checkpoint_size == 7
    running.change(1)
    assert running.report().ok


def test_an_existing_installation_gets_its_key_when_it_starts(store, tmp_path):
    with store.write() as tx:
        audit.record(tx, CALLER, "node.add", ("node", "1"), {}, now=1.0)
        audit.append_outbox(tx)
    running = Running(store, tmp_path)
    key = load_audit_key(tmp_path / "audit.key").verifier
    with store.read() as tx:
        newest = audit.list_entries(tx, limit=1)[0][1]
    assert newest.action == "audit.key" and str(key) in newest.detail
    assert (tmp_path / "audit.pub").read_text().strip() == str(key)
    assert running.report().ok and running.filed()[-1].size == 2
    running.stop()


def test_a_checkpoint_that_a_crash_cut_short_is_skipped(running):
    running.change(12)
    running.stop()
    whole = len(running.filed())
    for torn in ("coxswain/x", "coxswain/x\n12\nAAAA\n\n— coxswain/x AAA", "\n"):
        with running.paths.checkpoints.open("a") as file:
            file.write(torn)
        running.start()
        running.change(1)
        running.stop()
        assert len(running.filed()) > whole
        whole = len(running.filed())
        assert running.report().ok


def test_the_disk_being_full_for_checkpoints_stops_nothing(running, caplog):
    running.paths.checkpoints.unlink()
    running.paths.checkpoints.mkdir()
    running.change(30)
    assert "could not be written" in caplog.text
    assert running.ask(GetAuditHead()).size == 30
    running.paths.checkpoints.rmdir()
    running.change(10)
    assert running.filed()[-1].size == 40


# -- a log that does not extend what was signed


def tampered_at_start(running, harm):
    running.change(30)
    running.stop()
    signed = len(running.filed())
    with running.store.write() as tx:
        harm(tx)
    running.start()
    findings = running.ask(GetAuditFindings())
    assert findings
    with pytest.raises(Conflict, match="nothing is signed now"):
        running.ask(ProveInclusion(1), "audit_reader")
    running.change(15)  # what happens is recorded all the more
    running.stop()
    assert len(running.filed()) == signed, "nothing was signed"
    running.start()
    assert running.ask(GetAuditFindings()), "and it is not forgotten"
    assert {event.data["finding"] for event in running.published("audit.broken")} >= set(running.ask(GetAuditFindings()))
    return findings


def test_the_tail_was_cut_while_it_was_stopped(running):
    def cut(tx):
        rewrite(tx, entries_of(tx)[:20])
        tx.execute("DELETE FROM audit_checkpoint WHERE size > 20")

    assert "cut off" in tampered_at_start(running, cut)[0]
    report = running.report()
    assert not report.ok


def test_an_older_copy_was_put_back_while_it_was_stopped(running):
    running.change(5)
    with running.store.read() as tx:
        older = take_copy(tx)

    assert "older copy" in tampered_at_start(running, lambda tx: put_back(tx, older))[0]


def test_everything_was_rewritten_while_it_was_stopped(running):
    def everything(tx):
        rewrite(tx, [dataclasses.replace(entry, actor="nobody") for entry in entries_of(tx)])

    assert "rewritten" in tampered_at_start(running, everything)[0]


def test_a_record_is_missing_and_the_tree_cannot_be_read(running):
    def hole(tx):
        tx.execute("DELETE FROM audit_log WHERE seq = 5")
        tx.execute("DELETE FROM audit_node")

    assert "damaged" in tampered_at_start(running, hole)[0]
    assert running.report().first_bad == 5


@pytest.mark.parametrize("what", ["cut", "older", "rewritten", "grown"])
def test_it_is_changed_behind_its_back_while_it_runs(running, what):
    running.change(5)
    with running.store.read() as tx:
        older = take_copy(tx)
    running.change(6)
    with running.store.write() as tx:
        match what:
            case "cut":
                tx.execute("DELETE FROM audit_log WHERE seq > 8")
            case "older":
                put_back(tx, older)
            case "rewritten":
                rewrite(tx, [dataclasses.replace(entry, actor="nobody") for entry in entries_of(tx)])
            case "grown":  # by another incarnation of the writer, say, that was thought to be dead
                audit.record(tx, CALLER, "node.add", ("node", "x"), {}, now=1.0)
                audit.append_outbox(tx)
    running.change(1)
    findings = running.ask(GetAuditFindings())
    assert bool(findings) == (what != "grown"), findings
    if what != "grown":
        assert any("behind the back" in sentence for sentence in findings)
        assert running.ask(AcceptBreak(CALLER, "a test did it")) > 0
        assert running.ask(GetAuditFindings()) == ()
        assert running.ask(ExportAudit(), "audit_reader").next is None
    running.change(1)
    assert running.report().ok


def test_a_break_is_accepted_once_and_the_old_name_is_over(running):
    with pytest.raises(Conflict, match="nothing to accept"):
        running.ask(AcceptBreak(CALLER, "why not"))
    running.change(20)
    old = load_audit_key(running.paths.key).verifier
    with running.store.write() as tx:
        rewrite(tx, entries_of(tx)[:12])
    running.change(1)
    running.ask(AcceptBreak(CALLER, "put back by hand"))
    new = load_audit_key(running.paths.key).verifier
    assert new.name != old.name
    running.stop()
    running.start()
    assert running.ask(GetAuditFindings()) == ()
    assert running.report().ok


# -- retention


def test_retention_takes_payloads_and_the_log_still_verifies(store, tmp_path):
    clock = ManualClock()
    running = Running(store, tmp_path, clock=clock, retention_days=30, checkpoint_records=10, checkpoint_s=1e9)
    running.change(40)
    clock.advance(20 * 86_400)
    running.change(5)
    # 40 records are 31 days old, 5 are 11; and nothing else happens.
    clock.advance(11 * 86_400)

    def purged():
        clock.advance(3_601)
        return running.ask(DescribeAudit()).purged

    eventually(lambda: purged() == 40)
    report = running.report()
    assert report.ok and report.purged == 40 and report.good == 46
    with store.read() as tx:
        left = audit.list_entries(tx, limit=100)
    assert [entry.action for _, entry in left] == ["audit.purge"] + ["node.add"] * 5
    assert left[0][1].actor == "retention"
    running.stop()
    running.start()
    assert running.ask(GetAuditFindings()) == ()
    running.change(3)
    assert running.report().ok
    running.stop()


# -- crashes


@pytest.mark.parametrize("how", list(Harm))
def test_every_checkpoint_of_a_writer_that_keeps_failing_is_kept(store, tmp_path, how):
    """Under load, and hung ones wake up again later: nothing is signed that the log does not keep."""
    running = Running(store, tmp_path, hang_s=1.0, checkpoint_records=3)
    enough, lock = threading.Event(), threading.Lock()

    def door():
        while not enough.is_set():
            try:
                with lock:
                    running.number += 1
                    number = running.number
                with store.write() as tx:
                    outbox_id = audit.record(tx, CALLER, "node.add", ("node", str(number)), {}, now=1.0)
                running.ask(AwaitAudited(outbox_id))
            except Unavailable:
                continue

    doors = [threading.Thread(target=door) for _ in range(3)]
    for thread in doors:
        thread.start()
    try:
        for _ in range(3):
            before = running.number
            eventually(lambda before=before: running.number > before + 20)
            incarnation = running.system.tree().children[1].incarnation
            assert running.system.harm("audit_writer", how, 60)
            eventually(lambda i=incarnation: running.system.tree().children[1].incarnation > i, timeout=60)
    finally:
        enough.set()
        for thread in doors:
            thread.join(30)
    assert running.ask(GetAuditFindings()) == ()
    assert running.ask(GetAuditHead()).size == running.number
    assert len(running.filed()) > 5
    report = running.report()
    assert report.ok, report.findings
    running.stop()
