"""Actors that have nothing to do go without a thread, and nobody notices."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from supervision_parts import Do, Journal, Worker, node, running, worker

from actors.supervision import Actor, ChildSpec, Harm
from actors.supervision.mailbox import Mailbox, MailboxFull, Rest
from tests.support import eventually


class Drowsy(Worker):
    rests_after_s = 0.005


class Wakeful(Worker):
    rests_after_s = None


def drowsy(name, journal=None):
    return ChildSpec(name, Drowsy, {"journal": journal})


def rests(system, name):
    actor = system.directory.find(name)
    return eventually(lambda: actor.mailbox.resting and not actor.thread.is_alive() and actor)


def test_an_idle_actor_gives_its_thread_up_and_answers_all_the_same():
    with running(drowsy("a")) as system:
        actor = rests(system, "a")
        first = actor.thread
        assert system.ask("a", "x", deadline=30) == ("x", 1)
        assert actor.thread is not first
        rests(system, "a")
        system.watch.sweep()
        assert system.ask("a", Do(lambda a: a.context.incarnation), deadline=30) == 1
        assert node(system, "a").restarts == 0


def test_one_that_must_not_rest_keeps_its_thread():
    with running(ChildSpec("a", Wakeful, {}), drowsy("b")) as system:
        first = system.directory.find("a").thread
        rests(system, "b")
        assert system.ask("a", Do(lambda _: threading.current_thread()), deadline=30) is first


def test_whatever_an_actor_can_suffer_it_suffers_after_a_rest():
    with running(drowsy("a")) as system:
        for incarnation, harm in ((2, Harm.RAISE), (3, Harm.EXIT), (4, Harm.VANISH)):
            rests(system, "a")
            system.harm("a", harm)
            eventually(lambda wanted=incarnation: system.watch.sweep() or node(system, "a").incarnation == wanted)
        assert system.ask("a", "x", deadline=30) == ("x", 4)


def test_resting_actors_are_stopped_in_good_order():
    journal = Journal()
    with running(drowsy("a", journal), drowsy("b", journal)) as system:
        rests(system, "a")
        rests(system, "b")
        assert system.stop(10)
    assert journal["stopping"] == ["b", "a"]


def test_one_that_is_fenced_off_while_it_rests_is_replaced():
    with running(drowsy("a")) as system:
        rests(system, "a").fence(*fenced())
        eventually(lambda: node(system, "a").incarnation == 2)
        assert system.ask("a", "x", deadline=30) == ("x", 2)


def fenced():
    from actors.supervision.signals import How  # noqa: PLC0415

    return How.HUNG, "told so"


def test_many_who_ask_at_every_moment_of_a_rest_are_all_answered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Actor, "rests_after_s", 0.001)
    numbers = count()
    with running(worker("a"), worker("b")) as system, ThreadPoolExecutor(4) as askers:

        def ask(number):
            threading.Event().wait(next(numbers) % 7 * 0.0005)
            return system.ask("ab"[number % 2], number, deadline=10)

        sweeps = [askers.submit(system.watch.sweep) for _ in range(100)]
        assert list(askers.map(ask, range(400))) == [(number, 1) for number in range(400)]
        for sweep in sweeps:
            sweep.result(30)
        assert [node(system, name).restarts for name in "ab"] == [0, 0]


def test_a_reader_without_a_thread_loses_nothing_when_none_can_be_started():
    threads = []

    def rouse():
        if not threads:
            raise RuntimeError("can't start new thread")

    box = Mailbox(9, rest_s=0.001, rouse=rouse)
    with pytest.raises(Rest):
        box.get()
    with pytest.raises(MailboxFull, match="no thread"):
        box.put(1)
    assert (box.resting, len(box)) == (True, 0)
    box.put("urgent", urgent=True)  # a supervisor's word is never refused
    assert (box.resting, len(box)) == (True, 1)
    threads.append("there is one again")
    box.put(2)
    assert (box.resting, box.get(), box.get()) == (False, "urgent", 2)
