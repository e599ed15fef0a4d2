"""Changes to users and devices. Who goes, or is suspended, leaves the nodes with the same transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from actors.fleet.provisioning import Outcome, follow, provision
from actors.fleet.state import FleetState, Handler
from coxswain.audit import record
from coxswain.errors import AlreadyExists, Conflict, NotFound, StaleVersion
from coxswain.ids import new_id
from coxswain.messages import accounts as m
from coxswain.messages.audit import Caller, Committed
from coxswain.messages.hub import Publish
from coxswain.model import Device, DeviceStatus, User
from coxswain.provisioning.checks import check_email, check_label, check_phone, check_platform, check_user_status
from coxswain.store import Durability, Tx
from coxswain.store import accounts as rows
from coxswain.store import bundles as bundle_rows
from coxswain.store import fleet as fleet_rows
from coxswain.store import names as name_rows
from coxswain.store import paths as path_rows
from coxswain.store import peers as peer_rows
from coxswain.store import profiles as profile_rows
from coxswain.store import tickets as ticket_rows

__all__ = ["CHANGES", "QUESTIONS", "Did", "change", "check_version", "known_device"]

T = TypeVar("T")

_STATUS_ACTIONS = {
    DeviceStatus.ACTIVE: "device.resume",
    DeviceStatus.SUSPENDED: "device.suspend",
    DeviceStatus.REVOKED: "device.revoke",
}


@dataclass
class Did:
    """What a change did, for its audit record and for the nodes."""

    target: tuple[str, str]
    detail: dict[str, Any]
    value: Any
    touched: Sequence[str] = ()
    outcome: Outcome = field(default_factory=Outcome)


def change(fleet: FleetState, caller: Caller, action: str, work: Callable[[Tx], Did]) -> Committed[m.Change[Any]]:
    """One transaction: the work, the revisions of every node that it touched, the audit record. Then the nodes are told."""
    with fleet.changing(Durability.BATCHED) as tx:
        did = work(tx)
        touched = sorted({*did.touched, *did.outcome.touched} & fleet.nodes.keys())
        revisions = fleet_rows.bump_revisions(tx, touched)
        detail = did.detail | ({"nodes": len(touched)} if touched else {})
        outbox_id = record(tx, caller, action, did.target, detail, now=fleet.now())
    if revisions:
        fleet.settle()
    follow(fleet, revisions)
    kind, row_id = did.target
    fleet.context.tell("event_hub", Publish(f"{kind}.changed", fleet.now(), {f"{kind}_id": row_id, "action": action}))
    outcome = did.outcome
    return Committed(m.Change(did.value, revisions, tuple(outcome.given), tuple(outcome.unserved)), outbox_id)


# -- users


def _add_user(fleet: FleetState, message: m.AddUser) -> Committed[m.Change[User]]:
    user = User(
        id=new_id("usr"),
        name=check_label("name", message.name),
        email=check_email(message.email),
        phone=check_phone(message.phone),
        created_at=fleet.now(),
    )

    def work(tx: Tx) -> Did:
        if message.unique and not (user.email or user.phone) and rows.is_named(tx, user.name):
            raise AlreadyExists(
                f"name: a user without e-mail address and phone number has the name {user.name!r} already",
                remedy="Choose another name, or say an e-mail address or phone number that tells them apart.",
            )
        rows.insert_user(tx, user, message.password_hash)
        return Did(("user", user.id), {"name": user.name}, user)

    return change(fleet, message.caller, "user.add", work)


def _edit_user(fleet: FleetState, message: m.EditUser) -> Committed[m.Change[User]]:
    def work(tx: Tx) -> Did:
        before = _known_user(tx, message.id)
        _check_role(before)
        after = before
        if message.name is not None:
            after = dataclasses.replace(after, name=check_label("name", message.name))
        if message.email is not None:
            after = dataclasses.replace(after, email=check_email(message.email))
        if message.phone is not None:
            after = dataclasses.replace(after, phone=check_phone(message.phone))
        if message.status is not None:
            after = dataclasses.replace(after, status=check_user_status(message.status))
        version = before.version if message.version is None else message.version
        after = rows.update_user(tx, after, expected_version=version, now=fleet.now())
        touched: Sequence[str] = ()
        if after.status != before.status:
            touched = peer_rows.enable_peers(tx, _device_ids(tx, after.id))
        changed = [f.name for f in dataclasses.fields(User) if getattr(before, f.name) != getattr(after, f.name)]
        detail = {"name": after.name, "changed": changed, "status": str(after.status)}
        return Did(("user", after.id), detail, after, touched)

    return change(fleet, message.caller, message.action, work)


def _remove_user(fleet: FleetState, message: m.RemoveUser) -> Committed[m.Change[User]]:
    def work(tx: Tx) -> Did:
        user = _known_user(tx, message.id)
        check_version("user", user.id, user.version, message.version)
        _check_role(user)
        device_ids = _device_ids(tx, user.id)
        touched = peer_rows.nodes_of_devices(tx, device_ids)
        rows.delete_user(tx, user.id, by=message.caller.actor, now=fleet.now())
        return Did(("user", user.id), {"name": user.name, "devices": len(device_ids)}, user, touched)

    return change(fleet, message.caller, "user.rm", work)


def _get_user(fleet: FleetState, message: m.GetUser) -> User:
    with fleet.store.read() as tx:
        user = rows.find_user(tx, message.key)
        was = "" if user else name_rows.was(tx, message.key)
    if user is None or not (message.by_contact or user.id == message.key):
        keys = "id or e-mail" if message.by_contact else "id"
        raise NotFound(f"user: there is no user with the {keys} {message.key[:80]!r}{was}", remedy="See: cox users list")
    return user


def _list_users(fleet: FleetState, message: m.ListUsers) -> list[User]:
    with fleet.store.read() as tx:
        columns = ("name", "email", "phone") if message.by_contact else ("name",)
        return rows.list_users(
            tx, role=message.role, after=message.after, limit=message.limit, wanted=message.wanted, columns=columns
        )


# -- devices


def _add_device(fleet: FleetState, message: m.AddDevice) -> Committed[m.Change[Device]]:
    device = Device(
        id=new_id("dev"),
        user_id=message.user_id,
        name=check_label("name", message.name),
        platform=check_platform(message.platform),
        created_at=fleet.now(),
    )

    def work(tx: Tx) -> Did:
        user = _known_user(tx, message.user_id)
        if message.unique and rows.has_device_named(tx, user.id, device.name):
            raise AlreadyExists(f"name: user {user.name} has a device named {device.name!r} already; choose another name")
        rows.insert_device(tx, device)
        return Did(("device", device.id), {"name": device.name, "user_id": user.id}, device)

    return change(fleet, message.caller, "device.add", work)


def _edit_device(fleet: FleetState, message: m.EditDevice) -> Committed[m.Change[Device]]:
    def work(tx: Tx) -> Did:
        before = known_device(tx, message.id)
        after = before
        if message.name is not None:
            after = dataclasses.replace(after, name=check_label("name", message.name))
        if message.platform is not None:
            after = dataclasses.replace(after, platform=check_platform(message.platform))
        version = before.version if message.version is None else message.version
        after = rows.update_device(tx, after, expected_version=version, now=fleet.now())
        return Did(("device", after.id), {"name": after.name}, after)

    return change(fleet, message.caller, "device.update", work)


def _set_status(fleet: FleetState, message: m.SetDeviceStatus) -> Committed[m.Change[Device]]:
    def work(tx: Tx) -> Did:
        before = known_device(tx, message.id)
        if before.status == DeviceStatus.REVOKED and message.status is not DeviceStatus.REVOKED:
            raise Conflict(f"device {before.id} is revoked, for good", remedy="Add a new device in its place.")
        version = before.version if message.version is None else message.version
        after = dataclasses.replace(before, status=message.status)
        after = rows.update_device(tx, after, expected_version=version, now=fleet.now())
        detail = {"name": after.name, "was": str(before.status)}
        if message.status is not DeviceStatus.REVOKED:
            return Did(("device", after.id), detail, after, peer_rows.enable_peers(tx, [after.id]))
        # With its keys go the peers made from them; those made by hand go too.
        touched = peer_rows.nodes_of_devices(tx, [after.id])
        outcome = provision(fleet, tx, [after.id])
        left = peer_rows.peers_of_devices(tx, [after.id])[after.id]
        fleet_rows.remove_peers(tx, [(p.node_id, p.protocol, p.public_key) for p in left])
        profile_rows.delete_profiles_of(tx, after.id)  # they would only hold nodes and paths
        path_rows.remove_exit(tx, after.id)
        ticket_rows.revoke_tickets_of_device(tx, after.id, fleet.now())
        bundle_rows.delete_bundles(tx, after.id)
        return Did(("device", after.id), detail, after, touched, outcome)

    return change(fleet, message.caller, _STATUS_ACTIONS[message.status], work)


def _remove_device(fleet: FleetState, message: m.RemoveDevice) -> Committed[m.Change[Device]]:
    def work(tx: Tx) -> Did:
        device = known_device(tx, message.id)
        check_version("device", device.id, device.version, message.version)
        touched = peer_rows.nodes_of_devices(tx, [device.id])
        rows.delete_device(tx, device.id, by=message.caller.actor, now=fleet.now())
        return Did(("device", device.id), {"name": device.name, "user_id": device.user_id}, device, touched)

    return change(fleet, message.caller, "device.rm", work)


def _list_devices(fleet: FleetState, message: m.ListDevices) -> list[Device]:
    with fleet.store.read() as tx:
        return rows.list_devices(
            tx, user_id=message.user_id, after=message.after, limit=message.limit, wanted=message.wanted
        )


# -- finding


def known_device(tx: Tx, device_id: str) -> Device:
    """Raises ``NotFound``."""
    device = rows.get_device(tx, device_id)
    if device is None:
        what = f"device: there is no device with the id {device_id[:80]!r}{name_rows.was(tx, device_id)}"
        raise NotFound(what, remedy="See: cox devices list")
    return device


def _known_user(tx: Tx, user_id: str) -> User:
    user = rows.get_user(tx, user_id)
    if user is None:
        what = f"user: there is no user with the id {user_id[:80]!r}{name_rows.was(tx, user_id)}"
        raise NotFound(what, remedy="See: cox users list")
    return user


def _check_role(user: User) -> None:
    """Admins are the business of ``access``, with its own rules (accounts-profiles.md 10.2, 21)."""
    if user.role != "user":
        raise Conflict(f"user {user.id} is an admin, not a user of the VPN", remedy="See: cox admins --help")


def _device_ids(tx: Tx, user_id: str) -> list[str]:
    return [device.id for device in rows.list_devices(tx, user_id=user_id, limit=rows.count_devices(tx, user_id))]


def check_version(what: str, row_id: str, present: int, seen: int | None) -> None:
    if seen is not None and seen != present:
        raise StaleVersion.of(f"{what} {row_id}", seen, present)


CHANGES: dict[type, Handler] = {
    m.AddUser: _add_user,
    m.EditUser: _edit_user,
    m.RemoveUser: _remove_user,
    m.AddDevice: _add_device,
    m.EditDevice: _edit_device,
    m.SetDeviceStatus: _set_status,
    m.RemoveDevice: _remove_device,
}
QUESTIONS: dict[type, Handler] = {m.GetUser: _get_user, m.ListUsers: _list_users, m.ListDevices: _list_devices}
