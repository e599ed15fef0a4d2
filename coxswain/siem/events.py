"""From what happens to what the contract sends (management-plane.md 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coxswain.clock import to_micros
from coxswain.ids import number_of, ordered_id
from coxswain.live.ring import Numbered
from coxswain.messages.sessions import SessionRecord
from coxswain.wire.pharos.monitor.v1 import monitor_pb2 as pb

__all__ = ["gap_event", "heartbeat", "live_event", "record_event", "record_number"]

_INT64_MAX = 2**63 - 1


def record_number(event: Numbered) -> int | None:
    """The number of the session record that an event tells of; None: it tells of none."""
    return number_of(str(event.event.data["id"])) if event.event_class == "session" else None


def live_event(event: Numbered, cursor: str) -> pb.MonitorEvent:
    """An event of the live stream."""
    data, kind = event.event.data, event.event.kind
    found = _event(to_micros(event.event.at), kind, cursor)
    if event.event_class == "session":
        found.type = "connect" if kind == "PEER_CONNECTED" else "disconnect"
        _fill_session(
            found.session,
            found.type,
            data | {"user_id": data.get("user")},
            (data.get("rx_bytes"), data.get("tx_bytes")),
        )
    elif event.event_class == "alert":
        _fill_alert(found.alert, data.get("alert") or {})
    else:
        found.type = event.event_class
        found.frame_json = event.text.decode()
    return found


def record_event(record: SessionRecord, cursor: str) -> pb.MonitorEvent:
    """The same as ``live_event``, from the record in the store."""
    kind = "connect" if record.reason is None else "disconnect"
    found = _event(record.at_us, kind, cursor)
    data = {
        "node_id": record.node_id,
        "device_id": record.device_id,
        "user_id": record.user_id,
        "protocol": record.protocol.name,
        "source_ip": record.source_ip,
        "source_endpoint": record.source_endpoint,
        "reason": "" if record.reason == "disconnect" else record.reason,
        "peer_id": record.peer_key,
        "id": ordered_id("cev", record.seq),
        "session_id": record.session_id,
    }
    _fill_session(found.session, kind, data, (record.rx_bytes, record.tx_bytes))
    return found


def gap_event(at: float, cursor: str, dropped: int | None, reason: str) -> pb.MonitorEvent:
    """``dropped`` None: nobody can say."""
    found = _event(to_micros(at), "gap", cursor)
    found.gap.dropped, found.gap.count_unknown, found.gap.reason = dropped or 0, dropped is None, reason
    return found


def heartbeat(at: float, cursor: str) -> pb.MonitorEvent:
    return _event(to_micros(at), "heartbeat", cursor)


def _event(at_us: int, kind: str, cursor: str) -> pb.MonitorEvent:
    found = pb.MonitorEvent(type=kind, cursor=cursor)
    found.at.seconds, micros = divmod(at_us, 1_000_000)
    found.at.nanos = micros * 1_000
    return found


def _fill_session(into: pb.SessionEvent, kind: str, data: Mapping[str, Any], moved: tuple[int | None, int | None]) -> None:
    into.event_type = kind
    for name in ("node_id", "device_id", "user_id", "protocol", "source_ip", "source_endpoint", "reason", "peer_id", "id"):
        setattr(into, name, str(data.get(name) or ""))
    into.session_id = str(data.get("session_id", ""))
    if kind == "disconnect":
        into.bytes_unknown = None in moved
        if None not in moved:
            into.rx_bytes, into.tx_bytes = (min(max(count or 0, 0), _INT64_MAX) for count in moved)


def _fill_alert(into: pb.AlertEvent, alert: Mapping[str, Any]) -> None:
    for name in ("id", "kind", "severity", "device_id", "user_id", "node_id", "status", "dedup_key"):
        setattr(into, name, str(alert.get(name) or ""))
    into.source_ips.extend(str(ip) for ip in alert.get("source_ips") or ())
    into.detail_json = json.dumps(alert.get("detail") or {}, separators=(",", ":"), ensure_ascii=False)
