"""The second factor: one-time codes by time (RFC 6238 over RFC 4226, SHA-1, six digits, 30 s) and recovery codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import struct
from urllib.parse import quote, urlencode

from coxswain.ids import RandomBytes

__all__ = [
    "code_at",
    "matching_step",
    "new_recovery_codes",
    "new_secret",
    "otpauth_url",
    "recovery_digest",
    "recovery_id",
    "shown_secret",
]

_STEP_S, _DIGITS = 30, 6
_SECRET_BYTES = 20
"""RFC 4226, section 4, requirement 6."""

_DRIFT = 1
"""Steps that the authenticator's clock may be off; RFC 6238, section 5.2, recommends at most one."""

_RECOVERY_CODES, _RECOVERY_BYTES = 10, 10


def new_secret(random_bytes: RandomBytes = secrets.token_bytes) -> bytes:
    return random_bytes(_SECRET_BYTES)


def shown_secret(secret: bytes) -> str:
    """As authenticators take it: base32 without padding."""
    return base64.b32encode(secret).decode("ascii").rstrip("=")


def otpauth_url(secret: bytes, account: str, issuer: str = "coxswain") -> str:
    """What a QR code for authenticators holds (the Key Uri Format of Google Authenticator)."""
    label = quote(f"{issuer}:{account}", safe="")
    return f"otpauth://totp/{label}?" + urlencode({"secret": shown_secret(secret), "issuer": issuer})


def code_at(secret: bytes, step: int) -> str:
    """The code of one step of 30 seconds since the epoch (RFC 4226, section 5.3)."""
    digest = hmac.digest(secret, struct.pack(">Q", step), "sha1")
    offset = digest[-1] & 0x0F
    number = struct.unpack_from(">I", digest, offset)[0] & 0x7FFFFFFF
    return f"{number % 10**_DIGITS:0{_DIGITS}d}"


def matching_step(secret: bytes, code: str, now: float, *, last_step: int) -> int | None:
    """The step that ``code`` belongs to; None: it is wrong, too old, or was used already.

    ``last_step``: the newest one that was accepted; it and those before it are not accepted again.
    """
    code = code.replace(" ", "")
    if not re.fullmatch(rf"[0-9]{{{_DIGITS}}}", code):
        return None
    current = int(now) // _STEP_S
    found = None
    for step in range(current - _DRIFT, current + _DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step), code) and step > last_step:
            found = step
    return found


def new_recovery_codes(random_bytes: RandomBytes = secrets.token_bytes) -> tuple[str, ...]:
    """Ten codes of 80 random bits: too many to try, so they need no slow hash. Each is good once."""
    return tuple(_grouped(random_bytes(_RECOVERY_BYTES)) for _ in range(_RECOVERY_CODES))


def _grouped(raw: bytes) -> str:
    text = base64.b32encode(raw).decode("ascii").lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def recovery_digest(code: str) -> str:
    """What is stored of a recovery code. Case, spaces and dashes do not matter."""
    return hashlib.sha256(re.sub(r"[\s-]", "", code).lower().encode("utf-8", "surrogatepass")).hexdigest()


def recovery_id(digest: str) -> str:
    """What the audit log calls a recovery code that was used, from what is stored of it. Nobody finds the code by it."""
    return hashlib.sha256(digest.encode("ascii")).hexdigest()[:16]
