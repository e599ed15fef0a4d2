"""Private keys of X25519, which WireGuard, AmneziaWG and REALITY share."""

from __future__ import annotations

__all__ = ["clamped"]


def clamped(raw: bytes) -> bytes:
    """Of the 32-byte keys that are used as one, the one in which tools and clients show it (RFC 7748, section 5)."""
    return bytes([raw[0] & 248]) + raw[1:31] + bytes([(raw[31] & 127) | 64])
