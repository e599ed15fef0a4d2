"""Whether a program was signed by those who release it: ``FILE.minisig`` beside ``FILE``, as minisign makes it.

A minisign signature has four lines: an untrusted comment, 74 bytes in base64 (``ED``, the number of the key, an Ed25519
signature of the file's BLAKE2b), a trusted comment, and a signature of those 64 bytes and the trusted comment.
https://jedisct1.github.io/minisign/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coxswain.errors import InvalidInput, Refused

__all__ = ["signed_digest"]

_BLOCK = 1 << 20
_MOST = 4_096
_TRUSTED = "trusted comment: "


def signed_digest(file: Path, key: str) -> str:
    """The SHA-256 of a file (lower hex) whose signature is good: of the very bytes that were checked, so that nobody changes
    it between this and its use.

    Args:
        file: the program; the signature is beside it.
        key: the second line of ``minisign.pub``, as the configuration has checked it.

    Raises:
        InvalidInput: it, or its signature, cannot be read.
        Refused: it was not signed with that key.
    """
    raw = _decode(key) or b""
    number, public = raw[2:10], Ed25519PublicKey.from_public_bytes(raw[10:42])
    beside = file.with_name(f"{file.name}.minisig")
    try:
        with beside.open("rb") as opened:
            text = opened.read(_MOST)
        with file.open("rb") as opened:
            sha256, blake = hashlib.sha256(), hashlib.blake2b()
            while block := opened.read(_BLOCK):
                sha256.update(block)
                blake.update(block)
    except OSError as error:
        raise InvalidInput(
            f"{error.filename}: cannot be read: {error.strerror}",
            remedy="Only what is signed with the release key is installed: put its .minisig beside it.",
        ) from None
    if not _is_good(text, number, public, blake.digest()):
        raise Refused(
            f"{file}: {beside.name} is no signature of it by the release key; it is not installed",
            remedy="Get both from where the program is published, or see whether release_key is the right one.",
        )
    return sha256.hexdigest()


def _is_good(text: bytes, number: bytes, public: Ed25519PublicKey, digest: bytes) -> bool:
    lines = text.decode(errors="replace").splitlines()
    if len(lines) < 4 or not lines[2].startswith(_TRUSTED):
        return False
    signature, overall = _decode(lines[1]), _decode(lines[3])
    if signature is None or overall is None or len(signature) != 74 or len(overall) != 64:
        return False
    if signature[:2] != b"ED" or signature[2:10] != number:
        return False
    try:
        public.verify(signature[10:], digest)
        public.verify(overall, signature[10:] + lines[2].removeprefix(_TRUSTED).encode())
    except InvalidSignature:
        return False
    return True


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
