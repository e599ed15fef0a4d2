"""What GetStatus tells of each protocol (node-contract.md 1.3, 4.2)."""

from __future__ import annotations

from collections.abc import Iterable

from coxswain.agent.dataplane import DataPlane, DataPlaneFailed
from coxswain.agent.observer import FRESH_S
from coxswain.agent.redact import scrub
from coxswain.agent.xray import XrayInbound
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["awg_status", "xray_status"]


async def awg_status(plane: DataPlane, now: float, troubles: Iterable[str]) -> pb.ServiceStatus:
    """Never fails. ``now``: epoch seconds; ``troubles``: sentences for an operator, put behind the detail."""
    health = await plane.status()
    status = pb.ServiceStatus(
        protocol=pb.PROTOCOL_AMNEZIAWG, running=health.up, listening=health.up, newest_handshake_age_seconds=-1
    )
    detail = health.error or "awg0 not up"
    if health.up:
        try:
            dump = await plane.dump()
        except DataPlaneFailed as error:
            detail = str(error)
        else:
            ages = [now - live.last_handshake for live in dump.values() if live.last_handshake]
            status.peer_count = len(dump)
            status.newest_handshake_age_seconds = max(0, int(min(ages))) if ages else -1
            status.handshaking_peers = sum(age < FRESH_S for age in ages)
            detail = f"awg0 up, {len(dump)} peers"
    notes = [health.note] if health.note else []
    status.detail = scrub("; ".join([detail, *notes, *troubles]))
    return status


def xray_status(inbound: XrayInbound | None) -> pb.ServiceStatus:
    """``inbound`` None: this agent has no engine for it."""
    status = pb.ServiceStatus(protocol=pb.PROTOCOL_XRAY_REALITY, detail="not configured", newest_handshake_age_seconds=-1)
    if inbound is not None and inbound.config is not None:
        status.running = status.listening = inbound.running
        status.peer_count = len(inbound.config.clients)
        trouble = f" not running: {scrub(inbound.trouble)}" if inbound.trouble else ""
        status.detail = f"REALITY :{inbound.config.port}{trouble}"
    return status
