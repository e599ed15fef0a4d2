"""Turns two looks at the data plane into events (node-contract.md 5.2 to 5.6, 5.9).

``transitions`` is a pure function of what was remembered and what is seen; ``Observer`` keeps the memory, asks the data
plane and publishes. It never takes the writer lock: a change in progress does not stop it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coxswain.agent.dataplane import DataPlane, DataPlaneFailed, Dump, LivePeer
from coxswain.agent.events import EventHub
from coxswain.clock import Clock
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["FRESH_S", "POLL_S", "Happening", "Observer", "Seen", "encode", "transitions"]

POLL_S = 5.0
"""Seconds between looks (node-contract.md 5.1)."""

FRESH_S = 180
"""A handshake older than this, in seconds, ends a session (node-contract.md 5.4)."""

UP = pb.EVENT_TYPE_HANDSHAKE_UP
DOWN = pb.EVENT_TYPE_HANDSHAKE_DOWN
CONNECTED = pb.EVENT_TYPE_PEER_CONNECTED
DISCONNECTED = pb.EVENT_TYPE_PEER_DISCONNECTED
ERROR = pb.EVENT_TYPE_ERROR


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of one peer. ``up``: a session is open."""

    last_handshake: int
    endpoint: str
    rx_bytes: int
    tx_bytes: int
    up: bool


@dataclass(frozen=True, slots=True)
class Happening:
    """One event before it gets a time and a wire form."""

    type: pb.EventType.ValueType
    public_key: str = ""
    endpoint: str = ""
    rx_bytes: int = 0
    tx_bytes: int = 0
    message: str = ""


def baseline(dump: Dump) -> dict[str, Seen]:
    """The silent first look: everybody is remembered, nobody is up (node-contract.md 5.3)."""
    return {key: _seen(live, live.endpoint, up=False) for key, live in dump.items()}


def transitions(before: Mapping[str, Seen], dump: Dump, now: float) -> tuple[dict[str, Seen], list[Happening]]:
    """Compares one look with what was remembered (node-contract.md 5.4).

    Args:
        before: memory after the look before this one.
        dump: what is there now.
        now: epoch seconds.

    Returns:
        The memory after this look, and what happened, peers in the order of ``dump``, vanished ones last.
    """
    after: dict[str, Seen] = {}
    happened: list[Happening] = []
    for key, live in dump.items():
        after[key] = _look_at(before.get(key), live, now, happened)
    for key, seen in before.items():
        if key not in dump:
            rx, tx = (seen.rx_bytes, seen.tx_bytes) if seen.up else (0, 0)
            happened.append(Happening(DISCONNECTED, key, seen.endpoint, rx, tx))
    return after, happened


def _look_at(seen: Seen | None, live: LivePeer, now: float, happened: list[Happening]) -> Seen:
    key, handshake = live.public_key, live.last_handshake
    remembered, was_up = (seen.last_handshake, seen.up) if seen is not None else (0, False)
    known_endpoint = seen.endpoint if seen is not None else ""
    endpoint = live.endpoint or known_endpoint
    fresh = handshake > remembered
    up = was_up
    if fresh:
        happened.append(Happening(UP, key, endpoint))
        up = True
    roamed = was_up and bool(live.endpoint) and live.endpoint != known_endpoint
    if (up and not was_up) or roamed:
        happened.append(Happening(CONNECTED, key, endpoint, live.rx_bytes, live.tx_bytes))
    # A handshake that was lost (0) is no aged one: such a session stays open (node-contract.md 5.5).
    if up and not fresh and handshake and now - handshake > FRESH_S:
        happened.append(Happening(DOWN, key, endpoint))
        happened.append(Happening(DISCONNECTED, key, endpoint, live.rx_bytes, live.tx_bytes))
        up = False
    return _seen(live, endpoint, up=up)


def _seen(live: LivePeer, endpoint: str, *, up: bool) -> Seen:
    return Seen(live.last_handshake, endpoint, live.rx_bytes, live.tx_bytes, up)


def shutdown(memory: Mapping[str, Seen]) -> list[Happening]:
    """What is told to subscribers at a clean stop (node-contract.md 5.9)."""
    return [
        Happening(DISCONNECTED, key, seen.endpoint, seen.rx_bytes, seen.tx_bytes, "node-shutdown")
        for key, seen in memory.items()
        if seen.up
    ]


def encode(happening: Happening, at: float) -> bytes:
    """Serialises an event once for all its readers. ``at``: epoch seconds."""
    event = pb.Event(
        type=happening.type,
        protocol=pb.PROTOCOL_AMNEZIAWG,
        peer_id=happening.public_key,
        message=happening.message,
        source_endpoint=happening.endpoint,
        rx_bytes=happening.rx_bytes,
        tx_bytes=happening.tx_bytes,
    )
    seconds = int(at)
    event.at.seconds = seconds
    event.at.nanos = min(999_999_999, round((at - seconds) * 1e9))
    return event.SerializeToString()


class Observer:
    """Memory and counters of one node's client interface.

    Attributes:
        handshakes_total: advances seen since the process started, the baseline excluded (node-contract.md 4.3).
        errors_total: looks that failed although the interface was up.
        connected_total: PEER_CONNECTED events published.
        disconnected_total: PEER_DISCONNECTED events published.
    """

    def __init__(self, plane: DataPlane, hub: EventHub, clock: Clock) -> None:
        self.handshakes_total = 0
        self.errors_total = 0
        self.connected_total = 0
        self.disconnected_total = 0
        self._plane = plane
        self._hub = hub
        self._clock = clock
        self._memory: dict[str, Seen] | None = None

    @property
    def sessions(self) -> int:
        """Sessions that are open by this observer's count."""
        return sum(seen.up for seen in (self._memory or {}).values())

    async def poll(self) -> None:
        """One look; publishes what happened since the one before."""
        try:
            dump = await self._plane.dump()
        except DataPlaneFailed as failure:
            if (await self._plane.status()).up:
                self.errors_total += 1
                self._publish([Happening(ERROR, message=str(failure))])
            return
        if self._memory is None:
            self._memory = baseline(dump)
            return
        self._memory, happened = transitions(self._memory, dump, self._clock.now())
        self._publish(happened)

    def feed(self, live: LivePeer, *, handshakes: bool = True) -> None:
        """Looks at one peer out of turn, for simulators that make things happen between two polls.

        Args:
            live: the peer as the next dump will show it.
            handshakes: False: HANDSHAKE_UP and HANDSHAKE_DOWN are counted but not published.
        """
        if self._memory is None:
            self._memory = {}
        before = self._memory.get(live.public_key)
        happened: list[Happening] = []
        self._memory[live.public_key] = _look_at(before, live, self._clock.now(), happened)
        self._publish(happened, handshakes=handshakes)

    def close(self) -> None:
        """Clean stop: tells subscribers, then ends their streams."""
        self._publish(shutdown(self._memory or {}))
        self._memory = {k: replace(seen, up=False) for k, seen in (self._memory or {}).items()}
        self._hub.close()

    def _publish(self, happened: list[Happening], *, handshakes: bool = True) -> None:
        if not happened:
            return
        now = self._clock.now()
        for happening in happened:
            self._count(happening.type)
            if handshakes or happening.type not in (UP, DOWN):
                self._hub.publish(encode(happening, now))

    def _count(self, kind: pb.EventType.ValueType) -> None:
        if kind == UP:
            self.handshakes_total += 1
        elif kind == CONNECTED:
            self.connected_total += 1
        elif kind == DISCONNECTED:
            self.disconnected_total += 1
