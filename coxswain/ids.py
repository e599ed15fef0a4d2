"""Record ids: ``<prefix>_<16 characters>``, 80 random bits in lower-case base32 (fleet-model.md 2.1)."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable

__all__ = ["ID_PATTERN", "RandomBytes", "new_id", "ordered_id"]

ID_PATTERN = re.compile(r"^[a-z]+_[a-z2-7]{16}$")

RandomBytes = Callable[[int], bytes]
"""A source of random bytes: takes a count, returns that many."""


def new_id(prefix: str, random_bytes: RandomBytes = secrets.token_bytes) -> str:
    """Returns a fresh id, e.g. ``nod_k3v7q2m5x4a6b2c7`` for prefix ``nod``."""
    return f"{prefix}_{base64.b32encode(random_bytes(10)).decode('ascii').lower()}"


_ORDERED = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"234567abcdefghijklmnopqrstuvwxyz")
"""From the characters of base32 to those of ids, in the order in which texts are compared."""


def ordered_id(prefix: str, number: int) -> str:
    """The id that stands for a number: ids of rising numbers rise, and look like any other (``ID_PATTERN``)."""
    return f"{prefix}_{base64.b32encode(number.to_bytes(10)).translate(_ORDERED).decode('ascii')}"
