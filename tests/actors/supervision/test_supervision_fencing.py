"""Hangs: found, fenced off, replaced; and never found where there is none."""

import threading
from concurrent.futures import Future

import pytest
from supervision_parts import Do, Worker, node, running, worker

from actors.supervision import ChildSpec, ChildState, Harm, LifecycleEvent, Restart, Supervisor
from actors.supervision.directory import Asked, NotBegun
from actors.supervision.signals import How
from coxswain.errors import Unavailable
from tests.support import eventually

from test_supervision_asking import block, in_thread  # isort: skip


def test_a_hung_actor_is_replaced_and_what_it_still_does_reaches_nobody():
    gate, outcome, freed, heard = threading.Event(), Future(), [], []

    def hang(actor):
        if actor.context.incarnation > 1:
            return
        context = actor.context
        context.on_void(lambda: freed.append(threading.current_thread().name))
        timer = context.after(0.6, Do(lambda _: heard.append("timer of the old one")))
        gate.wait(30)
        try:
            context.ask("listener", "hi", deadline=30)
            refused = ""
        except Unavailable as error:
            refused = str(error)
        late = []
        context.on_void(lambda: late.append(1))
        told = context.tell("listener", Do(lambda _: heard.append("told by the old one")))
        told_self = context.tell_self(Do(lambda _: heard.append("told itself")))
        outcome.set_result((context.is_current, told, told_self, refused, late, timer))

    with running(worker("a", hang_s=0.2), worker("listener")) as system:
        events = []
        system.on_event(lambda event, name, _reason: events.append((event, name)))
        old = system.directory.find("a")
        question = in_thread(lambda: system.ask("a", Do(hang), deadline=30))
        with pytest.raises(Unavailable, match=r"a hung for .* s in Do and was fenced off"):
            question.result(30)
        assert system.ask("a", "hi", deadline=10) == ("hi", 2)
        assert freed == ["root"]
        assert node(system, "a").zombies == 1
        assert "hung for" in node(system, "a").last_failure
        eventually(lambda: (LifecycleEvent.HUNG, "a") in events)

        gate.set()
        is_current, told, told_self, refused, late, _timer = outcome.result(30)
        assert (is_current, told, told_self, late) == (False, False, False, [1])
        assert refused == "a (incarnation 1) was replaced"
        old.thread.join(30)
        assert not old.thread.is_alive()
        eventually(lambda: node(system, "a").zombies == 0)
        assert system.ask("a", "still", deadline=30) == ("still", 2)
        assert heard == []


def test_a_question_behind_a_hang_is_answered_by_the_successor():
    with running(worker("a", hang_s=0.2)) as system:
        gate = threading.Event()
        block(system, "a", gate)
        assert system.ask("a", "hi", deadline=20) == ("hi", 2)
        gate.set()


def test_a_start_that_hangs():
    gate = threading.Event()

    def hang_once(actor):
        if actor.context.incarnation == 1:
            gate.wait(30)

    with running(worker("a", on_start=hang_once, hang_s=0.2), worker("b")) as system:
        assert system.ask("a", "hi", deadline=10) == ("hi", 2)
        gate.set()


def test_a_supervisor_that_hangs_is_replaced_with_its_children():
    gate = threading.Event()

    def hang_once(actor):
        if actor.context.incarnation == 1:
            gate.wait(30)

    # __init__ runs on the supervisor's thread: it is the supervisor that hangs.
    branch = ChildSpec("branch", Supervisor, {"children": (worker("x"), worker("y", on_init=hang_once))}, hang_s=0.2)
    with running(branch) as system:
        eventually(lambda: node(system, "branch").incarnation == 2)
        assert system.ask("y", "hi", deadline=10) == ("hi", 2)
        assert system.ask("x", "hi", deadline=10) == ("hi", 2)
        gate.set()  # the old supervisor goes on, and its y must not come to life
        eventually(lambda: node(system, "branch").zombies == 0)
        assert system.ask("y", "hi", deadline=10) == ("hi", 2)
        assert sum(thread.name == "y" for thread in threading.enumerate()) == 1


def test_a_supervisor_that_was_fenced_off_starts_nobody_any_more():
    gate, made = threading.Event(), threading.Event()

    def hang(_actor):
        gate.wait(30)
        made.set()

    inner = {"children": (worker("y", on_init=hang),)}
    branch = ChildSpec("branch", Supervisor, inner, restart=Restart.TEMPORARY, hang_s=0.2)
    with running(branch) as system:
        eventually(lambda: node(system, "branch").state is ChildState.FAILED)
        old = next(thread for thread in threading.enumerate() if thread.name == "branch")
        gate.set()
        old.join(30)
        assert made.is_set()
        assert system.directory.find("y") is None
        assert "y" not in {thread.name for thread in threading.enumerate()}


def test_a_message_that_was_being_taken_out_when_the_fence_came_goes_to_the_successor():
    with running(worker("a", restart=Restart.TEMPORARY)) as system:
        actor = system.directory.find("a")
        done = []
        taken = Asked(Do(lambda _: done.append(1)))
        actor.fence(How.HUNG, "for this test")
        actor.on_receive(taken)  # as its loop would, if it had been between taking out and beginning
        assert isinstance(taken.reply.exception(0), NotBegun)
        assert done == []


def test_the_idle_and_the_busy_are_left_alone():
    with running(worker("idle", hang_s=0.05), worker("busy", hang_s=0.05)) as system:
        turns = []

        def turn(actor):
            turns.append(1)
            if len(turns) < 2_000:
                actor.context.tell_self(Do(turn))

        system.tell("busy", Do(turn))
        for _ in range(50):
            system.watch.sweep()
        eventually(lambda: len(turns) == 2_000)
        for name in ("idle", "busy"):
            assert system.ask(name, "hi", deadline=30) == ("hi", 1)


def test_messages_that_nobody_takes():
    class Stubborn(Worker):
        def _actor_loop_running(self):
            if self.context.incarnation == 1:
                while not self.actor_stopped.wait(0.05):
                    pass
            else:
                super()._actor_loop_running()

    with running(ChildSpec("a", Stubborn, hang_s=0.2)) as system:
        assert system.ask("a", "hi", deadline=20) == ("hi", 2)
        assert "took no message for" in node(system, "a").last_failure


@pytest.mark.parametrize("source", ["tick", "lag"])
def test_nobody_is_called_late_by_a_machine_that_is_late_itself(source):
    gate = threading.Event()
    with running(worker("a", hang_s=0.3)) as system:
        block(system, "a", gate)
        if source == "tick":
            system.watch.note(tick_s=1_000.0)
        else:
            system.add_lag_source(lambda: 1_000.0)
            system.add_lag_source(lambda: 1 / 0)
            system.watch.note(tick_s=0.0, lag_s=1_000.0)
        since = system.directory.find("a").busy[1]
        eventually(lambda: system.clock.monotonic() - since > 1.0)
        system.watch.sweep()
        assert node(system, "a").incarnation == 1
        if source == "lag":  # which is believed only so far
            eventually(lambda: node(system, "a").incarnation == 2)
        gate.set()


def test_a_fence_never_hits_the_successor():
    with running(worker("a", hang_s=0.2)) as system:
        first = system.directory.find("a")
        gate = threading.Event()
        block(system, "a", gate)
        eventually(lambda: node(system, "a").incarnation == 2 and node(system, "a").state is ChildState.RUNNING)
        second = system.directory.find("a")
        first.fence(How.HUNG, "again")
        assert second.context.is_current
        assert system.ask("a", "hi", deadline=30) == ("hi", 2)
        gate.set()


def test_a_hang_told_for_demonstration():
    with running(worker("a", hang_s=0.2)) as system:
        system.harm("a", Harm.HANG, 4.0)  # long enough for a watch that is late itself
        eventually(lambda: node(system, "a").incarnation == 2, timeout=30)
        eventually(lambda: node(system, "a").zombies == 0, timeout=30)
