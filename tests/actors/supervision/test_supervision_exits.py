"""Every way out is seen, and followed by what the child spec says."""

import logging
import threading

import pytest
from supervision_parts import Do, Journal, Worker, node, running, worker

from actors.supervision import Backoff, Chaos, ChildSpec, ChildState, Harm, Intensity, LifecycleEvent, Restart, Supervisor
from coxswain.errors import NotFound, Refused, Unavailable
from tests.support import eventually


def boom(error):
    def raise_it(_actor):
        raise error

    return Do(raise_it)


def incarnation(system, name="a"):
    return system.ask(name, "hi", deadline=10)[1]


@pytest.mark.parametrize("error", [ValueError("x"), NotFound("nobody asked"), SystemExit(1), KeyboardInterrupt()])
def test_an_exception_while_nobody_waits_ends_the_actor(error):
    with running(worker("a"), worker("bystander")) as system:
        system.tell("a", boom(error))
        eventually(lambda: node(system, "a").restarts == 1)
        assert incarnation(system) == 2
        assert type(error).__name__ in node(system, "a").last_failure
        assert incarnation(system, "bystander") == 1, "a BaseException stops every actor of a Pykka process; not here"


@pytest.mark.parametrize("error", [ValueError("secret text"), SystemExit(1), KeyboardInterrupt()])
def test_an_unexpected_exception_while_somebody_waits_ends_the_actor_and_tells_the_caller(error):
    with running(worker("a")) as system:
        with pytest.raises(Unavailable, match=f"a failed while it worked on Do .{type(error).__name__}") as caught:
            system.ask("a", boom(error), deadline=30)
        assert "secret" not in str(caught.value)
        assert incarnation(system) == 2


def test_an_expected_error_goes_to_the_caller_and_the_actor_lives():
    with running(worker("a")) as system:
        with pytest.raises(NotFound, match="no such node"):
            system.ask("a", boom(NotFound("no such node")), deadline=30)
        assert incarnation(system) == 1


@pytest.mark.parametrize("hook", ["on_init", "on_start"])
@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1)])
def test_a_failed_start_is_tried_again(hook, error):
    attempts = []

    def fail_twice(actor):
        attempts.append(actor.context.incarnation)
        if len(attempts) <= 2:
            raise error

    with running(worker("a", **{hook: fail_twice}), worker("b"), intensity=Intensity(2, 60)) as system:
        assert incarnation(system) == 3
        assert attempts == [1, 2, 3]
        assert incarnation(system, "b") == 1
        assert node(system, "a").last_failure.startswith("failed to start: ")


@pytest.mark.parametrize("hook", ["on_init", "on_start"])
def test_a_start_that_keeps_failing_escalates(hook):
    attempts = []

    def fail(actor):
        attempts.append(actor.context.incarnation)
        raise ValueError("no luck")

    with running(worker("a", **{hook: fail}), worker("b"), intensity=Intensity(3, 60), up=False) as system:
        assert system.wait_ended(10)
        assert len(attempts) == 4
        assert "more than 3 restarts in 60 s" in system.failure
        assert "no luck" in system.failure
        assert not system.wait_up(0)
        assert system.directory.find("b") is None, "b comes after a, so it was never started"


def test_a_child_with_a_backoff_never_counts_and_holds_nobody_up():
    def fail(_actor):
        raise ValueError("no luck")

    backing = worker("a", on_start=fail, backoff=Backoff(0.001, 0.002))
    with running(backing, worker("b"), intensity=Intensity(0, 60)) as system:
        eventually(lambda: node(system, "a").restarts > 5)
        assert incarnation(system, "b") == 1
        assert system.failure is None


def test_a_backoff_is_waited_for():
    with running(worker("a", backoff=Backoff(3_000, 3_600))) as system:
        system.harm("a", Harm.RAISE)
        eventually(lambda: node(system, "a").state is ChildState.BACKING_OFF)
        assert system.stop(10), "and does not hold up the end"


def test_fail_next_start():
    with running(worker("a")) as system:
        system.fail_next_start("a")
        system.harm("a", Harm.RAISE)
        assert eventually(lambda: node(system, "a").incarnation == 3)
        assert incarnation(system) == 3


@pytest.mark.parametrize(
    ("restart", "comes_back"), [(Restart.PERMANENT, True), (Restart.TRANSIENT, False), (Restart.TEMPORARY, False)]
)
def test_after_a_normal_end(restart, comes_back):
    with running(worker("a", restart=restart)) as system:
        system.tell("a", Do(lambda actor: actor.stop()))
        if comes_back:
            assert eventually(lambda: node(system, "a").incarnation == 2)
        else:
            assert eventually(lambda: node(system, "a").state is ChildState.STOPPED)
            with pytest.raises(Unavailable):
                system.ask("a", "hi", deadline=0.05)


@pytest.mark.parametrize(
    ("restart", "comes_back"), [(Restart.PERMANENT, True), (Restart.TRANSIENT, True), (Restart.TEMPORARY, False)]
)
def test_after_a_failure(restart, comes_back):
    with running(worker("a", restart=restart)) as system:
        system.harm("a", Harm.RAISE)
        if comes_back:
            assert eventually(lambda: node(system, "a").incarnation == 2)
        else:
            assert eventually(lambda: node(system, "a").state is ChildState.FAILED)


def test_a_thread_that_vanished_is_missed():
    with running(worker("a")) as system:
        system.harm("a", Harm.VANISH)
        eventually(lambda: system.watch.sweep() or node(system, "a").incarnation == 2)
        assert "vanished" in node(system, "a").last_failure


def test_a_question_to_a_vanished_actor_is_answered_by_its_successor():
    with running(worker("a")) as system:
        first = system.directory.find("a")
        system.harm("a", Harm.VANISH)
        first.thread.join(30)
        assert incarnation(system) == 2


def test_more_restarts_than_allowed_escalate_level_by_level():
    journal = Journal()
    inner = (worker("a", journal=journal), worker("b", journal=journal))
    branch = ChildSpec("branch", Supervisor, {"children": inner, "intensity": Intensity(1, 60)})
    seen = []
    with running(branch, worker("c", journal=journal), intensity=Intensity(1, 60)) as system:
        system.on_event(lambda event, name, _reason: seen.append((event, name)))

        def crash_a(restarts_of_branch, times):
            for _ in range(times):
                before = incarnation(system)
                system.harm("a", Harm.RAISE)
                eventually(lambda b=before: node(system, "branch").restarts == restarts_of_branch or incarnation(system) > b)

        crash_a(1, 2)
        eventually(lambda: node(system, "branch").restarts == 1 and node(system, "a").state is ChildState.RUNNING)
        assert "b" in journal["stopping"], "the others of the branch were stopped in good order"
        assert incarnation(system, "c") == 1
        assert (LifecycleEvent.ESCALATED, "branch") in eventually(lambda: [s for s in seen if s[0] == "escalated"])
        system.harm("a", Harm.RAISE)
        eventually(lambda: incarnation(system) == 4)
        system.harm("a", Harm.RAISE)
        assert system.wait_ended(10)
        assert "more than 1 restarts in 60 s, the last one of branch: gave up" in system.failure
        assert not system.stop()
        assert system.tree().state is ChildState.FAILED


def test_incarnations_of_a_name_go_on_when_its_supervisor_is_replaced():
    branch = ChildSpec("branch", Supervisor, {"children": (worker("a"),)})
    with running(branch) as system:
        first = system.directory.find("a")
        system.harm("branch", Harm.RAISE)
        eventually(lambda: node(system, "branch").incarnation == 2)
        assert incarnation(system) == 2
        assert not first.context.is_current
        first.thread.join(30)
        assert not first.thread.is_alive(), "nobody looks after it, so it must not stay"
        assert node(system, "a").zombies == 0


def test_what_an_incarnation_held_is_let_go_before_its_successor_starts():
    order = []

    def take(actor):
        number = actor.context.incarnation
        order.append(f"start {number}")
        actor.context.on_void(lambda: order.append(f"free {number} on {threading.current_thread().name}"))
        actor.context.on_void(lambda: 1 / 0)
        actor.context.on_void(lambda: order.append(f"also {number}"))

    with running(worker("a", on_start=take)) as system:
        for how in (Harm.RAISE, Harm.EXIT):
            before = incarnation(system)
            system.harm("a", how)
            eventually(lambda b=before: incarnation(system) == b + 1)
        system.tell("a", Do(lambda actor: actor.stop()))
        eventually(lambda: node(system, "a").incarnation == 4 and node(system, "a").state is ChildState.RUNNING)
    expected = [line for n in range(1, 5) for line in (f"start {n}", f"free {n} on root", f"also {n}")]
    assert order == expected


def test_a_failure_is_logged_once_with_its_traceback_and_louder_when_it_stays(caplog):
    def fail(_actor):
        raise ValueError("no luck")

    with running(worker("a", on_start=fail, backoff=Backoff(0.001, 0.002)), worker("b")) as system:
        eventually(lambda: node(system, "a").restarts > 6)
        system.harm("b", Harm.RAISE)
        eventually(lambda: node(system, "b").incarnation == 2)
    of_a = [r for r in caplog.records if r.getMessage().startswith("a (")]
    assert [r.levelno for r in of_a[:4]] == [logging.WARNING, logging.WARNING, logging.ERROR, logging.ERROR]
    assert ["Traceback" in r.getMessage() for r in of_a[:4]] == [True, False, False, False], "the same one again is short"
    of_b = [r for r in caplog.records if r.getMessage().startswith("b (")]
    assert [(r.levelno, r.getMessage().count("Traceback")) for r in of_b] == [(logging.ERROR, 1)]


def test_harm_needs_permission():
    with running(worker("a"), allow_chaos=False) as system:
        with pytest.raises(Refused):
            system.harm("a", Harm.RAISE)
        with pytest.raises(Refused):
            system.fail_next_start("a")
        system.tell("a", Chaos(Harm.RAISE))
        with pytest.raises(Refused):
            system.ask("a", Chaos(Harm.EXIT), deadline=30)
        assert incarnation(system) == 1


def test_two_children_of_one_name_are_refused():
    with running(worker("a"), ChildSpec("s", Supervisor, {"children": (worker("x"), worker("x"))}), up=False) as system:
        assert system.wait_ended(10)
        assert "two children of one id" in system.failure
    with running(worker("a"), ChildSpec("s", Supervisor, {"children": (worker("a"),)}), up=False) as system:
        assert system.wait_ended(10)
        assert "the name a is taken" in system.failure


def test_an_observer_that_fails_harms_nobody(caplog):
    seen = []
    with running(worker("a")) as system:
        system.on_event(lambda *_: 1 / 0)
        system.on_record(seen.append)
        system.harm("a", Harm.RAISE)
        eventually(lambda: len(seen) >= 2)
        assert [(r.event.value, r.name, r.incarnation) for r in seen[:2]] == [("crashed", "a", 1), ("restarted", "a", 2)]
        assert incarnation(system) == 2
    assert "an observer of lifecycle events failed" in caplog.text


def test_a_worker_is_what_it_says(caplog):
    assert Worker.mailbox_capacity == 10_000
    with running(worker("a")) as system:
        system.tell("root", "nonsense")
        eventually(lambda: "does not understand a str" in caplog.text)
        assert incarnation(system) == 1
