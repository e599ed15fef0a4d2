"""Whose credential is this? Asked for every request, so answered from memory; last uses are written once in a while."""

from __future__ import annotations

import dataclasses
import hmac

from actors.access.state import AccessState, Handler
from coxswain.access.secrets import SCOPES
from coxswain.errors import Refused, StoreUnavailable, Unauthenticated
from coxswain.messages import access as m
from coxswain.store import Durability
from coxswain.store import access as rows

__all__ = ["HANDLERS", "purge", "write_stamps"]

_STAMP_S = 60.0
"""A last use is noted this often, and no oftener (management-plane.md 13.4)."""


def _who_holds(access: AccessState, message: m.WhoHolds) -> m.Authenticated:
    return _session(access, message) if message.cookie else _token(access, message)


def _token(access: AccessState, message: m.WhoHolds) -> m.Authenticated:
    now = access.now()
    token = access.tokens.get(message.digest)
    if token is None or not hmac.compare_digest(token.digest, message.digest):
        raise Unauthenticated("the token is not known")
    if token.revoked_at is not None:
        raise Unauthenticated("the token was revoked")
    if token.expires_at is not None and now > token.expires_at:
        raise Unauthenticated("the token has expired")
    if message.touch and (token.last_used_at is None or not 0 <= now - token.last_used_at < _STAMP_S):
        access.tokens[message.digest] = dataclasses.replace(token, last_used_at=now)
        access.token_stamps[token.id] = now
    scope = token.scope if token.scope in SCOPES else "readonly"
    return m.Authenticated("token", token.id, token.name, scope, expires_at=token.expires_at)


def _session(access: AccessState, message: m.WhoHolds) -> m.Authenticated:
    now = access.now()
    login = access.logins.get(message.digest)
    if login is None or not hmac.compare_digest(login.digest, message.digest):
        raise Unauthenticated("the session is not known, or has ended")
    if now > login.expires_at or now - login.seen_at > access.rules.idle_s:
        raise Unauthenticated("the session has expired")
    account = access.accounts.get(login.user_id)
    if account is None:
        raise Unauthenticated("the session's account is gone")
    if account.status != "active":
        raise Refused("this account is disabled")
    if message.touch and not 0 <= now - login.seen_at < _STAMP_S:
        access.logins[message.digest] = dataclasses.replace(login, seen_at=now)
        access.login_stamps[login.id] = now
    name = account.email or account.name
    return m.Authenticated("session", login.id, name, "admin", account.id, login.expires_at)


def write_stamps(access: AccessState) -> None:
    """Last uses, in one transaction. What cannot be written now waits."""
    if not access.token_stamps and not access.login_stamps:
        return
    try:
        with access.store.write(Durability.BATCHED) as tx:
            rows.stamp_tokens(tx, access.token_stamps)
            rows.stamp_logins(tx, access.login_stamps)
    except StoreUnavailable as error:
        access.context.log.warning("last uses of credentials are not written: %s", error)
        return
    access.token_stamps.clear()
    access.login_stamps.clear()


def purge(access: AccessState) -> None:
    """Takes away sessions that have expired."""
    now = access.now()
    ended = {
        digest: login.id
        for digest, login in access.logins.items()
        if now > login.expires_at or now - login.seen_at > access.rules.idle_s
    }
    if not ended:
        return
    try:
        with access.store.write(Durability.BATCHED) as tx:
            rows.delete_logins(tx, ended.values())
    except StoreUnavailable as error:
        access.context.log.warning("expired sessions are not taken away: %s", error)
        return
    for digest in ended:
        del access.logins[digest]


HANDLERS: dict[type, Handler] = {m.WhoHolds: _who_holds}
