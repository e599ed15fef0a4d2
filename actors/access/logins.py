"""Logging in and out. The password itself is compared by the door, on a thread of its own; this decides what follows."""

from __future__ import annotations

from actors.access import factors
from actors.access.state import AccessState, Handler
from coxswain.access.secrets import new_cookie
from coxswain.audit import record
from coxswain.errors import CoxswainError, NotFound, Throttled, Unauthenticated
from coxswain.ids import new_id
from coxswain.messages import access as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.store import access as rows

__all__ = ["ANONYMOUS", "HANDLERS"]

ANONYMOUS = "<anonymous>"
"""Who a failed login was by (management-plane.md 9.1)."""

_MOST_SESSIONS = 50
"""Of one account; the oldest makes room."""

_USERNAME_BYTES = 256
"""Of what was typed as a name, in the audit log (management-plane.md 9.1)."""


def _begin(access: AccessState, message: m.BeginLogin) -> m.LoginChallenge:
    now = access.now()
    key = message.username.casefold()
    wait = max(access.by_address.wait(message.address, now), access.by_account.wait(key, now))
    if wait > 0:
        raise Throttled("too many failed logins", retry_after=wait, remedy="Wait, or use: cox admins password")
    # Until it is known to have succeeded, it has failed; so a hundred at once are not a hundred guesses for free.
    access.by_address.attempt(message.address, now)
    access.by_account.attempt(key, now)
    account = access.named(message.username)
    if account is None or not access.can_log_in(account):
        return m.LoginChallenge(message.username, "", "")
    return m.LoginChallenge(message.username, account.id, account.password_hash)


def _finish(access: AccessState, message: m.FinishLogin) -> Committed[m.LoggedIn]:
    now = access.now()
    account = access.accounts.get(message.challenge.user_id)
    why = ""
    if account is None or account.password_hash != message.challenge.password_hash:
        why = "there is no such account"
    elif not message.password_ok:
        why = "the password is wrong"
    if account is None or why:
        raise _failed(access, message, why)
    login = new_cookie()
    row = rows.LoginRow(
        new_id("ses"), account.id, login.digest, message.address, message.user_agent[:200], now, now,
        now + access.rules.session_s,
    )  # fmt: skip
    surplus = sorted((x for x in access.logins.values() if x.user_id == account.id), key=lambda x: x.created_at)
    surplus = surplus[: max(0, len(surplus) - _MOST_SESSIONS + 1)]
    wait = access.by_factor.wait(account.id, now)
    if wait > 0:
        raise Throttled("too many wrong codes", retry_after=wait)
    second: dict[str, str] = {}
    with access.changing() as tx:
        outcome = factors.check(access, tx, account.id, message.code)
        if outcome.ok:
            second = {"second_factor": outcome.how} if outcome.how else {}
            rows.insert_login(tx, row)
            rows.delete_logins(tx, (x.id for x in surplus))
            caller = Caller(account.email or account.name, "session", message.address)
            if outcome.recovery:  # in a record of its own, which a restore goes by: it must not be good again
                record(tx, caller, "auth.recovery_code", ("user", account.id), {"code": outcome.recovery}, now=now)
            outbox_id = record(tx, caller, "auth.login", ("user", account.id), second | {"session": row.id}, now=now)
    if not outcome.ok:
        if message.code:
            access.by_factor.attempt(account.id, now)
        raise _failed(access, message, outcome.how, wants_code=not message.code)
    factors.used(access, account.id, outcome)
    access.by_factor.succeeded(account.id)
    access.by_address.succeeded(message.address)
    access.by_account.succeeded(message.challenge.username.casefold())
    for x in surplus:
        access.logins.pop(x.digest, None)
    access.logins[row.digest] = row
    found = m.LoggedIn(access.view(account), row.id, login.secret, access.rules.session_s)
    return access.committed(found, outbox_id)


def _failed(access: AccessState, message: m.FinishLogin, why: str, *, wants_code: bool = False) -> CoxswainError:
    """Recorded with the inner reason; told without it, but that a code is wanted after a right password is no secret."""
    target = ("user", message.challenge.user_id)
    name = message.challenge.username.encode("utf-8", "replace")[:_USERNAME_BYTES].decode("utf-8", "ignore")
    error = (
        Unauthenticated("a code of the second factor is needed", remedy="Give it as `code`.")
        if wants_code
        else Unauthenticated("the name, the password or the code is wrong")
    )
    error.audited = 0
    if access.refusals.note(message.address, "401 auth.login_failed", access.now()):
        with access.changing() as tx:
            caller = Caller(ANONYMOUS, "session", message.address)
            detail = {"username": name}
            error.audited = record(tx, caller, "auth.login_failed", target, detail, now=access.now(), error=why)
        access.context.tell("audit_writer", OutboxGrew())
    return error


def _password_checked(access: AccessState, message: m.PasswordChecked) -> None:
    if not message.password_ok:
        raise Unauthenticated("your password is wrong")
    access.by_address.succeeded(message.address)
    access.by_account.succeeded(message.challenge.username.casefold())


def _logout(access: AccessState, message: m.Logout) -> Committed[None]:
    return _end(access, message.caller, message.session_id, "auth.logout", ("user", ""))


def _revoke(access: AccessState, message: m.RevokeLogin) -> Committed[None]:
    return _end(access, message.caller, message.session_id, "auth.session_revoke", ("session", message.session_id))


def _end(access: AccessState, caller: Caller, session_id: str, action: str, target: tuple[str, str]) -> Committed[None]:
    login = next((x for x in access.logins.values() if x.id == session_id), None)
    if login is None:
        raise NotFound(f"session: there is no login session {session_id[:80]!r}", remedy="See: GET /api/auth/sessions")
    kind, target_id = target
    with access.changing() as tx:
        rows.delete_logins(tx, [login.id])
        detail = {"session": login.id, "user_id": login.user_id}
        outbox_id = record(tx, caller, action, (kind, target_id or login.user_id), detail, now=access.now())
    access.logins.pop(login.digest, None)
    return access.committed(None, outbox_id)


def _list(access: AccessState, message: m.ListLogins) -> list[m.Login]:
    now = access.now()
    good = [
        login
        for login in access.logins.values()
        if message.user_id in ("", login.user_id)
        and now <= login.expires_at
        and now - login.seen_at <= access.rules.idle_s
        and login.user_id in access.accounts
    ]
    good.sort(key=lambda login: (login.created_at, login.id), reverse=True)
    if message.after:
        places = [i for i, login in enumerate(good) if login.id == message.after]
        if not places:
            raise NotFound(f"after: the session {message.after[:80]!r} has ended", remedy="Start from the first page.")
        good = good[places[0] + 1 :]
    return [
        m.Login(
            x.id, x.user_id, access.accounts[x.user_id].email, x.source_ip, x.user_agent, x.created_at, x.seen_at,
            x.expires_at,
        )
        for x in good[: message.limit]
    ]  # fmt: skip


HANDLERS: dict[type, Handler] = {
    m.BeginLogin: _begin,
    m.FinishLogin: _finish,
    m.PasswordChecked: _password_checked,
    m.Logout: _logout,
    m.RevokeLogin: _revoke,
    m.ListLogins: _list,
}
