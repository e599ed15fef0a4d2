"""Rows of device identities, accounts' keys and sessions of AccountSync. Plain functions of a transaction."""

from __future__ import annotations

import hashlib

from coxswain.clock import to_micros
from coxswain.messages.enrolment import AccountKey, DeviceRecord, NewIdentity
from coxswain.store.api import Row, Tx

__all__ = [
    "account_key",
    "find_by_fingerprint",
    "identity_of",
    "insert_account_key",
    "insert_session",
    "note_sync",
    "password_hash_of",
    "purge_sessions",
    "put_identity",
    "relay_name",
    "session_of",
]

_RECORD = (
    "i.device_id, d.user_id, i.fingerprint, i.serial, i.not_after, i.encryption_pubkey, i.enrolled_at, i.last_sync_at, "
    "i.last_sync_revision, i.last_sync_relay, d.status, u.status "
    "FROM device_identities i JOIN devices d ON d.id = i.device_id JOIN users u ON u.id = d.user_id"
)


# -- identities


def put_identity(tx: Tx, device_id: str, identity: NewIdentity, now: float) -> None:
    """The device is known by this from now on, and by nothing else; its sessions end.

    Raises ``UniqueViolation`` for a known fingerprint.
    """
    tx.execute("DELETE FROM account_sessions WHERE device_id = ?", (device_id,))
    tx.execute("DELETE FROM device_identities WHERE device_id = ?", (device_id,))
    tx.execute(
        "INSERT INTO device_identities (device_id, fingerprint, serial, not_after, encryption_pubkey, enrolled_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            device_id,
            identity.fingerprint,
            identity.serial,
            to_micros(identity.not_after),
            identity.encryption_key or None,
            to_micros(now),
        ),
    )


def find_by_fingerprint(tx: Tx, fingerprint: str) -> DeviceRecord | None:
    rows = tx.execute(f"SELECT {_RECORD} WHERE i.fingerprint = ?", (fingerprint,))
    return _record(rows[0]) if rows else None


def identity_of(tx: Tx, device_id: str) -> DeviceRecord | None:
    """None: it never enrolled."""
    rows = tx.execute(f"SELECT {_RECORD} WHERE i.device_id = ?", (device_id,))
    return _record(rows[0]) if rows else None


def note_sync(tx: Tx, device_id: str, revision: int, relay: str, now: float) -> None:
    """It has fetched this revision."""
    tx.execute(
        "UPDATE device_identities SET last_sync_at = ?, last_sync_revision = ?, last_sync_relay = ? WHERE device_id = ?",
        (to_micros(now), revision, relay, device_id),
    )


# -- accounts' keys and passwords


def password_hash_of(tx: Tx, user_id: str) -> str:
    """A PHC string; empty: the account has no password, or is not there."""
    rows = tx.execute("SELECT password_hash FROM users WHERE id = ? AND role = 'user'", (user_id,))
    return rows[0][0] if rows else ""


def account_key(tx: Tx, user_id: str) -> AccountKey | None:
    rows = tx.execute("SELECT public_key, wrapped_private_key FROM account_keys WHERE user_id = ?", (user_id,))
    return AccountKey(bytes(rows[0][0]), bytes(rows[0][1])) if rows else None


def insert_account_key(tx: Tx, user_id: str, key: AccountKey, now: float) -> None:
    """Raises ``UniqueViolation``: the account has one."""
    tx.execute(
        "INSERT INTO account_keys (user_id, public_key, wrapped_private_key, created_at) VALUES (?, ?, ?, ?)",
        (user_id, key.public_key, key.wrapped_private_key, to_micros(now)),
    )


# -- relays


def relay_name(tx: Tx, serial: str) -> str | None:
    """Whose certificate this is, as operators call it. None: it is revoked, or of a relay that was removed, or nobody knows
    of it: issued after the backup that was restored, it may have been taken back since as well.
    """
    rows = tx.execute(
        "SELECT r.name, c.revoked_at FROM relay_certs c JOIN relays r ON r.id = c.relay_id WHERE c.serial = ?", (serial,)
    )
    if rows:
        return rows[0][0] if rows[0][1] is None else None
    own = tx.execute("SELECT 1 FROM service_certs WHERE serial = ? AND role = 'relay'", (serial,))
    return "embedded" if own else None


# -- sessions


def insert_session(tx: Tx, token: str, user_id: str, device_id: str, *, now: float, ttl_s: float) -> None:
    """``device_id`` empty: of an account that has no device of ours."""
    tx.execute(
        "INSERT INTO account_sessions (token_hash, user_id, device_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (_hash(token), user_id, device_id or None, to_micros(now), to_micros(now + ttl_s)),
    )


def session_of(tx: Tx, token: str, now: float) -> tuple[str, str] | None:
    """``(user id, device id or empty)`` of an unexpired session."""
    rows = tx.execute(
        "SELECT user_id, COALESCE(device_id, '') FROM account_sessions WHERE token_hash = ? AND expires_at > ?",
        (_hash(token), to_micros(now)),
    )
    return (rows[0][0], rows[0][1]) if rows else None


def purge_sessions(tx: Tx, now: float, most: int) -> int:
    """Forgets those that have expired. Returns how many."""
    rows = tx.execute(
        "DELETE FROM account_sessions WHERE token_hash IN (SELECT token_hash FROM account_sessions WHERE expires_at <= ? "
        "ORDER BY expires_at LIMIT ?) RETURNING token_hash",
        (to_micros(now), most),
    )
    return len(rows)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _record(row: Row) -> DeviceRecord:
    return DeviceRecord(
        device_id=row[0],
        user_id=row[1],
        fingerprint=row[2],
        serial=row[3],
        not_after=row[4] / 1e6,
        encryption_key=b"" if row[5] is None else bytes(row[5]),
        enrolled_at=row[6] / 1e6,
        last_sync_at=None if row[7] is None else row[7] / 1e6,
        last_sync_revision=row[8],
        last_sync_relay=row[9],
        device_status=row[10],
        user_status=row[11],
    )
