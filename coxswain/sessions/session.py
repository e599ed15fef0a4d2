"""One session and its byte counts."""

from __future__ import annotations

from coxswain.model import Protocol

__all__ = ["Key", "OpenSession"]

Key = tuple[str, Protocol, str]
"""Node id, protocol, peer key."""

_LEAST_BASE = -(2**62)


class OpenSession:
    """One session. Mutable, because thousands a second pass through; ``closed_at`` None: open.

    Times are epoch seconds, counters cumulative bytes as the node counts them (``rx``: what it received from the device).

    Attributes:
        opened_at, closed_at: when it happened, as far as the node can be believed.
        opened_seen_at, closed_seen_at: when we learned of it, by our clock.
        last_at: the last sign of life.
        event_at: the node's stamp of the last event; orders events, and is compared with nothing else. None: none yet.
        seen_at: when the last event came, by our clock.
        looked_at: when a snapshot last moved the counters, by our clock.
        is_blank: the last snapshot showed the peer as one that never connected.
    """

    __slots__ = (
        "closed_at",
        "closed_seen_at",
        "device_id",
        "endpoint",
        "event_at",
        "id",
        "is_blank",
        "key",
        "last_at",
        "looked_at",
        "opened_at",
        "opened_seen_at",
        "reason",
        "rx_base",
        "rx_last",
        "seen_at",
        "tx_base",
        "tx_last",
        "user_id",
    )

    def __init__(self, number: int, key: Key, opened_at: float, opened_seen_at: float) -> None:
        self.id = number
        self.key = key
        self.opened_at = opened_at
        self.opened_seen_at = opened_seen_at
        self.closed_at: float | None = None
        self.closed_seen_at: float | None = None
        self.last_at = opened_at
        self.event_at: float | None = None
        self.seen_at = 0.0
        self.looked_at = 0.0
        self.is_blank = False
        self.reason = ""
        self.endpoint = ""
        self.device_id: str | None = None
        self.user_id: str | None = None
        self.rx_base: int | None = None
        self.tx_base: int | None = None
        self.rx_last: int | None = None
        self.tx_last: int | None = None

    @property
    def rx_bytes(self) -> int | None:
        """Bytes from the device since the session opened; None: unknown."""
        return None if self.rx_last is None or self.rx_base is None else self.rx_last - self.rx_base

    @property
    def tx_bytes(self) -> int | None:
        """Bytes to the device since the session opened; None: unknown."""
        return None if self.tx_last is None or self.tx_base is None else self.tx_last - self.tx_base

    def begin_count(self, rx_bytes: int, tx_bytes: int) -> None:
        """From these counters on."""
        self.rx_base = self.rx_last = rx_bytes
        self.tx_base = self.tx_last = tx_bytes

    def count(self, rx_bytes: int, tx_bytes: int) -> None:
        """Takes cumulative counters over. One that went back was begun anew: what it shows now came on top."""
        self.rx_base, self.rx_last = _counted(self.rx_base, self.rx_last, rx_bytes)
        self.tx_base, self.tx_last = _counted(self.tx_base, self.tx_last, tx_bytes)

    def is_behind(self, rx_bytes: int, tx_bytes: int) -> bool:
        """These counters are smaller than the last known ones."""
        if self.rx_last is None or self.tx_last is None:
            return False
        return rx_bytes < self.rx_last or tx_bytes < self.tx_last

    def has_counted(self, rx_bytes: int, tx_bytes: int) -> bool:
        return self.rx_last == rx_bytes and self.tx_last == tx_bytes

    def close(self, at: float, seen_at: float, reason: str) -> None:
        self.closed_at = max(at, self.opened_at)
        self.closed_seen_at = seen_at
        self.reason = reason


def _counted(base: int | None, last: int | None, now: int) -> tuple[int, int]:
    if base is None or last is None:
        return now, now
    if now < last:
        # So that now - base is what was counted before plus what is shown now. Bounded: a node that keeps resetting
        # its counters must not make a number that no database takes.
        return max(base - last, _LEAST_BASE), now
    return base, now
