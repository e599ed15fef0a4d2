"""Messages to ``session_tracker``.

Node links never send these themselves: what their streams read goes through the event funnel on the I/O loop
(``actors/event_funnel.py``), which keeps the order per node, holds back when the tracker is slow, and sends a batch again
until it is acknowledged. So a batch may come twice; its number says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from coxswain.model import Protocol

__all__ = [
    "REASONS",
    "EventBatch",
    "EventKind",
    "ForgetPeers",
    "GetActiveSessions",
    "GetSession",
    "GetSessionCounts",
    "LastRecord",
    "ListRecords",
    "ListSessions",
    "ListTotals",
    "NodeEvent",
    "PeerCounters",
    "PeersSnapshot",
    "RecordsAfter",
    "SessionCounts",
    "SessionRecord",
    "SessionView",
    "StreamItem",
    "StreamLost",
    "Total",
]


REASONS = (
    *("disconnect", "roamed", "idle", "node-shutdown", "peer-removed"),
    *("stream-lost", "controller-restart", "counter-reset"),
)
"""How a stay ended. Their places are in the database: new ones go to the end."""


class EventKind(IntEnum):
    """Numbered as on the wire (node-contract.md 1.2). Unknown numbers are read as UNSPECIFIED."""

    UNSPECIFIED = 0
    HANDSHAKE_UP = 1
    HANDSHAKE_DOWN = 2
    PEER_CONNECTED = 3
    PEER_DISCONNECTED = 4
    ERROR = 5


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """One event as a node sent it. ``at`` is the node's clock, ``received_at`` ours (epoch seconds). Counters are
    cumulative bytes, clamped to 0; ``rx`` is what the node received from the peer.
    """

    node_id: str
    at: float
    received_at: float
    kind: EventKind
    protocol: Protocol
    peer_key: str
    message: str = ""
    endpoint: str = ""
    rx_bytes: int = 0
    tx_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """One row of ListPeers. ``last_handshake`` is the node's clock, epoch seconds; 0: never."""

    protocol: Protocol
    peer_key: str
    last_handshake: float
    rx_bytes: int
    tx_bytes: int
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class PeersSnapshot:
    """All peers of a node at once: taken after a (re)connect and on every look, to open and close sessions honestly.

    ``node_now`` is the node's clock when known, else ours: online is a handshake younger than 180 s by that clock.
    """

    node_id: str
    received_at: float
    node_now: float
    peers: tuple[PeerCounters, ...]


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The node's event stream ended. Sessions are not closed yet: the next snapshot, or ``node_gone_s`` without one,
    decides.
    """

    node_id: str
    received_at: float


StreamItem = NodeEvent | PeersSnapshot | StreamLost


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Told by the event funnel. ``epoch`` names the run of the daemon, ``number`` counts from 1 in it without gaps.

    When it is durable, the tracker calls ``acknowledge(number)`` on the funnel. A number at or below the last durable
    one of the same epoch is acknowledged and otherwise ignored.
    """

    epoch: str
    number: int
    items: tuple[StreamItem, ...]


@dataclass(frozen=True, slots=True)
class ForgetPeers:
    """Told by ``fleet`` after peers, devices or users changed: cached attribution is void."""


@dataclass(frozen=True, slots=True)
class GetSessionCounts:
    """Asked by doors. Reply: ``SessionCounts``."""


@dataclass(frozen=True, slots=True)
class GetActiveSessions:
    """Asked by doors. Reply: node id to the number of its open sessions; nodes without any are left out."""


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """``opened`` and ``closed`` count since the daemon started; ``events`` are the items taken in."""

    active: int
    opened: int
    closed: int
    events: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class ListSessions:
    """Asked by doors, of ``session_archive``. Reply: list of ``SessionView``, newest first. None: any.

    ``before``: only those with a smaller id.
    """

    active: bool | None = None
    node_id: str | None = None
    device_id: str | None = None
    user_id: str | None = None
    limit: int = 100
    before: int | None = None
    protocol: Protocol | None = None
    reason: str | None = None
    country: str | None = None


@dataclass(frozen=True, slots=True)
class GetSession:
    """Asked by doors, of ``session_archive``. Reply: ``SessionView``. Raises ``NotFound``."""

    session_id: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session. ``rx_bytes``/``tx_bytes`` None: unknown, never a false 0. ``closed_at`` None: open.

    ``reason`` of a closed one: ``disconnect``, ``node-shutdown``, ``idle``, ``peer-removed``, ``stream-lost``,
    ``controller-restart``, ``counter-reset``. ``endpoints``: since when (epoch seconds) it was where, at most 16 of them;
    ``roams``: how often it moved; ``last_at``: its last sign of life. ``country``: ISO 3166 code of where it came
    from last; empty: not known.
    """

    id: int
    node_id: str
    protocol: Protocol
    peer_key: str
    device_id: str | None
    user_id: str | None
    opened_at: float
    closed_at: float | None
    endpoint: str
    rx_bytes: int | None
    tx_bytes: int | None
    reason: str
    endpoints: tuple[tuple[float, str], ...] = ()
    roams: int = 0
    last_at: float = 0.0
    country: str = ""


@dataclass(frozen=True, slots=True)
class ListRecords:
    """Asked by doors, of ``session_archive``: the contract's boundary events (management-plane.md 3.2, GET /api/sessions).

    Reply: list of ``SessionRecord``, newest first. None: any. ``event_type``: ``connect`` or ``disconnect``; ``reason``: one
    of ``REASONS``; ``country``: ISO 3166 code, in capitals; ``since`` and ``until``: epoch seconds, both included;
    ``after``: (time in epoch microseconds, seq) of the record before the first one.
    """

    device_id: str | None = None
    user_id: str | None = None
    node_id: str | None = None
    source_ip: str | None = None
    since: float | None = None
    until: float | None = None
    protocol: Protocol | None = None
    event_type: str | None = None
    reason: str | None = None
    limit: int = 100
    after: tuple[int, int] | None = None
    country: str | None = None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One boundary event. ``reason`` None: a connect. Bytes are those of the segment that ended; None: unknown.

    ``at_us`` (epoch microseconds, for cursors) is the node's time within limits, ``received_at`` (epoch seconds) ours.
    """

    seq: int
    at_us: int
    received_at: float
    session_id: int
    node_id: str
    protocol: Protocol
    peer_key: str
    device_id: str | None
    user_id: str | None
    source_ip: str
    source_endpoint: str
    rx_bytes: int | None
    tx_bytes: int | None
    reason: str | None
    country: str = ""


@dataclass(frozen=True, slots=True)
class LastRecord:
    """Asked by ``siem_stream``, of ``session_archive``. Reply: the number of the newest record; 0: there is none."""


@dataclass(frozen=True, slots=True)
class RecordsAfter:
    """Asked by ``siem_stream``, of ``session_archive``. Reply: list of ``SessionRecord`` in the order in which they were
    written, at most ``limit`` after the one with the number ``seq``.
    """

    seq: int
    limit: int = 500


@dataclass(frozen=True, slots=True)
class ListTotals:
    """Asked by doors, of ``session_archive``. Reply: list of ``Total``, the largest first.

    ``by``: ``user``, ``device`` or ``node``; ``since`` and ``until``: epoch seconds, whole UTC days, both included;
    ``after``: (bytes, id) of the total before the first one.
    """

    by: str
    since: float | None = None
    until: float | None = None
    user_id: str | None = None
    device_id: str | None = None
    node_id: str | None = None
    limit: int = 100
    after: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """What one user, device or node moved. ``id`` empty: peers that nobody knows. ``unknown``: closed sessions whose bytes
    are not known, and so are not in here. ``seconds``: how long the closed ones lasted, together.
    """

    id: str
    opened: int
    closed: int
    unknown: int
    rx_bytes: int
    tx_bytes: int
    seconds: int
    moved: float = 0.0
