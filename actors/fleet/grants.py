"""What a device has, with its keys opened: for files, and for bundles."""

from __future__ import annotations

from actors.fleet.state import FleetState
from actors.fleet.wiring import wired
from coxswain.errors import Conflict
from coxswain.model import Credential, Device, Profile
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
    paths = wired(fleet).paths if any(p.path_id for p in profiles.values()) else {}
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
        for path in [paths.get(profiles[credential.profile_id].path_id) if credential.profile_id in profiles else None]
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


def _name(profiles: dict[str, Profile], credential: Credential) -> str:
    profile = profiles.get(credential.profile_id)
    return profile.name if profile else ""
