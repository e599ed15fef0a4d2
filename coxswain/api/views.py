"""From values to JSON: the fleet and what it does. Times are RFC 3339 in UTC; null: never or unknown. No secret is in it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from coxswain.ids import ordered_id
from coxswain.inventory import host_of
from coxswain.live.ring import Stretch
from coxswain.messages.ca import CaView, IssuedNodeCertificate
from coxswain.messages.fleet import FleetSummary, NodeView
from coxswain.messages.links import PlanView, PushOutcome
from coxswain.messages.meter import Series
from coxswain.messages.names import Named
from coxswain.messages.sessions import SessionCounts, SessionRecord, SessionView, Total
from coxswain.model import LinkState, Node, NodeStatus, Protocol
from coxswain.onboarding.binary import display_version, is_newer

if TYPE_CHECKING:
    from coxswain.geoip import Location

__all__ = [
    "ca",
    "called",
    "events",
    "host_of_node",
    "issued",
    "location",
    "node",
    "node_brief",
    "plan",
    "push_outcome",
    "series",
    "session",
    "session_counts",
    "session_record",
    "stamp",
    "summary",
    "total",
    "where",
]

_PROTOCOLS = {Protocol.AMNEZIAWG: "amneziawg", Protocol.XRAY_REALITY: "xray-reality"}


@functools.lru_cache(maxsize=16_384)  # lists of a thousand nodes hold the same times again and again
def stamp(seconds: float | None, precision: str = "milliseconds") -> str | None:
    """RFC 3339; None for None and for 0, which stands for never."""
    if not seconds:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def node_brief(n: Node) -> dict[str, Any]:
    """The stored part (management-plane.md 3.3, Node)."""
    return {
        "id": n.id,
        "name": n.name,
        "region": n.region,
        "status": n.status.value,
        "enabled": n.enabled,
        "control_addr": n.control_addr,
        "public_ip": n.public_ip,
        "endpoint_ips": list(n.endpoint_ips),
        "endpoint_ports": n.endpoint_ports,
        "mapped_ports": n.mapped_ports,
        "decoy_site": n.decoy_site,
        "server_id": n.server_id,
        "ssh_host": host_of(n.control_addr) if n.server_id else "",
        "agent_version": n.agent_version,
        "version_display": display_version(n.agent_version),
        "wg_public_key": n.wg_public_key,
        "xray_public_key": n.xray_public_key,
        "tunnel_ipv6": n.tunnel_ipv6,
        "forwarding": n.policy.forwarding,
        "masquerade": n.policy.masquerade,
        "isolation": n.policy.isolation,
        "config_revision": n.config_revision,
        "applied_revision": n.applied_revision,
        "enrolled": bool(n.server_names),
        "version": n.version,
        "created_at": stamp(n.created_at),
        "updated_at": stamp(n.updated_at),
    }


def host_of_node(n: Node) -> str:
    """By which address a node is looked for in a GeoIP database."""
    return n.public_ip or n.control_addr


def location(found: Location) -> dict[str, Any]:
    return {
        "city": found.city,
        "country": found.country,
        "country_code": found.country_code,
        "latitude": found.latitude,
        "longitude": found.longitude,
    }


def where(place: Location | None) -> dict[str, Any]:
    """The key of things that stand somewhere, which is left out where nobody knows (management-plane.md 3.3)."""
    return {} if place is None else {"location": location(place)}


def node(
    view: NodeView,
    active: Mapping[str, int] | None,
    candidate: str = "",
    located: Mapping[str, Location] = MappingProxyType({}),
) -> dict[str, Any]:
    """A node with what its link reports.

    Args:
        view: the node.
        active: node id to open sessions; None: not known just now, and then what the node said at the last look has to do.
        candidate: version of the agent that an upgrade would install.
        located: hosts whose place is known.
    """
    online = view.peers_online if active is None else active.get(view.node.id, 0)
    return (
        where(located.get(host_of_node(view.node)))
        | node_brief(view.node)
        | {
            "available_version": candidate,
            "update_available": is_newer(candidate, view.node.agent_version),
            "link_state": view.link_state.value,
            "link_reason": _reason(view),
            "link_since": stamp(view.since),
            "last_seen": stamp(view.last_seen),
            "uptime_seconds": view.uptime_s,
            "peers_configured": view.peers_configured,
            "peers_online": online,
            "in_sync": view.in_sync,
            "findings": list(view.findings),
        }
    )


def _reason(view: NodeView) -> str:
    if view.link_state is LinkState.DISABLED and view.node.status is NodeStatus.ERROR:
        return "its onboarding failed; see cox operations list"
    if view.link_state is LinkState.DISABLED and view.node.status is NodeStatus.PROVISIONING:
        return "it is being onboarded; see cox operations list"
    return view.link_reason


def plan(view: PlanView) -> dict[str, Any]:
    return {
        "node_id": view.node_id,
        "intended_revision": view.intended_revision,
        "applied_revision": view.applied_revision,
        "steps": list(view.steps),
        "findings": list(view.findings),
        "services": [dataclasses.asdict(s) | {"protocol": _PROTOCOLS[s.protocol]} for s in view.services],
        "peers": [dataclasses.asdict(peer) | {"last_handshake": stamp(peer.last_handshake or None)} for peer in view.peers],
    }


def push_outcome(outcome: PushOutcome) -> dict[str, Any]:
    """Capitalised as existing clients expect them (management-plane.md 3.3, PushResult)."""
    return {
        "AmneziaPeers": outcome.amneziawg_peers,
        "PushedRevision": outcome.pushed_revision,
        "AppliedRevision": outcome.applied_revision,
        "Reloaded": outcome.reloaded,
        "PolicyApplied": outcome.policy_applied,
        "XRayPeers": outcome.xray_peers,
        "XRaySkipped": outcome.xray_skipped,
        "CascadeReapplied": outcome.cascade_reapplied,
        "LinksConfigured": outcome.links_configured,
    }


def issued(certificate: IssuedNodeCertificate) -> dict[str, Any]:
    return {
        "node_id": certificate.node_id,
        "serial": certificate.serial,
        "server_name": certificate.server_name,
        "not_after": stamp(certificate.not_after),
        "node_crt": certificate.node_crt.decode(),
        "ca_crt": certificate.ca_crt.decode(),
        "ignored": list(certificate.ignored),
    }


def summary(found: FleetSummary) -> dict[str, Any]:
    return {
        "nodes": found.nodes,
        "in_sync": found.in_sync,
        "troubled": found.troubled,
        "coming_up": found.coming_up,
        "by_link_state": {k.value: v for k, v in sorted(found.by_link_state.items())},
        "by_status": {k.value: v for k, v in sorted(found.by_status.items())},
        "users": found.users,
        "devices": found.devices,
        "peers": found.peers,
    }


def session_counts(counts: SessionCounts) -> dict[str, Any]:
    return {
        "active": counts.active,
        "opened": counts.opened,
        "closed": counts.closed,
        "events": counts.events,
        "duplicates": counts.duplicates,
    }


def session(view: SessionView, names: Mapping[str, Named]) -> dict[str, Any]:
    """A session as such; ``session_record`` is what the contract calls one."""
    return {
        "id": view.id,
        "node_id": view.node_id,
        "protocol": _PROTOCOLS[view.protocol],
        "peer_key": view.peer_key,
        "device_id": view.device_id,
        "user_id": view.user_id,
        "opened_at": stamp(view.opened_at),
        "closed_at": stamp(view.closed_at),
        "last_at": stamp(view.last_at),
        "endpoint": view.endpoint,
        "endpoints": [{"since": stamp(since), "endpoint": endpoint} for since, endpoint in view.endpoints],
        "roams": view.roams,
        "rx_bytes": view.rx_bytes,
        "tx_bytes": view.tx_bytes,
        "reason": view.reason,
        "country": view.country,
    } | called(names, node=view.node_id, device=view.device_id, user=view.user_id)


def called(names: Mapping[str, Named], **ids: str | None) -> dict[str, Any]:
    """``node_name`` and so on, null: nobody knows; and which of them were ``removed``. Additions to the contract."""
    known = {word: names.get(key or "") for word, key in ids.items()}
    found: dict[str, Any] = {f"{word}_name": None if each is None else each.name for word, each in known.items()}
    return found | {"removed": [word for word, each in known.items() if each is not None and each.removed_at]}


def session_record(record: SessionRecord, names: Mapping[str, Named]) -> dict[str, Any]:
    """management-plane.md 3.3, SessionRecord: what is empty is left out. Bytes null: unknown."""
    reason = "" if record.reason in (None, "disconnect") else record.reason
    optional = {
        "node_id": record.node_id,
        "peer_id": record.peer_key,
        "device_id": record.device_id,
        "user_id": record.user_id,
        "protocol": record.protocol.name,
        "source_ip": record.source_ip,
        "source_endpoint": record.source_endpoint,
        "reason": reason,
        "country": record.country,
    } | called(names, node=record.node_id, device=record.device_id, user=record.user_id)
    return {
        "id": ordered_id("cev", record.seq),
        "at": stamp(record.at_us / 1e6, "microseconds"),
        "event_type": "connect" if record.reason is None else "disconnect",
        "rx_bytes": record.rx_bytes,
        "tx_bytes": record.tx_bytes,
    } | {name: value for name, value in optional.items() if value}


def total(found: Total, named: Named | None) -> dict[str, Any]:
    return {
        "id": found.id,
        "opened": found.opened,
        "closed": found.closed,
        "unknown": found.unknown,
        "rx_bytes": found.rx_bytes,
        "tx_bytes": found.tx_bytes,
        "seconds": found.seconds,
        "name": None if named is None else named.name,
        "removed": named is not None and named.removed_at > 0,
    }


def series(node_id: str, found: Series) -> dict[str, Any]:
    """A time series. null: not known. ``node_id`` null: of the whole fleet."""
    return {
        "node_id": node_id or None,
        "since": stamp(found.since),
        "until": stamp(found.since + found.step * len(found.points)),
        "step_seconds": found.step,
        "points": [
            {
                "at": stamp(found.since + found.step * number),
                "sessions": _rounded(point.sessions, 2),
                "rx_bytes_per_second": _rounded(point.rx_rate, 1),
                "tx_bytes_per_second": _rounded(point.tx_rate, 1),
                "availability": _rounded(point.availability, 5),
            }
            for number, point in enumerate(found.points)
        ],
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def ca(view: CaView) -> dict[str, Any]:
    return {
        "key_source": view.key_source,
        "authorities": [
            {
                "role": a.role,
                "state": a.state,
                "subject": a.subject,
                "serial": a.serial,
                "not_before": stamp(a.not_before),
                "not_after": stamp(a.not_after),
                "fingerprint": a.fingerprint,
            }
            for a in view.authorities
        ],
        "leaves": [
            {
                "holder": leaf.holder,
                "serial": leaf.serial,
                "server_name": leaf.server_name,
                "not_after": stamp(leaf.not_after),
                "renewal_due": leaf.renewal_due,
                "revoked_at": stamp(leaf.revoked_at),
            }
            for leaf in view.leaves
        ],
    }


def events(found: Stretch) -> dict[str, Any]:
    """``dropped`` null: some may be missing, nobody knows how many."""
    return {
        "events": [json.loads(event.text) for event in found.events],
        "last_seq": found.last,
        "dropped": found.missed,
    }
