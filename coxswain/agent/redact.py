"""Texts that may leave the node: without key material (node-contract.md 4.1)."""

from __future__ import annotations

import re

__all__ = ["scrub"]

_KEY_LIKE = re.compile(r"([A-Za-z0-9+/_-]{8})[A-Za-z0-9+/_-]{34,}={0,2}")
_SECRET_LINE = re.compile(r"(?im)^.*(?:preshared|private.?key).*$")


def scrub(text: str) -> str:
    """Blanks lines that speak of secrets and cuts what looks like a key to eight characters."""
    return _KEY_LIKE.sub(r"\1…", _SECRET_LINE.sub("(withheld)", text))
