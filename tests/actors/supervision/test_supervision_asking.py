"""Asks and tells by name: across restarts, late, in full mailboxes, answered later."""

import threading
from concurrent.futures import Future

import pytest
from supervision_parts import Do, Worker, node, running, worker

from actors.supervision import Actor, Backoff, ChildSpec, Harm, Restart, directory
from coxswain.errors import DeadlineExceeded, NotFound, Unavailable
from tests.support import eventually


class Small(Worker):
    mailbox_capacity = 3


def block(system, name, gate):
    """Keeps an actor busy until the gate opens; returns when it is."""
    entered = threading.Event()
    system.tell(name, Do(lambda _: (entered.set(), gate.wait(30))))
    assert entered.wait(30)


def in_thread(call):
    """Runs it; the future has what it came to."""
    future = Future()

    def run():
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_a_question_that_meets_a_restart_waits_for_the_successor():
    release = threading.Event()

    def slow_second_start(actor):
        if actor.context.incarnation == 2:
            release.wait(30)

    with running(worker("a", on_start=slow_second_start)) as system:
        system.harm("a", Harm.RAISE)
        eventually(lambda: node(system, "a").incarnation == 2)
        answer = in_thread(lambda: system.ask("a", "hi", deadline=10))
        release.set()
        assert answer.result(30) == ("hi", 2)


def test_a_question_waits_while_its_target_backs_off():
    with running(worker("a", backoff=Backoff(0.1, 0.2))) as system:
        first = system.directory.find("a")
        system.harm("a", Harm.RAISE)
        first.thread.join(30)
        assert system.ask("a", "hi", deadline=10) == ("hi", 2)


def test_what_waited_in_the_mailbox_of_an_actor_that_failed_goes_to_the_successor():
    gate = threading.Event()
    with running(worker("a")) as system:
        block(system, "a", gate)
        system.harm("a", Harm.RAISE)
        answers = [in_thread(lambda n=n: system.ask("a", n, deadline=10)) for n in range(20)]
        eventually(lambda: node(system, "a").mailbox == 21)
        gate.set()
        assert [a.result(30) for a in answers] == [(n, 2) for n in range(20)]


def test_the_wait_for_a_successor_has_an_end():
    with running(worker("a", backoff=Backoff(3_000, 3_600))) as system:
        system.harm("a", Harm.RAISE)
        eventually(lambda: system.directory.find("a") is None)
        with pytest.raises(Unavailable, match="a is not running just now"):
            system.ask("a", "hi", deadline=0.05)
        with pytest.raises(Unavailable, match="nobody is not running"):
            system.ask("nobody", "hi", deadline=0.05)


def test_no_answer_in_time():
    gate = threading.Event()
    with running(worker("a")) as system:
        block(system, "a", gate)
        with pytest.raises(DeadlineExceeded, match=r"a did not answer str within 0\.05 s"):
            system.ask("a", "hi", deadline=0.05)
        gate.set()


class JustInTime(Future):
    """Its wait ends with the deadline, and by then the answer is there."""

    late = True

    def result(self, timeout=None):
        if self.late:
            self.late = False
            self.exception(30)
            raise TimeoutError
        return super().result(timeout)


def test_an_answer_that_comes_in_the_instant_of_the_deadline_is_one(monkeypatch):
    monkeypatch.setattr(directory, "Future", JustInTime)

    def lookup(_):
        raise NotFound("no such node")

    with running(worker("a")) as system:
        assert system.ask("a", "hi", deadline=0.5) == ("hi", 1)
        with pytest.raises(NotFound):
            system.ask("a", Do(lookup), deadline=0.5)


def test_what_nobody_waits_for_any_more_is_not_worked_on():
    gate, done = threading.Event(), []
    with running(worker("a")) as system:
        block(system, "a", gate)
        with pytest.raises(DeadlineExceeded):
            system.ask("a", Do(lambda _: done.append("left")), deadline=0.05)
        gate.set()
        system.ask("a", Do(lambda _: done.append("stayed")), deadline=30)
        assert done == ["stayed"]


@pytest.mark.parametrize("deadline", [float("inf"), float("nan"), 1e9])
def test_a_question_without_an_end_is_refused(deadline):
    with running(worker("a")) as system, pytest.raises(ValueError, match="needs a deadline"):
        system.ask("a", "hi", deadline=deadline)


def test_a_deadline_that_has_passed():
    with running(worker("a")) as system:
        for deadline in (0, -1):
            with pytest.raises(Unavailable):
                system.ask("nobody", "hi", deadline=deadline)


def test_nobody_waits_for_an_answer_from_itself():
    with running(worker("a")) as system:
        ask_self = Do(lambda actor: actor.context.ask("a", "hi", deadline=10))
        with pytest.raises(Unavailable, match="ValueError"):
            system.ask("a", ask_self, deadline=30)


def test_a_full_mailbox_drops_tells_and_refuses_questions_at_once(caplog):
    gate = threading.Event()
    with running(ChildSpec("a", Small)) as system:
        block(system, "a", gate)
        assert [system.tell("a", n) for n in range(5)] == [True] * 3 + [False] * 2
        with pytest.raises(Unavailable, match="a is overloaded: 3 messages wait"):
            system.ask("a", "hi", deadline=30)
        context = system.directory.find("a").context
        assert context.tell_self("mine") is False
        assert system.directory.undelivered == 3
        gate.set()
        eventually(lambda: node(system, "a").mailbox == 0)
        assert system.ask("a", Do(lambda actor: actor.context.incarnation), deadline=30) == 1
    assert "the mailbox of a is full: 2 messages dropped so far" in caplog.text


def test_a_full_mailbox_does_not_keep_an_actor_from_being_stopped():
    gate = threading.Event()
    with running(ChildSpec("a", Small)) as system:
        block(system, "a", gate)
        for n in range(5):
            system.tell("a", n)
        gate.set()
        assert system.stop()


def test_tells_to_nobody_are_counted():
    with running(worker("a")) as system:
        assert system.tell("nobody", 1) is False
        assert system.directory.undelivered == 1


def test_an_answer_that_comes_later():
    later = Future()
    with running(worker("a")) as system:
        answer = in_thread(lambda: system.ask("a", Do(lambda _: later), deadline=10))
        assert system.ask("a", "meanwhile", deadline=30) == ("meanwhile", 1)
        assert not answer.done()
        later.set_result("at last")
        assert answer.result(30) == "at last"


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (lambda f: f.set_exception(NotFound("no such node")), NotFound),
        (lambda f: f.set_exception(TimeoutError()), Unavailable),
        (lambda f: f.cancel(), Unavailable),
    ],
)
def test_an_answer_that_comes_to_nothing(fail, error):
    later = Future()
    with running(worker("a")) as system:
        answer = in_thread(lambda: system.ask("a", Do(lambda _: later), deadline=10))
        system.ask("a", "it has begun", deadline=30)
        eventually(lambda: later._done_callbacks)
        fail(later)
        with pytest.raises(error) as caught:
            answer.result(30)
        assert not isinstance(caught.value, DeadlineExceeded)


@pytest.mark.parametrize("end", ["crash", "stop"])
def test_an_answer_that_was_to_come_later_from_an_actor_that_ended(end):
    later = Future()
    with running(worker("a", restart=Restart.TEMPORARY)) as system:
        answer = in_thread(lambda: system.ask("a", Do(lambda _: later), deadline=30))
        eventually(lambda: later._done_callbacks)
        if end == "crash":
            system.harm("a", Harm.RAISE)
        else:
            system.tell("a", Do(lambda actor: actor.stop()))
        with pytest.raises(Unavailable, match="before it answered"):
            answer.result(30)
        later.set_result("too late for anybody")


def test_actors_ask_each_other():
    with running(worker("a"), worker("b")) as system:
        ask_b = Do(lambda actor: actor.context.ask("b", "from a", deadline=30))
        assert system.ask("a", ask_b, deadline=30) == ("from a", 1)
        tell_b = Do(lambda actor: actor.context.tell("b", "x"))
        assert system.ask("a", tell_b, deadline=30) is True


def test_messages_to_itself_and_timers():
    got = []

    class Timed(Actor):
        def started(self):
            self.context.after(0.4, "timer")
            self.context.after(0.3, "cancelled").cancel()  # by when we come to that, on a busy machine as well
            self.context.tell_self("at once")

        def receive(self, message):
            got.append(message)

    with running(ChildSpec("a", Timed)):
        eventually(lambda: "timer" in got)
        assert got == ["at once", "timer"]


def test_a_storm_of_questions_and_crashes_answers_everybody():
    with running(worker("a", backoff=Backoff(0.001, 0.002))) as system:

        def asker(base):
            asked = failed = 0
            while asked < 100 or node(system, "a").restarts < 3:  # else they may be too quick to meet a crash
                asked += 1
                try:
                    assert system.ask("a", base + asked, deadline=30)[0] == base + asked
                except Unavailable:
                    failed += 1
            return failed

        stop = threading.Event()

        def crasher():
            while not stop.wait(0.005):
                system.harm("a", Harm.RAISE)

        threading.Thread(target=crasher, daemon=True).start()
        results = [in_thread(lambda b=b: asker(b * 1000)) for b in range(8)]
        failed = [r.result(60) for r in results]
        stop.set()
        # None was worked on when a crash came: the crashes are messages of their own.
        assert failed == [0] * 8
