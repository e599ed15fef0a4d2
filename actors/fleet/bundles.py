"""Sealed bundles: the newest one of a device, made anew when what is in it has changed.

They are made when they are fetched, and not when a node changes: a bundle is then never older than what it is made from,
however much changed meanwhile, and a change that concerns ten thousand devices seals nothing.
"""

from __future__ import annotations

import hashlib

from actors.fleet.accounts import known_device
from actors.fleet.grants import grants_of
from actors.fleet.provisioning import offer
from actors.fleet.state import FleetState, Handler
from coxswain.accounts.primitives import compact
from coxswain.accounts.sealed import MAX_DOCUMENT_BYTES, seal
from coxswain.errors import Conflict, NotFound, Refused
from coxswain.messages import enrolment as m
from coxswain.model import Device, DeviceStatus, UserStatus
from coxswain.provisioning.document import document
from coxswain.store import Durability, Tx
from coxswain.store import bundles as rows
from coxswain.store import identities as identity_rows

__all__ = ["CHANGES", "QUESTIONS", "check_usable", "current_bundle", "note_offer", "sealed_bundle"]


def note_offer(fleet: FleetState) -> None:
    """At a start: with another configuration (a decoy, a rotation, another place on maps) every device is given something
    else. What they have fetched is shown as stale from then on; their next sync brings it, with the keys that they have.
    """
    content = hashlib.sha256(repr(offer(fleet)).encode()).hexdigest()
    with fleet.changing() as tx:
        count = rows.note_offered(tx, content)
    if count:
        fleet.context.log.info("the configuration gives devices something else now: %d profiles are stale", count)


def current_bundle(fleet: FleetState, tx: Tx, device: Device, recipient: bytes) -> rows.StoredBundle:
    """The last one if it is still true, or else a new one. Raises ``Conflict``: more than clients take."""
    signing = rows.ensure_signing_key(tx, fleet.keyring, fleet.now())
    now_in_it = document(device, grants_of(fleet, tx, device), offer(fleet), fleet.now())
    content = {key: value for key, value in now_in_it.items() if key not in ("revision", "issued_at")}
    made_of = hashlib.sha256(recipient + signing.public_key + compact(content).encode()).hexdigest()
    last = rows.latest_bundle(tx, device.id)
    if last is not None and last.input_hash == made_of and last.revision >= device.profile_revision:
        return last
    revision = max(device.profile_revision, 1 if last is None else last.revision + 1)
    plain = compact(now_in_it | {"revision": revision}).encode()
    if len(plain) > MAX_DOCUMENT_BYTES:
        raise Conflict(
            f"device {device.id}: what it is given is {len(plain)} bytes, more than clients take ({MAX_DOCUMENT_BYTES})",
            remedy="Give it profiles of the nodes that it needs: cox profiles create",
        )
    text = seal(plain, recipient, signing.seed).to_text()
    bundle = rows.StoredBundle(device.id, revision, recipient, made_of, signing.public_key, text)
    if revision != device.profile_revision:
        rows.set_profile_revision(tx, device.id, revision)
    rows.insert_bundle(tx, bundle, fleet.now())
    return bundle


def sealed_bundle(fleet: FleetState, tx: Tx, device: Device) -> tuple[rows.StoredBundle, bytes]:
    """The same for whatever key the device has, and the account's private key if it is that account's, wrapped.

    Raises ``NotFound``: there is no key to seal to.
    """
    record = identity_rows.identity_of(tx, device.id)
    if record is not None and record.encryption_key:
        return current_bundle(fleet, tx, device, record.encryption_key), b""
    account = identity_rows.account_key(tx, device.user_id)
    if account is None:
        raise NotFound(
            f"device {device.id} has not enrolled, so that there is no key to seal its profile to",
            remedy=f"Invite it: cox enroll {device.user_id} --device {device.id}",
        )
    return current_bundle(fleet, tx, device, account.public_key), account.wrapped_private_key


def check_usable(device_status: str, user_status: str) -> None:
    """Raises ``Refused``."""
    if user_status != UserStatus.ACTIVE:
        raise Refused(f"this account is {user_status}")
    if device_status != DeviceStatus.ACTIVE:
        raise Refused(f"this device is {device_status}")


def _fetch(fleet: FleetState, message: m.FetchBundle) -> m.Bundle:
    """No audit record: it changes nothing that an operator decides, and a device may do it as often as it likes."""
    with fleet.changing(Durability.BATCHED) as tx:
        device = known_device(tx, message.device_id)
        record = identity_rows.identity_of(tx, device.id)
        if record is None:
            raise Refused("this device has to enrol again")
        check_usable(record.device_status, record.user_status)
        bundle, wrapped = sealed_bundle(fleet, tx, device)
        identity_rows.note_sync(tx, device.id, bundle.revision, message.relay, fleet.now())
    return m.Bundle(bundle.ciphertext, bundle.revision, bundle.signer, wrapped)


def _identity(fleet: FleetState, message: m.GetIdentity) -> m.DeviceRecord | None:
    with fleet.store.read() as tx:
        return identity_rows.identity_of(tx, message.device_id)


CHANGES: dict[type, Handler] = {m.FetchBundle: _fetch}
QUESTIONS: dict[type, Handler] = {m.GetIdentity: _identity}
