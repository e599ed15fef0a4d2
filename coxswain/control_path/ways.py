"""Connections along a route, whatever kind it is of; what goes by a route that was left is cut after a while.

Everything here is on the I/O loop, but for ``use``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from coxswain.clock import Clock
from coxswain.control_path import onion
from coxswain.control_path.announce import Signer
from coxswain.control_path.egress import DIAL_S, EgressPool, dial_tcp
from coxswain.control_path.model import DIRECT, Hop, Route
from coxswain.errors import NodeUnreachable, Unavailable
from coxswain.relay.byte_stream import ByteStream, WatchedStream
from coxswain.relay.onion_layers import decode_key

__all__ = ["MOVE_S", "Ways"]

MOVE_S = 15.0
"""For so long may a connection that was made by the route before still be used: a link that is just changing a node finishes
that, and comes over. Then it is cut."""


class Ways:
    """Opens connections over relays."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.egress = EgressPool(clock)
        self._route = DIRECT
        self._cut = 0
        self._telling: set[asyncio.Task[None]] = set()
        self._passages: set[_Passage] = set()

    def reset(self) -> None:
        """A new loop: whatever was open was on the old one."""
        self._passages = set()
        self._telling = set()
        self.egress.reset()

    def use(self, context: ssl.SSLContext, signer: Signer | None = None) -> None:
        """From now on relays are shown this certificate, and told by ``signer`` where they may connect. Any thread."""
        self.egress.use(context)
        if signer is not None:
            self.egress.announcer.use(signer)

    def allowances_changed(self) -> None:
        """Relays that are in use are told; the others when they are used next."""
        task = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        await self.egress.tell_all()
        if self._route.is_onion:
            await self.egress.tell(self._route.hops, [None] * len(self._route.hops))

    def follow(self, number: int, route: Route) -> None:
        """The route in force is another one now."""
        self._route = route
        self.egress.keep(() if route.is_onion else route.hops)
        asyncio.get_running_loop().call_later(MOVE_S, self._cut_before, number)

    async def open(self, route: Route, target: str, number: int | None, *, claimed: bool = False) -> ByteStream:
        """A connection to ``target`` (``host:port``) from the last relay of ``route``.

        Whether anybody is there shows in what comes back: neither kind of relay says (relay-contract.md 5.2, 6.3).

        Args:
            number: of the route in force, if that is it; None: a route for this connection alone.
            claimed: it belongs to a probe.

        Raises:
            NodeUnreachable: names the hop that does not answer.
            Unavailable: there is no certificate yet; or the route was left meanwhile, and what goes by it was cut.
        """
        if route.is_direct:
            raise ValueError("nobody dials directly here")
        if route.is_onion:
            stream: ByteStream = await self._circuit(route.hops, target)
        else:
            stream = await self.egress.open(route.hops, target, precedence=number is not None or claimed)
        if number is not None and number < self._cut:
            stream.abort()
            raise Unavailable("the control path became another one while this was dialled; try again")
        passage = _Passage(stream, number, self._passages.discard)
        self._passages.add(passage)
        return passage

    @property
    def open_now(self) -> int:
        """How many connections go over relays."""
        return len(self._passages)

    def carried(self) -> tuple[int, int]:
        """Connections over relays, and sessions with relays. Any thread."""
        return len(self._passages), self.egress.standing

    async def _circuit(self, hops: tuple[Hop, ...], target: str) -> ByteStream:
        await self.egress.tell(hops, [*(hop.onion for hop in hops[1:]), target])
        setup, keys = onion.build([(hop.onion, decode_key(hop.onion_pubkey)) for hop in hops], target)
        try:
            stream = await dial_tcp(hops[0].onion, DIAL_S)
        except NodeUnreachable as error:
            raise NodeUnreachable(f"relay {hops[0].name} does not answer: {error}") from None
        try:
            await stream.write(setup)
        except OSError as error:
            stream.close()
            raise NodeUnreachable(f"relay {hops[0].name}: {error.strerror or error}") from None
        except BaseException:
            stream.abort()
            raise
        return onion.veil(stream, keys)

    def _cut_before(self, number: int) -> None:
        self._cut = max(self._cut, number)
        for passage in list(self._passages):
            if passage.number is not None and passage.number < number:
                passage.abort()


class _Passage(WatchedStream):
    """An open connection over relays."""

    def __init__(self, inner: ByteStream, number: int | None, on_close: Callable[[_Passage], None]) -> None:
        super().__init__(inner, lambda: on_close(self))
        self.number = number
