"""A look at a route before it is taken: does every hop answer, and a node through them?

Called on a worker thread of a door, which waits; the work is on the I/O loop. One probe at a time. What is in force stays
so: where a relay that serves one session at a time is needed by both, the probe takes it, and the links come back by the old
way when it fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError

from actors.io_loop import IoLoop
from actors.node_connection import Dialer, Target
from coxswain.control_path.model import Hop, Route
from coxswain.control_path.ways import Ways
from coxswain.errors import Conflict, CoxswainError, DeadlineExceeded, NodeFailure, NodeUnreachable, Unavailable
from coxswain.model import Node
from coxswain.wire.node_control import NodeControl, RpcFailed, is_foreign_certificate
from coxswain.words import counted

__all__ = ["RouteProbe"]

_LONGEST_S = 80.0
_CLAIM_S = 10.0
"""For so long is what the probe built kept for the activation that follows it."""


class RouteProbe:
    """See the module."""

    def __init__(self, io: IoLoop, dialer: Dialer, ways: Ways) -> None:
        self._io = io
        self._dialer = dialer
        self._ways = ways
        self._running: asyncio.AbstractEventLoop | None = None  # which may go under, and what is on it never ends

    def run(self, route: Route, nodes: Sequence[Node]) -> str:
        """What was found, in one line. ``nodes``: of which one has to answer; none: only the hops have to.

        Raises:
            NodeUnreachable: names the hop that does not answer, or the nodes of which none did.
            Unavailable: no loop, or no certificate yet.
            Conflict: another probe is running.
        """
        targets = [(node.name, Target(node.id, node.control_addr, node.server_names, retry=False)) for node in nodes]
        future = self._io.submit(self._probe(route, targets))
        try:
            return future.result(_LONGEST_S)
        except CancelledError:
            raise Unavailable("the I/O loop ended while the route was probed; try again") from None
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded(f"the route {route} was not found good or bad within {_LONGEST_S:g} s") from None

    async def _probe(self, route: Route, targets: Sequence[tuple[str, Target]]) -> str:
        loop = asyncio.get_running_loop()
        if self._running is loop:
            raise Conflict("another control path is just being probed; try again in a moment")
        self._running = loop
        egress = self._ways.egress
        if not route.is_onion:
            egress.claim(route.hops)
        try:
            found = await self._hops(route)
            if targets:
                found = f"{found}; {await self._nodes(route, targets)}"
        except BaseException:
            egress.claim(None)
            raise
        finally:
            if self._running is loop:
                self._running = None
        loop.call_later(_CLAIM_S, egress.release, route.hops)
        return found

    async def _hops(self, route: Route) -> str:
        """Each hop of a chain; of a circuit only the first one says anything by itself."""
        if route.is_onion:
            return counted(len(route.hops), "onion hop")
        took = []
        for position in range(1, len(route.hops) + 1):
            started = time.monotonic()
            try:
                session = await self._ways.egress.session(route.hops[:position], precedence=True)
                await session.ping()
            except OSError as error:
                raise NodeUnreachable(
                    f"hop {position} of {len(route.hops)}: relay {route.hops[position - 1].name}: {error or 'no answer'}"
                ) from None
            except NodeFailure as error:
                raise NodeUnreachable(f"hop {position} of {len(route.hops)}: {error}") from None
            took.append(f"{route.hops[position - 1].name} {1e3 * (time.monotonic() - started):.0f} ms")
        return ", ".join(took)

    async def _nodes(self, route: Route, targets: Sequence[tuple[str, Target]]) -> str:
        """The first one that answers is enough."""
        tries = {asyncio.ensure_future(self._reach(route, target)): name for name, target in targets}
        failures: dict[str, str] = {}
        waiting = set(tries)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    error = one.exception()
                    if error is None:
                        return f"node {tries[one]} answered in {1e3 * one.result():.0f} ms"
                    if not isinstance(error, CoxswainError):
                        raise error
                    failures[tries[one]] = str(error)
        finally:
            for one in tries:
                one.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
        which = await self._broken_hop(route, targets[0][1]) if route.is_onion else ""
        told = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise NodeUnreachable(
            f"{which or 'every hop answers, but no node through them'} ({told})",
            remedy="Does the last relay reach the nodes' control port? To activate it anyway, say force (--force).",
        )

    async def _reach(self, route: Route, target: Target) -> float:
        """Seconds until a status came. Raises ``CoxswainError``."""
        started = time.monotonic()
        failure: CoxswainError = NodeUnreachable("no certificate was issued to it yet")
        for name in target.server_names:
            channel = await self._dialer.channel_by(target, name, route, None, claimed=True)
            try:
                await NodeControl(channel.grpc, self._dialer.deadlines).get_status()
            except RpcFailed as error:
                failure = channel.explain(error)
                if not is_foreign_certificate(error):
                    break
            else:
                return time.monotonic() - started
            finally:
                await channel.close()
        raise failure

    async def _broken_hop(self, route: Route, target: Target) -> str:
        """Relays of a circuit say nothing; so shorter ones are tried, until one does not lead to the node."""
        for position in range(1, len(route.hops)):
            try:
                await self._reach(Route(route.hops[:position]), target)
            except CoxswainError:
                return _accuse(route.hops, position)
        return _accuse(route.hops, len(route.hops))


def _accuse(hops: tuple[Hop, ...], position: int) -> str:
    return f"hop {position} of {len(hops)}: nothing came back through relay {hops[position - 1].name}"
