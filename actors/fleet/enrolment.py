"""Devices that join: with a ticket, or as a file that an operator hands out. One transaction each: ticket, device, keys,
addresses, peers, the first bundle, the audit record. Nothing is used up by a failure, and nothing is half there.
"""

from __future__ import annotations

import dataclasses

from actors.fleet.accounts import Did, change, known_device
from actors.fleet.bundles import check_usable, sealed_bundle
from actors.fleet.profiles import checked_profile
from actors.fleet.provisioning import provision
from actors.fleet.state import FleetState, Handler
from coxswain.errors import Conflict, NotFound, Refused, Unauthenticated
from coxswain.ids import new_id
from coxswain.messages import enrolment as m
from coxswain.messages.accounts import Change
from coxswain.messages.audit import Caller, Committed
from coxswain.model import Device, Profile, ProfileProtocol, User
from coxswain.provisioning.checks import check_label, check_platform
from coxswain.store import Tx
from coxswain.store import accounts as rows
from coxswain.store import bundles as bundle_rows
from coxswain.store import identities as identity_rows
from coxswain.store import profiles as profile_rows
from coxswain.store import tickets as ticket_rows

__all__ = ["CHANGES", "NO_SUCH_TICKET", "QUESTIONS"]

NO_SUCH_TICKET = "this invitation is unknown, used, revoked or expired; ask for a new one"
"""One text for all of them (accounts-profiles.md 5.2)."""


def _claim(fleet: FleetState, message: m.ClaimDevice) -> Committed[m.Claimed]:
    with fleet.store.read() as tx:
        ticket = ticket_rows.find_ticket(tx, message.token_hash)
    if ticket is None:
        raise Unauthenticated(NO_SUCH_TICKET)
    caller = Caller(ticket.user_id, "token")

    def work(tx: Tx) -> Did:
        user = rows.get_user(tx, ticket.user_id)
        if user is None or user.role != "user":
            raise Unauthenticated(NO_SUCH_TICKET)
        device, rebound = _redeem(fleet, tx, ticket, message)
        check_usable(device.status, user.status)
        detail = {"ticket_id": ticket.id, "user_id": user.id, "relay": message.relay}
        return _enrolled(fleet, tx, user, device, identity=message.identity, detail=detail, rebound=rebound)

    return _answer(change(fleet, caller, "enroll.claim", work))


def _redeem(fleet: FleetState, tx: Tx, ticket: m.Ticket, message: m.ClaimDevice) -> tuple[Device, bool]:
    """The device, and whether it was there before. Raises ``Unauthenticated``."""
    before = ticket.device_id or (ticket.used_by_device_id if ticket.used_at is not None else "")
    if before:
        device = rows.get_device(tx, before)
    else:
        device = Device(
            id=new_id("dev"),
            user_id=ticket.user_id,
            name=message.name,
            platform=message.platform,
            created_at=fleet.now(),
        )
        rows.insert_device(tx, device)
    if device is None:
        raise Unauthenticated(NO_SUCH_TICKET)
    redeemed = ticket_rows.redeem_ticket(tx, message.token_hash, device.id, fleet.now())
    if redeemed is None and before and before == ticket.used_by_device_id:
        redeemed = ticket_rows.redeem_again(tx, message.token_hash, fleet.now())
    if redeemed is None:
        raise Unauthenticated(NO_SUCH_TICKET)
    return device, bool(before)


def _issue(fleet: FleetState, message: m.IssueDevice) -> Committed[m.Claimed]:
    device = Device(
        id=new_id("dev"),
        user_id="",
        name=check_label("name", message.name),
        platform=check_platform(message.platform),
        created_at=fleet.now(),
    )

    def work(tx: Tx) -> Did:
        user = rows.find_user(tx, message.user)
        if user is None:
            what = f"user: there is no user with the id or e-mail {message.user[:80]!r}"
            raise NotFound(what, remedy="See: cox users list")
        if user.role != "user":
            raise Conflict(f"user {user.id} is an admin, not a user of the VPN", remedy="See: cox users list")
        made = Device(device.id, user.id, device.name, device.platform, created_at=device.created_at)
        try:
            check_usable(made.status, user.status)
        except Refused as error:
            raise Conflict(str(error), remedy=f"Bring the user back first: cox users resume {user.id}") from None
        rows.insert_device(tx, made)
        detail = {"user_id": user.id, "name": made.name}
        if message.path_id:
            profile_rows.insert_profile(tx, _over_path(fleet, tx, made, message.path_id))
            detail["path_id"] = message.path_id
        return _enrolled(fleet, tx, user, made, identity=message.identity, detail=detail, rebound=False)

    return _answer(change(fleet, message.caller, "device.issue", work))


def _enrolled(
    fleet: FleetState, tx: Tx, user: User, device: Device, *, identity: m.NewIdentity, detail: dict[str, str], rebound: bool
) -> Did:
    """The device is known by ``identity`` from now on. One that was there before has new keys too: whoever had the old ones
    may not be who has enrolled now.
    """
    identity_rows.put_identity(tx, device.id, identity, fleet.now())
    outcome = provision(fleet, tx, [device.id], rotate=rebound)
    outcome.check_served()
    if rebound:
        bundle_rows.delete_bundles(tx, device.id)
    device = known_device(tx, device.id)
    bundle, _ = sealed_bundle(fleet, tx, device)
    given = outcome.given[0]
    claimed = m.Claimed(
        device_id=device.id,
        user_id=user.id,
        user_name=user.name,
        tunnel_ip=given.tunnel_ip,
        tunnel_ip_v6=given.tunnel_ip_v6,
        peer_count=given.peer_count,
        profile_revision=bundle.revision,
        signer=bundle.signer,
        revisions={},
    )
    more = {"name": device.name, "serial": identity.serial, "rebound": rebound}
    return Did(("device", device.id), {**detail, **more}, claimed, (), outcome)


def _over_path(fleet: FleetState, tx: Tx, device: Device, path_id: str) -> Profile:
    profile = Profile(
        id=new_id("pspec"),
        device_id=device.id,
        name=device.name,
        protocol=ProfileProtocol.AMNEZIAWG,
        path_id=path_id,
        user_id=device.user_id,
        created_at=fleet.now(),
    )
    return checked_profile(fleet, tx, profile)


def _answer(committed: Committed[Change[m.Claimed]]) -> Committed[m.Claimed]:
    """With the nodes that have to follow."""
    claimed = dataclasses.replace(committed.value.value, revisions=committed.value.revisions)
    return Committed(claimed, committed.outbox_id)


CHANGES: dict[type, Handler] = {m.ClaimDevice: _claim, m.IssueDevice: _issue}
QUESTIONS: dict[type, Handler] = {}
