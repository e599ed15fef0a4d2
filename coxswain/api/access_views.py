"""Who operates the fleet, to JSON: admins, their logins, tokens. No secret passes here."""

from __future__ import annotations

from typing import Any

from coxswain.api.views import stamp
from coxswain.api.who import Who
from coxswain.messages.access import Admin, Login, Token

__all__ = ["admin", "login", "me", "token", "user"]


def user(a: Admin) -> dict[str, Any]:
    """management-plane.md 3.3, User."""
    return {
        "id": a.id,
        "name": a.name,
        "email": a.email,
        "phone": a.phone,
        "role": "admin",
        "status": a.status,
        "version": a.version,
    }


def admin(a: Admin) -> dict[str, Any]:
    return user(a) | {
        "totp": a.totp,
        "built_in": a.built_in,
        "can_log_in": a.can_log_in,
        "created_at": stamp(a.created_at),
    }


def me(who: Who, account: Admin | None) -> dict[str, Any]:
    """A User that is empty where the caller has no account (management-plane.md 3.2), and what its credential is."""
    empty = {"id": "", "name": "", "email": "", "phone": "", "role": "", "status": "", "version": 0}
    return (empty if account is None else user(account)) | {
        "kind": who.kind,
        "actor": who.caller.actor,
        "scope": who.scope.word,
        "credential_id": who.id,
        "expires_at": stamp(who.expires_at),
        "totp": account is not None and account.totp,
    }


def login(x: Login, current: str) -> dict[str, Any]:
    """A login session; ``current``: the id of the one that asks."""
    return {
        "id": x.id,
        "user_id": x.user_id,
        "user": x.user,
        "source_ip": x.source_ip,
        "user_agent": x.user_agent,
        "created_at": stamp(x.created_at),
        "seen_at": stamp(x.seen_at),
        "expires_at": stamp(x.expires_at),
        "current": x.id == current,
    }


def token(t: Token) -> dict[str, Any]:
    """management-plane.md 3.3, Token: what is unknown or never is left out."""
    maybe = {
        "created_by": t.created_by,
        "expires_at": stamp(t.expires_at),
        "last_used_at": stamp(t.last_used_at),
        "revoked_at": stamp(t.revoked_at),
    }
    found: dict[str, Any] = {
        "id": t.id,
        "name": t.name,
        "scope": t.scope,
        "prefix": t.prefix,
        "created_at": stamp(t.created_at),
        "version": t.version,
    }
    return found | {key: value for key, value in maybe.items() if value}
