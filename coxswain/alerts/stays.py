"""Stays: for how long a device was at one address on one node. Made of boundary events and of what is open. Pure.

A node notices that a device is gone when the last handshake is three minutes old (management-plane.md 6.1). So of the end
of a stay only ``alive_until`` is sure, and two stays were at the same time only if they were both alive. That is what
tells a device that went from one node or network to another from one that is in two places.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from coxswain.alerts.history import Event

__all__ = ["OpenStay", "Stay", "network_of", "overlapping", "stays_of"]

_MOST_PAIRS = 20_000
_LINGERS = frozenset({"disconnect"})
"""Ends that a node reported; of a roam the very moment is known."""


class OpenStay(NamedTuple):
    """A session that is open. ``since``: epoch seconds, at its present address."""

    session_id: int
    node_id: str
    source_ip: str
    since: float


class Stay(NamedTuple):
    """Epoch seconds. PERF: a tuple, of which a sweep makes some hundred thousand. ``is_open``: it has not ended."""

    session_id: int
    node_id: str
    source_ip: str
    start: float
    end: float
    alive_until: float
    is_open: bool = False


def stays_of(
    events: Sequence[Event], still_open: Iterable[OpenStay], *, since: float, now: float, linger_s: float
) -> list[Stay]:
    """In the order of their starts.

    Args:
        events: of one device in the window, in the order of time.
        still_open: its open sessions, which may have begun long before.
        since: when the window begins.
        now: epoch seconds.
        linger_s: see ``RuleSettings``.
    """
    found: list[Stay] = []
    begun: dict[int, Event] = {}
    for event in events:
        number, at = event.session_id, event.at
        start = begun.pop(number, None)
        if event.reason is None:
            if start is not None:  # its end was never told
                found.append(Stay(number, start.node_id, start.source_ip, start.at, at, at))
            begun[number] = event
            continue
        first = since if start is None else start.at
        address = (start and start.source_ip) or event.source_ip
        alive = at - linger_s if event.reason in _LINGERS else at
        found.append(Stay(number, event.node_id, address, first, max(first, at), max(first, alive)))
    opened = {stay.session_id: stay for stay in still_open}
    for event in begun.values():
        opened.setdefault(event.session_id, OpenStay(event.session_id, event.node_id, event.source_ip, event.at))
    for stay in opened.values():
        alive = max(stay.since, now - linger_s)
        found.append(Stay(stay.session_id, stay.node_id, stay.source_ip, stay.since, now, alive, is_open=True))
    return sorted(found, key=lambda stay: (stay.start, stay.session_id))


def overlapping(stays: Sequence[Stay], least_s: float) -> Iterable[tuple[Stay, Stay, float, float]]:
    """Pairs that were alive at the same time for more than ``least_s``, with the first and the last moment; at most some
    thousands. ``stays`` are in the order of their starts.
    """
    alive: list[Stay] = []
    budget = _MOST_PAIRS
    for stay in stays:
        alive = [other for other in alive if other.alive_until > stay.start]
        for other in alive:
            budget -= 1
            end = min(stay.alive_until, other.alive_until)
            if budget > 0 and end - stay.start > least_s and other.session_id != stay.session_id:
                yield other, stay, stay.start, end
        alive.append(stay)


@lru_cache(maxsize=65_536)
def network_of(address: str) -> tuple[int, str]:
    """IP version and network of an address: its /24, or /48 of IPv6; ``(0, …)`` where it is none. Within one, a provider
    hands out addresses as it likes, and two of different versions say nothing about each other.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return 0, address
    mapped = getattr(found, "ipv4_mapped", None)
    if mapped is not None:
        found = mapped
    prefix = 24 if found.version == 4 else 48
    return found.version, str(ipaddress.ip_network((found, prefix), strict=False))
