"""Peers made by hand, with their users and devices: ``POST /api/peers``."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.fleet.intents import tell_intents
from actors.fleet.state import FleetState, Handler
from coxswain.audit import record
from coxswain.messages import fleet as m
from coxswain.messages.audit import Committed
from coxswain.reconcile.desired import check_peer
from coxswain.store import Tx
from coxswain.store import fleet as rows
from coxswain.store import peers as peer_rows

__all__ = ["CHANGES", "QUESTIONS"]

_IN_A_RECORD = 200
"""Removed peers; a record has to stay one that people can look at."""


def _apply_peers(fleet: FleetState, message: m.ApplyPeers) -> Committed[dict[str, int]]:
    for peer in message.add:
        check_peer(peer)
    touched = {p.node_id for p in message.add} | {node_id for node_id, _, _ in message.remove}
    for node_id in touched:
        fleet.known(node_id)
    with fleet.changing() as tx:
        rows.upsert_users(tx, message.users, now=fleet.now())
        rows.upsert_devices(tx, message.devices, now=fleet.now())
        rows.remove_peers(tx, message.remove)
        _record_removals(fleet, tx, message)
        rows.put_peers(tx, message.add, now=fleet.now())
        touched.update(peer_rows.enable_peers(tx, [device.id for device in message.devices]))
        revisions = rows.bump_revisions(tx, sorted(touched))
        detail = {
            "added": len(message.add),
            "removed": len(message.remove),
            "nodes": len(touched),
            "devices": [d.id for d in message.devices[:20]],
        }
        target = ("node", next(iter(touched))) if len(touched) == 1 else ("fleet", "")
        outbox_id = record(tx, message.caller, "peers.apply", target, detail, now=fleet.now())
    for node_id, revision in revisions.items():
        fleet.nodes[node_id] = dataclasses.replace(fleet.nodes[node_id], config_revision=revision)
    fleet.peers_changed()
    tell_intents(fleet, tuple(revisions))
    return Committed(revisions, outbox_id)


def _record_removals(fleet: FleetState, tx: Tx, message: m.ApplyPeers) -> None:
    """Which peers went, in records of their own: a restore goes by them, and must not bring one back."""
    by_node: dict[str, list[list[Any]]] = {}
    for node_id, protocol, key in message.remove:
        by_node.setdefault(node_id, []).append([int(protocol), key])
    for node_id, gone in sorted(by_node.items()):
        for start in range(0, len(gone), _IN_A_RECORD):
            detail = {"peers": gone[start : start + _IN_A_RECORD]}
            record(tx, message.caller, "peers.remove", ("peers", node_id), detail, now=fleet.now())


CHANGES: dict[type, Handler] = {m.ApplyPeers: _apply_peers}
QUESTIONS: dict[type, Handler] = {}
