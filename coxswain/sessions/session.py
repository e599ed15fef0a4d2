"""One session: its byte counts, and the addresses it came from."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from coxswain.model import Protocol

__all__ = ["ENDPOINTS_KEPT", "Key", "OpenSession", "source_ip"]

Key = tuple[str, Protocol, str]
"""Node id, protocol, peer key."""

ENDPOINTS_KEPT = 16
"""Addresses kept of one session: the first, and the last ones. A phone on a train has thousands."""

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
        endpoint: where the device is now, ``address:port``; empty: not known.
        endpoints: since when it was where: (epoch seconds, endpoint), oldest first, at most ``ENDPOINTS_KEPT``.
        country: ISO 3166 code of where it was last; None: not known. ``country_is_new``: the store does not have it yet.
        roams: how often it moved, also those times that ``endpoints`` no longer has.
        told_rx, told_tx: bytes of this session that earlier boundary events told (management-plane.md 6.2).
        totalled_rx, totalled_tx: bytes of this session that are in the totals of the store.
    """

    __slots__ = (
        "closed_at",
        "closed_seen_at",
        "country",
        "country_is_new",
        "device_id",
        "endpoint",
        "endpoints",
        "event_at",
        "id",
        "is_blank",
        "key",
        "last_at",
        "looked_at",
        "opened_at",
        "opened_seen_at",
        "reason",
        "roams",
        "rx_base",
        "rx_last",
        "seen_at",
        "told_rx",
        "told_tx",
        "totalled_rx",
        "totalled_tx",
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
        self.country: str | None = None
        self.country_is_new = False
        self.closed_seen_at: float | None = None
        self.last_at = opened_at
        self.event_at: float | None = None
        self.seen_at = 0.0
        self.looked_at = 0.0
        self.is_blank = False
        self.reason = ""
        self.endpoint = ""
        self.endpoints: tuple[tuple[float, str], ...] = ()
        self.roams = 0
        self.device_id: str | None = None
        self.user_id: str | None = None
        self.rx_base: int | None = None
        self.tx_base: int | None = None
        self.rx_last: int | None = None
        self.tx_last: int | None = None
        self.told_rx = self.told_tx = 0
        self.totalled_rx = self.totalled_tx = 0

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

    def move_to(self, endpoint: str, at: float) -> None:
        """The device is at ``endpoint`` since ``at``."""
        if self.endpoints:
            self.roams += 1
        self.endpoint = endpoint
        seen = (*self.endpoints, (at, endpoint))
        self.endpoints = seen if len(seen) <= ENDPOINTS_KEPT else (seen[0], *seen[2:])

    def segment(self) -> tuple[int | None, int | None]:
        """Bytes since the last boundary event, which are thereby told; None: unknown."""
        rx, tx = self.rx_bytes, self.tx_bytes
        told = (None if rx is None else max(0, rx - self.told_rx), None if tx is None else max(0, tx - self.told_tx))
        self.told_rx, self.told_tx = rx or 0, tx or 0
        return told

    def close(self, at: float, seen_at: float, reason: str, *, is_counted: bool) -> None:
        """``is_counted``: its last counters are those of its end. Where they are not, and were never seen to move, what it
        moved is unknown: it did shake hands, so nothing it was not.
        """
        self.closed_at = max(at, self.endpoints[-1][0] if self.endpoints else self.opened_at)
        self.closed_seen_at = seen_at
        self.reason = reason
        if not is_counted and not self.rx_bytes and not self.tx_bytes:
            self.rx_last = self.tx_last = None


_PART = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4_ENDPOINT = re.compile(rf"({_PART}(?:\.{_PART}){{3}})(?::[0-9]+)?")
"""As nearly all of them are, and in their usual form already; ``ipaddress`` takes ten times as long."""


def source_ip(endpoint: str) -> str:
    """The address in ``address:port``, in its usual form; text that is none is kept (management-plane.md 6.3)."""
    plain = _V4_ENDPOINT.fullmatch(endpoint)
    return plain[1] if plain else _other_source_ip(endpoint)


@lru_cache(maxsize=8192)
def _other_source_ip(endpoint: str) -> str:
    bare = endpoint[1:].partition("]")[0] if endpoint.startswith("[") else endpoint
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def _counted(base: int | None, last: int | None, now: int) -> tuple[int, int]:
    if base is None or last is None:
        return now, now
    if now < last:
        # So that now - base is what was counted before plus what is shown now. Bounded: a node that keeps resetting
        # its counters must not make a number that no database takes.
        return max(base - last, _LEAST_BASE), now
    return base, now
