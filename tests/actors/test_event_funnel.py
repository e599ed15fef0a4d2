"""The funnel on a real loop; only the tracker behind it is played by the test."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from actors.event_funnel import EventFunnel
from coxswain.messages.sessions import EventBatch, StreamItem, StreamLost


def item(number: int) -> StreamItem:
    return StreamLost("nod_a", float(number))


class Tracker:
    """Keeps what it is sent; acknowledges when told to."""

    def __init__(self) -> None:
        self.batches: list[EventBatch] = []
        self.arrived = asyncio.Event()

    def take(self, batch: EventBatch) -> None:
        self.batches.append(batch)
        self.arrived.set()

    async def next(self, count: int) -> EventBatch:
        while len(self.batches) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 30)
        return self.batches[count - 1]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def test_items_keep_their_order_across_batches() -> None:
    async def body() -> None:
        tracker = Tracker()
        funnel = EventFunnel("e", tracker.take, batch_size=10, linger_s=0.001)
        for n in range(25):
            await funnel.put(item(n))
        for expected in (10, 10, 5):
            batch = await tracker.next(len(tracker.batches) or 1)
            assert len(batch.items) == expected
            funnel.acknowledge("e", batch.number)
            if expected != 5:
                await tracker.next(batch.number + 1)
        flat = [i.received_at for b in tracker.batches for i in b.items]
        assert flat == [float(n) for n in range(25)]
        assert [b.number for b in tracker.batches] == [1, 2, 3]
        assert funnel.depth == 0

    run(body)


def test_one_batch_at_a_time_and_a_lost_one_comes_again_unchanged() -> None:
    async def body() -> None:
        tracker = Tracker()
        funnel = EventFunnel("e", tracker.take, linger_s=0.001, resend_s=0.02)
        await funnel.put(item(1))
        first = await tracker.next(1)
        await funnel.put(item(2))
        again = await tracker.next(3)
        assert again == first, "nothing new is sent before the first batch is durable"
        funnel.acknowledge("e", first.number)
        while tracker.batches[-1].number == 1:
            await tracker.next(len(tracker.batches) + 1)
        assert tracker.batches[-1].items == (item(2),)

    run(body)


@pytest.mark.parametrize(("epoch", "number"), [("other", 1), ("e", 2), ("e", 0)])
def test_foreign_acknowledgements_change_nothing(epoch: str, number: int) -> None:
    async def body() -> None:
        tracker = Tracker()
        funnel = EventFunnel("e", tracker.take, linger_s=0.001)
        await funnel.put(item(1))
        await tracker.next(1)
        funnel.acknowledge(epoch, number)
        assert funnel.depth == 1

    run(body)


def test_a_full_funnel_holds_its_readers_back_and_never_grows_beyond_its_capacity() -> None:
    async def body() -> None:
        tracker = Tracker()
        funnel = EventFunnel("e", tracker.take, capacity=8, batch_size=4, linger_s=0.001)
        done = 0
        deepest = 0

        async def reader() -> None:
            nonlocal done, deepest
            for n in range(50):
                await funnel.put(item(n))
                deepest = max(deepest, funnel.depth)
            done += 1

        readers = [asyncio.create_task(reader()) for _ in range(5)]
        await tracker.next(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert done == 0
        acknowledged = 0
        while done < 5 or funnel.depth:
            await tracker.next(acknowledged + 1)
            acknowledged += 1
            funnel.acknowledge("e", acknowledged)
            await asyncio.sleep(0)
        await asyncio.gather(*readers)
        assert deepest <= 8 + 4
        assert sum(len(b.items) for b in tracker.batches) == 250

    run(body)


def test_a_new_loop_carries_on_with_what_waited() -> None:
    batches: list[EventBatch] = []
    funnel: list[EventFunnel] = []

    async def first_loop() -> None:
        funnel.append(EventFunnel("e", batches.append, batch_size=2, linger_s=0.001))
        for n in range(5):
            await funnel[0].put(item(n))
        while not batches:  # noqa: ASYNC110 - a plain list is filled by a callback
            await asyncio.sleep(0.001)

    async def second_loop() -> None:
        funnel[0].reset()
        while funnel[0].depth:
            funnel[0].acknowledge("e", batches[-1].number)
            await asyncio.sleep(0.002)

    asyncio.run(first_loop())
    asyncio.run(second_loop())
    numbers = {b.number: b for b in batches}
    assert [i.received_at for n in sorted(numbers) for i in numbers[n].items] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_crowd_does_not_wait_for_company() -> None:
    async def body() -> None:
        tracker = Tracker()
        funnel = EventFunnel("e", tracker.take, linger_s=3600.0, crowd=3, crowd_s=0.0)
        await funnel.put(item(0))
        funnel.acknowledge("e", (await tracker.next(1)).number)
        for n in (1, 2):
            await funnel.put(item(n))
        await asyncio.sleep(0)
        assert len(tracker.batches) == 1
        await funnel.put(item(3))
        assert [i.received_at for i in (await tracker.next(2)).items] == [1.0, 2.0, 3.0]

    run(body)


def test_with_nobody_watching_more_go_together() -> None:
    async def body() -> None:
        tracker, watched = Tracker(), [False]
        funnel = EventFunnel("e", tracker.take, linger_s=0.001, unwatched_s=3_600, crowd=5, is_watched=lambda: watched[0])
        await funnel.put(item(0))
        funnel.acknowledge("e", (await tracker.next(1)).number)  # the first one waits for nobody
        for n in range(4):
            await funnel.put(item(n))
        await asyncio.sleep(0.05)
        assert (len(tracker.batches), funnel.depth) == (1, 4)
        await funnel.put(item(4))  # company enough, whoever watches
        assert len((await tracker.next(2)).items) == 5
        watched[0] = True
        await funnel.put(item(5))
        funnel.acknowledge("e", 2)
        assert len((await tracker.next(3)).items) == 1

    run(body)


def test_whoever_comes_in_meanwhile_waits_no_longer_than_the_others() -> None:
    async def body() -> None:
        tracker, watched = Tracker(), [False]
        funnel = EventFunnel("e", tracker.take, linger_s=0.001, unwatched_s=3_600, is_watched=lambda: watched[0])
        await funnel.put(item(0))
        funnel.acknowledge("e", (await tracker.next(1)).number)
        await funnel.put(item(1))
        await asyncio.sleep(0.05)
        assert (len(tracker.batches), funnel.depth) == (1, 1)
        watched[0] = True  # and nothing comes that would have the funnel look
        assert len((await tracker.next(2)).items) == 1

    run(body)
