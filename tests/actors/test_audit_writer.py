"""The writer under its supervisor: what was committed gets into the log once, whatever happens to the writer."""

import random
import threading

import pytest

from actors.audit_reader import AuditReader
from actors.audit_writer import AuditWriter
from actors.supervision import ChildSpec, System
from actors.supervision.signals import Harm
from coxswain import audit
from coxswain.audit.settings import AuditPaths, AuditSettings
from coxswain.audit.verify import verify
from coxswain.clock import SystemClock
from coxswain.errors import NotFound, Unavailable
from coxswain.messages.audit import AuditHead, AwaitAudited, Caller, GetAuditHead, ListAudit, OutboxGrew
from coxswain.store import open_store
from tests.support import eventually

CALLER = Caller("ci", "token")


def change(store, number):
    with store.write() as tx:
        return audit.record(tx, CALLER, "node.add", ("node", str(number)), {}, now=float(number))


def targets(store):
    """In log order; fails if the log is not whole."""
    with store.read() as tx:
        log = audit.list_entries(tx, limit=10**6)[::-1]
        report = verify(tx)
        assert (report.good, report.broken) == (len(log), None)
    return [int(entry.target_id) for _, entry in log]


def run(store, state_dir, hang_s=1.0, **settings):
    arguments = {"store": store, "paths": AuditPaths.in_state(state_dir), "settings": lambda: AuditSettings(**settings)}
    spec = ChildSpec("audit_writer", AuditWriter, arguments, hang_s=hang_s)
    reader = ChildSpec("audit_reader", AuditReader, {"store": store, "paths": AuditPaths.in_state(state_dir)})
    system = System(children=(spec, reader), clock=SystemClock(), rng=random.Random(1), allow_chaos=True)
    system.start()
    assert system.wait_up(10)
    return system


@pytest.fixture
def system(store, tmp_path):
    running = run(store, tmp_path)
    yield running
    running.stop(10)


def ask(system, message, name="audit_writer"):
    return system.ask(name, message, deadline=10)


def test_a_waiting_door_is_answered_when_its_record_is_in_the_log(store, system):
    ids = [change(store, n) for n in range(3)]
    assert ask(system, AwaitAudited(ids[1])) == 3, "all that waits is appended together"
    assert targets(store) == [0, 1, 2]
    assert ask(system, AwaitAudited(ids[0])) == 3


def test_a_record_that_was_never_committed_is_not_confirmed(store, system):
    with pytest.raises(NotFound):
        ask(system, AwaitAudited(999))
    assert ask(system, GetAuditHead()) == AuditHead(0, "")


def test_questions_are_answered_from_a_log_that_has_all_that_was_committed(store, system):
    change(store, 1)
    assert ask(system, GetAuditHead()).size == 1
    change(store, 2)
    assert [(seq, e.target_id) for seq, e in ask(system, ListAudit(), "audit_reader")] == [(2, "2"), (1, "1")]
    assert [seq for seq, _ in ask(system, ListAudit(limit=1, before=2), "audit_reader")] == [1]
    assert ask(system, ListAudit(limit=-5), "audit_reader") == []


def test_a_hint_is_enough(store, system):
    change(store, 1)
    system.tell("audit_writer", OutboxGrew())
    eventually(lambda: targets(store) == [1])


def test_no_hint_is_needed(store, system):
    change(store, 1)
    eventually(lambda: targets(store) == [1])


def test_what_was_left_in_the_outbox_is_appended_at_the_start(store, tmp_path):
    for number in range(2_500):
        if number % 500 == 0:
            change(store, number)
    system = run(store, tmp_path)
    assert targets(store) == [0, 500, 1000, 1500, 2000]
    change(store, 9)
    system.stop(10)
    assert targets(store)[-1] == 9, "and at an orderly stop"


@pytest.mark.parametrize("how", list(Harm))
def test_a_writer_that_fails_under_load_loses_and_doubles_nothing(store, system, how):
    committed, unavailable, enough = [], [], threading.Event()

    def door(first):
        number = first
        while not enough.is_set():
            outbox_id = change(store, number)
            committed.append(number)
            number += 10
            try:
                ask(system, AwaitAudited(outbox_id))
            except Unavailable as error:  # the change is made all the same, and its record comes later
                unavailable.append(error)

    doors = [threading.Thread(target=door, args=(first,)) for first in range(3)]
    for thread in doors:
        thread.start()
    try:
        for _ in range(2):
            before = len(committed)
            eventually(lambda before=before: len(committed) > before + 30, timeout=60)
            incarnation = system.tree().children[0].incarnation
            assert system.harm("audit_writer", how, 60)  # longer than the watch ever waits on a machine that is late itself
            eventually(lambda incarnation=incarnation: system.tree().children[0].incarnation > incarnation, timeout=60)
    finally:
        enough.set()
        for thread in doors:
            thread.join(30)
    last = change(store, 10**6)
    assert ask(system, AwaitAudited(last)) == len(committed) + 1
    assert sorted(targets(store)) == sorted([*committed, 10**6])


def test_a_database_that_is_away_does_not_stop_the_writer(own_postgres, tmp_path, caplog):
    store = open_store(own_postgres.create_database())
    system = run(store, tmp_path, hang_s=10.0)
    change(store, 1)
    assert ask(system, GetAuditHead()).size == 1
    own_postgres.stop()
    with pytest.raises(Unavailable, match="database"):
        ask(system, GetAuditHead())
    eventually(lambda: "the outbox waits" in caplog.text)
    own_postgres.start()

    def back():
        try:
            return change(store, 2)
        except Unavailable:
            return None

    eventually(back, timeout=30)
    eventually(lambda: targets(store) == [1, 2])
    assert system.tree().children[0].incarnation == 1
    system.stop(10)
    store.close()
