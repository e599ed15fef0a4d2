"""Many simulated nodes in one process and on one event loop, for demo, tests and benchmarks.

Each node is the real service behind a real mTLS port with a simulated data plane; a node costs some tens of kilobytes
and, while nothing happens on it, no CPU: one shared tick looks only at nodes that may have something to tell.

::

    async with SimFleet(50, sign=my_ca) as fleet:       # my_ca(index, csr_pem) -> (chain_pem, anchors_pem)
        fleet[3].connect(2)                             # two clients shake hands on node 3
        await fleet[7].kill()                           # connections break, the port is closed
        await fleet[7].start()                          # the agent is back, with its files

Nodes that were told of each other have inner links that work (``sim_network``).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec

import coxswain
from coxswain.agent.event_generator import Generator
from coxswain.agent.events import BUFFER
from coxswain.agent.observer import POLL_S
from coxswain.agent.sim_network import SimNetwork
from coxswain.agent.sim_node import SimNode
from coxswain.agent.simulated import Behaviour
from coxswain.agent.state import Files
from coxswain.clock import Clock, SystemClock

__all__ = ["Sign", "SimFleet", "SimNode"]

Sign = Callable[[int, bytes], tuple[bytes, bytes]]
"""Takes a node's index and its PEM CSR, returns its PEM chain and the PEM anchors that it shall trust."""

_SLICES = 20
"""The shared tick looks at a twentieth of the nodes at a time, so that a fleet's polls do not come in one lump."""

_START_LANES = 64


class SimFleet:
    """N simulated nodes; an async context manager that starts and stops them all.

    Args:
        nodes: how many.
        sign: called for each node without a certificate when it is first started; or use ``SimNode.install``.
        seed: same seed, same identities and same client lives.
        base_port: node i listens on ``base_port + i``; 0: ports chosen by the system.
        behaviour: lively clients; None: peers are idle until connected by a test or by ``rate``.
        observe: False: the shared tick is off; only injected clients make events. ``poll`` looks by hand.
        poll_s: seconds between two looks of a node's observer.
        buffer: events that one subscriber may be behind.
        files: makes a node's files; default: in memory.
        record: keep requests and rendered commands of each node.
        existing_agent: nodes forget what the existing agent forgets (``SimNode``).
    """

    def __init__(
        self,
        nodes: int,
        *,
        sign: Sign | None = None,
        seed: int = 0,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        base_port: int = 0,
        behaviour: Behaviour | None = None,
        observe: bool = True,
        poll_s: float = POLL_S,
        buffer: int = BUFFER,
        files: Callable[[int], Files] | None = None,
        record: bool = False,
        version: str = coxswain.__version__,
        key: ec.EllipticCurvePrivateKey | None = None,
        existing_agent: bool = False,
    ) -> None:
        self._sign = sign
        self._observe = observe
        self._poll_s = poll_s
        self._clock = clock if clock is not None else SystemClock()
        self._tick: asyncio.Task[None] | None = None
        shared = key if key is not None else ec.generate_private_key(ec.SECP256R1())
        network = SimNetwork()
        self.nodes = [
            SimNode(
                index,
                shared,
                clock=self._clock,
                seed=seed,
                host=host,
                port=base_port + index if base_port else 0,
                behaviour=behaviour,
                buffer=buffer,
                files=files(index) if files is not None else None,
                record=record,
                version=version,
                existing_agent=existing_agent,
                network=network,
            )
            for index in range(nodes)
        ]
        self.generator = Generator(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int) -> SimNode:
        return self.nodes[index]

    def __iter__(self) -> Iterator[SimNode]:
        return iter(self.nodes)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Starts every node that is not running. Raises ``Refused``."""
        lanes = asyncio.Semaphore(_START_LANES)

        async def one(node: SimNode) -> None:
            async with lanes:
                if self._sign is not None and not node.installed:
                    node.install(*self._sign(node.index, node.csr()))
                await node.start()

        await asyncio.gather(*(one(node) for node in self.nodes))
        if self._observe and self._tick is None:
            self._tick = asyncio.create_task(self._look_around())

    async def close(self, grace: float = 0.2) -> None:
        """Stops generator, tick and nodes."""
        await self.generator.stop()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        await asyncio.gather(*(node.stop(grace) for node in self.nodes))

    async def poll(self) -> None:
        """Every running node's observer looks once, now."""
        for node in self.nodes:
            if node.running:
                await node.look()

    async def _look_around(self) -> None:
        for turn in itertools.cycle(range(_SLICES)):
            await asyncio.sleep(self._poll_s / _SLICES)
            now = self._clock.now()
            for node in self.nodes[turn::_SLICES]:
                if node.running and node.plane.next_change() <= now:
                    await node.look()

    def connect(self, peers: int) -> int:
        """Opens up to ``peers`` sessions spread over the running nodes; returns how many."""
        return sum(len(node.connect(1)) for node in self._rounds(peers))

    def _rounds(self, count: int) -> Iterator[SimNode]:
        free = {node: len(set(node.clients) - node.sessions) for node in self.nodes if node.running}
        while count > 0 and any(free.values()):
            for node in [node for node, left in free.items() if left][:count]:
                free[node] -= 1
                count -= 1
                yield node

    def stats(self) -> dict[str, int]:
        """Sums over all nodes, and how many run and hold a stream."""
        sums: dict[str, int] = {"nodes": len(self.nodes), "running": sum(node.running for node in self.nodes)}
        for node in self.nodes:
            for name, value in node.stats().items():
                sums[name] = sums.get(name, 0) + value
        sums.pop("applied_revision", None)
        return sums
