"""An alert as the API and the live stream show it (management-plane.md 3.3), and the frames about it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from coxswain.alerts.facts import TITLES, facts
from coxswain.alerts.model import Alert
from coxswain.messages.hub import Publish

__all__ = ["alert_frame", "alert_view"]


def alert_view(a: Alert) -> dict[str, Any]:
    """Plain JSON values. What is optional is left out when it is empty."""
    optional = {
        "device_id": a.device_id,
        "user_id": a.user_id,
        "node_id": a.node_id,
        "detail": a.detail,
        "snoozed_until": _stamp(a.snoozed_until) if a.snoozed_until else "",
        "handled_by": a.handled_by,
    }
    return {
        "id": a.id,
        "at": _stamp(a.at),
        "kind": a.kind,
        "title": TITLES.get(a.kind, a.kind.replace("_", " ")),
        "severity": a.severity.value,
        "status": a.status.value,
        "source_ips": list(a.source_ips),
        "facts": facts(a),
        "dedup_key": a.key,
        "version": a.version,
        "created_at": _stamp(a.created_at),
        "updated_at": _stamp(a.updated_at),
    } | {key: value for key, value in optional.items() if value}


def alert_frame(a: Alert, *, new: bool) -> Publish:
    """``new``: it was opened, or became worse; else something about it changed. ``node_id`` of the frame itself is empty,
    as the contract has it (management-plane.md 4); the alert has its own.
    """
    data: dict[str, Any] = {"node_id": "", "alert": alert_view(a)}
    if a.device_id:
        data["device_id"] = a.device_id
    if a.user_id:
        data["user"] = a.user_id
    return Publish("alert" if new else "alert_updated", a.at if new else a.updated_at, data)


def _stamp(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
