"""Session events at a given rate, from a simulated fleet."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

from coxswain.agent.sim_node import SimNode

__all__ = ["Generator"]


class Generator:
    """Makes PEER_CONNECTED and PEER_DISCONNECTED events at a given rate, spread over nodes and their peers.

    What subscribers were told and what ``SimNode.sessions`` says agree at every moment. HANDSHAKE events are left out unless
    asked for.

    Attributes:
        spared: indexes of nodes whose clients are left alone.
    """

    TICK_S = 0.02

    def __init__(self, fleet: Sequence[SimNode]) -> None:
        self._fleet = fleet
        self._task: asyncio.Task[None] | None = None
        self._steps: Iterator[Callable[[], bool]] = iter(())
        self.spared: frozenset[int] = frozenset()
        self.emitted = 0
        self.behind = 0

    async def run(self, events_per_s: float, seconds: float, *, handshakes: bool = False) -> int:
        """Emits for ``seconds``; returns how many events. Whether it kept up is in ``behind`` (events short)."""
        loop = asyncio.get_running_loop()
        start, done = loop.time(), 0
        while (passed := loop.time() - start) < seconds:
            due = int(passed * events_per_s) - done
            # A step at a time of a few hundred, so that streams get their share of the loop.
            burst = min(due, max(100, int(events_per_s * self.TICK_S * 2)))
            made = self._emit(burst, handshakes=handshakes)
            done += made
            await asyncio.sleep(0 if made and due > burst else self.TICK_S)
        done += self._emit(int(seconds * events_per_s) - done, handshakes=handshakes)
        self.behind = int(seconds * events_per_s) - done
        return done

    async def rate(self, events_per_s: float, *, handshakes: bool = False) -> None:
        """Emits at this rate until told otherwise; 0 stops."""
        await self.stop()
        if events_per_s > 0:
            self._task = asyncio.create_task(self._forever(events_per_s, handshakes=handshakes))

    async def stop(self) -> None:
        """Stops ``rate``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _forever(self, events_per_s: float, *, handshakes: bool) -> None:
        while True:
            await self.run(events_per_s, 60.0, handshakes=handshakes)

    def _emit(self, count: int, *, handshakes: bool) -> int:
        made = 0
        empty_rounds = 0
        while made < count and empty_rounds < 2:  # two rounds without a step: nobody to connect anywhere
            step = next(self._steps, None)
            if step is None:
                self._steps = self._round(handshakes=handshakes)
                empty_rounds += 1
            elif step():
                made += 1
                empty_rounds = 0
        self.emitted += made
        return made

    def _round(self, *, handshakes: bool) -> Iterator[Callable[[], bool]]:
        """One client of each node comes, then the one before it goes, and so on: of several there is always one connected,
        or the controller would rightly take a node that all have left at once for a stalled one.
        """
        count = max((len(node.plane.peers) for node in self._fleet), default=0)
        for position in range(count):
            for connect, who in ((True, position), (False, (position or count) - 1)):
                for node in self._fleet:
                    yield functools.partial(self._step, node, who, connect=connect, handshakes=handshakes)

    def _step(self, node: SimNode, position: int, *, connect: bool, handshakes: bool) -> bool:
        peers = node.plane.peers
        if not node.running or position >= len(peers) or node.index in self.spared:
            return False
        key = next(itertools.islice(peers, position, None))
        if peers[key].connected == connect or not node.plane.is_client(key):
            return False
        (node.connect if connect else node.disconnect)([key], handshakes=handshakes)
        return True
