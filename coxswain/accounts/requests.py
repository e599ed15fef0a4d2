"""What callers send to AccountSync, checked; and what errors are to them (accounts-profiles.md 2.4, 5.4).

Everything here comes from strangers: a relay lets anybody call ``ClaimEnrollment``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from coxswain.accounts.keyblob import MAX_BLOB_BYTES
from coxswain.accounts.primitives import KEY_BYTES, agree
from coxswain.errors import (
    AlreadyExists,
    Conflict,
    CoxswainError,
    InvalidInput,
    KeyUnavailable,
    NotFound,
    Refused,
    StoreUnavailable,
    Throttled,
    Unauthenticated,
    Unavailable,
)

__all__ = ["MAX_CSR_BYTES", "MAX_TOKEN", "ClaimRequest", "check_claim", "check_keys", "is_fingerprint", "status_of"]

MAX_CSR_BYTES = 16 * 1024
"""accounts-profiles.md, appendix C."""

MAX_TOKEN = 200
_MAX_NAME_BYTES = 64
_MAX_PLATFORM = 32
_NAME, _PLATFORM = "caravel device", "caravel"
"""For who does not say (accounts-profiles.md 5.4)."""

_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_PROBE = bytes(range(KEY_BYTES))
"""Any private key: with which public keys there is no secret does not depend on it (RFC 7748, section 6.1)."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A claim that is worth looking its ticket up for."""

    token: str = field(repr=False)
    csr_pem: bytes
    name: str
    platform: str
    encryption_key: bytes


def check_claim(token: str, csr_pem: bytes, name: str, platform: str, encryption_key: bytes) -> ClaimRequest:
    """Names are cut to what a certificate holds, on the border of a character; the rest is refused if it is not right.

    Raises ``InvalidInput``, which never shows the token.
    """
    token = token.strip()
    if not token or len(token) > MAX_TOKEN:
        raise InvalidInput("token: is missing, or is none")
    if not csr_pem:
        raise InvalidInput("csr_pem: is missing")
    if len(csr_pem) > MAX_CSR_BYTES:
        raise InvalidInput(f"csr_pem: {len(csr_pem)} bytes are too many; at most {MAX_CSR_BYTES}")
    return ClaimRequest(
        token,
        csr_pem,
        _clean(name, _MAX_NAME_BYTES) or _NAME,
        _clean(platform, _MAX_PLATFORM) or _PLATFORM,
        _usable_key("encryption_pubkey", encryption_key),
    )


def check_keys(public_key: bytes, wrapped_private_key: bytes) -> tuple[bytes, bytes]:
    """Of an account. What is in the second is its clients' matter (accounts-profiles.md 3.4). Raises ``InvalidInput``."""
    if not 0 < len(wrapped_private_key) <= MAX_BLOB_BYTES:
        raise InvalidInput(f"wrapped_private_key: {len(wrapped_private_key)} bytes; 1 to {MAX_BLOB_BYTES} are taken")
    return _usable_key("public_key", public_key), wrapped_private_key


def is_fingerprint(text: str) -> bool:
    """Whether it looks like one (relay-contract.md 1.5)."""
    return _FINGERPRINT.fullmatch(text) is not None


_CODES: tuple[tuple[type[CoxswainError], str], ...] = (
    (Throttled, "RESOURCE_EXHAUSTED"),
    (Unauthenticated, "UNAUTHENTICATED"),
    (InvalidInput, "INVALID_ARGUMENT"),
    (NotFound, "NOT_FOUND"),
    (AlreadyExists, "ALREADY_EXISTS"),
    (Conflict, "FAILED_PRECONDITION"),
    (KeyUnavailable, "INTERNAL"),
    (Refused, "PERMISSION_DENIED"),
    (StoreUnavailable, "INTERNAL"),
    (Unavailable, "UNAVAILABLE"),
)
"""The first that fits. What the operator alone can mend is INTERNAL."""

_OURS = frozenset({"INTERNAL", "UNAVAILABLE"})


def status_of(error: Exception) -> tuple[str, str]:
    """Name of the gRPC status code, and a text for the caller, which tells strangers nothing of our inner life."""
    code = next((name for kind, name in _CODES if isinstance(error, kind)), "INTERNAL")
    if code in _OURS:
        return code, "the controller cannot do that just now; try again later"
    return code, str(error)[:500]


def _usable_key(name: str, key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"{name}: {len(key)} bytes; {KEY_BYTES} are needed")
    agree(_PROBE, key, name)
    return key


def _clean(text: str, most: int) -> str:
    """Printable, composed, trimmed, at most so many bytes of UTF-8."""
    printable = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text[:1_000]))
    return printable.strip().encode("utf-8", "ignore")[:most].decode("utf-8", "ignore").strip()
