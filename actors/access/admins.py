"""Accounts that may log in. There is always one that can, and the built-in one cannot be removed."""

from __future__ import annotations

import dataclasses
import re

from actors.access.state import AccessState, Handler
from coxswain.access.passwords import check_hash, hash_password, is_sound_hash
from coxswain.audit import record
from coxswain.errors import AlreadyExists, Conflict, InvalidInput, Refused
from coxswain.ids import new_id
from coxswain.messages import access as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.store import UniqueViolation
from coxswain.store import access as rows

__all__ = ["HANDLERS", "ensure_built_in"]

_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,190}|[A-Za-z0-9._-]{1,64}")
"""An e-mail address, or a plain name: it is what people type to log in, and nothing is sent there."""

_SYSTEM = Caller("configuration", "system")


def ensure_built_in(access: AccessState) -> None:
    """The built-in account is there, and has the password that the configuration says, if it says one."""
    now, rules = access.now(), access.rules
    present = access.accounts.get(rows.BUILT_IN)
    stored = present.password_hash if present else ""
    wanted = stored
    if rules.password_hash:
        wanted = rules.password_hash
    elif rules.password and not check_hash(rules.password, stored):
        wanted = hash_password(rules.password)
    if present is None:
        account = rows.Account(rows.BUILT_IN, "admin", "admin", password_hash=wanted, created_at=now)
        with access.changing() as tx:
            rows.insert_account(tx, account)
            record(tx, _SYSTEM, "admin.add", ("user", account.id), {"email": account.email}, now=now)
    elif wanted != stored or present.status != "active":
        account = dataclasses.replace(present, password_hash=wanted, status="active", version=present.version + 1)
        with access.changing() as tx:
            rows.update_account(tx, account, now=now)
            rows.end_logins_of(tx, account.id)
            record(tx, _SYSTEM, "admin.password", ("user", account.id), {"email": account.email}, now=now)
        access.forget_logins_of(account.id)
    else:
        return
    access.context.tell("audit_writer", OutboxGrew())
    access.accounts[account.id] = account


def _add(access: AccessState, message: m.AddAdmin) -> Committed[m.Admin]:
    email = _checked_email(access, message.email)
    account = rows.Account(
        new_id("usr"), message.name or email, email, password_hash=_checked_hash(message.password_hash),
        created_at=access.now(),
    )  # fmt: skip
    with access.changing() as tx:
        try:
            rows.insert_account(tx, account)
        except UniqueViolation:
            raise _taken(email) from None
        target = ("user", account.id)
        outbox_id = record(tx, message.caller, "admin.add", target, {"email": email}, now=access.now())
    access.accounts[account.id] = account
    return access.committed(access.view(account), outbox_id)


def _edit(access: AccessState, message: m.EditAdmin) -> Committed[m.Admin]:
    before = access.checked(message.id, message.version)
    after = before
    if message.email is not None and message.email != before.email:
        if before.id == rows.BUILT_IN:
            raise Refused("email: the built-in admin is always called admin", remedy="Add an admin of that name.")
        after = dataclasses.replace(after, email=_checked_email(access, message.email, but=before.id))
    if message.name is not None:
        after = dataclasses.replace(after, name=message.name)
    if message.status is not None:
        if message.status not in ("active", "disabled"):
            raise InvalidInput(f"status: {message.status[:40]!r} is not a status; active or disabled")
        if message.status == "disabled":
            _may_go(access, before, message.by_user, "disabled")
        after = dataclasses.replace(after, status=message.status)
    after = dataclasses.replace(after, version=before.version + 1)
    fields = ("name", "email", "status")
    changed = [name for name in fields if getattr(before, name) != getattr(after, name)]
    with access.changing() as tx:
        try:
            rows.update_account(tx, after, now=access.now())
        except UniqueViolation:
            raise _taken(after.email) from None
        if after.status != "active":
            rows.end_logins_of(tx, after.id)
        detail = {"email": after.email, "changed": changed, "status": after.status}
        outbox_id = record(tx, message.caller, "admin.update", ("user", after.id), detail, now=access.now())
    access.accounts[after.id] = after
    if after.status != "active":
        access.forget_logins_of(after.id)
    return access.committed(access.view(after), outbox_id)


def _remove(access: AccessState, message: m.RemoveAdmin) -> Committed[m.Admin]:
    account = access.checked(message.id, message.version)
    _may_go(access, account, message.by_user, "removed")
    view = access.view(account)
    with access.changing() as tx:
        rows.delete_account(tx, account.id, by=message.caller.actor, now=access.now())
        target = ("user", account.id)
        outbox_id = record(tx, message.caller, "admin.rm", target, {"email": account.email}, now=access.now())
    access.accounts.pop(account.id, None)
    access.factors.pop(account.id, None)
    access.forget_logins_of(account.id)
    return access.committed(view, outbox_id)


def _may_go(access: AccessState, account: rows.Account, by_user: str, what: str) -> None:
    """Raises ``Refused``, ``Conflict``."""
    if account.id == rows.BUILT_IN:
        raise Refused(f"admin: the built-in account cannot be {what}")
    if account.id == by_user:
        raise Conflict(f"admin {account.email}: is your own account, and cannot be {what} by you")
    others = [a for a in access.accounts.values() if a.id != account.id and access.can_log_in(a)]
    if access.can_log_in(account) and not others:
        raise Conflict(
            f"admin {account.email}: is the last one that can log in, and cannot be {what}",
            remedy="Add another admin first, or give the built-in one a password: cox admins password admin",
        )


def _change_password(access: AccessState, message: m.ChangePassword) -> Committed[m.Admin]:
    account = access.checked(message.id, message.version)
    if account.id == rows.BUILT_IN and access.rules.say_password:
        raise Conflict(
            "admin: the configuration says what the built-in account's password is",
            remedy="Change admin.password_hash there and restart, or take it (or admin.password) out to keep it here.",
        )
    if message.expected_hash is not None and message.expected_hash != account.password_hash:
        raise Conflict(f"admin {account.email}: the password was changed meanwhile")
    after = dataclasses.replace(account, password_hash=_checked_hash(message.password_hash), version=account.version + 1)
    with access.changing() as tx:
        rows.update_account(tx, after, now=access.now())
        rows.end_logins_of(tx, after.id, but=message.keep_session)
        target = ("user", after.id)
        outbox_id = record(tx, message.caller, "admin.password", target, {"email": after.email}, now=access.now())
    access.accounts[after.id] = after
    access.forget_logins_of(after.id, but=message.keep_session)
    access.by_account.succeeded(after.email.casefold())
    return access.committed(access.view(after), outbox_id)


def _checked_hash(phc: str) -> str:
    if not is_sound_hash(phc):
        raise InvalidInput("password: its hash is no Argon2id hash")
    return phc


def _checked_email(access: AccessState, email: str, *, but: str = "") -> str:
    if not _EMAIL.fullmatch(email):
        raise InvalidInput(f"email: {email[:80]!r} is neither an e-mail address nor a plain name")
    present = access.named(email)
    if present is not None and present.id != but:
        raise _taken(email)
    return email


def _taken(email: str) -> AlreadyExists:
    return AlreadyExists(f"email: {email[:80]!r} is taken; choose another")


def _list(access: AccessState, message: m.ListAdmins) -> list[m.Admin]:
    found = sorted(access.accounts.values(), key=lambda a: (a.email, a.id))
    if message.after:
        after = access.account(message.after)
        found = [a for a in found if (a.email, a.id) > (after.email, after.id)]
    return [access.view(account) for account in found[: message.limit]]


def _get(access: AccessState, message: m.GetAdmin) -> m.Admin:
    return access.view(access.account(message.key))


HANDLERS: dict[type, Handler] = {
    m.AddAdmin: _add,
    m.EditAdmin: _edit,
    m.RemoveAdmin: _remove,
    m.ChangePassword: _change_password,
    m.ListAdmins: _list,
    m.GetAdmin: _get,
}
