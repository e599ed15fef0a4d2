"""Rows of who may do what: admins, login sessions, second factors, API tokens. Plain functions of a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coxswain.clock import to_micros
from coxswain.store import names
from coxswain.store.api import Row, Tx

__all__ = [
    "BUILT_IN",
    "Account",
    "FactorRow",
    "LoginRow",
    "TokenRow",
    "delete_account",
    "delete_factor",
    "delete_logins",
    "end_logins_of",
    "insert_account",
    "insert_login",
    "insert_token",
    "list_accounts",
    "list_factors",
    "list_logins",
    "list_tokens",
    "put_factor",
    "revoke_token",
    "set_recovery_codes",
    "stamp_logins",
    "stamp_tokens",
    "update_account",
    "use_code",
    "use_recovery_code",
]

BUILT_IN = "usr_admin"
"""The account that is always there (management-plane.md 1.4)."""

_ACCOUNT = "id, name, email, phone, status, version, password_hash, created_at"
_LOGIN = "id, user_id, token_hash, source_ip, user_agent, created_at, seen_at, expires_at"
_TOKEN = "id, name, scope, token_hash, token_prefix, created_by, created_at, expires_at, last_used_at, revoked_at"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the role admin. ``password_hash`` empty: nobody can log in."""

    id: str
    name: str
    email: str
    phone: str = ""
    status: str = "active"
    version: int = 1
    password_hash: str = field(default="", repr=False)
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LoginRow:
    """One login session. ``digest``: of its cookie."""

    id: str
    user_id: str
    digest: str = field(repr=False)
    source_ip: str = ""
    user_agent: str = ""
    created_at: float = 0.0
    seen_at: float = 0.0
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One API token. ``digest``: of its secret. Times None: never."""

    id: str
    name: str
    scope: str
    digest: str = field(repr=False)
    prefix: str = ""
    created_by: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class FactorRow:
    """The second factor of one account. ``sealed``: by the keyring. ``last_step``: of the newest code that was used."""

    user_id: str
    sealed: bytes = field(repr=False)
    confirmed: bool = False
    last_step: int = 0
    created_at: float = 0.0


# -- accounts


def list_accounts(tx: Tx) -> list[Account]:
    return [_account(row) for row in tx.execute(f"SELECT {_ACCOUNT} FROM users WHERE role = 'admin'")]  # noqa: S608


def insert_account(tx: Tx, account: Account) -> None:
    """Raises ``UniqueViolation`` if the id or e-mail is taken."""
    tx.execute(
        "INSERT INTO users (id, name, email, phone, status, version, password_hash, role, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'admin', ?, ?)",
        (
            account.id,
            account.name,
            account.email or None,
            account.phone or None,
            account.status,
            account.version,
            account.password_hash,
            to_micros(account.created_at),
            to_micros(account.created_at),
        ),
    )


def update_account(tx: Tx, account: Account, *, now: float) -> None:
    """Writes it as it is, version included; whoever calls holds the only copy that counts. ``UniqueViolation``: e-mail."""
    tx.execute(
        "UPDATE users SET name = ?, email = ?, status = ?, role = 'admin', password_hash = ?, version = ?, updated_at = ? "
        "WHERE id = ?",
        (
            account.name,
            account.email or None,
            account.status,
            account.password_hash,
            account.version,
            to_micros(now),
            account.id,
        ),
    )


def delete_account(tx: Tx, account_id: str, *, by: str, now: float) -> None:
    """With its sessions and second factor. ``by``: the actor, for whoever meets the id in history."""
    names.keep_user(tx, account_id, by=by, now=now)
    tx.execute("DELETE FROM users WHERE id = ? AND role = 'admin'", (account_id,))


def _account(row: Row) -> Account:
    return Account(row[0], row[1], row[2] or "", row[3] or "", row[4], row[5], row[6], row[7] / 1e6)


# -- login sessions


def list_logins(tx: Tx, *, now: float) -> list[LoginRow]:
    """Those that have not expired."""
    rows = tx.execute(f"SELECT {_LOGIN} FROM login_sessions WHERE expires_at > ?", (to_micros(now),))  # noqa: S608
    return [LoginRow(r[0], r[1], r[2], r[3], r[4], r[5] / 1e6, r[6] / 1e6, r[7] / 1e6) for r in rows]


def insert_login(tx: Tx, login: LoginRow) -> None:
    tx.execute(
        f"INSERT INTO login_sessions ({_LOGIN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            login.id,
            login.user_id,
            login.digest,
            login.source_ip,
            login.user_agent,
            to_micros(login.created_at),
            to_micros(login.seen_at),
            to_micros(login.expires_at),
        ),
    )


def stamp_logins(tx: Tx, seen: Mapping[str, float]) -> None:
    """``seen``: session id to when it was last used, epoch seconds."""
    tx.executemany("UPDATE login_sessions SET seen_at = ? WHERE id = ?", ((to_micros(at), i) for i, at in seen.items()))


def delete_logins(tx: Tx, ids: Iterable[str]) -> None:
    tx.executemany("DELETE FROM login_sessions WHERE id = ?", ((i,) for i in ids))


def end_logins_of(tx: Tx, user_id: str, *, but: str = "") -> None:
    """Ends all sessions of an account, ``but`` one."""
    tx.execute("DELETE FROM login_sessions WHERE user_id = ? AND id <> ?", (user_id, but))


# -- second factors


def list_factors(tx: Tx) -> list[FactorRow]:
    rows = tx.execute("SELECT user_id, secret_sealed, confirmed, last_step, created_at FROM second_factors")
    return [FactorRow(row[0], bytes(row[1]), bool(row[2]), row[3], row[4] / 1e6) for row in rows]


def put_factor(tx: Tx, factor: FactorRow) -> None:
    """Inserts it, or replaces the one that is there."""
    tx.execute(
        "INSERT INTO second_factors (user_id, secret_sealed, confirmed, last_step, created_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (user_id) DO UPDATE SET secret_sealed = excluded.secret_sealed, confirmed = excluded.confirmed, "
        "last_step = excluded.last_step, created_at = excluded.created_at",
        (factor.user_id, factor.sealed, int(factor.confirmed), factor.last_step, to_micros(factor.created_at)),
    )


def use_code(tx: Tx, user_id: str, step: int) -> None:
    """The code of this step, and those before it, are used up."""
    tx.execute("UPDATE second_factors SET last_step = ? WHERE user_id = ? AND last_step < ?", (step, user_id, step))


def delete_factor(tx: Tx, user_id: str) -> None:
    """With its recovery codes."""
    tx.execute("DELETE FROM second_factors WHERE user_id = ?", (user_id,))
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", (user_id,))


def set_recovery_codes(tx: Tx, user_id: str, digests: Iterable[str]) -> None:
    """In place of those that are there."""
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", (user_id,))
    tx.executemany("INSERT INTO recovery_codes (user_id, code_hash) VALUES (?, ?)", ((user_id, d) for d in digests))


def use_recovery_code(tx: Tx, user_id: str, digest: str) -> bool:
    """Whether there was such a code; it is gone now."""
    rows = tx.execute("DELETE FROM recovery_codes WHERE user_id = ? AND code_hash = ? RETURNING user_id", (user_id, digest))
    return bool(rows)


# -- tokens


def list_tokens(tx: Tx) -> list[TokenRow]:
    """All, those that were revoked or have expired too."""
    rows = tx.execute(f"SELECT {_TOKEN} FROM api_tokens")  # noqa: S608
    return [_token(row) for row in rows]


def _token(r: Row) -> TokenRow:
    return TokenRow(r[0], r[1], r[2], r[3], r[4], r[5], r[6] / 1e6, _seconds(r[7]), _seconds(r[8]), _seconds(r[9]))


def insert_token(tx: Tx, token: TokenRow) -> None:
    tx.execute(
        f"INSERT INTO api_tokens ({_TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",  # noqa: S608
        (
            token.id,
            token.name,
            token.scope,
            token.digest,
            token.prefix,
            token.created_by,
            to_micros(token.created_at),
            None if token.expires_at is None else to_micros(token.expires_at),
        ),
    )


def revoke_token(tx: Tx, token_id: str, *, now: float) -> None:
    """The first time counts."""
    tx.execute("UPDATE api_tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (to_micros(now), token_id))


def stamp_tokens(tx: Tx, used: Mapping[str, float]) -> None:
    """``used``: token id to when it was last used, epoch seconds."""
    tx.executemany("UPDATE api_tokens SET last_used_at = ? WHERE id = ?", ((to_micros(at), i) for i, at in used.items()))


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1e6
