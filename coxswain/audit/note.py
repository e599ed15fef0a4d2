"""Signed notes: a text and Ed25519 signatures under it, as https://c2sp.org/signed-note has them. Pure.

What is signed here carries two signatures of the same key: the plain one, and one with the time in it
(https://c2sp.org/tlog-cosignature), because a checkpoint's text has no time, and without one nobody can tell a fresh
checkpoint from one that was kept back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coxswain.errors import InvalidInput

__all__ = ["BadNote", "OpenedNote", "Signer", "Verifier", "open_note"]

_PLAIN = b"\x01"
_TIMED = b"\x04"
_LARGEST = 64 * 1024
_MOST_SIGNATURES = 100
_DASH = "\N{EM DASH} "
_PRIVATE = "PRIVATE+KEY+"


class BadNote(InvalidInput):
    """A note that cannot be read, that nobody we know has signed, or whose signature is wrong."""


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A note whose signature was checked. ``at``: epoch seconds that its signer vouches for, if any."""

    text: str
    at: int | None


class Verifier:
    """A public key and the name of its owner."""

    def __init__(self, name: str, public: bytes) -> None:
        """``public``: 32 bytes (RFC 8032). Raises ``InvalidInput``."""
        _check_name(name)
        if len(public) != 32:
            raise InvalidInput("audit key: an Ed25519 public key has 32 bytes")
        self.name = name
        self.public = public
        self._key = Ed25519PublicKey.from_public_bytes(public)
        self._plain_id = _key_id(name, _PLAIN, public)
        self._timed_id = _key_id(name, _TIMED, public)

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Reads ``name+id+key``, the form in which Go's ``sumdb/note`` and witnesses exchange public keys."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = _decode(encoded)
        if raw is None or len(raw) != 33 or raw[:1] != _PLAIN or not key_id:
            raise InvalidInput(f"audit key: {text[:60]!r} is no public key; it looks like name+1a2b3c4d+AaBbCc…")
        found = cls(name, raw[1:])
        if found._plain_id.hex() != key_id:
            raise InvalidInput(f"audit key: {key_id[:20]!r} is not the id of this key")
        return found

    def __str__(self) -> str:
        return f"{self.name}+{self._plain_id.hex()}+{base64.b64encode(_PLAIN + self.public).decode()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verifier) and (self.name, self.public) == (other.name, other.public)

    def __hash__(self) -> int:
        return hash((self.name, self.public))

    def knows(self, name: str, signature: bytes) -> bool:
        """Whether a signature line claims to be of this key."""
        return name == self.name and signature[:4] in (self._plain_id, self._timed_id)

    def check(self, text: bytes, signature: bytes) -> int | None:
        """Checks one that it ``knows``. Returns the time in it, if it has one. Raises ``BadNote``."""
        key_id, at, signed = signature[:4], None, text
        proof = signature[4:]
        if key_id == self._timed_id and len(proof) == 72:
            (at,) = struct.unpack(">Q", proof[:8])
            proof, signed = proof[8:], _timed(text, at)
        try:
            self._key.verify(proof, signed)
        except InvalidSignature:
            raise BadNote(f"the signature of {self.name} is wrong") from None
        return at


class Signer:
    """A private key and the name of its owner."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        _check_name(name)
        self._key = key
        self.verifier = Verifier(name, key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Reads ``PRIVATE+KEY+name+id+key``. No part of it is repeated in the error."""
        fields = text.strip().removeprefix(_PRIVATE).split("+", 2)
        raw = _decode(fields[2]) if len(fields) == 3 and text.startswith(_PRIVATE) else None
        if raw is None or len(raw) != 33 or raw[:1] != _PLAIN:
            raise InvalidInput("audit key: the file holds no private key")
        found = cls(fields[0], Ed25519PrivateKey.from_private_bytes(raw[1:]))
        if found.verifier._plain_id.hex() != fields[1]:  # noqa: SLF001
            raise InvalidInput("audit key: the private key does not fit its id")
        return found

    def secret_text(self) -> str:
        """What ``parse`` reads. For a file with mode 0600, and nothing else."""
        raw = base64.b64encode(_PLAIN + self._key.private_bytes_raw()).decode()
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier._plain_id.hex()}+{raw}"  # noqa: SLF001

    def __repr__(self) -> str:
        return f"Signer({self.verifier.name!r})"

    def sign(self, text: str, at: float) -> str:
        """The note. ``text`` ends with a newline and has no empty line; ``at``: epoch seconds."""
        if not text.endswith("\n") or "\n\n" in text or not _is_clean(text):
            raise ValueError("the text of a note consists of whole, non-empty lines")
        raw, stamp, verifier = text.encode(), int(at), self.verifier
        plain = verifier._plain_id + self._key.sign(raw)  # noqa: SLF001
        timed = verifier._timed_id + struct.pack(">Q", stamp) + self._key.sign(_timed(raw, stamp))  # noqa: SLF001
        lines = "".join(f"{_DASH}{verifier.name} {base64.b64encode(blob).decode()}\n" for blob in (plain, timed))
        return f"{text}\n{lines}"


def open_note(note: str, known: Iterable[Verifier]) -> OpenedNote:
    """Checks the signatures of those who are known, and ignores all others.

    Raises:
        BadNote: it cannot be read; nobody known has signed it; or a signature of somebody known is wrong.
    """
    text, signatures = _split(note)
    raw = text.encode()
    at: int | None = None
    is_signed = False
    verifiers = list(known)
    for name, signature in signatures:
        for verifier in verifiers:
            if verifier.knows(name, signature):
                found = verifier.check(raw, signature)
                is_signed = True
                at = found if at is None else at
    if not is_signed:
        raise BadNote(
            f"it is signed by {', '.join(sorted({name for name, _ in signatures}))[:200]}, with a key that is not ours"
        )
    return OpenedNote(text, at)


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > _LARGEST:
        raise BadNote("it is too long to be a signed note")
    head, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n") or not _is_clean(note):
        raise BadNote("it is no signed note: a text, an empty line, and lines with signatures")
    lines = tail[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise BadNote("it has too many signatures")
    signatures = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        blob = _decode(encoded)
        if not line.startswith(_DASH) or not name or blob is None or len(blob) < 5:
            raise BadNote(f"{line[:60]!r} is no signature line")
        signatures.append((name, blob))
    return head + "\n", signatures


def _is_clean(text: str) -> bool:
    return all(c >= " " or c == "\n" for c in text)


def _check_name(name: str) -> None:
    if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
        raise InvalidInput(f"audit key: {name[:60]!r} is no name for a key; it has no spaces and no plus")


def _key_id(name: str, kind: bytes, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def _timed(text: bytes, at: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % at + text


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
