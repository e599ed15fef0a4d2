"""The rules about one device (management-plane.md 7.3). Pure: events, places and history in, findings out.

``evaluate`` runs them all, in the contract's order.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from coxswain.alerts.device_case import DeviceCase, Seen, finding_about
from coxswain.alerts.history import Event, median_volume
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.place_rules import claimed_elsewhere, new_geo, travel
from coxswain.alerts.settings import RuleSettings
from coxswain.alerts.stays import Stay, network_of, overlapping, stays_of
from coxswain.clock import rfc3339

__all__ = ["evaluate"]

_MOST_TIMES = 32
_HOUR_S = 3_600
_DAY_S = 86_400


def evaluate(case: DeviceCase, now: float, settings: RuleSettings) -> tuple[list[Finding], bool]:
    """Everything that is to be said of a device now, and whether the same events may say more a little later: two of its
    stays are not over for long enough.
    """
    stays = stays_of(case.events, case.still_open, since=now - settings.window_s, now=now, linger_s=settings.linger_s)
    seen = Seen([event for event in case.events if event.reason is None], stays)
    found: list[Finding] = []
    for kind, rule in _RULES.items():
        if settings.is_on(kind):
            found += rule(case, seen, now, settings)
    return [finding for finding in found if settings.lets_pass(finding)], _is_unsettled(stays, now, settings)


def _is_unsettled(stays: Sequence[Stay], now: float, settings: RuleSettings) -> bool:
    settled = now - settings.linger_s - 2 * settings.skew_s
    if not stays or stays[-1].start <= settled:
        return False
    return len({stay.session_id for stay in stays if stay.is_open or stay.end > settled}) > 1


def _leaked(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    """Two networks at the same time; or one session that keeps jumping between two, as happens when two devices have one
    key. A device that goes from Wi-Fi to a mobile network does neither; addresses of both IP versions, or of one provider's
    pool, are no two places.
    """
    together = _simultaneous(seen.stays, settings) or _jumping(seen.connects, settings)
    if len({network_of(stay.source_ip) for stay in together}) < settings.leaked_networks:
        return
    together.sort(key=lambda stay: stay.start)
    addresses = sorted({stay.source_ip for stay in together})
    yield finding_about(
        "leaked_profile",
        case,
        Severity.WARNING,
        at=together[0].start,
        evidence=together[-1].start,
        source_ips=tuple(addresses),
        detail={
            "distinct_ips": len(addresses),
            "source_ips": addresses,
            "networks": sorted({network_of(address)[1] for address in addresses}),
            "nodes": sorted({stay.node_id for stay in together}),
            "window": _duration(settings.leaked_window_s),
            "first_seen": rfc3339(together[0].start),
            "times": [rfc3339(stay.start) for stay in together[-_MOST_TIMES:]],
        },
    )


def _simultaneous(stays: Sequence[Stay], settings: RuleSettings) -> list[Stay]:
    """The latest stays that were alive together in comparable, different networks."""
    newest: list[Stay] = []
    for one, other, _start, _end in overlapping([s for s in stays if s.source_ip], settings.skew_s):
        first, second = network_of(one.source_ip), network_of(other.source_ip)
        if first[0] == second[0] and first != second:
            near = [stay for stay in newest if stay.alive_until > other.start]
            newest = list(dict.fromkeys([*near, one, other]))
    return newest


def _jumping(connects: Sequence[Event], settings: RuleSettings) -> list[Stay]:
    """The latest window in which one session came back to networks that it had left, too often for anybody who moves."""
    by_session: dict[int, list[Event]] = {}
    for event in connects:
        if event.source_ip:
            by_session.setdefault(event.session_id, []).append(event)
    best: list[Event] = []
    for events in by_session.values():
        start = 0
        for end in range(len(events)):
            while events[end].at - events[start].at > settings.leaked_window_s:
                start += 1
            part = events[start : end + 1]
            if len(part) > settings.leaked_returns and _returns(part) >= settings.leaked_returns:
                best = part if not best or part[-1].at >= best[-1].at else best
    return [Stay(e.session_id, e.node_id, e.source_ip, e.at, e.at, e.at) for e in best]


def _returns(events: Sequence[Event]) -> int:
    seen: set[tuple[int, str]] = set()
    last: dict[int, tuple[int, str]] = {}
    count = 0
    for event in events:
        network = network_of(event.source_ip)
        before = last.get(network[0])
        if before is not None and network != before and network in seen:
            count += 1
        seen.add(network)
        last[network[0]] = network
    return count


def _concurrent(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    newest: tuple[Stay, Stay, float, float] | None = None
    for pair in overlapping([stay for stay in seen.stays if stay.node_id], settings.skew_s):
        if pair[0].node_id != pair[1].node_id and (newest is None or pair[2] >= newest[2]):
            newest = pair
    if newest is None:
        return
    one, other, start, end = newest
    yield finding_about(
        "concurrent_sessions",
        case,
        Severity.WARNING,
        at=start,
        evidence=start,
        node_id=other.node_id,
        detail={
            "nodes": sorted((one.node_id, other.node_id)),
            "overlap_start": rfc3339(start),
            "overlap_end": rfc3339(end),
            "overlap_minutes": round((end - start) / 60, 2),
        },
    )


def _revoked(case: DeviceCase, seen: Seen, now: float, settings: RuleSettings) -> Iterator[Finding]:
    """It connected, or is still connected, although it must not, and the nodes had time to throw it out."""
    if case.status in ("active", ""):
        return
    allowed_until = case.status_since + settings.skew_s
    connects = [event for event in seen.connects if event.at > allowed_until]
    lingering = [stay for stay in seen.stays if stay.is_open] if now > allowed_until + settings.unknown_s else []
    if not connects and not lingering:
        return
    at = connects[-1].at if connects else allowed_until
    node_id = connects[-1].node_id if connects else lingering[-1].node_id
    address = connects[-1].source_ip if connects else lingering[-1].source_ip
    yield finding_about(
        "revoked_profile_active",
        case,
        Severity.CRITICAL,
        at=at,
        node_id=node_id,
        source_ips=(address,) if address else (),
        detail={
            "device_status": case.status,
            "last_connect": rfc3339(connects[-1].at if connects else lingering[-1].start),
            "last_connect_node": node_id,
            "source_ip": address,
            "still_connected": bool(lingering),
        },
    )


def _dormant(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    before = case.history.last_connect
    for event in seen.connects:
        gap = event.at - before
        if before and gap > settings.dormant_s:
            yield finding_about(
                "dormant_then_active",
                case,
                Severity.INFO,
                at=event.at,
                node_id=event.node_id,
                source_ips=(event.source_ip,) if event.source_ip else (),
                detail={
                    "dormant_days": int(gap // _DAY_S),
                    "dormant_duration": f"{round(gap / _HOUR_S)}h0m0s",
                    "prior_connect": rfc3339(before),
                    "new_connect": rfc3339(event.at),
                    "source_ip": event.source_ip,
                },
            )
        before = max(before, event.at)


def _off_hours(case: DeviceCase, seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    history = case.history
    if history.connects < settings.off_hours_connects or history.days < settings.off_hours_days:
        return
    share_of = [count / history.connects for count in history.hours]
    unusual = (event for event in seen.connects if share_of[_hour(event)] <= settings.off_hours_share)
    for date, part in _by_day(unusual).items():
        event = part[0]
        hour, share = _hour(event), share_of[_hour(event)]
        typical = [h for h, usual in enumerate(share_of) if usual > settings.off_hours_share]
        yield _daily(
            "off_hours_access",
            case,
            Severity.INFO,
            date=date,
            part=part,
            detail={
                "hour_utc": hour,
                "hour_share": round(share, 4),
                "typical_hours_utc": typical,
                "baseline_connects": history.connects,
                "baseline_days": history.days,
                "connect_at": rfc3339(event.at),
            },
        )


def _volume(case: DeviceCase, _seen: Seen, _now: float, settings: RuleSettings) -> Iterator[Finding]:
    """Unknown bytes are not 0, and count nowhere."""
    if case.history.sessions < settings.volume_sessions:
        return
    median = median_volume(case.history)
    large = [
        event
        for event in case.events
        if event.reason is not None
        and event.rx_bytes is not None
        and event.rx_bytes >= settings.volume_floor
        and event.rx_bytes > settings.volume_factor * median
    ]
    for date, part in _by_day(large).items():
        event, rx = part[0], part[0].rx_bytes or 0
        yield _daily(
            "data_volume_exfil",
            case,
            Severity.WARNING,
            date=date,
            part=part,
            detail={
                "rx_bytes": rx,
                "median_rx_bytes": median,
                "factor_over_median": round(rx / median, 4) if median else 0,
                "factor_threshold": settings.volume_factor,
                "floor_bytes": settings.volume_floor,
                "baseline_sessions": case.history.sessions,
                "node_id": event.node_id,
                "source_ip": event.source_ip,
                "session_end": rfc3339(event.at),
            },
        )


_Rule = Callable[[DeviceCase, Seen, float, RuleSettings], Iterator[Finding]]
_RULES: dict[str, _Rule] = {
    "leaked_profile": _leaked,
    "impossible_travel": travel,
    "concurrent_sessions": _concurrent,
    "new_geo": new_geo,
    "claimed_elsewhere": claimed_elsewhere,
    "revoked_profile_active": _revoked,
    "dormant_then_active": _dormant,
    "off_hours_access": _off_hours,
    "data_volume_exfil": _volume,
}


def _daily(
    kind: str, case: DeviceCase, severity: Severity, *, date: str, part: Sequence[Event], detail: dict[str, Any]
) -> Finding:
    """What is told once a day: about the first event of that day, built on all."""
    first = part[0]
    return finding_about(
        kind,
        case,
        severity,
        at=first.at,
        evidence=part[-1].at,
        about=date,
        node_id=first.node_id,
        source_ips=(first.source_ip,) if first.source_ip else (),
        detail=detail,
    )


def _hour(event: Event) -> int:
    return int(event.at % _DAY_S // _HOUR_S)


def _by_day(events: Iterable[Event]) -> dict[str, list[Event]]:
    """By UTC date. What is told once a day is about the first of them and builds on all: the first may leave the window."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(dt.datetime.fromtimestamp(event.at, dt.UTC).date().isoformat(), []).append(event)
    return found


def _duration(seconds: float) -> str:
    """As Go writes it: ``10m0s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
