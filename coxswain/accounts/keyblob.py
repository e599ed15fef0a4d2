"""A private key under a passphrase (accounts-profiles.md 3.4). Clients make it; the controller keeps it, sealed as it is."""

from __future__ import annotations

from coxswain.accounts.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    RandomBytes,
    compact,
    decrypt,
    derive_from_password,
    encrypt,
    from_base64,
    parse_object,
    random_bytes,
    to_base64,
)
from coxswain.errors import InvalidInput

__all__ = ["MAX_BLOB_BYTES", "read_wrapped", "unwrap_key", "wrap_key"]

MAX_BLOB_BYTES = 4096
_WHERE = "wrapped key"


def wrap_key(private: bytes, passphrase: str, rng: RandomBytes = random_bytes) -> bytes:
    """Raises ``InvalidInput`` for a key that is not of 32 bytes."""
    if len(private) != KEY_BYTES:
        raise InvalidInput(f"{_WHERE}: the key has {len(private)} bytes; {KEY_BYTES} are needed")
    salt, nonce = rng(SALT_BYTES), rng(NONCE_BYTES)
    sealed = encrypt(derive_from_password(passphrase, salt), nonce, private)
    return compact({"v": 1, "salt": to_base64(salt), "n": to_base64(nonce), "ct": to_base64(sealed)}).encode("ascii")


def unwrap_key(blob: bytes, passphrase: str) -> bytes:
    """Raises ``InvalidInput``: no such blob, or another passphrase."""
    salt, nonce, sealed = read_wrapped(blob)
    return decrypt(derive_from_password(passphrase, salt), nonce, sealed, _WHERE)


def read_wrapped(blob: bytes) -> tuple[bytes, bytes, bytes]:
    """Salt, nonce and ciphertext. Raises ``InvalidInput``."""
    value = parse_object(blob, _WHERE, most=MAX_BLOB_BYTES)
    return (
        from_base64(value.get("salt"), f"{_WHERE}.salt", length=SALT_BYTES),
        from_base64(value.get("n"), f"{_WHERE}.n", length=NONCE_BYTES),
        from_base64(value.get("ct"), f"{_WHERE}.ct", length=KEY_BYTES + TAG_BYTES),
    )
