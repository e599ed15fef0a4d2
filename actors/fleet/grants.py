"""What a device has, with its keys opened: for files, and for bundles."""

from __future__ import annotations

from actors.fleet.state import FleetState
from actors.fleet.wiring import wired
from coxswain.cascade.types import Path
from coxswain.errors import Conflict
from coxswain.model import Credential, Device, Peer, Profile, Protocol
from coxswain.provisioning import keys
from coxswain.provisioning.document import Grant, in_order
from coxswain.store import Tx
from coxswain.store import peers as peer_rows
from coxswain.store import profiles as rows

__all__ = ["grants_of", "some_grants"]


def grants_of(fleet: FleetState, tx: Tx, device: Device, *, profile_id: str = "", node: str = "") -> list[Grant]:
    """Of the profile (id or name) and node (id or name) that were asked for, or all of it; those without peers left out."""
    profiles = {p.id: p for p in rows.profiles_of(tx, [device.id])[device.id]}
    credentials = rows.credentials_of(tx, [device.id])[device.id]
    peers = peer_rows.peers_of_devices(tx, [device.id])[device.id]
    if profile_id:
        credentials = [c for c in credentials if profile_id in (c.profile_id, _name(profiles, c))]
    wanted = fleet.find(node).id if node else ""
    paths = {profile.id: wired(fleet).paths.get(profile.path_id) for profile in profiles.values() if profile.path_id}
    everywhere = {c.id for c in credentials if not c.profile_id}
    bound = _bound_to(fleet, device, [p for p in peers if p.credential_id in everywhere], wanted)
    if bound is not None:
        paths[""] = bound
        peers = [p for p in peers if p.node_id == bound.entry or p.credential_id not in everywhere]
    grants = [
        Grant(
            credential=credential,
            private_key=keys.open_private_key(fleet.keyring, credential),
            profile=profiles.get(credential.profile_id),
            peers=tuple(
                (fleet.known(p.node_id), p) for p in peers if p.credential_id == credential.id and wanted in ("", p.node_id)
            ),
            path=path.name if path is not None else "",
            hops=tuple(fleet.known(hop) for hop in path.hops) if path is not None else (),
            fallbacks=tuple(fleet.known(node_id) for node_id in path.fallbacks) if path is not None else (),
        )
        for credential in credentials
        for path in [paths.get(credential.profile_id)]
    ]
    return in_order(grant for grant in grants if grant.peers)


def some_grants(fleet: FleetState, tx: Tx, device: Device, *, profile_id: str = "", node: str = "") -> list[Grant]:
    """The same. Raises ``Conflict`` if there are none."""
    grants = grants_of(fleet, tx, device, profile_id=profile_id, node=node)
    if not grants:
        if rows.credentials_of(tx, [device.id])[device.id] and not (profile_id or node):
            raise Conflict(
                f"device {device.id} has keys, but is on no node: none is ready for it yet",
                remedy="It gets onto one by itself when that connects; see: cox nodes list",
            )
        raise Conflict(
            f"device {device.id} has no keys on a node that fit",
            remedy=f"Provision it first: cox devices provision {device.id}",
        )
    return grants


def _bound_to(fleet: FleetState, device: Device, everywhere: list[Peer], wanted: str) -> Path | None:
    """The path on which a device is that is given every node: its client is then shown the entry alone. On other nodes its
    traffic would leave there, or not get through (accounts-profiles.md 6.2, fleet-model.md 12, 25).

    Args:
        everywhere: what it has on every node.
        wanted: the id of the one node that was asked for; empty: none was.
    """
    path = wired(fleet).path_of(device.id)
    if path is None or wanted not in ("", path.entry):
        return None
    on_entry = any(peer.node_id == path.entry and peer.protocol is Protocol.AMNEZIAWG for peer in everywhere)
    return path if on_entry else None


def _name(profiles: dict[str, Profile], credential: Credential) -> str:
    profile = profiles.get(credential.profile_id)
    return profile.name if profile else ""
