"""Second factors: one-time codes and recovery codes. Secrets are sealed with the keyring, and bound to their account."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from actors.access.state import AccessState, Handler
from coxswain.access import totp
from coxswain.audit import record
from coxswain.errors import Conflict, InvalidInput, NotFound
from coxswain.messages import access as m
from coxswain.messages.audit import Committed
from coxswain.store import Tx
from coxswain.store import access as rows

__all__ = ["HANDLERS", "Outcome", "check", "used"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a look at a code. ``how``: by what it passed (empty: none was needed), or why not. ``step``: to be used up.
    ``recovery``: which recovery code was, as the audit log calls it.
    """

    ok: bool
    how: str = ""
    step: int = 0
    recovery: str = ""


def check(access: AccessState, tx: Tx, user_id: str, code: str) -> Outcome:
    """In the transaction of a login: a code that passes is used up with it."""
    factor = access.factors.get(user_id)
    if factor is None or not factor.confirmed:
        return Outcome(ok=True)
    if not code:
        return Outcome(ok=False, how="no code was given")
    secret = access.keyring.open(factor.sealed, _label(user_id))
    step = totp.matching_step(secret, code, access.now(), last_step=factor.last_step)
    if step is not None:
        rows.use_code(tx, user_id, step)
        return Outcome(ok=True, how="totp", step=step)
    digest = totp.recovery_digest(code)
    if rows.use_recovery_code(tx, user_id, digest):
        return Outcome(ok=True, how="recovery code", recovery=totp.recovery_id(digest))
    return Outcome(ok=False, how="the code is wrong")


def used(access: AccessState, user_id: str, outcome: Outcome) -> None:
    """In memory, after the commit."""
    factor = access.factors.get(user_id)
    if factor is not None and outcome.step:
        access.factors[user_id] = dataclasses.replace(factor, last_step=outcome.step)


def _begin(access: AccessState, message: m.BeginSecondFactor) -> Committed[m.SecondFactor]:
    account = access.checked(message.user_id, message.version)
    present = access.factors.get(account.id)
    if present is not None and present.confirmed:
        raise Conflict(f"admin {account.email}: has a second factor already", remedy="Remove it first.")
    secret = totp.new_secret()
    factor = rows.FactorRow(account.id, access.keyring.seal(secret, _label(account.id)), created_at=access.now())
    with access.changing() as tx:
        rows.put_factor(tx, factor)
        target = ("user", account.id)
        outbox_id = record(tx, message.caller, "admin.totp_begin", target, {"email": account.email}, now=access.now())
    access.factors[account.id] = factor
    found = m.SecondFactor(totp.shown_secret(secret), totp.otpauth_url(secret, account.email))
    return access.committed(found, outbox_id)


def _confirm(access: AccessState, message: m.ConfirmSecondFactor) -> Committed[tuple[str, ...]]:
    account = access.checked(message.user_id, message.version)
    factor = access.factors.get(account.id)
    if factor is None or factor.confirmed:
        raise Conflict(f"admin {account.email}: has no second factor that waits to be confirmed", remedy="Begin one first.")
    secret = access.keyring.open(factor.sealed, _label(account.id))
    step = totp.matching_step(secret, message.code, access.now(), last_step=factor.last_step)
    if step is None:
        raise InvalidInput("code: this is not the code that the authenticator shows now; it takes six digits")
    codes = totp.new_recovery_codes()
    factor = dataclasses.replace(factor, confirmed=True, last_step=step)
    with access.changing() as tx:
        rows.put_factor(tx, factor)
        rows.set_recovery_codes(tx, account.id, map(totp.recovery_digest, codes))
        after = _touched(access, tx, account)
        target = ("user", account.id)
        outbox_id = record(tx, message.caller, "admin.totp_enable", target, {"email": account.email}, now=access.now())
    access.factors[account.id] = factor
    access.accounts[account.id] = after
    return access.committed(codes, outbox_id)


def _remove(access: AccessState, message: m.RemoveSecondFactor) -> Committed[None]:
    account = access.checked(message.user_id, message.version)
    if account.id not in access.factors:
        raise NotFound(f"admin {account.email}: has no second factor")
    with access.changing() as tx:
        rows.delete_factor(tx, account.id)
        after = _touched(access, tx, account)
        target = ("user", account.id)
        outbox_id = record(tx, message.caller, "admin.totp_remove", target, {"email": account.email}, now=access.now())
    access.factors.pop(account.id, None)
    access.accounts[account.id] = after
    return access.committed(None, outbox_id)


def _touched(access: AccessState, tx: Tx, account: rows.Account) -> rows.Account:
    """The account as it is now: whether it has a second factor is part of it, so its version grows."""
    after = dataclasses.replace(account, version=account.version + 1)
    rows.update_account(tx, after, now=access.now())
    return after


def _label(user_id: str) -> str:
    return f"totp:{user_id}"


HANDLERS: dict[type, Handler] = {
    m.BeginSecondFactor: _begin,
    m.ConfirmSecondFactor: _confirm,
    m.RemoveSecondFactor: _remove,
}
