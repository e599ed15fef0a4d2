"""Mailboxes and timers by themselves."""

import queue
import random
import threading
import weakref
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervision_parts import running, worker

from actors.supervision.context import Context
from actors.supervision.mailbox import Mailbox, MailboxClosed, MailboxFull
from actors.supervision.signals import Wake
from actors.supervision.timers import Timers
from coxswain.clock import ManualClock, SystemClock
from tests.support import eventually


def test_first_in_first_out_and_bounded():
    box = Mailbox(2)
    box.put(1)
    box.put(2)
    with pytest.raises(MailboxFull):
        box.put(3)
    box.put(4, urgent=True)
    assert [box.get() for _ in range(3)] == [1, 2, 4]
    assert (box.empty(), box.taken) == (True, 3)


def test_a_closed_mailbox_takes_nothing_and_gives_what_was_left_once():
    box = Mailbox(9)
    box.put(1)
    box.put(2)
    assert (box.close(), box.close()) == ([1, 2], [])
    for urgent in (False, True):
        with pytest.raises(MailboxClosed):
            box.put(3, urgent=urgent)
    assert isinstance(box.get().message, Wake)


def test_closing_wakes_whoever_waits():
    box, got = Mailbox(9), queue.SimpleQueue()
    thread = threading.Thread(target=lambda: got.put(box.get()))
    thread.start()
    box.close()
    assert isinstance(got.get(timeout=30).message, Wake)
    thread.join(30)


def test_every_message_is_taken_exactly_once_while_it_is_closed():
    box, taken, refused = Mailbox(1_000_000), [], []

    def put(base):
        for number in range(base, base + 2_000):
            try:
                box.put(number)
            except MailboxClosed:
                refused.append(number)

    def take():
        while not isinstance(getattr(item := box.get(), "message", None), Wake):
            taken.append(item)

    writers = [threading.Thread(target=put, args=(n * 2_000,)) for n in range(4)]
    reader = threading.Thread(target=take)
    for thread in (*writers, reader):
        thread.start()
    eventually(lambda: len(taken) > 200)
    left = box.close()
    for thread in (*writers, reader):
        thread.join(30)
    assert sorted([*taken, *left, *refused]) == list(range(8_000))


class Heavy:
    """Something whose end can be seen."""


def test_an_actor_that_waits_holds_on_to_no_message():
    with running(worker("a")) as system:
        message = Heavy()
        gone = weakref.ref(message)
        system.tell("a", message)
        del message
        eventually(lambda: gone() is None)
        assert system.ask("a", "still there", deadline=5) == ("still there", 1)


def test_a_later_timer_does_not_wake_the_thread(monkeypatch):
    clock, fired = ManualClock(), []
    timers = Timers(clock)
    woken = []
    notify = timers._lock.notify
    monkeypatch.setattr(timers._lock, "notify", lambda: (woken.append(1), notify()))
    timers.start()
    eventually(lambda: timers._sleeps_until == float("inf"))
    timers.after(0.9, lambda: fired.append("first"))
    eventually(lambda: clock.monotonic() < timers._sleeps_until < float("inf"))
    assert len(woken) == 1
    for _ in range(10):
        timers.after(5, lambda: fired.append("later"))
    assert len(woken) == 1, "nobody has to be told of what is later than what is waited for"
    timers.after(0.1, lambda: fired.append("soon"))
    assert len(woken) == 2
    clock.advance(1)
    eventually(lambda: fired == ["soon", "first"])
    timers.close()


@given(now=st.floats(0, 1e6), period=st.sampled_from([0.25, 0.5, 1.0]))
def test_who_looks_as_often_is_woken_together(now, period):
    clock = ManualClock()
    clock.advance(now)
    asked = []
    system = SimpleNamespace(clock=clock, timers=SimpleNamespace(after=lambda delay, _: asked.append(delay)))
    context = Context("a", 1, system=system, seed=1, report=lambda _: None)
    context.on_beat(period, "look")
    (delay,) = asked
    assert period / 2 <= delay <= 1.5 * period
    beats = (clock.monotonic() + delay) / period
    assert beats == pytest.approx(round(beats), abs=1e-6)


@pytest.fixture
def timers():
    timers = Timers(SystemClock())
    timers.start()
    yield timers
    timers.close()


@pytest.fixture
def at_once():
    """Timers that are all asked for at one moment, and fire once it is ``go()``."""
    clock = ManualClock()
    timers = Timers(clock)

    def go():
        clock.advance(1.0)
        timers.start()

    yield timers, go
    timers.close()


def test_timers_fire_in_the_order_in_which_they_are_due(at_once):
    timers, go = at_once
    fired = []
    delays = [0.15, 0.05, 0.1, 0.0]
    for delay in delays:
        timers.after(delay, lambda d=delay: fired.append(d))
    go()
    eventually(lambda: len(fired) == 4)
    assert fired == sorted(delays)


def test_an_earlier_timer_overtakes_one_that_is_waited_for(timers):
    fired = []
    timers.after(60, lambda: fired.append("late"))
    timers.after(0.01, lambda: fired.append("soon"))
    eventually(lambda: fired)
    assert fired == ["soon"]


def test_a_cancelled_timer_does_not_fire(at_once):
    timers, go = at_once
    fired = []
    timer = timers.after(0.05, lambda: fired.append("cancelled"))
    timer.cancel()
    timer.cancel()
    timers.after(0.1, lambda: fired.append("other"))
    go()
    eventually(lambda: fired)
    assert fired == ["other"]


def test_a_call_that_fails_costs_no_other_timer(timers, caplog):
    fired = []
    timers.after(0, lambda: 1 / 0)
    timers.after(0.01, lambda: exec("raise SystemExit"))
    timers.after(0.02, lambda: fired.append(1))
    eventually(lambda: fired)
    assert "division by zero" in caplog.text


def test_thousands_of_timers_on_one_thread(timers):
    fired, before = [], set(threading.enumerate())
    rng = random.Random(1)
    for number in range(5_000):
        timers.after(rng.random() / 10, lambda n=number: fired.append(n))
    assert set(threading.enumerate()) <= before  # those that others left may end meanwhile
    eventually(lambda: len(fired) == 5_000)
    assert sorted(fired) == list(range(5_000))


def test_cancelled_timers_do_not_pile_up():
    timers = Timers(ManualClock())
    keep = [timers.after(3_600, lambda: None) for _ in range(10)]
    for _ in range(50_000):
        timers.after(3_600, lambda: None).cancel()
    assert len(keep) <= len(timers) <= 2_100


def test_a_clock_moved_by_hand_moves_timers():
    clock, fired = ManualClock(), []
    timers = Timers(clock)
    timers.start()
    timers.after(100, lambda: fired.append(1))
    clock.advance(99)
    assert not fired
    clock.advance(2)
    eventually(lambda: fired)
    timers.close()


@given(st.lists(st.booleans(), max_size=50))
def test_close_ends_everything(cancels):
    timers = Timers(ManualClock())
    for cancel in cancels:
        timer = timers.after(1, lambda: None)
        if cancel:
            timer.cancel()
    timers.close()
    timers.after(0, lambda: None)
    assert len(timers) == 0
