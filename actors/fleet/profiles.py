"""Changes to profiles, provisioning of devices, and what is handed out to them."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.fleet.accounts import Did, change, check_version, known_device
from actors.fleet.bundles import sealed_bundle
from actors.fleet.grants import some_grants
from actors.fleet.provisioning import offer, provision, world
from actors.fleet.state import FleetState, Handler
from actors.fleet.wiring import wired
from coxswain.accounts.container import write_account
from coxswain.accounts.sealed import read_sealed
from coxswain.audit import record
from coxswain.cascade.resources import names_of
from coxswain.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from coxswain.ids import new_id
from coxswain.messages import accounts as m
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.model import Credential, Device, DeviceStatus, Peer, Profile
from coxswain.provisioning.checks import check_profile, check_protocol
from coxswain.provisioning.export import export, file_name
from coxswain.store import Tx
from coxswain.store import peers as peer_rows
from coxswain.store import profiles as rows

__all__ = ["CHANGES", "QUESTIONS", "checked_profile"]


def _add(fleet: FleetState, message: m.AddProfile) -> Committed[m.Change[Profile]]:
    def work(tx: Tx) -> Did:
        device = _usable(tx, message.device_id)
        if message.user_id and message.user_id != device.user_id:
            raise InvalidInput(f"user_id: device {device.id} is not a device of {message.user_id[:80]!r}")
        profile = Profile(
            id=new_id("pspec"),
            device_id=device.id,
            name=message.name,
            protocol=check_protocol(message.protocol),
            node_id=_node_id(fleet, message.node),
            path_id=message.path_id,
            entry_ips=message.entry_ips,
            user_id=device.user_id,
            created_at=fleet.now(),
        )
        profile = checked_profile(fleet, tx, profile)
        rows.insert_profile(tx, profile)
        outcome = provision(fleet, tx, [device.id])
        outcome.check_served(profile.id)
        return Did(("profile", profile.id), _detail(profile), profile, (), outcome)

    return change(fleet, message.caller, "profile.create", work)


def _edit(fleet: FleetState, message: m.EditProfile) -> Committed[m.Change[Profile]]:
    def work(tx: Tx) -> Did:
        before = _known(tx, message.id)
        after = before
        if message.name is not None:
            after = dataclasses.replace(after, name=message.name)
        if message.protocol is not None:
            after = dataclasses.replace(after, protocol=check_protocol(message.protocol))
        if message.node is not None or message.path_id is not None:
            node_id = _node_id(fleet, message.node or "")
            after = dataclasses.replace(after, node_id=node_id, path_id=message.path_id or "")
        # Endpoints that went since are no reason to refuse what is asked for; nobody can mean them at another entry.
        moved = (after.node_id, after.path_id) != (before.node_id, before.path_id)
        kept = () if moved else before.entry_ips
        given = () if message.entry_ips is None else message.entry_ips
        after = checked_profile(fleet, tx, dataclasses.replace(after, entry_ips=given))
        if message.entry_ips is None:
            after = dataclasses.replace(after, entry_ips=kept)
        version = before.version if message.version is None else message.version
        after = rows.update_profile(tx, after, expected_version=version, now=fleet.now())
        return Did(("profile", after.id), _detail(after), after, (), provision(fleet, tx, [after.device_id]))

    return change(fleet, message.caller, "profile.update", work)


def _remove(fleet: FleetState, message: m.RemoveProfile) -> Committed[m.Change[Profile]]:
    def work(tx: Tx) -> Did:
        profile = _known(tx, message.id)
        if message.version is not None:
            rows.check_version(profile, message.version)
        rows.delete_profile(tx, profile.id)
        return Did(("profile", profile.id), _detail(profile), profile, (), provision(fleet, tx, [profile.device_id]))

    return change(fleet, message.caller, "profile.rm", work)


def _provision(fleet: FleetState, message: m.ProvisionDevice) -> Committed[m.Change[Device]]:
    def work(tx: Tx) -> Did:
        device = _usable(tx, message.id)
        check_version("device", device.id, device.version, message.version)
        outcome = provision(fleet, tx, [device.id], rotate=message.rotate)
        outcome.check_served()
        given = outcome.given[0]
        detail = {"peer_count": given.peer_count, "rotated": message.rotate, "skipped": len(outcome.unserved)}
        device = known_device(tx, device.id)
        return Did(("device", device.id), detail, device, (), outcome)

    return change(fleet, message.caller, "device.provision", work)


def _get(fleet: FleetState, message: m.GetProfile) -> Profile:
    with fleet.store.read() as tx:
        return _known(tx, message.id)


def _list(fleet: FleetState, message: m.ListProfiles) -> list[Profile]:
    with fleet.store.read() as tx:
        return rows.list_profiles(
            tx, device_id=message.device_id, user_id=message.user_id, after=message.after, limit=message.limit
        )


def _get_device(fleet: FleetState, message: m.GetDevice) -> tuple[Device, tuple[Credential, ...], tuple[Peer, ...]]:
    with fleet.store.read() as tx:
        device = known_device(tx, message.id)
        credentials = rows.credentials_of(tx, [device.id])[device.id]
        peers = peer_rows.peers_of_devices(tx, [device.id])[device.id]
    return device, tuple(credentials), tuple(peers)


def _export(fleet: FleetState, message: m.ExportProfile) -> Committed[m.Exported]:
    """Its audit record is written before anything is handed out."""
    with fleet.changing() as tx:
        device = _usable(tx, message.device_id)
        if message.format is m.ExportFormat.SEALED:
            exported, which = _sealed(fleet, tx, device), ""
        else:
            grants = some_grants(fleet, tx, device, profile_id=message.profile_id, node=message.node)
            exported = export(message.format, device, grants, offer(fleet), fleet.now())
            which = message.profile_id or grants[0].profile_id
        detail = {"format": message.format.value, "profile": which}
        outbox_id = record(tx, message.caller, "profile.export", ("device", device.id), detail, now=fleet.now())
    fleet.context.tell("audit_writer", OutboxGrew())
    return Committed(_told(fleet, device, message.format, exported), outbox_id)


def _told(fleet: FleetState, device: Device, kind: m.ExportFormat, exported: m.Exported) -> m.Exported:
    """With a word about the path that the device is bound to, if this file is not over that."""
    found = wired(fleet)
    path = next((found.paths.get(b.route) for b in found.bindings if b.id == device.id), None)
    if path is None or not exported.leaves_at or (exported.leaves_at == path.entry and kind is m.ExportFormat.CONF):
        return exported
    entry, leaving = (names_of(fleet.nodes, (node_id,)) for node_id in (path.entry, exported.leaves_at))
    bound = f"the device is bound to the path {path.name}, for AmneziaWG to {entry}"
    return dataclasses.replace(exported, notes=(f"{bound}: what it sends by this file leaves at {leaving}",))


def _sealed(fleet: FleetState, tx: Tx, device: Device) -> m.Exported:
    """The bundle as a file that only the device can open."""
    try:
        bundle, _ = sealed_bundle(fleet, tx, device)
    except NotFound as error:
        raise Conflict(str(error), remedy=error.remedy) from None
    text = write_account(read_sealed(bundle.ciphertext))
    return m.Exported(f"{file_name(device.name)}.pharos", text, bundle.revision)


def _known(tx: Tx, profile_id: str) -> Profile:
    profile = rows.get_profile(tx, profile_id)
    if profile is None:
        raise NotFound(f"profile: there is no profile with the id {profile_id[:80]!r}", remedy="See: cox profiles list")
    return profile


def _usable(tx: Tx, device_id: str) -> Device:
    device = known_device(tx, device_id)
    if device.status == DeviceStatus.REVOKED:
        raise Conflict(f"device {device.id} is revoked, for good", remedy="Add a new device in its place.")
    return device


def _node_id(fleet: FleetState, key: str) -> str:
    try:
        return fleet.find(key).id if key else ""
    except NotFound as error:
        raise InvalidInput(f"node_id: {error}") from None


def checked_profile(fleet: FleetState, tx: Tx, profile: Profile) -> Profile:
    """With exactly one egress that is there, and a name that the device has not given yet."""
    if bool(profile.node_id) == bool(profile.path_id):
        raise InvalidInput("node_id, path_id: exactly one of them is needed: where the traffic leaves")
    if profile.node_id:
        fleet.check_stay(tx, (profile.node_id,))
    around = world(fleet, tx)
    entry = around.nodes.get(profile.node_id or around.entries.get(profile.path_id, ""))
    if entry is None:
        raise InvalidInput(f"path_id: there is no path with the id {profile.path_id[:80]!r}; see: cox paths list")
    profile = check_profile(profile, entry)
    for other in rows.profiles_of(tx, [profile.device_id])[profile.device_id]:
        if other.name == profile.name and other.id != profile.id:
            raise AlreadyExists(f"name: the device has a profile named {profile.name!r} already; choose another name")
    return profile


def _detail(profile: Profile) -> dict[str, Any]:
    egress = {"path_id": profile.path_id} if profile.path_id else {"node_id": profile.node_id}
    return {"name": profile.name, "device_id": profile.device_id, "protocol": profile.protocol.value, **egress}


CHANGES: dict[type, Handler] = {
    m.AddProfile: _add,
    m.EditProfile: _edit,
    m.RemoveProfile: _remove,
    m.ProvisionDevice: _provision,
    m.ExportProfile: _export,
}
QUESTIONS: dict[type, Handler] = {m.GetProfile: _get, m.ListProfiles: _list, m.GetDevice: _get_device}
