"""Host keys as text, as they are pinned: ``<type> <base64>`` (node-contract.md 3.9), and shown: ``SHA256:…``."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct

from coxswain.errors import InvalidInput, Refused

__all__ = [
    "KEY_TYPES",
    "REINSTALLED",
    "HostKeyChanged",
    "algorithms_for",
    "check_fingerprint",
    "fingerprint_of",
    "host_key_text",
    "parse_host_key",
]

KEY_TYPES = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Types of host keys, in the order in which they are preferred, and the signature algorithms of each. Without SHA-1."""

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


REINSTALLED = "If the host was reinstalled, compare its new fingerprint on its console, then: cox servers trust SERVER"


class HostKeyChanged(Refused):
    """The host shows another key than the pinned one: reinstalled, or not the host at all. Nothing was sent to it."""

    def __init__(self, host: str, pinned: str, offered: str) -> None:
        super().__init__(
            f"the host key of {host} has changed: {fingerprint_of(pinned)} is known, {fingerprint_of(offered)} was shown. "
            "Somebody may stand between. Nothing was sent",
            remedy=REINSTALLED,
        )
        self.offered = offered


def host_key_text(key_type: str, blob: bytes) -> str:
    """As it is pinned."""
    return f"{key_type} {base64.b64encode(blob).decode('ascii')}"


def parse_host_key(text: str) -> tuple[str, bytes]:
    """Type and blob of a pinned key; a comment behind it is ignored. Raises ``InvalidInput``."""
    problem = InvalidInput(f"host_key: {text[:60]!r} is not '<type> <base64>'; types are: {', '.join(KEY_TYPES)}")
    words = text.split()
    if len(words) < 2 or words[0] not in KEY_TYPES:
        raise problem
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise problem from None
    if len(blob) < 8 or blob[4 : 4 + struct.unpack(">I", blob[:4])[0]] != words[0].encode():
        raise problem
    return words[0], blob


def fingerprint_of(text: str) -> str:
    """``SHA256:…`` as ``ssh-keygen -l`` prints it (RFC 4648 base64 without padding)."""
    _, blob = parse_host_key(text)
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def check_fingerprint(text: str) -> str:
    """Returns it; raises ``InvalidInput``."""
    if not _FINGERPRINT.fullmatch(text):
        raise InvalidInput(
            f"host_key: {text[:80]!r} is not a fingerprint; SHA256:<43 characters> is, as ssh-keygen -l prints it"
        )
    return text


def algorithms_for(pinned: str) -> tuple[str, ...]:
    """What to offer a host whose key is known: nothing but the pinned type, or a host with several keys would show another
    one and look like a stranger. Empty pin: all, strongest first.
    """
    if not pinned:
        return tuple(algorithm for algorithms in KEY_TYPES.values() for algorithm in algorithms)
    return KEY_TYPES[parse_host_key(pinned)[0]]
