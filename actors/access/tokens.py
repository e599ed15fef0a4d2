"""API tokens: made, listed, revoked."""

from __future__ import annotations

import dataclasses

from actors.access.state import AccessState, Handler
from coxswain.access.secrets import new_token
from coxswain.audit import record
from coxswain.errors import InvalidInput, NotFound, StaleVersion
from coxswain.ids import new_id
from coxswain.messages import access as m
from coxswain.messages.audit import Committed
from coxswain.store import access as rows

__all__ = ["HANDLERS"]


def _create(access: AccessState, message: m.CreateToken) -> Committed[m.CreatedToken]:
    if not message.name.strip() or len(message.name) > 100:
        raise InvalidInput("name: a token needs a name of 1 to 100 characters; it is what the audit log calls its bearer")
    fresh, now = new_token(message.scope), access.now()
    token = rows.TokenRow(
        id=new_id("tok"),
        name=message.name,
        scope=message.scope,
        digest=fresh.digest,
        prefix=fresh.prefix,
        created_by=message.caller.actor,
        created_at=now,
        expires_at=None if message.lifetime_s is None else now + message.lifetime_s,
    )
    with access.changing() as tx:
        rows.insert_token(tx, token)
        detail = {"name": token.name, "scope": token.scope}
        outbox_id = record(tx, message.caller, "token.create", ("token", token.id), detail, now=now)
    access.tokens[token.digest] = token
    return access.committed(m.CreatedToken(_view(token), fresh.secret), outbox_id)


def _revoke(access: AccessState, message: m.RevokeToken) -> Committed[m.Token] | m.Token:
    token = next((t for t in access.tokens.values() if t.id == message.id), None)
    if token is None:
        raise NotFound(f"token: there is no token {message.id[:80]!r}", remedy="See: cox tokens list")
    present = _view(token).version
    if message.version is not None and message.version != present:
        raise StaleVersion.of(f"token {token.name}", message.version, present)
    if token.revoked_at is not None:
        return _view(token)
    now = access.now()
    with access.changing() as tx:
        rows.revoke_token(tx, token.id, now=now)
        detail = {"name": token.name, "scope": token.scope}
        outbox_id = record(tx, message.caller, "token.revoke", ("token", token.id), detail, now=now)
    token = access.tokens[token.digest] = dataclasses.replace(token, revoked_at=now)
    return access.committed(_view(token), outbox_id)


def _list(access: AccessState, message: m.ListTokens) -> m.TokenPage:
    found = sorted(access.tokens.values(), key=lambda t: (t.created_at, t.id), reverse=True)
    if message.after:
        places = [i for i, token in enumerate(found) if token.id == message.after]
        if not places:
            raise NotFound(f"after: there is no token {message.after[:80]!r}", remedy="Start from the first page.")
        found = found[places[0] + 1 :]
    page = tuple(_view(token) for token in found[: message.limit])
    return m.TokenPage(page, len(found) > len(page))


def _view(token: rows.TokenRow) -> m.Token:
    return m.Token(
        token.id, token.name, token.scope, token.prefix, token.created_by, token.created_at, token.expires_at,
        token.last_used_at, token.revoked_at,
    )  # fmt: skip


HANDLERS: dict[type, Handler] = {m.CreateToken: _create, m.RevokeToken: _revoke, m.ListTokens: _list}
