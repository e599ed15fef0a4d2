"""Events of the live stream: what they are made of, who may see them, and their text.

An event's *kind* is what its publisher calls it. What travels has a ``type``: for what nodes and rules tell, the names of
the contract (``PEER_CONNECTED``, ``alert``, …; management-plane.md 4); for everything else the class of the event
(``status``, ``inventory``, ``audit``, …), with the ``kind`` beside it. Consumers of the contract find every frame they know,
as they know it, and some whose type they do not.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from coxswain.ids import ordered_id
from coxswain.messages.hub import Publish
from coxswain.messages.sessions import NodeEvent
from coxswain.sessions import Boundary, source_ip

__all__ = [
    "ADMIN_CLASSES",
    "CLASSES",
    "DROPPED",
    "boundary_frame",
    "class_of",
    "inventory_of",
    "node_event_frame",
    "render",
    "stamp",
]

DROPPED = "dropped"
"""The kind, type and class of a notice that events are missing. Everybody gets it."""

_CONTRACT = {
    "PEER_CONNECTED": "session",
    "PEER_DISCONNECTED": "session",
    "HANDSHAKE_UP": "node",
    "HANDSHAKE_DOWN": "node",
    "ERROR": "node",
    "UNSPECIFIED": "node",
    "alert": "alert",
    "alert_updated": "alert",
}
_STATUS = frozenset({"node.status", "node.link"})
_INVENTORY = frozenset(
    {"inventory", "node", "user", "device", "profile", "peer", "server", "relay", "path", "pool", "control_path", "link"}
)

_NO_INVENTORY = frozenset({"auth", "audit", "siem", "config", "alert", ""})
"""First words of audited actions that change nothing of the inventory."""

CLASSES = ("session", "node", "status", "alert", "inventory", "operation", "tree", "audit", "config", "metrics")
"""What a consumer may ask for. Publishers may use others, named after the first word of the kind."""

ADMIN_CLASSES = frozenset({"audit", "config"})
"""Not for a credential below admin: the records themselves may only be read by one (management-plane.md 3.2)."""

_MOST_BYTES = 64 * 1024

_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def class_of(kind: str) -> str:
    """The class of an event, from its kind."""
    if kind in _CONTRACT:
        return _CONTRACT[kind]
    if kind in _STATUS:
        return "status"
    word = kind.partition(".")[0]
    return "inventory" if word in _INVENTORY else word


def render(seq: int, event: Publish) -> bytes:
    """One event as the JSON text of its frame, in UTF-8. What is too large for a frame is told without its data."""
    kind = event.kind
    frame: dict[str, Any] = {"seq": seq, "node_id": event.data.get("node_id") or "", "at": stamp(event.at)}
    if kind in _CONTRACT or kind == DROPPED:
        frame["type"] = kind
    else:
        frame |= {"type": class_of(kind), "kind": kind}
    text = _json({**event.data, **frame}).encode("utf-8", "replace")
    return text if len(text) <= _MOST_BYTES else _json(frame | {"truncated": True}).encode()


def boundary_frame(boundary: Boundary) -> Publish:
    """The frame of a connect or disconnect. Bytes are those of the segment that ended; null: unknown."""
    session = boundary.session
    node_id, protocol, peer_key = session.key
    data: dict[str, Any] = {"node_id": node_id, "protocol": protocol.name, "peer_id": peer_key}
    if boundary.message:
        data["message"] = boundary.message
    _name_owner(data, session.device_id, session.user_id)
    _name_source(data, boundary.endpoint)
    if boundary.reason is None:
        kind = "PEER_CONNECTED"
    else:
        kind = "PEER_DISCONNECTED"
        data |= {"rx_bytes": boundary.rx_bytes, "tx_bytes": boundary.tx_bytes}
        if boundary.reason != "disconnect":
            data["reason"] = boundary.reason
    data |= {"id": ordered_id("cev", boundary.seq), "session_id": session.id}
    return Publish(kind, boundary.at, data)


def node_event_frame(event: NodeEvent, owner: tuple[str, str] | None) -> Publish:
    """The frame of what else a node tells. ``owner``: device and user of the peer."""
    data: dict[str, Any] = {"node_id": event.node_id}
    if event.peer_key:
        data |= {"protocol": event.protocol.name, "peer_id": event.peer_key}
    if event.message:
        data["message"] = event.message
    _name_owner(data, *(owner or (None, None)))
    _name_source(data, event.endpoint)
    return Publish(event.kind.name, event.at, data)


def inventory_of(audited: Publish) -> Publish | None:
    """The ``inventory`` event of an audit record: what changed, without who did it. None: nothing did.

    Every change leaves a record, so every change is told to every dashboard, whoever made it and wherever it is made.
    """
    record = audited.data
    word = str(record.get("action", "")).partition(".")[0]
    if record.get("result") != "ok" or word in _NO_INVENTORY or not record.get("target_id"):
        return None
    target_type, target_id = record.get("target_type", ""), record["target_id"]
    data = {
        "node_id": target_id if target_type == "node" else "",
        "object": target_type,
        "id": target_id,
        "action": record["action"],
    }
    return Publish("inventory", audited.at, data)


def stamp(seconds: float) -> str:
    """RFC 3339 with microseconds, in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _name_owner(data: dict[str, Any], device_id: str | None, user_id: str | None) -> None:
    if device_id:
        data["device_id"] = device_id
    if user_id:
        data["user"] = user_id


def _name_source(data: dict[str, Any], endpoint: str) -> None:
    if endpoint:
        data |= {"source_ip": source_ip(endpoint), "source_endpoint": endpoint}
