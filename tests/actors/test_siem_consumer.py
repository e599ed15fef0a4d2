"""One consumer of the SIEM stream against a ring that goes on between its looks, as it does while the machine is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from actors.siem.consumer import Consumer
from coxswain.live.ring import EventRing, Stretch
from coxswain.messages.hub import Publish
from coxswain.siem.cursor import Cursor
from coxswain.siem.wanted import Wanted
from coxswain.wire.pharos.monitor.v1 import monitor_pb2 as pb


class RacingRing(EventRing):
    """Other events come between the reader's looks, ``rounds`` times."""

    rounds = 0

    def after(self, seq: int, limit: int) -> Stretch:
        found = super().after(seq, limit)
        if self.rounds:
            self.rounds -= 1
            self.append(Publish("tree.big", 1.0, {}) for _ in range(7))
        return found


class Server(SimpleNamespace):
    """What a consumer sees of the stream's server."""

    def now(self) -> float:
        return 1.0

    wall = now

    def count_dropped(self, count: int | None) -> None:
        self.dropped.append(count)

    def count_sent(self) -> None:
        self.sent += 1


def read(ring: EventRing, wanted: Wanted, done: Callable[[list[pb.MonitorEvent]], bool]) -> list[pb.MonitorEvent]:
    told: list[pb.MonitorEvent] = []

    async def run() -> None:
        over = asyncio.Event()

        async def write(content: bytes) -> None:
            told.append(pb.MonitorEvent.FromString(content))
            if done(told):
                over.set()

        server: Any = Server(ring=ring, pulse=asyncio.Event(), heartbeat_s=60.0, dropped=[], sent=0)
        more: Any = {"credential": None, "expires_at": None}
        consumer = Consumer(
            server, SimpleNamespace(write=write), wanted=wanted, start=Cursor(ring.last, 0, False), marks=True, **more
        )
        ring.append(Publish("tree.big", 1.0, {}) for _ in range(25))
        running = asyncio.ensure_future(consumer.run())
        await asyncio.wait_for(over.wait(), 10)
        running.cancel()

    asyncio.run(run())
    return told


def test_what_goes_while_it_is_counted_is_counted() -> None:
    ring = RacingRing(capacity=10)
    ring.begin(1_000)
    ring.rounds = 3
    total = 25 + 3 * 7

    def heard(told: list[pb.MonitorEvent]) -> int:
        return sum(event.gap.dropped if event.type == "gap" else 1 for event in told)

    told = read(ring, Wanted.of(["tree"]), lambda told: heard(told) >= total or any(e.gap.count_unknown for e in told))
    assert heard(told) == total and {event.gap.reason for event in told if event.type == "gap"} == {"behind"}
    assert not any(event.gap.count_unknown for event in told)
