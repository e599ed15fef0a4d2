"""The loop's half of a node link: one connection with its channel, its calls and the reader of its event stream.

Everything here runs on the I/O loop (``actors/io_loop.py``) and decides nothing: results and failures go back to the
link actor, events go to the funnel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from actors.event_funnel import EventFunnel
from actors.node_change import Change, Changed, Look, carry_out
from coxswain.clock import Clock
from coxswain.control_path.announce import Signer
from coxswain.control_path.forward import Forwarder, Forwarders
from coxswain.control_path.model import Route
from coxswain.control_path.routes import Routes
from coxswain.errors import CoxswainError, NodeFailure, NodeMisbehaved, NodeUnreachable, Unavailable
from coxswain.messages.ca import HopCredentials, LinkCredentials
from coxswain.messages.sessions import NodeEvent, PeersSnapshot, StreamLost
from coxswain.reconcile import codec
from coxswain.relay.contexts import Credentials, client_context
from coxswain.relay.policy import TAKES_POLICIES
from coxswain.wire.node_control import (
    Deadlines,
    NodeControl,
    RpcFailed,
    channel_options,
    explain,
    is_foreign_certificate,
)
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["Channel", "Dialer", "NodeConnection", "Target", "open_connection"]

FIRST_TRY_LANES = 48
RETRY_LANES = 16
"""Handshakes at once: 64 in all. Nodes that failed last time have lanes of their own, so that dead ones, each of which
holds its lane until the deadline, never keep healthy ones waiting."""

_RETRIES_PER_S = 250.0
_BURST, _EVENTS_PER_S = 60_000, 1_000.0
"""Of one node: twice as many events at once as it has peers at most (node-contract.md 2.6), and more a second than any has
for long. What it sends beyond that waits there: each costs the loop, the session tracker and the store, which all share.
"""

_EVENTS_REST_S = 0.1
_KNOCK_S = 5.0
_KNOCKS = 2_000
"""TCP connects at once to nodes that failed last time; more than come within the time that one may take."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to dial: ``address`` is ``host:port``; ``server_names`` are tried in order. ``retry``: it failed last time."""

    node_id: str
    address: str
    server_names: tuple[str, ...]
    retry: bool


class Dialer:
    """Credentials, route and pacing that all links share."""

    def __init__(self, deadlines: Deadlines, clock: Clock, routes: Routes, forwarders: Forwarders) -> None:
        self.deadlines = deadlines
        self.clock = clock
        self.routes = routes
        self._forwarders = forwarders
        self._credentials: grpc.ChannelCredentials | None = None
        self._first = asyncio.Semaphore(FIRST_TRY_LANES)
        self._retry = asyncio.Semaphore(RETRY_LANES)
        self._knocks = asyncio.Semaphore(_KNOCKS)
        self._next_retry_at = 0.0
        self._paces: dict[str, _Pace] = {}

    def reset(self) -> None:
        """A new loop: nobody holds a lane of the old one any more."""
        self._first = asyncio.Semaphore(FIRST_TRY_LANES)
        self._retry = asyncio.Semaphore(RETRY_LANES)
        self._knocks = asyncio.Semaphore(_KNOCKS)
        self._next_retry_at = 0.0

    def use(self, credentials: LinkCredentials, for_hops: HopCredentials) -> None:
        """From now on new connections present these; running ones stay as they are. Any thread."""
        context = client_context(
            Credentials(for_hops.chain_pem, for_hops.key_pem, for_hops.root_pem), alpn=(TAKES_POLICIES,)
        )
        self._forwarders.ways.use(context, Signer(for_hops.chain_pem, for_hops.key_pem))
        self._credentials = grpc.ssl_channel_credentials(
            root_certificates=credentials.root_pem,
            private_key=credentials.key_pem,
            certificate_chain=credentials.chain_pem,
        )

    async def channel(self, target: Target, server_name: str) -> Channel:
        """Along the route in force. Raises ``Refused``, ``Unavailable``: there is none that may be taken just now."""
        number, route = self.routes.current()
        return await self.channel_by(target, server_name, route, number)

    async def channel_by(
        self, target: Target, server_name: str, route: Route, number: int | None, *, claimed: bool = False
    ) -> Channel:
        """A channel by this route. Name and authority are the node's own, whatever the socket is (relay-contract.md 5.6)."""
        if self._credentials is None:
            raise Unavailable("the certificate authority gave no credentials yet")
        host = target.address.rpartition(":")[0].strip("[]")
        options = channel_options(host, server_name)
        if route.is_direct:
            return Channel(grpc.aio.secure_channel(target.address, self._credentials, options), number, None)
        forwarder = await self._forwarders.start(route, target.address, number, claimed=claimed)
        return Channel(grpc.aio.secure_channel(forwarder.target, self._credentials, options), number, forwarder)

    def event_pace(self, node_id: str) -> _Pace:
        """Of this node's events, over all its connections: who connects anew has said no less before. On the loop."""
        return self._paces.setdefault(node_id, _Pace(self.clock.monotonic()))

    @asynccontextmanager
    async def lane(self, target: Target) -> AsyncIterator[None]:
        """A place among those who shake hands. A node that failed last time is knocked at first: a bare TCP connect costs
        a tenth of a channel, and a thousand dead nodes must cost next to nothing. Not so behind relays, where a failed
        connection is a stream that ends.
        """
        if not target.retry:
            async with self._first:
                yield
            return
        await self._space_out()
        if self.routes.current()[1].is_direct:
            async with self._knocks:  # not in a lane: an address that swallows packets holds its place for seconds
                await _knock(target.address)
        async with self._retry:
            yield

    async def _space_out(self) -> None:
        """However many nodes are down, retries come at a bounded rate."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next_retry_at)
        self._next_retry_at = at + 1 / _RETRIES_PER_S
        if at > now:
            await asyncio.sleep(at - now)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel, the number of the route it takes, and what carries it there; None: it dials by itself."""

    grpc: grpc.aio.Channel
    number: int | None
    forwarder: Forwarder | None

    async def close(self) -> None:
        await self.grpc.close()
        if self.forwarder is not None:
            self.forwarder.close()

    def explain(self, failure: RpcFailed) -> NodeFailure:
        """What to tell the operator: what failed on the way, where that is known, and not that a socket was closed."""
        told = explain(failure)
        if self.forwarder is None:
            return told
        return NodeUnreachable(self.forwarder.failure) if self.forwarder.failure else self.forwarder.by_way(told)


class NodeConnection:
    """One connection to one node. ``server_name`` is the certificate's name under which it was made, ``number`` that of the
    route that it takes.
    """

    def __init__(self, node_id: str, server_name: str, channel: Channel, dialer: Dialer) -> None:
        self.node_id = node_id
        self.server_name = server_name
        self.number = channel.number
        self._channel = channel
        self._clock = dialer.clock
        self._pace = dialer.event_pace(node_id)
        self._control = NodeControl(channel.grpc, dialer.deadlines)
        self._reader: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._held_back = False

    def heard_since(self, at: float) -> bool:
        """Whether an event came after ``at`` (monotonic seconds), or would have, had there been room here. Any thread."""
        return self._held_back or self._heard_at > at

    async def first_status(self) -> pb.GetStatusResponse:
        return await self._control.get_status()

    async def subscribe(
        self, status: pb.GetStatusResponse, funnel: EventFunnel, on_end: Callable[[str], None]
    ) -> tuple[pb.ListPeersResponse | None, codec.PeerRows | None]:
        """Opens the event stream, then takes the snapshot that closes the gap before it, then starts reading.

        What happens between the two is in the snapshot and comes again as events; sessions bear that.
        """
        stream = self._control.watch_events()
        peers = await self._control.peers_if_listed(pb.PROTOCOL_AMNEZIAWG)
        rows = await self._hand_over(status, peers, funnel)
        self._reader = asyncio.create_task(self._read(stream, funnel, on_end))
        return peers, rows

    async def look(self, funnel: EventFunnel) -> Look:
        """Raises ``NodeFailure``. Both questions go out together: of what a look costs, most is being woken up."""
        asked_at = (self._clock.monotonic(), self._clock.now())
        try:
            status, peers = await self._control.status_and_peers(pb.PROTOCOL_AMNEZIAWG)
        except RpcFailed as failure:
            raise explain(failure) from None
        return Look(status, peers, asked_at, await self._hand_over(status, peers, funnel))

    async def change(self, change: Change, funnel: EventFunnel) -> Changed:
        """Carries a change out as far as it goes (``actors/node_change.py``)."""
        return await carry_out(self._control, change, lambda: self.look(funnel))

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        await self._channel.close()

    async def _hand_over(
        self, status: pb.GetStatusResponse, peers: pb.ListPeersResponse | None, funnel: EventFunnel
    ) -> codec.PeerRows | None:
        if peers is None:  # of its sessions, events are all that is known
            return None
        rows = codec.peer_rows(status, peers, self._clock.now())
        await funnel.put(PeersSnapshot(self.node_id, rows.received_at, rows.node_now, rows.usable))
        return rows

    async def _read(
        self,
        stream: grpc.aio.UnaryStreamCall[pb.WatchEventsRequest, pb.Event],
        funnel: EventFunnel,
        on_end: Callable[[str], None],
    ) -> None:
        reason: str | None = "the link was closed"
        try:
            async for event in stream:
                if self._pace.is_too_fast(self._clock.monotonic()):
                    await self._rest()
                if event is None:  # what grpc.aio gives for bytes that it cannot decode
                    funnel.lost(self.node_id)
                    raise NodeMisbehaved("WatchEvents: an event cannot be read")
                self._heard_at = self._clock.monotonic()
                item = codec.event(self.node_id, event, self._clock.now())
                if item is None:
                    if codec.is_known(event):
                        funnel.lost(self.node_id)
                elif not funnel.put_at_once(item):
                    await self._put_late(item, funnel)
            reason = "the agent ended its event stream"
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # an agent without events is known by what looks show
                reason = str(explain(RpcFailed("WatchEvents", error.code(), error.details() or "")))
            else:
                reason = None
        except CoxswainError as error:
            reason = str(error)
        finally:
            stream.cancel()
            funnel.put_nowait(StreamLost(self.node_id, self._clock.now()))
            if reason is not None:
                on_end(reason)

    async def _rest(self) -> None:
        self._held_back = True
        try:
            await asyncio.sleep(_EVENTS_REST_S)
        finally:
            self._held_back = False

    async def _put_late(self, item: NodeEvent, funnel: EventFunnel) -> None:
        self._held_back = True
        try:
            await funnel.put(item)
        finally:
            self._held_back = False
            self._heard_at = self._clock.monotonic()


class _Pace:
    """How fast one node's events are taken in. ``now``: monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._left = float(_BURST)
        self._at = now

    def is_too_fast(self, now: float) -> bool:
        """Asked for each event."""
        self._left -= 1
        if self._left <= 0:
            self._left = min(float(_BURST), self._left + (now - self._at) * _EVENTS_PER_S)
            self._at = now
        return self._left <= 0


async def open_connection(
    dialer: Dialer, funnel: EventFunnel, target: Target, on_end: Callable[[str], None]
) -> tuple[NodeConnection, Look]:
    """Connects, checks that the node answers, subscribes.

    Raises:
        NodeFailure: what to tell the operator.
        Refused: the control path cannot be taken.
        Unavailable: there are no credentials yet, or it is not known which path to take.
    """
    connection, status, asked_at = await _dial(dialer, target)
    try:
        peers, rows = await connection.subscribe(status, funnel, on_end)
    except BaseException as error:
        await connection.close()
        if isinstance(error, RpcFailed):
            raise explain(error) from None
        raise
    return connection, Look(status, peers, asked_at, rows)


async def _knock(address: str) -> None:
    """Raises ``NodeUnreachable`` if nobody listens there."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_KNOCK_S):
            transport, _ = await loop.create_connection(asyncio.Protocol, host.strip("[]"), int(port))
    except TimeoutError:
        raise NodeUnreachable(f"{address} does not answer: no TCP connection within {_KNOCK_S:g} s") from None
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        why = "connection refused: no agent listens there" if refused else (error.strerror or str(error))
        raise NodeUnreachable(f"{address}: {why}") from None
    transport.abort()


async def _dial(dialer: Dialer, target: Target) -> tuple[NodeConnection, pb.GetStatusResponse, tuple[float, float]]:
    names: Sequence[str] = target.server_names
    for position, name in enumerate(names):
        async with dialer.lane(target):
            channel = await dialer.channel(target, name)
            connection = NodeConnection(target.node_id, name, channel, dialer)
            asked_at = (dialer.clock.monotonic(), dialer.clock.now())
            try:
                return connection, await connection.first_status(), asked_at
            except RpcFailed as failure:
                await connection.close()
                # A host that was enrolled again may still present its earlier certificate, which is good until revoked.
                if not is_foreign_certificate(failure) or position == len(names) - 1:
                    raise channel.explain(failure) from None
            except BaseException:
                await connection.close()
                raise
    raise Unavailable(f"no certificate was issued to node {target.node_id} yet")
