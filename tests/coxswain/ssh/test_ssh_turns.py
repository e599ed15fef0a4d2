"""Whose upload goes on, and when it lets others go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from coxswain.ssh import turns
from coxswain.ssh.turns import Turn


class _GoneError(Exception):
    pass


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> threading.BoundedSemaphore:
    """One at a time."""
    only = threading.BoundedSemaphore(1)
    monkeypatch.setattr(turns, "_AT_ONCE", only)
    monkeypatch.setattr(turns, "_POLL_S", 0.01)
    return only


def _gone() -> None:
    raise _GoneError


def _blocks(count: int) -> Iterator[bytes]:
    return iter([bytes(400_000)] * count)


def test_what_is_small_needs_no_turn_and_what_is_large_waits_for_it(one: threading.BoundedSemaphore) -> None:
    first = Turn(_gone, lambda: False).taken_for(_blocks(9))
    assert next(first) and next(first)
    assert len(list(Turn(_gone, lambda: False).taken_for(_blocks(1)))) == 1
    certificates = iter([bytes(1_500), bytes(800), bytes(60_000)])
    assert len(list(Turn(_gone, lambda: False).taken_for(certificates))) == 3  # nor do several small files
    with pytest.raises(_GoneError):  # it was told to wait, and asked whether it still should
        list(Turn(_gone, lambda: False).taken_for(_blocks(2)))
    first.close()  # type: ignore[attr-defined]  # as when its line breaks
    assert len(list(Turn(_gone, lambda: False).taken_for(_blocks(9)))) == 9
    assert one.acquire(blocking=False)


def test_a_host_that_hangs_keeps_nobody_waiting(one: threading.BoundedSemaphore) -> None:
    """Its upload never comes to its next block, and is told from outside."""
    turn = Turn(_gone, lambda: False)
    hangs = turn.taken_for(_blocks(9))
    assert next(hangs) and next(hangs)
    assert not one.acquire(blocking=False)
    turn.give_away()
    assert len(list(Turn(_gone, lambda: False).taken_for(_blocks(9)))) == 9
    assert len(list(hangs)) == 7  # and if it goes on after all, it goes on
    turn.give_away()
    with pytest.raises(ValueError, match="released too many times"):
        one.release()  # nobody gave back what was not theirs


@pytest.mark.parametrize(
    ("on_line", "busy", "given_away"),
    [(True, True, True), (False, False, True), (False, True, False)],
    ids=["its line is slow", "its host is slow", "the controller is busy"],
)
def test_what_does_not_wait_for_the_controllers_processors_lets_others_go_on(
    on_line: bool, busy: bool, given_away: bool, one: threading.BoundedSemaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_FAST", 10**15)  # whatever it is, it is slow
    monkeypatch.setattr(turns, "_BUSY", 0.0 if busy else float("inf"))  # and whatever the controller takes
    sent = Turn(_gone, lambda: on_line).taken_for(_blocks(9))
    for _ in range(5):
        next(sent)
    assert one.acquire(blocking=False) is given_away
    assert len(list(sent)) == 4
