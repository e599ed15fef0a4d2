"""API tokens and session cookies: made, hashed, recognised by their shape (management-plane.md 10.1, 10.3)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from coxswain.errors import InvalidInput
from coxswain.ids import RandomBytes

__all__ = ["SCOPES", "NewSecret", "digest", "new_cookie", "new_token", "parse_lifetime"]

SCOPES = {"readonly": "ro", "monitor": "mon", "admin": "adm"}
"""The scopes of a token, and what its secret says of them. The stored scope decides, not the secret's."""

_SECRET_BYTES = 32
_PREFIX = 12
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_S = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A fresh secret. Only its digest is kept; it is shown once.

    Attributes:
        prefix: what lists show of it.
    """

    secret: str = field(repr=False)
    digest: str
    prefix: str


def digest(secret: str) -> str:
    """What is stored: SHA-256 in lower-case hex. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_token(scope: str, random_bytes: RandomBytes = secrets.token_bytes) -> NewSecret:
    """``cox_<ro|mon|adm>_<43 characters>``. Raises ``InvalidInput`` for an unknown scope."""
    if scope not in SCOPES:
        raise InvalidInput(f"scope: {scope[:40]!r} is not a scope; {', '.join(SCOPES)}")
    secret = f"cox_{SCOPES[scope]}_{_text(random_bytes)}"
    return NewSecret(secret, digest(secret), secret[:_PREFIX])


def new_cookie(random_bytes: RandomBytes = secrets.token_bytes) -> NewSecret:
    """The value of a session cookie."""
    secret = _text(random_bytes)
    return NewSecret(secret, digest(secret), "")


def _text(random_bytes: RandomBytes) -> str:
    return base64.urlsafe_b64encode(random_bytes(_SECRET_BYTES)).decode("ascii").rstrip("=")


def parse_lifetime(text: str) -> float | None:
    """Seconds of a duration as Go writes it (``720h``, ``1h30m``); None for empty or zero: it never expires.

    Raises:
        InvalidInput: it is negative, or no duration.
    """
    text = text.strip()
    if text in ("", "0"):
        return None
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"expires: {text[:40]!r} is not a duration; e.g. 720h, or empty for never")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST_S:
        raise InvalidInput(f"expires: {text[:40]!r} is too long; at most 100 years, or empty for never")
    return seconds or None
