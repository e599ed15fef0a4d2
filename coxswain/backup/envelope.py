"""The backup file: a header, then chunks of AES-256-GCM in the STREAM construction, written and read in one pass.

A chunk that was changed, left out, repeated or put elsewhere does not open, because its number is in its nonce; a file that
was cut is noticed, because only the true last chunk opens as the last one (Hoang et al., "Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance", 2015). Each file has a key of its own. The format is in docs/backup.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coxswain.errors import InvalidInput, KeyUnavailable, Refused, Unavailable

__all__ = ["CHUNK", "MAGIC", "BackupSecret", "Damaged", "Sealer", "Sink", "open_sealed", "passphrase"]

MAGIC = b"COXBAK1\n"
CHUNK = 256 * 1024
"""Bytes of plaintext in a chunk."""

_TAG = 16
_MAC = 32
_LONGEST_HEADER = 4096
_LENGTH = struct.Struct(">I")
_SHORTEST = 12
_ARGON2 = {"memory_kib": 256 * 1024, "passes": 3, "lanes": 4}
"""About a second. RFC 9106 recommends 2 GiB and one pass, or 64 MiB and three; a controller may have 1 GiB of memory."""

_MOST = {"memory_kib": 1024 * 1024, "passes": 20, "lanes": 16}
"""A header is read before it is authenticated, so it must not ask for more work than this."""


class Damaged(Refused):
    """The file is not as it was written: cut, changed, reordered, or not a backup at all."""

    remedy = "Use another copy of this backup, or another backup."


@dataclass(frozen=True)
class BackupSecret:
    """What opens a backup: a passphrase, or the bytes of a key file. Never printed."""

    raw: bytes
    is_passphrase: bool

    def __repr__(self) -> str:
        return f"BackupSecret({'passphrase' if self.is_passphrase else 'key file'})"


class Sink(Protocol):
    """Takes all of it."""

    def write(self, data: bytes, /) -> object: ...


class Sealer:
    """Writes a backup file to ``out``. ``close`` makes it whole; without it, it is a cut file and known as such.

    Args:
        out: takes bytes.
        secret: what will open it.
        work: of Argon2id; the default but in tests.
    """

    def __init__(self, out: Sink, secret: BackupSecret, work: dict[str, int] | None = None) -> None:
        self._out = out
        header: dict[str, Any] = {"chunk": CHUNK, "salt": base64.b64encode(secrets.token_bytes(32)).decode()}
        header |= {"kdf": "argon2id", **(work or _ARGON2)} if secret.is_passphrase else {"kdf": "keyfile"}
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        prefix = MAGIC + _LENGTH.pack(len(text)) + text
        mac_key, key = _keys(secret, header, prefix)
        self._aead = AESGCM(key)
        self._number = 0
        self._waiting = bytearray()
        out.write(prefix + hmac.digest(mac_key, prefix, "sha256"))

    def write(self, data: bytes) -> None:
        self._waiting += data
        # A full chunk is kept until it is known that it is not the last one.
        while len(self._waiting) > CHUNK:
            self._seal(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def close(self) -> None:
        self._seal(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _seal(self, plain: bytes, *, last: bool) -> None:
        self._out.write(self._aead.encrypt(_nonce(self._number, last=last), plain, None))
        self._number += 1


def open_sealed(source: BinaryIO, secret: BackupSecret) -> Iterator[bytes]:
    """The plaintext, chunk by chunk; each is authentic when it comes, but the whole only is when the last one has come.

    Raises:
        KeyUnavailable: this secret does not open it (or its header was changed: both look the same).
        Damaged: it is no backup, or was cut or changed.
        InvalidInput: it needs a passphrase and this is a key, or the other way round.
        Unavailable: there is not enough memory to turn the passphrase into a key.
    """
    header, prefix = _read_header(source)
    if secret.is_passphrase != (header["kdf"] == "argon2id"):
        needed = "a passphrase" if header["kdf"] == "argon2id" else "a key file"
        raise InvalidInput(f"this backup opens with {needed}", remedy="See: cox backup restore --help")
    mac_key, key = _keys(secret, header, prefix)
    mac = source.read(_MAC)
    if len(mac) != _MAC:
        raise Damaged("the backup ends within its header")
    if not hmac.compare_digest(hmac.digest(mac_key, prefix, "sha256"), mac):
        what = "passphrase" if secret.is_passphrase else "key"
        raise KeyUnavailable(
            f"this {what} does not open the backup (or its header was changed)", remedy=f"Give the {what} it was made with."
        )
    yield from _chunks(source, AESGCM(key), header["chunk"] + _TAG)


def _chunks(source: BinaryIO, aead: AESGCM, size: int) -> Iterator[bytes]:
    number, sealed = 0, _read_full(source, size)
    while True:
        following = _read_full(source, size) if len(sealed) == size else b""
        last = not following
        try:
            yield aead.decrypt(_nonce(number, last=last), sealed, None)
        except (InvalidTag, ValueError):
            where = f"at byte {number * size} of its body"
            raise Damaged(f"the backup was cut {where}" if last else f"the backup was changed {where}") from None
        if last:
            if source.read(1):
                raise Damaged("there is something behind the end of the backup")
            return
        number, sealed = number + 1, following


def _read_header(source: BinaryIO) -> tuple[dict[str, Any], bytes]:
    start = _read_full(source, len(MAGIC) + _LENGTH.size)
    if start[: len(MAGIC)] != MAGIC or len(start) != len(MAGIC) + _LENGTH.size:
        raise Damaged("this is no backup of coxswain")
    (length,) = _LENGTH.unpack(start[len(MAGIC) :])
    text = _read_full(source, length) if length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(text)
        kdf, salt, chunk = header["kdf"], base64.b64decode(header["salt"], validate=True), header["chunk"]
        sound = len(salt) == 32 and type(chunk) is int and 1024 <= chunk <= 16 * 1024 * 1024
        sound = sound and (kdf == "keyfile" or (kdf == "argon2id" and _bearable(header)))
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise Damaged("the header of this backup cannot be read")
    return header, start + text


def _bearable(header: dict[str, Any]) -> bool:
    fits = all(type(header[name]) is int and 1 <= header[name] <= most for name, most in _MOST.items())
    return fits and bool(header["memory_kib"] >= 8 * header["lanes"])  # RFC 9106, 3.1


def _keys(secret: BackupSecret, header: dict[str, Any], prefix: bytes) -> tuple[bytes, bytes]:
    """The key of the header's MAC, and that of the chunks. Both hang on every byte of the header."""
    salt = base64.b64decode(header["salt"])
    base = _stretched(secret.raw, salt, header) if secret.is_passphrase else secret.raw
    info = b"coxswain backup 1" + hashlib.sha256(prefix).digest()
    both = HKDF(algorithm=hashes.SHA256(), length=64, salt=salt, info=info).derive(base)
    return both[:32], both[32:]


def _stretched(phrase: bytes, salt: bytes, header: dict[str, Any]) -> bytes:
    """Argon2id (RFC 9106), by argon2-cffi as for passwords: of cryptography's, two at once in a process never end (50.0)."""
    try:
        return hash_secret_raw(phrase, salt, header["passes"], header["memory_kib"], header["lanes"], 32, Type.ID)
    except HashingError as error:
        needed = header["memory_kib"] // 1024
        raise Unavailable(
            f"the passphrase cannot be turned into a key, which takes {needed} MiB of memory: {error}",
            remedy="Free some memory, or do it on a larger machine.",
        ) from None


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _read_full(source: BinaryIO, size: int) -> bytes:
    """Less than ``size`` only at the end: pipes give what they have."""
    data = source.read(size)
    while 0 < len(data) < size:
        more = source.read(size - len(data))
        if not more:
            break
        data += more
    return data


def passphrase(text: bytes) -> BackupSecret:
    """Raises ``InvalidInput`` for one that is too short to be one."""
    phrase = text.rstrip(b"\r\n")
    if len(phrase) < _SHORTEST:
        raise InvalidInput(
            f"the passphrase has {len(phrase)} characters; it takes at least {_SHORTEST}",
            remedy="A stolen backup can be tried for ever. Take five random words, or: openssl rand -base64 18",
        )
    return BackupSecret(phrase, is_passphrase=True)
