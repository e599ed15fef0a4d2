"""Rows of sealed bundles, and of the key that signs them. Plain functions of a transaction."""

from __future__ import annotations

from dataclasses import dataclass, field

from coxswain.accounts.primitives import random_bytes, signing_public_key
from coxswain.clock import to_micros
from coxswain.keyring import Keyring
from coxswain.store.api import Tx

__all__ = [
    "KEEP",
    "SigningKey",
    "StoredBundle",
    "delete_bundles",
    "ensure_signing_key",
    "insert_bundle",
    "latest_bundle",
    "note_offered",
    "set_profile_revision",
]

KEEP = 5
"""Revisions of each device."""


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One sealed bundle. ``ciphertext``: a SealedBundle's JSON. ``signer``: the public key to check it with."""

    device_id: str
    revision: int
    recipient: bytes
    input_hash: str
    signer: bytes
    ciphertext: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Ed25519: 32 bytes each."""

    public_key: bytes
    seed: bytes = field(repr=False)


def latest_bundle(tx: Tx, device_id: str) -> StoredBundle | None:
    rows = tx.execute(
        "SELECT device_id, revision, recipient, input_hash, signer, ciphertext FROM profile_bundles WHERE device_id = ? "
        "ORDER BY revision DESC LIMIT 1",
        (device_id,),
    )
    if not rows:
        return None
    row = rows[0]
    return StoredBundle(row[0], row[1], bytes(row[2]), row[3], bytes(row[4]), row[5])


def insert_bundle(tx: Tx, bundle: StoredBundle, now: float) -> None:
    """And forgets what is older than the newest ``KEEP``. Raises ``UniqueViolation``: there is one of that revision."""
    tx.execute(
        "INSERT INTO profile_bundles (device_id, revision, recipient, input_hash, signer, ciphertext, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            bundle.device_id,
            bundle.revision,
            bundle.recipient,
            bundle.input_hash,
            bundle.signer,
            bundle.ciphertext,
            to_micros(now),
        ),
    )
    tx.execute(
        "DELETE FROM profile_bundles WHERE device_id = ? AND revision NOT IN "
        "(SELECT revision FROM profile_bundles WHERE device_id = ? ORDER BY revision DESC LIMIT ?)",
        (bundle.device_id, bundle.device_id, KEEP),
    )


def delete_bundles(tx: Tx, device_id: str) -> None:
    """All of them: what is in them is good for nothing any more."""
    tx.execute("DELETE FROM profile_bundles WHERE device_id = ?", (device_id,))


def note_offered(tx: Tx, content: str) -> int:
    """``content`` names what the configuration says of what devices are given. If it is another than the last time, what all
    of them have is stale; returns how many.
    """
    rows = tx.execute("SELECT content FROM offered WHERE id = 1")
    if rows and rows[0][0] == content:
        return 0
    tx.execute(
        "INSERT INTO offered (id, content) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET content = excluded.content",
        (content,),
    )
    if not rows:
        return 0
    touched = tx.execute(
        "UPDATE devices SET profile_revision = profile_revision + 1 "
        "WHERE id IN (SELECT device_id FROM credentials) RETURNING id"
    )
    return len(touched)


def set_profile_revision(tx: Tx, device_id: str, revision: int) -> None:
    """The number of the bundle is the device's."""
    tx.execute("UPDATE devices SET profile_revision = ? WHERE id = ?", (revision, device_id))


def ensure_signing_key(tx: Tx, keyring: Keyring, now: float) -> SigningKey:
    """The newest one; the first time, a new one. Raises ``KeyUnavailable``: it was sealed under another key."""
    rows = tx.execute("SELECT public_key, private_key_sealed FROM profile_signing_keys ORDER BY created_at DESC LIMIT 1")
    if rows:
        public = bytes(rows[0][0])
        return SigningKey(public, keyring.open(bytes(rows[0][1]), _label(public)))
    seed = random_bytes(32)
    public = signing_public_key(seed)
    tx.execute(
        "INSERT INTO profile_signing_keys (public_key, private_key_sealed, created_at) VALUES (?, ?, ?)",
        (public, keyring.seal(seed, _label(public)), to_micros(now)),
    )
    return SigningKey(public, seed)


def _label(public: bytes) -> str:
    return f"profile signing key {public.hex()}"
