"""The algorithms of the end-to-end envelope (accounts-profiles.md 3.1), and its JSON and base64.

XChaCha20-Poly1305 is PyNaCl's: ``cryptography`` has only the variant with the short nonce. Argon2id is argon2-cffi's, see
``coxswain.access.passwords``.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Callable
from typing import Any

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from coxswain.errors import InvalidInput

__all__ = [
    "KEY_BYTES",
    "NONCE_BYTES",
    "SALT_BYTES",
    "TAG_BYTES",
    "RandomBytes",
    "agree",
    "compact",
    "decrypt",
    "derive_from_password",
    "encrypt",
    "from_base64",
    "is_signed",
    "parse_object",
    "random_bytes",
    "sign",
    "signing_public_key",
    "text_of",
    "to_base64",
    "x25519_public_key",
]

RandomBytes = Callable[[int], bytes]
"""A source of random bytes: takes a count, returns that many."""

KEY_BYTES, NONCE_BYTES, TAG_BYTES, SALT_BYTES = 32, 24, 16, 16

_WRAP_INFO = b"pharosvpn/profile/keywrap/v1"
_PASSES, _MEMORY_KIB, _LANES = 1, 65_536, 4


# -- bytes, text, JSON


def to_base64(raw: bytes) -> str:
    """Standard, padded."""
    return base64.b64encode(raw).decode("ascii")


def from_base64(value: Any, where: str, *, length: int | None = None, at_least: int = 0) -> bytes:
    """Strict: standard alphabet, padded, nothing else in it. Raises ``InvalidInput``, which shows no content."""
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: base64 text is needed")
    try:
        raw = base64.b64decode(value.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidInput(f"{where}: this is not base64") from None
    if length is not None and len(raw) != length:
        raise InvalidInput(f"{where}: {len(raw)} bytes; {length} are needed")
    if len(raw) < at_least:
        raise InvalidInput(f"{where}: {len(raw)} bytes; at least {at_least} are needed")
    return raw


def compact(value: Any) -> str:
    """JSON as the other end builds it to sign or authenticate: no blanks, keys in the order of ``value``."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parse_object(text: str | bytes, where: str, *, most: int) -> dict[str, Any]:
    """A JSON object of at most ``most`` bytes or characters. Raises ``InvalidInput``."""
    if len(text) > most:
        raise InvalidInput(f"{where}: {len(text)} bytes are too many; at most {most}")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidInput(f"{where}: this is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: a JSON object is needed")
    return value


def text_of(value: dict[str, Any], key: str, where: str, *, needed: bool = True) -> str:
    """A text in an object; absent or null is empty, where it is not ``needed``. Raises ``InvalidInput``."""
    found = value.get(key)
    if found is None and not needed:
        return ""
    if not isinstance(found, str) or (needed and not found):
        raise InvalidInput(f"{where}: {key} is missing, or is not text")
    return found


def _refuse_constant(_name: str) -> Any:
    """NaN and Infinity are no JSON (RFC 8259, section 6)."""
    raise ValueError


# -- encryption


def encrypt(key: bytes, nonce: bytes, plain: bytes, aad: bytes = b"") -> bytes:
    """XChaCha20-Poly1305; the tag stands at the end."""
    return bytes(crypto_aead_xchacha20poly1305_ietf_encrypt(plain, aad or None, nonce, key))


def decrypt(key: bytes, nonce: bytes, sealed: bytes, where: str, aad: bytes = b"") -> bytes:
    """Raises ``InvalidInput``: another key, or it was changed."""
    try:
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad or None, nonce, key))
    except (CryptoError, ValueError, TypeError):
        raise InvalidInput(f"{where}: it cannot be opened: it is for another key, or was changed") from None


def x25519_public_key(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, where: str) -> bytes:
    """The key that wraps a data key. Raises ``InvalidInput`` for a public key with which there is no secret (all zero)."""
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise InvalidInput(f"{where}: no secret can be agreed on with this key") from None
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_WRAP_INFO).derive(shared)


def derive_from_password(
    password: str, salt: bytes, *, passes: int = _PASSES, memory_kib: int = _MEMORY_KIB, lanes: int = _LANES
) -> bytes:
    """Argon2id v19. Takes 64 MiB and a tenth of a second with the contract's parameters."""
    return hash_secret_raw(
        password.encode("utf-8", "surrogatepass"),
        salt,
        time_cost=passes,
        memory_cost=memory_kib,
        parallelism=lanes,
        hash_len=KEY_BYTES,
        type=Type.ID,
    )


# -- signatures


def signing_public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519; 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def random_bytes(count: int) -> bytes:
    """The system's source, for where none is given."""
    return secrets.token_bytes(count)
