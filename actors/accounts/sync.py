"""The four calls of AccountSync (accounts-profiles.md 2, 5.4), on the actor's thread."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from typing import Any

from actors.accounts.server import SyncCall
from actors.accounts.state import AccountsState
from coxswain.access.passwords import check_hash
from coxswain.accounts.invites import hash_token, host_of_relay
from coxswain.accounts.requests import MAX_TOKEN, ClaimRequest, check_claim, check_keys, is_fingerprint
from coxswain.audit import record
from coxswain.errors import (
    AlreadyExists,
    Conflict,
    CoxswainError,
    InvalidInput,
    NotFound,
    Refused,
    StoreUnavailable,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from coxswain.messages import enrolment as m
from coxswain.messages.audit import AwaitAudited, Caller, Committed
from coxswain.messages.ca import IssuedDeviceCertificate, IssueDeviceCertificate
from coxswain.model import UserStatus
from coxswain.pki import read_csr
from coxswain.store import Durability, Tx
from coxswain.store import accounts as account_rows
from coxswain.store import identities as rows
from coxswain.store import tickets as ticket_rows
from coxswain.store.api import UniqueViolation
from coxswain.wire.pharos.account.v1 import account_pb2 as pb

__all__ = ["answer"]

NO_SUCH_TICKET = "this invitation is unknown, used, revoked or expired; ask for a new one"
"""One text for all of them (accounts-profiles.md 5.2)."""

_NOT_LET_IN = "this device is not known here, or not any more; it has to be invited again"
_WRONG = "wrong e-mail address or password"
_SESSION_S = 600.0
"""Each sync begins one of its own (accounts-profiles.md 10.2, 18)."""

_TOKEN_BYTES = 32
_SIGN_S, _FLEET_S, _AUDIT_S = 3.0, 6.0, 4.0


def answer(state: AccountsState, call: SyncCall) -> Any:
    """The response. Raises ``CoxswainError``; ``coxswain.accounts.requests.status_of`` makes a status of it."""
    with state.store.read() as tx:
        relay = rows.relay_name(tx, call.relay)
    if relay is None:
        raise Unauthenticated("this relay was removed, or its certificate is not known here (see: cox doctor)")
    return _CALLS[call.method](state, dataclasses.replace(call, relay=relay))


def _authenticate(state: AccountsState, call: SyncCall) -> pb.AuthenticateResponse:
    request: pb.AuthenticateRequest = call.request
    if request.email:
        user_id, device_id = _by_password(state, call), ""
        with state.store.read() as tx:
            device = rows.find_by_fingerprint(tx, call.fingerprint) if call.fingerprint else None
        if device is not None and device.user_id == user_id:
            device_id = device.device_id
    else:
        state.authentications.take(call.fingerprint or f"relay {call.relay}", state.context.clock.monotonic())
        with state.store.read() as tx:
            device = _device(tx, call.fingerprint)
        _check(device)
        user_id, device_id = device.user_id, device.device_id
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    with state.store.write(Durability.BATCHED) as tx:
        rows.insert_session(tx, token, user_id, device_id, now=state.now(), ttl_s=_SESSION_S)
        enrolled = rows.account_key(tx, user_id) is not None
    return pb.AuthenticateResponse(session_token=token, user_id=user_id, keys_enrolled=enrolled)


def _by_password(state: AccountsState, call: SyncCall) -> str:
    """The id of the user. One answer for all that can be wrong, after the same time. Raises ``Unauthenticated``."""
    request: pb.AuthenticateRequest = call.request
    if not state.settings["accounts.legacy_login"]:
        raise Unauthenticated("this controller lets devices in by their certificate alone")
    now, email = state.context.clock.monotonic(), request.email.strip().lower()[:320]
    state.passwords.take("everybody", now)
    state.passwords_of_one.take(email, now)
    with state.store.read() as tx:
        user = account_rows.find_user(tx, email) if email.isprintable() else None
        user = user if user is not None and user.email == email and user.role == "user" else None
        stored = rows.password_hash_of(tx, user.id) if user is not None else ""
    right = check_hash(request.password[:1_000], stored)
    if user is None or not right or user.status != UserStatus.ACTIVE:
        who = user.id if user is not None else "account"
        _note_refusal(state, call, "account.login_failed", who=who, target=("user", user.id if user else ""), error=_WRONG)
        raise Unauthenticated(_WRONG)
    state.passwords.give_back("everybody", now)
    state.passwords_of_one.give_back(email, now)
    return user.id


def _enroll_keys(state: AccountsState, call: SyncCall) -> pb.EnrollKeysResponse:
    """A key that is there is never overwritten: bundles would be sealed to a key that a stranger may have put there."""
    user_id, _ = _caller(state, call)
    if not (call.request.public_key and call.request.wrapped_private_key):
        raise InvalidInput("public_key, wrapped_private_key: are needed")
    if not state.settings["accounts.legacy_login"]:
        raise Refused("this controller seals profiles to the keys of devices; invite the device again")
    public, wrapped = check_keys(call.request.public_key, call.request.wrapped_private_key)
    try:
        with state.store.write(Durability.ACKNOWLEDGED) as tx:
            user = account_rows.get_user(tx, user_id)
            if user is None or user.status != UserStatus.ACTIVE:
                raise Refused("this account is not active")
            rows.insert_account_key(tx, user_id, m.AccountKey(public, wrapped), state.now())
            record(tx, Caller(user_id, "token"), "user.keys", ("user", user_id), {"relay": call.relay}, now=state.now())
    except UniqueViolation:
        raise AlreadyExists("this account has a key already; it is not overwritten") from None
    state.outbox_grew()
    return pb.EnrollKeysResponse()


def _get_profile(state: AccountsState, call: SyncCall) -> pb.GetProfileResponse:
    user_id, device_id = _caller(state, call)
    if not device_id:
        raise NotFound("there is no profile for an account without a device")
    state.fetches.take(device_id, state.context.clock.monotonic())
    bundle: m.Bundle = state.context.ask("fleet", m.FetchBundle(device_id, call.relay), deadline=_FLEET_S)
    who = (device_id, user_id, bundle.revision, call.relay)
    state.context.log.info("device %s of %s fetched revision %d through relay %s", *who)
    return pb.GetProfileResponse(
        ciphertext=bundle.ciphertext.encode(),
        revision=bundle.revision,
        signing_public_key=bundle.signer,
        wrapped_private_key=bundle.wrapped_private_key,
    )


# -- the claim


def _claim(state: AccountsState, call: SyncCall) -> pb.ClaimEnrollmentResponse:
    """Whoever holds the token becomes a device; fingerprint and session, if any, do not count."""
    now = state.context.clock.monotonic()
    ticket: m.Ticket | None
    try:
        state.claims.take(call.relay, now)
        state.all_claims.take("everybody", now)
    except Throttled:
        ticket = _good_ticket(state, call.request.token)
        if ticket is None:
            raise
        state.claims_of_one.take(ticket.id, now)
    ticket = None
    try:
        asked = _readable(call.request)
        with state.store.read() as tx:
            ticket = ticket_rows.find_ticket(tx, hash_token(asked.token))
        if ticket is None:
            raise Unauthenticated(NO_SUCH_TICKET)
        made = _redeem(state, call, asked, ticket)
    except CoxswainError as error:
        if not isinstance(error, Unavailable):
            who, ticket_id = (ticket.user_id, ticket.id) if ticket is not None else ("enrollment-ticket", "")
            _note_refusal(state, call, "enroll.claim", who=who, target=("ticket", ticket_id), error=str(error))
        raise
    state.claims.give_back(call.relay, now)
    state.all_claims.give_back("everybody", now)
    return made


def _good_ticket(state: AccountsState, token: str) -> m.Ticket | None:
    """Where too much is tried, for a hash and a look into an index: who has one that is good did not guess its 256 bits."""
    with state.store.read() as tx:
        ticket = ticket_rows.find_ticket(tx, hash_token(token[:MAX_TOKEN].strip()))
    if ticket is None or ticket.used_at is not None or ticket.revoked_at is not None or ticket.expires_at <= state.now():
        return None
    return ticket


def _readable(request: pb.ClaimEnrollmentRequest) -> ClaimRequest:
    asked = check_claim(request.token, request.csr_pem, request.device_name, request.platform, request.encryption_pubkey)
    read_csr(asked.csr_pem)
    return asked


def _redeem(state: AccountsState, call: SyncCall, asked: ClaimRequest, ticket: m.Ticket) -> pb.ClaimEnrollmentResponse:
    relay = ticket.relay or str(state.settings["relay.public_endpoint"])
    if not relay:
        raise Conflict("this controller has no relay to name")
    if ticket.revoked_at is not None or ticket.expires_at <= state.now():
        raise Unauthenticated(NO_SUCH_TICKET)  # before anything is signed; it is looked at again when it is used up
    days = int(state.settings["accounts.device_cert_days"])
    wanted = IssueDeviceCertificate(asked.csr_pem, asked.name, days)
    leaf: IssuedDeviceCertificate = state.context.ask("certificate_authority", wanted, deadline=_SIGN_S)
    identity = m.NewIdentity(leaf.fingerprint, leaf.serial, leaf.not_after, asked.encryption_key)
    message = m.ClaimDevice(hash_token(asked.token), asked.name, asked.platform, identity, call.relay)
    done: Committed[m.Claimed] = state.context.ask("fleet", message, deadline=_FLEET_S)
    state.context.ask("audit_writer", AwaitAudited(done.outbox_id), deadline=_AUDIT_S)
    who = (done.value.device_id, done.value.user_id, call.relay)
    state.context.log.info("%s is enrolled, for user %s, through relay %s", *who)
    return pb.ClaimEnrollmentResponse(
        device_cert_pem=leaf.pem,
        fleet_ca_pem=leaf.fleet_ca_pem,
        relay_addr=relay,
        relay_server_name=host_of_relay(relay),
        ca_fingerprint=leaf.root_fingerprint,
        signing_public_key=done.value.signer,
    )


def _note_refusal(
    state: AccountsState, call: SyncCall, action: str, *, who: str, target: tuple[str, str], error: str
) -> None:
    """So many are recorded; a flood of them is only counted, so that strangers cannot fill the audit log."""
    try:
        state.refusals.take("everybody", state.context.clock.monotonic())
    except Unavailable:
        state.not_recorded += 1
        return
    detail: dict[str, Any] = {"relay": call.relay}
    if state.not_recorded:
        detail["not_recorded_before"] = state.not_recorded
    try:
        with state.store.write(Durability.BATCHED) as tx:
            record(tx, Caller(who, "token"), action, target, detail, now=state.now(), error=error[:200])
    except StoreUnavailable as failure:
        state.not_recorded += 1
        state.context.log.warning("a refusal (%s) is in no audit record: %s", action, failure)
        return
    state.not_recorded = 0
    state.outbox_grew()


# -- who calls


def _caller(state: AccountsState, call: SyncCall) -> tuple[str, str]:
    """``(user id, device id or empty)``. A fingerprint counts before a session; one that is not known does not fall back to
    the session, because it is a certificate that was replaced. Raises ``Unauthenticated``, ``Refused``.
    """
    with state.store.read() as tx:
        if call.fingerprint:
            device = _device(tx, call.fingerprint)
            _check(device)
            return device.user_id, device.device_id
        found = rows.session_of(tx, call.session, state.now()) if call.session else None
    if found is None:
        raise Unauthenticated("a device certificate, or a session, is needed")
    return found


def _device(tx: Tx, fingerprint: str) -> m.DeviceRecord:
    found = rows.find_by_fingerprint(tx, fingerprint) if is_fingerprint(fingerprint) else None
    if found is None:
        raise Unauthenticated(_NOT_LET_IN)
    return found


def _check(device: m.DeviceRecord) -> None:
    if device.user_status != UserStatus.ACTIVE:
        raise Refused(f"this account is {device.user_status}")
    if device.device_status != "active":
        raise Refused(f"this device is {device.device_status}")


_CALLS: dict[str, Callable[[AccountsState, SyncCall], Any]] = {
    "Authenticate": _authenticate,
    "EnrollKeys": _enroll_keys,
    "GetProfile": _get_profile,
    "ClaimEnrollment": _claim,
}
