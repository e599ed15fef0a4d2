"""Evidence as lines that people read. One table for all rules: a key of ``detail`` means the same wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coxswain.alerts.model import Alert

__all__ = ["TITLES", "facts"]

TITLES = {
    "leaked_profile": "Profile used in two places at once",
    "impossible_travel": "Impossible travel",
    "concurrent_sessions": "Sessions on two nodes at once",
    "new_geo": "First connection from a country",
    "revoked_profile_active": "Revoked device is connected",
    "dormant_then_active": "Dormant device came back",
    "off_hours_access": "Connection at an unusual hour",
    "data_volume_exfil": "Unusually large upload",
    "auth_failure_spike": "Many failed logins",
    "fleet_health": "Node is down",
    "node_degraded": "Node cannot be mended",
    "unknown_peer": "Peer that the controller does not know",
    "login_after_failures": "Login after many failures",
    "admin_created": "New admin",
    "token_created": "New API token",
    "certificate_expiring": "Certificate ends soon",
    "token_expiring": "API token ends soon",
    "audit_broken": "Audit log is not intact",
    "storage_low": "Disk is nearly full",
    "exit_failover": "Path does not leave at its own exit",
    "events_dropped": "Events were dropped on their way",
    "claimed_elsewhere": "New device is not where its user is",
    "link_reused": "Link was tried after it had been used",
}


def _bytes(value: Any) -> str:
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError(unit)  # pragma: no cover - the loop always returns


def _place(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _plain(value)
    where = ", ".join(str(value[key]) for key in ("city", "country") if value.get(key))
    return f"{where or 'somewhere'} ({value.get('ip', '?')}) at {value.get('at', '?')}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _with(unit: str) -> Callable[[Any], str]:
    return lambda value: f"{_plain(value)} {unit}"


def _rounded(unit: str) -> Callable[[Any], str]:
    """Places are known by city, and what is reckoned from them is no better than that."""
    return lambda value: f"{float(value):,.0f} {unit}"


def _percent(value: Any) -> str:
    return f"{float(value) * 100:.2g} %"


def _hours(value: Any) -> str:
    return ", ".join(f"{int(hour):02d}:00" for hour in value) or "none"


_LABELS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "node_name": ("Node", _plain),
    "node_status": ("State", _plain),
    "path_name": ("Path", _plain),
    "own_exit": ("Its own exit", _plain),
    "exit": ("Leaves at", _plain),
    "stuck": ("It cannot be led to another exit", _plain),
    "region": ("Region", _plain),
    "reason": ("Why", _plain),
    "findings": ("Findings", _plain),
    "since": ("Since", _plain),
    "falls": ("Falls within ten minutes", _plain),
    "from": ("From", _place),
    "to": ("To", _place),
    "distance_km": ("Distance", _rounded("km")),
    "minutes": ("Time between", _with("minutes")),
    "implied_kmh": ("Speed that would take", _rounded("km/h")),
    "max_kmh": ("Believable up to", _with("km/h")),
    "networks": ("Networks", _plain),
    "distinct_ips": ("Addresses", _plain),
    "window": ("Within", _plain),
    "first_seen": ("First seen", _plain),
    "times": ("Times", _plain),
    "nodes": ("Nodes", _plain),
    "overlap_start": ("Overlap from", _plain),
    "overlap_end": ("Overlap until", _plain),
    "overlap_minutes": ("Overlap", _with("minutes")),
    "country_name": ("Country", _plain),
    "city": ("City", _plain),
    "source_ip": ("Address", _plain),
    "known_countries": ("Countries before", _plain),
    "device_status": ("Device is", _plain),
    "last_connect": ("Last connect", _plain),
    "last_connect_node": ("On node", _plain),
    "dormant_days": ("Not seen for", _with("days")),
    "prior_connect": ("Connected before", _plain),
    "new_connect": ("Connected again", _plain),
    "hour_utc": ("Hour (UTC)", _plain),
    "hour_share": ("Share of its connects at that hour", _percent),
    "typical_hours_utc": ("Usual hours (UTC)", _hours),
    "baseline_connects": ("Connects known before", _plain),
    "baseline_days": ("Days known before", _plain),
    "connect_at": ("Connected", _plain),
    "rx_bytes": ("Uploaded", _bytes),
    "median_rx_bytes": ("Usual upload of a session", _bytes),
    "factor_over_median": ("Times the usual", _plain),
    "baseline_sessions": ("Sessions known before", _plain),
    "session_end": ("Session ended", _plain),
    "username": ("Account", _plain),
    "failure_count": ("Failed logins", _plain),
    "first_failure": ("First failure", _plain),
    "last_failure": ("Last failure", _plain),
    "attempted_usernames": ("Accounts tried", _plain),
    "source_ips": ("Addresses", _plain),
    "login_at": ("Logged in", _plain),
    "peer_id": ("Peer", _plain),
    "protocol": ("Protocol", _plain),
    "endpoint": ("From", _plain),
    "by": ("By", _plain),
    "name": ("Name", _plain),
    "scope": ("Scope", _plain),
    "holder": ("Of", _plain),
    "expires_at": ("Ends", _plain),
    "expired": ("Has ended", _plain),
    "devices": ("Devices", _plain),
    "ended": ("Of these, ended already", _plain),
    "first": ("First of them", lambda value: "; ".join(str(one) for one in value)),
    "claimed_at": ("Joined", _plain),
    "tries_after": ("Tries after that", _plain),
    "last_try": ("Last try", _plain),
    "relays": ("Relays that it came through", _plain),
    "ticket_id": ("Ticket", _plain),
    "where": ("Where", _plain),
    "dropped": ("Dropped", _plain),
    "first_dropped": ("First dropped", _plain),
    "last_dropped": ("Last dropped", _plain),
    "free_percent": ("Free", _with("%")),
    "free_bytes": ("Free space", _bytes),
    "database_bytes": ("Database", _bytes),
    "last_seen": ("Last seen", _plain),
}


def facts(alert: Alert) -> list[dict[str, str]]:
    """``[{"label", "text"}]``, in the order of the table; what it does not know comes last, under its own name. Ids that
    a name or a link says better are left out.
    """
    found = []
    detail = alert.detail
    for key, (label, text) in _LABELS.items():
        if key in detail and detail[key] not in ("", None, [], {}):
            found.append({"label": label, "text": _bounded(_safely(text, detail[key]))})
    rest = sorted(detail.keys() - _LABELS.keys() - _NOT_SHOWN)
    found += [{"label": key.replace("_", " ").capitalize(), "text": _bounded(_plain(detail[key]))} for key in rest]
    return found


_NOT_SHOWN = frozenset({"node_id", "country", "dormant_duration", "factor_threshold", "floor_bytes", "device_id", "user_id"})


def _safely(text: Callable[[Any], str], value: Any) -> str:
    """Rows of a newer release, or put in by hand, may hold anything."""
    try:
        return text(value)
    except (TypeError, ValueError):
        return _plain(value)


def _bounded(text: str) -> str:
    return text if len(text) <= 400 else text[:399] + "…"
