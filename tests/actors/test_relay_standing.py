"""What becomes of an attempt to put up a tunnel when the I/O loop is not there, or ends before it began."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, cast

import pytest

from actors.io_loop import IoLoop
from actors.relays.standing import _Running
from coxswain.clock import SystemClock
from coxswain.errors import Unavailable


async def work() -> str:
    return "it stood"


class Ending:
    """A loop that ends before anything begins."""

    def submit(self, submitted: Coroutine[Any, Any, str]) -> Future[str]:
        future: Future[str] = Future()
        submitted.close()
        future.cancel()
        return future


def test_without_a_loop_the_attempt_is_closed() -> None:
    attempt = work()
    with pytest.raises(Unavailable):
        _Running(IoLoop(SystemClock()), attempt)
    assert inspect.getcoroutinestate(attempt) == inspect.CORO_CLOSED


def test_one_that_the_end_of_the_loop_overtook_is_closed() -> None:
    attempt = work()
    _Running(cast("IoLoop", Ending()), attempt)
    assert inspect.getcoroutinestate(attempt) == inspect.CORO_CLOSED


def test_one_that_runs_is_left_alone() -> None:
    io = IoLoop(SystemClock())
    io.start()
    try:
        assert _Running(io, work()).result.result(30) == "it stood"
    finally:
        io.stop()
