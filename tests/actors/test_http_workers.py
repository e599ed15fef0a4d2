"""Workers come with the work, up to a limit, and go again."""

from __future__ import annotations

import threading

import pytest

from actors.http_workers import Workers
from tests.support import eventually


class Task:
    """Runs until it is let go. ``service`` is what waitress calls."""

    def __init__(self, gate: threading.Event) -> None:
        self.began, self.ended, self._gate = threading.Event(), threading.Event(), gate

    def service(self) -> None:
        self.began.set()
        self._gate.wait(30)
        self.ended.set()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def workers(now):
    made = Workers(4, lambda: now[0])
    yield made
    made.shutdown(timeout=5)


def test_as_many_as_are_busy_and_no_more_than_allowed(workers):
    assert workers.running == 0
    gate = threading.Event()
    tasks = [Task(gate) for _ in range(6)]
    for task in tasks:
        workers.add_task(task)
    eventually(lambda: sum(task.began.is_set() for task in tasks) == 4)
    assert workers.running == 4
    gate.set()
    eventually(lambda: all(task.ended.is_set() for task in tasks))  # those that waited had their turn


def test_one_after_the_other_needs_few(workers):
    gate = threading.Event()
    gate.set()
    for _ in range(50):
        task = Task(gate)
        workers.add_task(task)
        assert task.ended.wait(30)
        eventually(lambda: workers.active_count == 0)
    assert workers.running == 1


def test_they_go_when_it_is_quiet(workers, now):
    gate = threading.Event()
    tasks = [Task(gate) for _ in range(4)]
    for task in tasks:
        workers.add_task(task)
    gate.set()
    eventually(lambda: all(task.ended.is_set() for task in tasks))
    workers.rest()
    assert workers.running == 4  # not at once
    eventually(lambda: workers.active_count == 0)
    now[0] += 11.0
    workers.rest()
    eventually(lambda: not workers.threads)
    last = Task(gate)
    workers.add_task(last)
    assert last.ended.wait(30)


def test_a_busy_one_stays(workers, now):
    gate = threading.Event()
    long = Task(gate)
    workers.add_task(long)
    assert long.began.wait(30)
    now[0] += 3600.0
    workers.rest()
    assert workers.running == 1
    gate.set()
    assert long.ended.wait(30)


def test_nobody_goes_who_was_just_given_a_task(workers, now):
    """It is called on the same thread a moment later, before the worker woke."""
    gate = threading.Event()
    gate.set()
    for _ in range(300):
        task = Task(gate)
        workers.add_task(task)
        workers._busy_at = -3600.0
        workers.rest()
        assert task.ended.wait(30)
