"""Invitations: made, listed, revoked, forgotten."""

from __future__ import annotations

from actors.accounts.state import AccountsState
from coxswain.accounts.invites import (
    LONGEST_TTL_S,
    SHORTEST_TTL_S,
    JoinLink,
    check_relay,
    hash_token,
    new_token,
)
from coxswain.audit import record
from coxswain.errors import Conflict, InvalidInput, NotFound
from coxswain.ids import new_id
from coxswain.messages import enrolment as m
from coxswain.messages.audit import Committed
from coxswain.messages.hub import Publish
from coxswain.model import DeviceStatus, User, UserStatus
from coxswain.store import Durability, Tx
from coxswain.store import accounts as account_rows
from coxswain.store import tickets as rows

__all__ = ["invitable", "issue", "list_", "public_relay", "revoke"]


def issue(state: AccountsState, message: m.IssueInvite) -> Committed[m.Invite]:
    ttl = message.ttl_s or int(state.settings["accounts.invite_ttl_seconds"])
    if not SHORTEST_TTL_S <= ttl <= LONGEST_TTL_S:
        raise InvalidInput(f"ttl_seconds: {ttl} is not from {SHORTEST_TTL_S} to {LONGEST_TTL_S}")
    root = state.root_fingerprint()
    token, now = new_token(), state.now()
    with state.store.write(Durability.ACKNOWLEDGED) as tx:
        user = invitable(tx, message.user)
        relay = public_relay(state, message.relay)
        if message.device_id:
            _check_device(tx, user, message.device_id)
        ticket = m.Ticket(new_id("tkt"), user.id, message.device_id, now, now + ttl, relay=message.relay)
        rows.insert_ticket(tx, ticket, hash_token(token))
        detail = {"user_id": user.id, "ttl_seconds": ttl, "relay": relay}
        detail |= {"device_id": message.device_id} if message.device_id else {}
        outbox_id = record(tx, message.caller, "enroll.invite", ("ticket", ticket.id), detail, now=now)
    _told(state, user.id, "enroll.invite")
    return Committed(m.Invite(ticket, JoinLink(root, relay, token).url()), outbox_id)


def list_(state: AccountsState, message: m.ListInvites) -> list[m.Ticket]:
    with state.store.read() as tx:
        user = _known_user(tx, message.user)
        return rows.list_tickets(tx, user.id, after=message.after, limit=message.limit)


def revoke(state: AccountsState, message: m.RevokeInvite) -> Committed[m.Ticket]:
    with state.store.write(Durability.ACKNOWLEDGED) as tx:
        if rows.get_ticket(tx, message.id) is None:
            raise NotFound(
                f"invite: there is no invite with the id {message.id[:80]!r}", remedy="See: cox invites list USER"
            )
        if not rows.revoke_ticket(tx, message.id, state.now()):
            raise Conflict(f"invite {message.id} is revoked already")
        ticket = rows.get_ticket(tx, message.id)
        assert ticket is not None  # noqa: S101 - the same transaction
        detail = {"user_id": ticket.user_id, "used": ticket.used_at is not None}
        outbox_id = record(tx, message.caller, "enroll.revoke", ("ticket", ticket.id), detail, now=state.now())
    _told(state, ticket.user_id, "enroll.revoke")
    return Committed(ticket, outbox_id)


def public_relay(state: AccountsState, given: str) -> str:
    """Where clients find a relay. Raises ``Conflict`` where nobody has said."""
    if given:
        return check_relay(given)
    configured = str(state.settings["relay.public_endpoint"])
    if not configured:
        raise Conflict(
            "relay.public_endpoint is not set, so that a link would lead nowhere",
            remedy="Set relay.public_endpoint to the host:port where clients reach your relay, and restart the daemon; or "
            "give --relay HOST:PORT.",
        )
    return configured


def invitable(tx: Tx, key: str) -> User:
    """A user who may have devices. Raises ``NotFound``, ``Conflict``."""
    user = _known_user(tx, key)
    if user.role != "user":
        raise Conflict(f"user {user.id} is an admin, not a user of the VPN", remedy="Invite a user: cox users list")
    if user.status != UserStatus.ACTIVE:
        raise Conflict(f"user {user.name} is {user.status}", remedy=f"Bring the user back first: cox users resume {user.id}")
    return user


def _known_user(tx: Tx, key: str) -> User:
    user = account_rows.find_user(tx, key)
    if user is None:
        raise NotFound(f"user: there is no user with the id or e-mail {key[:80]!r}", remedy="See: cox users list")
    return user


def _check_device(tx: Tx, user: User, device_id: str) -> None:
    device = account_rows.get_device(tx, device_id)
    if device is None or device.user_id != user.id:
        raise NotFound(f"device_id: {user.name} has no device {device_id[:80]!r}", remedy="See: cox devices list")
    if device.status != DeviceStatus.ACTIVE:
        revoked = device.status == DeviceStatus.REVOKED
        remedy = "Invite a new device in its place." if revoked else f"Bring it back first: cox devices resume {device.id}"
        raise Conflict(f"device {device.id} is {device.status}{', for good' if revoked else ''}", remedy=remedy)


def _told(state: AccountsState, user_id: str, action: str) -> None:
    state.outbox_grew()
    state.context.tell("event_hub", Publish("user.changed", state.now(), {"user_id": user_id, "action": action}))
