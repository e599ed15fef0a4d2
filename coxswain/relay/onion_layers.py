"""Onion routing as pure functions: keys, the layers of a setup, the keystreams after it (relay-contract.md 6.1 to 6.4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coxswain.errors import InvalidInput
from coxswain.relay.byte_stream import CHUNK, ByteStream

__all__ = ["KEY_BYTES", "Keystream", "Layer", "VeiledStream", "decode_key", "encode_key", "open_layer", "seal_layer"]

KEY_BYTES = 32
_INFO = b"pharos-onion-v1 setup"
_NONCE = bytes(12)
_EXIT = 0x01
_TAG = 16
_STREAM_LIMIT = 2**32 * 64
"""Bytes after which the 32-bit block counter would start again, and with it the keystream (RFC 8439, 2.4)."""


@dataclass(frozen=True)
class Layer:
    """What one hop finds in its layer: where it goes on, what goes there, and the key of this hop's keystreams."""

    address: str
    exit: bool
    inner: bytes = field(repr=False)
    key: bytes = field(repr=False)


def encode_key(raw: bytes) -> str:
    """32 bytes as a key file or ``onion-key`` has them."""
    return base64.b64encode(raw).decode("ascii")


def decode_key(text: str) -> bytes:
    """The other way. Raises ``InvalidInput``; the text is not repeated."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise InvalidInput("onion key: is not the base64 of 32 bytes")
    return raw


def seal_layer(
    hop_public: bytes, address: str, inner: bytes, *, last: bool, ephemeral: X25519PrivateKey
) -> tuple[bytes, bytes]:
    """One layer around ``inner``, and the key of its hop. ``ephemeral`` is to be used once. Raises ``InvalidInput``."""
    where = address.encode("utf-8")
    if len(where) > 255:
        raise InvalidInput(f"address: {len(where)} bytes; 255 at most")
    try:
        key = _derive(ephemeral.exchange(X25519PublicKey.from_public_bytes(hop_public)))
    except ValueError:
        raise InvalidInput("onion key: is not a public key") from None
    plain = bytes([_EXIT if last else 0]) + len(where).to_bytes(2) + where + inner
    return ephemeral.public_key().public_bytes_raw() + ChaCha20Poly1305(key).encrypt(_NONCE, plain, None), key


def open_layer(private: X25519PrivateKey, layer: bytes) -> Layer:
    """What a hop does with what it is sent. Raises ``InvalidInput``: it is not for this key, or no layer."""
    if len(layer) < KEY_BYTES + _TAG + 3:
        raise InvalidInput("layer: is too short")
    try:
        key = _derive(private.exchange(X25519PublicKey.from_public_bytes(layer[:KEY_BYTES])))
        plain = ChaCha20Poly1305(key).decrypt(_NONCE, layer[KEY_BYTES:], None)
    except (InvalidTag, ValueError):
        raise InvalidInput("layer: is not for this key") from None
    end = 3 + int.from_bytes(plain[1:3])
    if len(plain) < end:
        raise InvalidInput("layer: its address is cut off")
    try:
        address = plain[3:end].decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("layer: its address is not text") from None
    return Layer(address, bool(plain[0] & _EXIT), plain[end:], key)


def _derive(shared: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_INFO).derive(shared)


class Keystream:
    """The keystream of one hop in one direction; each byte of the stream passes it once, in order."""

    def __init__(self, key: bytes, *, forward: bool) -> None:
        nonce = bytes(4) + bytes(11) + (b"\x01" if forward else b"\x02")  # block counter, then the nonce of RFC 8439
        self._cipher: CipherContext = Cipher(ChaCha20(key, nonce), None).encryptor()
        self._left = _STREAM_LIMIT

    def apply(self, data: bytes) -> bytes:
        """Raises ``OSError`` when the keystream is used up: a circuit ends rather than repeat it."""
        self._left -= len(data)
        if self._left < 0:
            raise ConnectionAbortedError("this onion circuit has carried 256 GiB and ends")
        return self._cipher.update(data)


class VeiledStream:
    """A byte stream with a keystream on what is read and one on what is written."""

    def __init__(self, inner: ByteStream, *, reading: Keystream, writing: Keystream) -> None:
        self._inner = inner
        self._reading = reading
        self._writing = writing

    async def read(self, limit: int = CHUNK) -> bytes:
        return self._reading.apply(await self._inner.read(limit))

    async def write(self, data: bytes) -> None:
        await self._inner.write(self._writing.apply(data))

    async def write_eof(self) -> None:
        await self._inner.write_eof()

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()
