"""Children that come and go, by the thousand."""

import threading

import pytest
from supervision_parts import Do, node, running, worker

from actors.supervision import (
    Backoff,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    Harm,
    Intensity,
    Restart,
    StartChild,
    TerminateChild,
    WhichChildren,
)
from coxswain.errors import AlreadyExists, Unavailable
from tests.support import eventually


def dynamic(**kwargs):
    return ChildSpec("d", DynamicSupervisor, kwargs, shutdown_s=20, hang_s=60)


def names(system):
    return [child.id for child in system.ask("d", WhichChildren(), deadline=120)]  # thousands may have to be started first


def test_start_replace_terminate():
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a")), deadline=30)
        assert system.ask("a", "hi", deadline=30) == ("hi", 1)
        system.ask("d", TerminateChild("a"), deadline=30)
        assert names(system) == []
        assert system.directory.find("a") is None, "the answer comes when it is gone"
        system.ask("d", StartChild(worker("a")), deadline=30)
        assert system.ask("a", "hi", deadline=30) == ("hi", 2)
        system.ask("d", TerminateChild("unknown"), deadline=30)


def test_a_name_that_is_taken():
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a")), deadline=30)
        with pytest.raises(AlreadyExists, match="a child named a runs already"):
            system.ask("d", StartChild(worker("a")), deadline=30)
        system.tell("d", StartChild(worker("a")))
        assert names(system) == ["a"]
        assert node(system, "d").incarnation == 1


def test_a_start_behind_a_termination_follows_it():
    gate = threading.Event()
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a", on_stop=lambda _: gate.wait(30))), deadline=30)
        system.tell("d", TerminateChild("a"))
        system.ask("d", StartChild(worker("a")), deadline=30)
        gate.set()
        eventually(lambda: system.directory._incarnations["a"] == 2)
        assert system.ask("a", "hi", deadline=30) == ("hi", 2)
        assert names(system) == ["a"]


def test_a_termination_behind_a_start_behind_a_termination():
    gate = threading.Event()
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a", on_stop=lambda _: gate.wait(30))), deadline=30)
        system.tell("d", TerminateChild("a"))
        system.tell("d", StartChild(worker("a")))
        system.tell("d", TerminateChild("a"))
        assert names(system) == ["a"]
        gate.set()
        eventually(lambda: names(system) == [])
        assert system.directory._incarnations["a"] == 1


def test_a_child_that_crashes_while_it_is_terminated_stays_away():
    def fail(_actor):
        raise ValueError("x")

    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a", on_stop=fail)), deadline=30)
        system.ask("d", TerminateChild("a"), deadline=30)
        assert names(system) == []


def test_terminating_a_child_that_backs_off():
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a", backoff=Backoff(3_000, 3_600))), deadline=30)
        system.harm("a", Harm.RAISE)
        eventually(lambda: node(system, "a").state is ChildState.BACKING_OFF)
        system.ask("d", TerminateChild("a"), deadline=30)
        assert names(system) == []


def test_a_child_that_never_stops_is_fenced_off():
    gate = threading.Event()
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a", on_stop=lambda _: gate.wait(30), shutdown_s=0.05)), deadline=30)
        system.ask("d", TerminateChild("a"), deadline=10)
        assert names(system) == []
        gate.set()


def test_restart_types_and_a_line_that_goes_away():
    with running(dynamic()) as system:
        for restart in Restart:
            system.ask("d", StartChild(worker(restart.value, restart=restart)), deadline=30)
        for restart in Restart:
            system.tell(restart.value, Do(lambda actor: actor.stop()))
        eventually(lambda: names(system) == ["permanent"])
        eventually(lambda: node(system, "permanent").incarnation == 2)


def test_children_without_a_backoff_count():
    with running(dynamic(intensity=Intensity(2, 60)), intensity=Intensity(0, 60), up=True) as system:
        for n in range(3):
            system.ask("d", StartChild(worker(f"x{n}")), deadline=30)
            system.harm(f"x{n}", Harm.RAISE)
        assert system.wait_ended(10)
        assert "more than 2 restarts" in system.failure


def test_one_for_one():
    with running(dynamic(intensity=Intensity(100, 60))) as system:
        for n in range(20):
            system.ask("d", StartChild(worker(f"x{n}")), deadline=30)
        system.harm("x7", Harm.EXIT)
        eventually(lambda: node(system, "x7").incarnation == 2)
        assert [system.ask(f"x{n}", 0, deadline=30)[1] for n in range(20)] == [1] * 7 + [2] + [1] * 12


def test_a_subclass_has_children_of_its_own_making():
    class Own(DynamicSupervisor):
        def started(self):
            super().started()
            self.start_child(worker("own"))

        def receive(self, message):
            if message == "more":
                self.start_child(worker("more"))
                return None
            return super().receive(message)

    with running(ChildSpec("d", Own)) as system:
        system.ask("d", "more", deadline=30)
        assert names(system) == ["own", "more"]
        with pytest.raises(AlreadyExists):
            system.ask("d", "more", deadline=30)


def test_no_start_while_stopping():
    gate = threading.Event()
    with running(dynamic()) as system:
        system.ask("d", StartChild(worker("a", on_stop=lambda _: gate.wait(30))), deadline=30)
        stopper = threading.Thread(target=system.stop)
        stopper.start()
        eventually(lambda: node(system, "a").state is ChildState.STOPPING)
        with pytest.raises(Unavailable, match="d is stopping"):
            system.ask("d", StartChild(worker("b")), deadline=30)
        gate.set()
        stopper.join(30)


@pytest.mark.timeout(600)  # a crowded machine starts five thousand threads slowly
def test_five_thousand():
    before = threading.active_count()
    count = 5_000
    with running(dynamic(intensity=Intensity(10, 60)), shutdown_s=120.0) as system:
        for n in range(count):
            system.tell("d", StartChild(worker(f"x{n}")))
        assert len(names(system)) == count
        eventually(lambda: all(c.state is ChildState.RUNNING for c in node(system, "d").children), timeout=120, every=0.2)
        assert system.ask("x4999", "hi", deadline=60) == ("hi", 1)
        system.watch.sweep()
        for n in range(0, count, 1_000):
            system.harm(f"x{n}", Harm.RAISE)
            eventually(lambda n=n: node(system, f"x{n}").incarnation == 2, timeout=120)
        for n in range(count // 2):
            system.tell("d", TerminateChild(f"x{n}"))
        eventually(lambda: len(names(system)) == count // 2, timeout=120, every=0.2)
        assert system.stop(120)
    eventually(lambda: threading.active_count() <= before)
