"""Operations under their supervisor: done, failed, retried, cancelled, killed at every step; the journal tells all of it."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.audit_writer import AuditWriter
from actors.event_hub import EventHub
from actors.operations import OperationRuns, Operations, run_name
from actors.operations.worker import Cancelled, Worker
from actors.supervision import ChildSpec, System
from actors.supervision.signals import Harm
from coxswain.audit import list_entries
from coxswain.audit.settings import AuditPaths, AuditSettings
from coxswain.clock import SystemClock
from coxswain.errors import Conflict, InvalidInput, NodeUnreachable, NotFound, StaleVersion
from coxswain.live.ring import EventRing
from coxswain.messages import operations as m
from coxswain.messages.audit import Caller, GetAuditHead
from coxswain.messages.hub import EventsAfter
from coxswain.operations import NeedsSecret, OnFailure, Operation, OperationState, Recovery, Secrets, StepState
from coxswain.store import operations as rows
from tests.actors.operations_support import Blocker, Scripted, touch_kind
from tests.support import eventually

CALLER = Caller("ci", "token")
CONTROLLER = Caller("controller", "system")
OVER = (
    OperationState.DONE,
    OperationState.FAILED,
    OperationState.UNDONE,
    OperationState.CANCELLED,
    OperationState.WAITING,
)


class Engine:
    """The engine's actors on a store; may be killed and started again."""

    def __init__(self, store, kinds, at_once=32):
        self.store = store
        self.kinds = {kind.name: kind for kind in kinds}
        self.at_once = at_once
        self.home = tempfile.TemporaryDirectory(prefix="cox-")
        paths = AuditPaths.in_state(Path(self.home.name))
        self.audit = {"store": store, "paths": paths, "settings": AuditSettings}
        self.start()

    def start(self):
        children = (
            ChildSpec("event_hub", EventHub, {"store": self.store, "ring": EventRing()}),
            ChildSpec("audit_writer", AuditWriter, self.audit),
            ChildSpec("operation_runs", OperationRuns),
            ChildSpec("operations", Operations, {"store": self.store, "kinds": self.kinds, "at_once": self.at_once}),
        )
        self.system = System(children=children, clock=SystemClock(), rng=random.Random(1), allow_chaos=True)
        self.system.start()
        assert self.system.wait_up(10)

    def stop(self):
        assert self.system.stop()
        self.home.cleanup()

    def ask(self, message, name="operations"):
        return self.system.ask(name, message, deadline=10)

    def begin(self, *names, kind="test.touch", password="", parent="", lock="", **params):
        params = {"names": list(names), **({"lock": lock} if lock else {}), **params}
        secrets = Secrets({"password": password})
        return self.ask(m.StartOperation(CALLER, kind, params, secrets, parent)).value

    def get(self, operation):
        return self.ask(m.GetOperation(operation.id))

    def over(self, operation, *states):
        """Waits until it is over, and asserts how."""

        def look():
            found = self.get(operation)
            return found if found.state in OVER else None

        found = eventually(look)
        assert not states or found.state in states, found
        return found

    def events(self):
        return [numbered.event for numbered in self.ask(EventsAfter(0, 5_000), "event_hub").events]

    def audited(self, operation):
        self.ask(GetAuditHead(), "audit_writer")  # it appends what waits
        with self.store.read() as tx:
            found = list_entries(tx, limit=1_000)
        return [(e.action, e.result) for _, e in reversed(found) if operation.id in e.detail or e.target_id == operation.id]


@contextmanager
def running(store, *kinds, at_once=32):
    engine = Engine(store, kinds, at_once)
    try:
        yield engine
    finally:
        engine.stop()


def states(operation):
    return [step.state.value for step in operation.steps]


def files(path):
    return sorted(p.name for p in path.iterdir())


@pytest.fixture
def script():
    return Scripted()


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "host"
    directory.mkdir()
    return directory


def test_steps_are_done_in_order_and_all_of_it_is_told(store, place, script):
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.DONE)
        assert script.calls == ["do a", "do b"]
        assert states(operation) == ["done", "done"]
        assert operation.data == {"last": "b"}
        assert operation.steps[0].output == "made a\n"
        assert operation.steps[0].data == {"existed": False}
        assert 0 < operation.started_at <= operation.finished_at

        def told():
            return [event.kind for event in engine.events() if event.data.get("operation_id") == operation.id]

        eventually(lambda: told()[-1] == "operation.done")  # a moment after it is written that it is
        kinds = told()
        assert kinds[0] == "operation.queued"
        assert kinds.count("operation.step") == 4
        assert engine.audited(operation) == [("operation.start", "ok"), ("test.touch", "ok")]


def test_what_fails_stays_and_can_be_retried(store, place, script):
    script.do["b"] = "fail"
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a", "b", "c"), OperationState.FAILED)
        assert states(operation) == ["done", "failed", "pending"]
        assert operation.error == "b: connection refused"
        assert operation.remedy == "Plug it in."
        assert operation.at_step.name == "b"
        script.do.clear()
        engine.ask(m.RetryOperation(CALLER, operation.id, operation.version))
        operation = engine.over(operation, OperationState.DONE)
        assert script.calls == ["do a", "do b", "do b", "do c"]
        assert operation.error == ""
        assert any("retried by ci" in note for note in operation.notes)
        assert engine.audited(operation)[1:] == [("test.touch", "error"), ("operation.retry", "ok"), ("test.touch", "ok")]


def test_what_fails_is_taken_back_where_its_kind_says_so(store, place, script):
    (place / "a").touch()
    script.do["c"] = "fail"
    with running(store, touch_kind(place, script, on_failure=OnFailure.UNDO)) as engine:
        operation = engine.over(engine.begin("a", "b", "c"), OperationState.UNDONE)
        assert files(place) == ["a"]  # it was there before, as the step remembers
        assert script.calls[3:] == ["undo c", "undo b", "undo a"]
        assert operation.error == "c: connection refused"
        script.do.clear()
        engine.ask(m.RetryOperation(CALLER, operation.id))  # anew, from the first step
        operation = engine.over(operation, OperationState.DONE)
        assert files(place) == ["a", "b", "c"]


def test_a_bug_in_a_step_is_its_failure_and_no_more(store, place, script):
    script.do["a"] = "bug"
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a"), OperationState.FAILED)
        assert "ZeroDivisionError: a bug" in operation.error
        assert engine.over(engine.begin("b"), OperationState.DONE)


def test_what_a_host_prints_stops_neither_the_journal_nor_a_terminal(store, place, script):
    """Postgres takes no NUL: the failure could not be written, so the step was done again and again, for ever."""
    nasty = "\x00 \x1b]0;owned\x07\x9b31m\u202e\r"
    script.do["a"] = NodeUnreachable(f"it printed: {nasty}\nand more")
    script.said = nasty
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a"), OperationState.FAILED)
        for text in (operation.error, operation.steps[0].output, operation.steps[0].error):
            assert "\ufffd" in text
            assert all(line.isprintable() for line in text.split("\n"))
        assert script.calls == ["do a"]


def test_an_undo_that_fails_is_shown_and_can_be_retried(store, place, script):
    script.do["b"] = "fail"
    script.undo["a"] = "fail"
    with running(store, touch_kind(place, script, on_failure=OnFailure.UNDO)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        assert operation.direction.value == "back"
        assert any("could not be taken back" in note for note in operation.notes)
        script.undo.clear()
        engine.ask(m.RetryOperation(CALLER, operation.id))
        assert engine.over(operation, OperationState.UNDONE)
        assert files(place) == []


def test_whoever_decides_by_itself_may_have_the_last_one_that_failed_retried(store, place, script):
    script.do["b"] = "fail"
    script.undo["a"] = "fail"
    with running(store, touch_kind(place, script, on_failure=OnFailure.UNDO)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        script.undo.clear()
        for target in ("another", operation.target_id, operation.target_id):
            assert engine.system.tell("operations", m.OfferRetry(CALLER, operation.kind, target))
        assert engine.over(operation, OperationState.UNDONE)
        assert files(place) == [] and [a for a, _ in engine.audited(operation)].count("operation.retry") == 1


def test_what_is_retried_by_itself_again_and_again_is_recorded_as_it_failed_and_as_it_ended(store, place, script):
    script.do["b"] = "fail"
    script.undo["a"] = "fail"

    def offered(wanted):
        run = engine.get(operation).run
        assert engine.system.tell("operations", m.OfferRetry(CONTROLLER, operation.kind, operation.target_id))
        found = eventually(lambda: (o := engine.get(operation)).run > run and o.state in OVER and o)
        assert found.state is wanted
        return found

    with running(store, touch_kind(place, script, on_failure=OnFailure.UNDO)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        failed = [("operation.start", "ok"), ("test.touch", "error")]
        assert engine.audited(operation) == failed
        notes = [offered(OperationState.FAILED).notes for _ in range(3)][-1]
        assert len(notes) == len(set(notes)) + 1, "what could not be taken back, before and after it was retried"
        taken_up = [*failed, ("operation.retry", "ok")]
        assert engine.audited(operation) == taken_up
        engine.ask(m.RetryOperation(CALLER, operation.id))
        engine.over(operation, OperationState.FAILED)
        by_hand = [*taken_up, ("operation.retry", "ok"), ("test.touch", "error")]
        assert engine.audited(operation) == by_hand, "somebody waits for this one"
        offered(OperationState.FAILED)
        script.undo.clear()
        assert offered(OperationState.UNDONE).data["tried_again"] == 2
        assert engine.audited(operation) == [*by_hand, ("operation.retry", "ok"), ("test.touch", "error")]
        assert files(place) == []


def test_what_an_operator_cancels_while_it_is_tried_again_by_itself_is_recorded_as_it_ends(store, place, script):
    script.do["b"] = script.undo["a"] = "fail"
    with running(store, touch_kind(place, script, on_failure=OnFailure.UNDO)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        blocker = script.undo["a"] = Blocker()
        assert engine.system.tell("operations", m.OfferRetry(CONTROLLER, operation.kind, operation.target_id))
        assert blocker.entered.wait(30)
        engine.ask(m.CancelOperation(CALLER, operation.id))
        blocker.close()
        engine.over(operation, OperationState.FAILED)
        assert engine.audited(operation)[-2:] == [("operation.cancel", "ok"), ("test.touch", "error")]


def test_a_cancelled_operation_is_cut_off_and_taken_back(store, place, script):
    blocker = script.do["b"] = Blocker()
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.begin("a", "b", "c")
        assert blocker.entered.wait(30)
        engine.ask(m.CancelOperation(CALLER, operation.id))
        operation = engine.over(operation, OperationState.CANCELLED)
        assert files(place) == []
        assert states(operation) == ["undone", "undone", "pending"]
        with pytest.raises(Conflict, match="nothing to cancel"):
            engine.ask(m.CancelOperation(CALLER, operation.id))


def test_what_stays_is_over_when_it_was_or_when_it_was_cut_off(store, place, script):
    """A page would count on, had it no end, as if it still ran."""
    blocker = script.do["b"] = Blocker()
    kind = touch_kind(place, script)
    staying = dataclasses.replace(kind, steps=lambda params: [dataclasses.replace(s, undo=None) for s in kind.steps(params)])
    with running(store, staying) as engine:
        operation = engine.begin("a", "b")
        assert blocker.entered.wait(30)
        made_at = engine.get(operation).steps[0].finished_at
        engine.ask(m.CancelOperation(CALLER, operation.id))
        operation = engine.over(operation, OperationState.CANCELLED)
        assert states(operation) == ["kept", "kept"]
        first, second = operation.steps
        assert first.finished_at == made_at
        assert second.finished_at >= second.started_at >= made_at


class Late(Blocker):
    """What it waits for fails by itself when it is told to."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def wait(self):
        self.entered.set()
        self.closed.wait(60)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "state", "left"),
    [
        (NodeUnreachable("the connection broke"), OperationState.CANCELLED, []),
        (NeedsSecret("password"), OperationState.CANCELLED, ["b"]),  # of a step that asks for one, nothing has happened
        (None, OperationState.DONE, ["a", "b"]),
    ],
)
def test_a_cancellation_that_meets_the_end_of_a_step_is_not_lost(store, place, script, monkeypatch, error, state, left):
    """It was answered, and what it interrupts ended by itself before it was interrupted."""
    late = script.do["b"] = Late(error)
    interrupt = Worker.interrupt

    def too_late(worker, reason, serial=None):
        if not isinstance(reason, Cancelled):
            interrupt(worker, reason, serial)

    monkeypatch.setattr(Worker, "interrupt", too_late)
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.begin("a", "b")
        assert late.entered.wait(30)
        engine.ask(m.CancelOperation(CALLER, operation.id))
        late.close()
        over = engine.over(operation, state)
        assert files(place) == left
        assert ("too late" in str(over.notes)) is (state is OperationState.DONE)


def test_what_failed_just_when_it_was_cancelled_is_taken_back(store, place, script, monkeypatch):
    """The keeper saw it run, and it had failed when its cancellation was written."""
    late = script.do["b"] = Late(NodeUnreachable("the connection broke"))
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.begin("a", "b")
        assert late.entered.wait(30)
        checked = Operations._checked

        def as_it_was(keeper, operation_id, version):
            found = checked(keeper, operation_id, version)
            late.close()
            eventually(lambda: checked(keeper, operation_id, None).state is OperationState.FAILED)
            return found

        monkeypatch.setattr(Operations, "_checked", as_it_was)
        engine.ask(m.CancelOperation(CALLER, operation.id))
        eventually(lambda: engine.get(operation).state is OperationState.CANCELLED)
        assert files(place) == []


def test_a_failed_operation_can_be_taken_back(store, place, script):
    script.do["b"] = "fail"
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        engine.ask(m.CancelOperation(CALLER, operation.id))
        eventually(lambda: engine.get(operation).state is OperationState.CANCELLED)
        assert files(place) == []


def test_what_failed_and_was_done_by_another_since_is_neither_taken_back_nor_gone_on_with(store, place, script):
    script.do["b"] = "fail"
    with running(store, touch_kind(place, script, overtaken_by=("test.touch",))) as engine:
        failed, untouched = (engine.over(engine.begin("a", "b", lock=lock), OperationState.FAILED) for lock in ("x", "y"))
        script.do.clear()
        done = engine.over(engine.begin("a", "b", lock="x"), OperationState.DONE)
        with pytest.raises(Conflict, match=f"{done.id} .test.touch. was done on the same since"):
            engine.ask(m.RetryOperation(CALLER, failed.id))
        engine.ask(m.CancelOperation(CALLER, failed.id))
        over = engine.over(failed, OperationState.CANCELLED)
        assert files(place) == ["a", "b"], "they are those of the other one now"
        assert f"nothing is taken back: {done.id}" in over.notes[-1]
        assert engine.audited(failed)[-1] == ("operation.cancel", "ok")
        engine.ask(m.RetryOperation(CALLER, untouched.id))
        engine.over(untouched, OperationState.DONE)


def test_of_two_that_failed_on_the_same_the_later_one_is_taken_back_first(store, place, script):
    """What the later one found is what the earlier one left."""
    script.do["c"] = "fail"
    with running(store, touch_kind(place, script, overtaken_by=("test.touch",))) as engine:
        first, elsewhere = (engine.over(engine.begin("a", "c", lock=lock), OperationState.FAILED) for lock in ("x", "y"))
        second = engine.over(engine.begin("b", "c", lock="x"), OperationState.FAILED)
        with pytest.raises(Conflict, match=f"{second.id} .test.touch. began later on the same, and failed") as refused:
            engine.ask(m.CancelOperation(CALLER, first.id))
        assert f"cox operations cancel {second.id}" in refused.value.remedy
        assert engine.get(first).state is OperationState.FAILED
        engine.ask(m.CancelOperation(CALLER, elsewhere.id))
        engine.over(elsewhere, OperationState.CANCELLED)
        for each in (second, first):
            engine.ask(m.CancelOperation(CALLER, each.id))
            eventually(lambda o=each: engine.get(o).state is OperationState.CANCELLED)
        assert files(place) == []


def test_what_was_overtaken_says_by_what(store, place, script):
    script.do["b"] = "fail"
    with running(store, touch_kind(place, script, overtaken_by=("test.touch",))) as engine:
        failed, alone = (engine.over(engine.begin("a", "b", lock=lock), OperationState.FAILED) for lock in ("x", "y"))
        script.do.clear()
        done = engine.over(engine.begin("a", "b", lock="x"), OperationState.DONE)
        listed = {o.id: o.overtaken_by for o in engine.ask(m.ListOperations()).operations}
        assert listed == {failed.id: done.id, alone.id: "", done.id: ""}
        assert engine.get(failed).overtaken_by == done.id


def test_many_that_failed_are_listed_beside_many_that_were_done_in_no_time(store, place, script):
    """Looked for one by one it took the actor half a minute, in which it does nothing else."""
    many = [
        Operation(
            f"op_{state.value}{n}", "test.touch", params={"names": ["a"], "lock": f"{n % 300}"}, state=state, finished_at=at
        )
        for state, at, count in ((OperationState.FAILED, 1.0, 200), (OperationState.DONE, 2e9, 4_000))
        for n in range(count)
    ]
    with store.write() as tx:
        for operation in many:
            rows.insert_operation(tx, operation)
        tx.execute("UPDATE operations SET updated_at = finished_at")
    with running(store, touch_kind(place, script, overtaken_by=("test.touch",))) as engine:
        page = engine.ask(m.ListOperations(state=OperationState.FAILED, limit=200))
        assert {o.id: o.overtaken_by for o in page.operations} == {
            f"op_failed{n}": max(f"op_done{k}" for k in range(n, 4_000, 300)) for n in range(200)
        }


def test_a_password_is_waited_for_and_never_stored(store, place, script):
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a", "secret", "c"), OperationState.WAITING)
        assert operation.needs == ("password",)
        assert states(operation) == ["done", "pending", "pending"]
        secrets = Secrets({"password": "hunter2-once"})
        assert "hunter2" not in repr(secrets) + repr(m.RetryOperation(CALLER, operation.id, secrets=secrets))
        engine.ask(m.RetryOperation(CALLER, operation.id, secrets=secrets))
        operation = engine.over(operation, OperationState.DONE)
        assert script.calls.count("do a") == 1
        assert "the password is ***" in operation.steps[1].output
        with store.read() as tx:
            everything = str([tx.execute(f"SELECT * FROM {t}") for t in ("operations", "operation_steps", "audit_log")])
        assert "hunter2" not in everything + str(engine.events())
        eventually(lambda: secrets.get("password") is None)  # not even in memory, now that it is over


def test_a_step_over_its_deadline_is_cut_off(store, place, script):
    script.do["a"] = Blocker()
    with running(store, touch_kind(place, script, deadline_s=0.2)) as engine:
        operation = engine.over(engine.begin("a"), OperationState.FAILED)
        assert "longer than 0.2 s" in operation.error
        script.do.clear()
        engine.ask(m.RetryOperation(CALLER, operation.id))
        assert engine.over(operation, OperationState.DONE)


def test_a_thread_that_does_not_stop_is_shut_out(store, place, script, monkeypatch):
    monkeypatch.setattr("actors.operations.run._STUCK_S", 0.2)
    blocker = script.do["a"] = Blocker(deaf=True)
    with running(store, touch_kind(place, script, deadline_s=1.0)) as engine:  # by when it is deaf
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        assert "did not stop when it was told to" in operation.error
        script.do.clear()
        blocker.closed.set()  # the zombie wakes up
        eventually(lambda: not [t for t in threading.enumerate() if t.name.endswith("/work")])
        assert engine.get(operation).state is OperationState.FAILED
        assert script.calls == ["do a"]
        engine.ask(m.RetryOperation(CALLER, operation.id))
        assert engine.over(operation, OperationState.DONE)


@pytest.mark.parametrize("harm", [Harm.RAISE, Harm.EXIT, Harm.VANISH])
@pytest.mark.parametrize("recovery", list(Recovery))
def test_when_its_actor_falls_another_takes_over(store, place, script, harm, recovery):
    blocker = script.do["b"] = Blocker()
    with running(store, touch_kind(place, script, after_crash=recovery)) as engine:
        operation = engine.begin("a", "b", "c")
        assert blocker.entered.wait(30)
        script.do.clear()
        assert engine.system.harm(run_name(operation.id), harm, 1.0)
        operation = engine.over(operation)
        if recovery is Recovery.RESUME:
            assert (operation.state, files(place)) == (OperationState.DONE, ["a", "b", "c"])
            assert script.calls == ["do a", "do b", "do b", "do c"]
            assert "resumed" in operation.notes[0]
        else:
            assert (operation.state, files(place)) == (OperationState.UNDONE, [])
            assert "taken back" in operation.notes[0]
        assert blocker.closed.is_set()
        told = [event.kind for event in engine.events()]
        assert ("operation.resumed" if recovery is Recovery.RESUME else "operation.undone") in told


@pytest.mark.parametrize("recovery", list(Recovery))
@pytest.mark.parametrize("at", ["a", "b", "c"])
def test_after_a_restart_it_is_resumed_or_taken_back(store, place, script, at, recovery):
    blocker = script.do[at] = Blocker()
    kind = touch_kind(place, script, after_crash=recovery)
    with running(store, kind) as engine:
        operation = engine.begin("a", "b", "c")
        assert blocker.entered.wait(30)
    script.do.clear()
    with store.read() as tx:
        assert rows.get_operation(tx, operation.id).state is OperationState.RUNNING
    with running(store, kind) as engine:
        operation = engine.over(operation)
        if recovery is Recovery.RESUME:
            assert (operation.state, files(place)) == (OperationState.DONE, ["a", "b", "c"])
        else:
            assert (operation.state, files(place)) == (OperationState.UNDONE, [])
        assert f"interrupted in its step {at!r}" in operation.notes[0]


def test_a_restart_while_it_is_taken_back(store, place, script):
    script.do["c"] = "fail"
    blocker = script.undo["b"] = Blocker()
    kind = touch_kind(place, script, on_failure=OnFailure.UNDO)
    with running(store, kind) as engine:
        operation = engine.begin("a", "b", "c")
        assert blocker.entered.wait(30)
    script.undo.clear()
    with running(store, kind) as engine:
        operation = engine.over(operation, OperationState.UNDONE)
        assert files(place) == []
        assert operation.error == "c: connection refused"


def test_a_cancellation_survives_a_restart(store, place, script):
    blocker = script.do["b"] = Blocker()
    kind = touch_kind(place, script)
    with running(store, kind) as engine:
        operation = engine.begin("a", "b", "c")
        assert blocker.entered.wait(30)
        engine.system.harm(run_name(operation.id), Harm.HANG, 0.5)
        engine.ask(m.CancelOperation(CALLER, operation.id))
        assert engine.get(operation).ending is OperationState.CANCELLED
    script.do.clear()
    with running(store, kind) as engine:
        engine.over(operation, OperationState.CANCELLED)
        assert files(place) == []


def test_what_was_cancelled_just_before_it_began_does_not_begin_after_a_restart(store, place, script):
    """The controller was killed before whoever was to run it heard of that."""
    blocker = script.do["a"] = Blocker()
    kind = touch_kind(place, script)
    with running(store, kind, at_once=1) as engine:
        engine.begin("a")
        assert blocker.entered.wait(30)
        operation = engine.begin("b")
    with store.write() as tx:
        rows.set_ending(tx, operation.id, OperationState.CANCELLED)
    with running(store, kind) as engine:
        over = engine.over(operation, OperationState.CANCELLED)
        assert "do b" not in script.calls
        assert "cancelled before it began" in str(over.notes)


def test_a_step_that_always_takes_the_controller_down_is_not_tried_for_ever(store, place, script):
    kind = touch_kind(place, script)
    operation = None
    for _ in range(5):
        blocker = script.do["a"] = Blocker()
        with running(store, kind) as engine:
            operation = operation or engine.begin("a")
            assert blocker.entered.wait(30)
    with running(store, kind) as engine:
        operation = engine.over(operation, OperationState.FAILED)
        assert "interrupted 5 times" in operation.error
        script.do.clear()
        engine.ask(m.RetryOperation(CALLER, operation.id))
        engine.over(operation, OperationState.DONE)


def test_interruptions_of_what_was_to_be_done_are_none_of_what_takes_it_back(store, place, script):
    """Cancelled for taking the controller down, as it did each time, it is not given up at the first one on the way back."""
    kind = touch_kind(place, script)
    operation = None
    for number in range(5):
        blocker, back = script.do["a"], script.undo["a"] = Blocker(), Blocker()
        with running(store, kind) as engine:
            operation = operation or engine.begin("a")
            assert blocker.entered.wait(30)
            if number == 4:
                engine.ask(m.CancelOperation(CALLER, operation.id))
                assert back.entered.wait(30)
    script.do.clear()
    script.undo.clear()
    with running(store, kind) as engine:
        engine.over(operation, OperationState.CANCELLED)


def test_the_keeper_falls_and_nothing_is_done_twice(store, place, script):
    blocker = script.do["a"] = Blocker()
    with running(store, touch_kind(place, script), at_once=1) as engine:
        first, second = engine.begin("a", lock="x"), engine.begin("b")
        assert blocker.entered.wait(30)
        assert engine.system.harm("operations", Harm.RAISE, 1.0)
        eventually(lambda: engine.get(second).state is OperationState.QUEUED)
        with pytest.raises(Conflict, match=f"{first.id}.*works on lock:x") as refused:
            engine.begin("c", lock="x")
        assert f"cox operations cancel {first.id}" in (refused.value.remedy or ""), "it says how to stop what is in the way"
        script.do.clear()
        blocker.entered.clear()
        engine.ask(m.CancelOperation(CALLER, first.id))
        engine.over(first, OperationState.CANCELLED)
        engine.over(second, OperationState.DONE)
        assert script.calls.count("do b") == 1


def test_only_so_many_run_at_once_and_light_ones_do_not_count(store, place, script):
    blockers = [script.do.setdefault(name, Blocker()) for name in ("a", "b", "c")]
    light = touch_kind(place, script, name="test.light", light=True)
    with running(store, touch_kind(place, script), light, at_once=2) as engine:
        begun = [engine.begin(name) for name in ("a", "b", "c")]
        assert blockers[0].entered.wait(30) and blockers[1].entered.wait(30)
        assert engine.get(begun[2]).state is OperationState.QUEUED
        engine.over(engine.begin("d", kind="test.light"), OperationState.DONE)
        engine.ask(m.CancelOperation(CALLER, begun[0].id))
        assert blockers[2].entered.wait(30)
        for operation in begun[1:]:
            engine.ask(m.CancelOperation(CALLER, operation.id))
            engine.over(operation, OperationState.CANCELLED)


def test_one_that_waits_for_its_turn_is_cancelled_without_a_trace(store, place, script):
    blocker = script.do["a"] = Blocker()
    with running(store, touch_kind(place, script), at_once=1) as engine:
        secrets = Secrets({"password": "hunter2-once"})
        first = engine.begin("a")
        second = engine.ask(m.StartOperation(CALLER, "test.touch", {"names": ["b"]}, secrets)).value
        assert blocker.entered.wait(30)
        cancelled = engine.ask(m.CancelOperation(CALLER, second.id)).value
        assert cancelled.state is OperationState.CANCELLED
        assert secrets.get("password") is None, "nobody needs it any more"
        engine.ask(m.CancelOperation(CALLER, first.id))
        engine.over(first, OperationState.CANCELLED)
        assert "do b" not in script.calls


def test_a_parent_starts_each_child_once(store, place, script):
    with running(store, touch_kind(place, script)) as engine:
        first = engine.begin("a", parent="op_parent", lock="x")
        again = engine.begin("a", parent="op_parent", lock="x")
        assert first.id == again.id
        page = engine.ask(m.ListOperations(parent="op_parent"))
        assert [o.id for o in page.operations] == [first.id]


def test_lists_page_and_filter(store, place, script):
    script.do["bad"] = "fail"
    with running(store, touch_kind(place, script)) as engine:
        made = [engine.over(engine.begin("a")) for _ in range(3)] + [engine.over(engine.begin("bad"))]
        ids = [o.id for o in reversed(made)]
        page = engine.ask(m.ListOperations(limit=3))
        assert ([o.id for o in page.operations], page.more) == (ids[:3], True)
        page = engine.ask(m.ListOperations(limit=3, before=ids[2]))
        assert ([o.id for o in page.operations], page.more) == (ids[3:], False)
        assert [o.id for o in engine.ask(m.ListOperations(open_only=True)).operations] == ids[:1]
        assert [o.id for o in engine.ask(m.ListOperations(state=OperationState.DONE)).operations] == ids[1:]
        with store.write() as tx:
            tx.execute("UPDATE operations SET kind = 'test.old' WHERE id = ?", (ids[3],))
        assert [o.id for o in engine.ask(m.ListOperations(kind="test.old")).operations] == ids[3:], "of an earlier version"
        assert engine.ask(m.ListOperations(kind="test.touch", target_id="nobody")).operations == ()
        with pytest.raises(InvalidInput, match=r"kind: 'nope' is none of test\.touch"):
            engine.ask(m.ListOperations(kind="nope"))


def test_what_cannot_be(store, place, script):
    with running(store, touch_kind(place, script)) as engine:
        with pytest.raises(NotFound, match="no operations of the kind 'nope'"):
            engine.begin("a", kind="nope")
        with pytest.raises(InvalidInput, match="names"):
            engine.begin()
        with pytest.raises(NotFound):
            engine.ask(m.GetOperation("op_none"))
        operation = engine.over(engine.begin("a"))
        with pytest.raises(StaleVersion):
            engine.ask(m.RetryOperation(CALLER, operation.id, 1))
        with pytest.raises(Conflict, match="nothing to retry"):
            engine.ask(m.RetryOperation(CALLER, operation.id))


def test_an_operation_of_another_release_is_not_guessed_at(store, place, script):
    blocker = script.do["a"] = Blocker()
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.begin("a", "b")
        assert blocker.entered.wait(30)
    other = touch_kind(place, script, name="test.other")
    with running(store, other) as engine:
        failed = engine.over(operation, OperationState.FAILED)
        assert "knows no operation of the kind 'test.touch'" in failed.error
        assert failed.steps[0].state is StepState.RUNNING


def test_what_moved_on_after_it_was_read_is_refused_in_the_transaction(store, place, script, monkeypatch):
    """The version is compared where it counts, and not only before."""
    script.do["b"] = "fail"
    with running(store, touch_kind(place, script)) as engine:
        operation = engine.over(engine.begin("a", "b"), OperationState.FAILED)
        monkeypatch.setattr(Operations, "_checked", lambda self, operation_id, version: self._get(operation_id))
        for message in (m.RetryOperation, m.CancelOperation):
            with pytest.raises(StaleVersion) as caught:
                engine.ask(message(CALLER, operation.id, operation.version - 1))
            assert caught.value.current == operation.version
        assert engine.get(operation) == operation
