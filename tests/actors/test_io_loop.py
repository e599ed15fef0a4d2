"""The I/O loop as actors use it: what they submit, what becomes of it when the loop ends, and how often it is woken."""

import asyncio
import gc
import socket
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any

import pytest

from actors.io_loop import IoLoop, _cancel_all, _Entrance, _Work
from coxswain.clock import SystemClock
from coxswain.errors import NodeUnreachable, Unavailable
from tests.support import eventually


@pytest.fixture
def io() -> Iterator[IoLoop]:
    loop = IoLoop(SystemClock())
    loop.start()
    yield loop
    loop.stop()


async def value(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def failure() -> None:
    raise NodeUnreachable("gone")


async def forever() -> None:
    await asyncio.Event().wait()


def held(io: IoLoop) -> threading.Event:
    """Holds the loop until the event is set."""
    free, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        free.wait(30)

    io.call(hold)
    assert begun.wait(30)
    return free


def test_results_and_failures_come_back(io: IoLoop) -> None:
    assert io.submit(value(7)).result(30) == 7
    with pytest.raises(NodeUnreachable, match="gone"):
        io.submit(failure()).result(30)


class Thing:
    """Something that work results in; a bare object cannot be watched."""


def test_what_has_ended_waits_for_no_garbage_collector(io: IoLoop) -> None:
    """Of a change of a thousand nodes, or of their looks, all results and all futures did."""

    async def made() -> Thing:
        await asyncio.sleep(0)
        return Thing()

    gc.disable()
    try:
        future = io.submit(made())
        left = [weakref.ref(future), weakref.ref(future.result(30))]
        io.submit(value(7)).result(30)  # so the loop has turned once more since
        del future
        assert eventually(lambda: [ref() for ref in left] == [None, None])
    finally:
        gc.enable()


def test_a_result_is_told_on_the_loop(io: IoLoop) -> None:
    told: Future[str] = Future()
    free = held(io)
    io.submit(value(1)).add_done_callback(lambda _: told.set_result(threading.current_thread().name))
    free.set()
    assert told.result(30) == "io-loop"


def test_what_is_called_and_submitted_comes_in_order(io: IoLoop) -> None:
    seen: list[int] = []
    free = held(io)

    async def note(number: int) -> None:
        seen.append(number)

    for number in range(0, 100, 2):
        io.call(lambda number=number: seen.append(number))  # type: ignore[misc]
        last = io.submit(note(number + 1))
    free.set()
    last.result(30)
    assert seen == list(range(100))


def test_a_thousand_submissions_at_once_wake_the_loop_once(io: IoLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = io.submit(_loop()).result(30)
    wakes: list[Any] = []
    wake = loop.call_soon_threadsafe
    free = held(io)

    def counted(*args: Any) -> Any:
        wakes.append(args)
        return wake(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    futures = [io.submit(value(number)) for number in range(1_000)]
    free.set()
    assert [future.result(30) for future in futures] == list(range(1_000))
    assert len(wakes) == 1


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_threads_that_submit_at_once_all_get_their_answer(io: IoLoop) -> None:
    got: list[int] = []

    def ask(first: int) -> None:
        got.extend(io.submit(value(number)).result(30) for number in range(first, first + 200))

    threads = [threading.Thread(target=ask, args=(1_000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == sorted(1_000 * n + i for n in range(8) for i in range(200))


def test_what_runs_and_what_waits_is_cancelled_when_the_loop_ends(io: IoLoop) -> None:
    running = io.submit(forever())
    io.submit(value(0)).result(30)  # so that the one before it has begun
    free = held(io)
    loop = io.submit(_loop())
    io.call(lambda: asyncio.get_running_loop().stop())
    waiting = [io.submit(forever()) for _ in range(3)]
    free.set()
    for future in (running, *waiting):
        with pytest.raises(CancelledError):
            future.result(30)
    assert loop.result(30) is not None


def test_what_was_let_in_and_did_not_begin_is_cancelled_too() -> None:
    loop = asyncio.new_event_loop()
    entrance = _Entrance(loop)
    future: Future[int] = Future()
    loop.call_soon(loop.stop)
    assert entrance.let_in(_Work(value(1), future))  # it becomes a task in the loop's last turn
    loop.run_forever()
    _cancel_all(loop)
    entrance.close()
    loop.close()
    assert future.cancelled()


def test_without_a_loop_nothing_is_taken(io: IoLoop) -> None:
    io.stop()
    work = value(1)
    with pytest.raises(Unavailable):
        io.submit(work)
    assert getattr(work, "cr_frame") is None  # noqa: B009 -  closed: it does not warn that nobody waited for it
    io.call(lambda: None)
    io.start()
    assert io.submit(value(2)).result(30) == 2


def test_a_call_that_fails_does_not_hurt_the_others(io: IoLoop, caplog: pytest.LogCaptureFixture) -> None:
    free = held(io)
    io.call(lambda: socket.inet_aton("no address"))  # type: ignore[arg-type]
    after = io.submit(value(3))
    free.set()
    assert after.result(30) == 3
    assert "no address" in caplog.text or "illegal IP" in caplog.text


def test_cleanups_come_before_what_runs_is_cancelled_each_time_a_loop_stops(io: IoLoop) -> None:
    """A grpc.aio server must be stopped while its tasks still are there."""
    order: list[str] = []
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await forever()
        finally:
            order.append("cancelled")

    async def cleanup() -> None:
        await asyncio.sleep(0)
        order.append("cleaned up")

    async def broken() -> None:
        raise NodeUnreachable("a cleanup that fails")

    io.on_stop(broken)
    io.on_stop(cleanup)
    for _ in range(2):
        begun.clear()
        io.submit(work())
        assert begun.wait(30)
        io.stop()
        assert order == ["cleaned up", "cancelled"]
        order.clear()
        io.start()


def test_a_cleanup_that_hangs_holds_no_loop_up(io: IoLoop) -> None:
    io.on_stop(forever)
    io.stop()
    assert not io.alive
    io.start()
    assert io.submit(value(7)).result(30) == 7


def test_whoever_cancels_a_future_ends_the_work(io: IoLoop) -> None:
    """Otherwise it would go on unseen, and what it opened would stay open for ever."""
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await forever()
        finally:
            ended.set()

    future = io.submit(work())
    assert begun.wait(30)
    assert future.cancel()
    assert ended.wait(30)
    with pytest.raises(CancelledError):
        future.result(30)
    assert not future.cancel()


def test_work_that_was_quicker_than_its_cancelling_hands_its_result_over(io: IoLoop) -> None:
    begun = threading.Event()

    async def work() -> str:
        begun.set()
        with suppress(asyncio.CancelledError):
            await forever()
        return "a connection, to be closed"

    future = io.submit(work())
    assert begun.wait(30)
    future.cancel()
    assert future.result(30) == "a connection, to be closed"


def test_work_that_will_not_end_gives_no_result_when_the_loop_does() -> None:
    loop = asyncio.new_event_loop()
    entrance = _Entrance(loop)
    future: Future[None] = Future()
    ends: list[bool] = []

    async def work() -> None:
        while not ends:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    entrance.let_in(_Work(work(), future))
    loop.run_until_complete(asyncio.sleep(0.01))
    _cancel_all(loop)
    assert not future.done()
    entrance.abandon()
    assert future.cancelled()
    ends.append(True)
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))
    loop.close()


def test_nothing_begins_on_a_loop_that_is_ending(io: IoLoop) -> None:
    entrance = io._entrance
    assert entrance is not None
    late: list[bool] = []

    async def cleanup() -> None:
        late.append(entrance.let_in(lambda: None))

    io.on_stop(cleanup)
    io.stop()
    assert late == [False]
