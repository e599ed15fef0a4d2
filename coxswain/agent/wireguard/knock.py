"""Wakes an inner link before anything is sent through it.

A link has no keepalive, so it shakes hands when the first packet comes (node-contract.md 6.6). If that packet is a
client's, whose old path has just been left, it waits for the answer; and if an earlier attempt was in vain, because the
far end did not know the link yet, WireGuard tries again only after 5 s (REKEY_TIMEOUT) and drops what does not fit its
queue. So the link is made to shake hands while the old path still carries.
"""

from __future__ import annotations

import asyncio
import logging
import time

from coxswain.agent.dataplane import DataPlaneFailed, PeerConfig
from coxswain.agent.wireguard.dump import parse_dump
from coxswain.agent.wireguard.tools import Tools

__all__ = ["PATIENCE_S", "knock"]

PATIENCE_S = 4.0
"""Seconds that an answer is waited for. Reference controllers give the whole call 10 s (node-contract.md 11.1)."""

FRESH_S = 120
"""Seconds: a session that is younger is in use without a new handshake (WireGuard's REKEY_AFTER_TIME)."""

_LOOK_S = 0.1

_log = logging.getLogger(__name__)


async def knock(tools: Tools, interface: str, peer: PeerConfig) -> bool:
    """Makes the link to ``peer`` shake hands if it has not lately; returns whether it has. Never raises."""
    try:
        before = await _handshake(tools, interface, peer)
        if time.time() - before < FRESH_S:
            return True
        if not before:  # a peer that is new has made no attempt that would have to be waited for
            await tools.remove_peer(interface, peer.public_key)
        await tools.set_peer(interface, peer, keepalive=1)
        try:
            answered = await _answer(tools, interface, peer, before)
        finally:
            await tools.set_peer(interface, peer, keepalive=0)
    except DataPlaneFailed as failure:
        _log.warning("%s: cannot be woken: %s", interface, failure)
        return False
    if not answered:
        _log.warning("%s: its exit does not answer", interface)
    return answered


async def _answer(tools: Tools, interface: str, peer: PeerConfig, before: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if await _handshake(tools, interface, peer) > before:
            return True
        await asyncio.sleep(_LOOK_S)
    return False


async def _handshake(tools: Tools, interface: str, peer: PeerConfig) -> int:
    live = parse_dump(await tools.dump(interface)).get(peer.public_key)
    return live.last_handshake if live is not None else 0
