"""Record ids: ``<prefix>_<16 characters>``, 80 random bits in lower-case base32 (fleet-model.md 2.1)."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable

__all__ = ["ID_PATTERN", "RandomBytes", "new_id", "number_of", "ordered_id"]

ID_PATTERN = re.compile(r"^[a-z]+_[a-z2-7]{16}$")

RandomBytes = Callable[[int], bytes]
"""A source of random bytes: takes a count, returns that many."""


def new_id(prefix: str, random_bytes: RandomBytes = secrets.token_bytes) -> str:
    """Returns a fresh id, e.g. ``nod_k3v7q2m5x4a6b2c7`` for prefix ``nod``."""
    return f"{prefix}_{base64.b32encode(random_bytes(10)).decode('ascii').lower()}"


_ORDERED = "234567abcdefghijklmnopqrstuvwxyz"
"""The digits of ids, in the order in which texts are compared."""

_PAIRS = tuple(first + second for first in _ORDERED for second in _ORDERED)
_SHIFTS = (70, 60, 50, 40, 30, 20, 10, 0)


def ordered_id(prefix: str, number: int) -> str:
    """The id that stands for a number: ids of rising numbers rise, and look like any other (``ID_PATTERN``)."""
    if not 0 <= number < 2**80:
        raise OverflowError(f"{number} does not fit into an id")
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


_BASE32 = bytes.maketrans(b"234567abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def number_of(ordered: str) -> int:
    """The number that an ``ordered_id`` stands for."""
    return int.from_bytes(base64.b32decode(ordered.rpartition("_")[2].encode("ascii").translate(_BASE32)))
