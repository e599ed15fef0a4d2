"""Which rules are on, their thresholds, and whom they leave alone."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Protocol

from coxswain.alerts.model import KINDS, Finding

__all__ = ["ALLOWED", "RuleSettings", "Values", "is_allowance"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_ID = re.compile(r"[a-z]{2,8}_[a-z0-9]{1,64}")
ALLOWED = "ids of devices, users or nodes, or networks; each may have a rule before it: new_geo:192.0.2.0/24"


class Values(Protocol):
    """The configuration in force."""

    def __getitem__(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """Thresholds of all rules, in seconds where the name says nothing else; defaults are those of management-plane.md 7.2
    where it has them.

    Attributes:
        off: kinds that are not looked for.
        window_s: how far back rules look.
        recovery_s: for how long a node must be well until its alert ends.
        error_s: for how long a node may be wrong while it is being healed.
        leaked_returns: how often a device comes back to a network that it left, within ``leaked_window_s``.
        linger_s: a session ends so long after the last handshake (management-plane.md 6.1).
        skew_s: clocks of two nodes may differ by so much.
        history_connects: of a device whose places nobody knows, connects before a country is called new.
        degraded_s: after how long a node that cannot be mended is told of.
        device_expiry_s: as ``expiry_s``, where people have to be sent a link; also how long after it that is told.
        unknown_gone_s: for how long a peer that nobody made must be gone until its alert ends.
        allow: subjects (ids and networks) that a rule leaves alone, by kind; ``""``: every rule.
        proxies: addresses that many people share.
    """

    off: frozenset[str] = frozenset()
    window_s: float = 86_400.0
    recovery_s: float = 3.0
    error_s: float = 10.0
    degraded_s: float = 300.0
    leaked_window_s: float = 600.0
    leaked_networks: int = 2
    leaked_returns: int = 6
    linger_s: float = 180.0
    travel_kmh: float = 900.0
    travel_km: float = 100.0
    skew_s: float = 60.0
    history_connects: int = 10
    auth_failures: int = 5
    auth_failures_global: int = 50
    auth_window_s: float = 600.0
    dormant_s: float = 30 * 86_400.0
    off_hours_connects: int = 20
    off_hours_days: int = 7
    off_hours_share: float = 0.02
    volume_floor: int = 2**30
    volume_factor: float = 10.0
    volume_sessions: int = 20
    expiry_s: float = 7 * 86_400.0
    device_expiry_s: float = 30 * 86_400.0
    unknown_s: float = 120.0
    unknown_gone_s: float = 3_600.0
    disk_free_percent: int = 10
    dropped_events: int = 1
    dropped_window_s: float = 600.0
    allow: tuple[tuple[str, str], ...] = ()
    proxies: tuple[str, ...] = ()

    @staticmethod
    def of(values: Values) -> RuleSettings:
        """From the configuration (``analytics.*``). The window is never as long as events are kept: what leaves it has to be
        put into histories before retention takes it.
        """
        window_s, kept_s = values["analytics.window_hours"] * 3600.0, values["retention.metrics_days"] * 86_400.0
        return RuleSettings(
            off=frozenset(values["analytics.rules_off"]),
            window_s=min(window_s, 0.9 * kept_s) if kept_s > 0 else window_s,
            recovery_s=float(values["analytics.recovery_seconds"]),
            error_s=float(values["analytics.error_seconds"]),
            degraded_s=values["analytics.degraded_minutes"] * 60.0,
            leaked_window_s=values["analytics.leaked_window_minutes"] * 60.0,
            leaked_networks=values["analytics.leaked_networks"],
            travel_kmh=float(values["analytics.travel_kmh"]),
            travel_km=float(values["analytics.travel_km"]),
            history_connects=values["analytics.history_connects"],
            auth_failures=values["analytics.auth_failures"],
            auth_failures_global=values["analytics.auth_failures_global"],
            auth_window_s=values["analytics.auth_window_minutes"] * 60.0,
            dormant_s=values["analytics.dormant_days"] * 86_400.0,
            off_hours_connects=values["analytics.off_hours_connects"],
            off_hours_days=values["analytics.off_hours_days"],
            off_hours_share=values["analytics.off_hours_percent"] / 100.0,
            volume_floor=values["analytics.volume_floor_mib"] * 2**20,
            volume_factor=float(values["analytics.volume_factor"]),
            volume_sessions=values["analytics.volume_sessions"],
            expiry_s=values["analytics.expiry_days"] * 86_400.0,
            device_expiry_s=max(30, values["analytics.expiry_days"]) * 86_400.0,
            disk_free_percent=values["analytics.disk_free_percent"],
            dropped_events=values["analytics.dropped_events"],
            dropped_window_s=values["analytics.dropped_window_minutes"] * 60.0,
            allow=tuple(_allowance(text) for text in values["analytics.allow"]),
            proxies=tuple(values["analytics.trusted_proxies"]),
        )

    def is_on(self, kind: str) -> bool:
        return kind not in self.off

    def lets_pass(self, finding: Finding) -> bool:
        """Whether nobody said that this is to be left alone. Of addresses, all have to be in networks that are allowed."""
        if finding.kind in self.off:
            return False
        subjects = {subject for kind, subject in self.allow if kind in ("", finding.kind)}
        if not subjects:
            return True
        if subjects & {finding.device_id, finding.user_id, finding.node_id} - {""}:
            return False
        networks = [network for subject in subjects if (network := _network(subject)) is not None]
        return not (finding.source_ips and all(_is_in(address, networks) for address in finding.source_ips))


def is_allowance(text: str) -> bool:
    """Whether ``analytics.allow`` may hold it."""
    kind, subject = _allowance(text)
    return (kind == "" or kind in KINDS) and (_ID.fullmatch(subject) is not None or _network(subject) is not None)


def _allowance(text: str) -> tuple[str, str]:
    kind, colon, subject = text.partition(":")
    return (kind, subject) if colon and kind in KINDS else ("", text)


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_in(address: str, networks: list[_Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
