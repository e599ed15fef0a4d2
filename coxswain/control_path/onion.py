"""Onion circuits, the bytes of them (relay-contract.md 6.2 to 6.4): setup in layers, then a keystream per hop and direction.

Pure: what goes in is keys and an address, what comes out is bytes. Between relays there is no integrity, and none is needed:
what a circuit carries is TLS or SSH between its ends.
"""

from __future__ import annotations

import base64
import binascii
import errno
import struct
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coxswain.errors import InvalidInput

__all__ = ["MAX_ADDRESS", "MAX_CIRCUIT_BYTES", "Keystream", "build", "read_public_key"]

MAX_ADDRESS = 255
"""Bytes of a target (relay-contract.md 6.2)."""

MAX_CIRCUIT_BYTES = 255 * 2**30
"""Per direction: the counter has 32 bits of 64-byte blocks, and a relay whose counter overflows ends with all its circuits
(relay-contract.md 6.4). Kept a gibibyte below."""

_INFO = b"pharos-onion-v1 setup"
_MAX_SETUP = 60_000
_EXIT = 0x01
_FORWARD = 1
_RETURN = 2


def read_public_key(text: str) -> bytes:
    """The 32 bytes of a relay's public key. Raises ``InvalidInput``; the key is not in its text."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise InvalidInput("onion_pubkey: is not the base64 of 32 bytes", remedy="See: cox-relay onion-key")
    return raw


def build(
    hops: Sequence[tuple[str, bytes]],
    target: str,
    make_key: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
) -> tuple[bytes, tuple[bytes, ...]]:
    """The framed setup of a circuit, and the keys of its hops.

    Args:
        hops: ``(onion endpoint, public key)``, the first is dialled by the controller.
        target: ``host:port`` that the last one dials.
        make_key: of the ephemeral keys, innermost first.

    Raises:
        InvalidInput: an address that is too long, or a key that is a point of small order.
    """
    if not hops:
        raise ValueError("a circuit has at least one hop")
    addresses = [*(endpoint for endpoint, _ in hops[1:]), target]
    inner, keys = b"", []
    for position in range(len(hops) - 1, -1, -1):
        address = addresses[position].encode()
        if not 0 < len(address) <= MAX_ADDRESS:
            raise InvalidInput(f"address: {len(address)} bytes; an onion relay takes 1 to {MAX_ADDRESS}")
        flags = _EXIT if position == len(hops) - 1 else 0
        ephemeral = make_key()
        key = _agree(ephemeral, hops[position][1])
        plain = struct.pack(">BH", flags, len(address)) + address + inner
        inner = ephemeral.public_key().public_bytes_raw() + ChaCha20Poly1305(key).encrypt(bytes(12), plain, None)
        keys.append(key)
    if len(inner) > _MAX_SETUP:
        raise InvalidInput(f"circuit: its setup has {len(inner)} bytes; fewer hops are needed")
    return struct.pack(">H", len(inner)) + inner, tuple(reversed(keys))


class Keystream:
    """One direction of a circuit's data, as the controller sees it: the keystreams of all hops. Bytes in order, each
    once.
    """

    def __init__(self, keys: Sequence[bytes], *, forward: bool) -> None:
        nonce = bytes(4) + bytes(11) + bytes([_FORWARD if forward else _RETURN])  # counter 0, then the nonce of RFC 8439
        self._layers = [Cipher(ChaCha20(key, nonce), None).encryptor() for key in keys]
        self._used = 0

    def apply(self, data: bytes) -> bytes:
        """Raises ``OSError`` at the end of what a direction may carry."""
        self._used += len(data)
        if self._used > MAX_CIRCUIT_BYTES:
            raise OSError(errno.EFBIG, "a circuit carries no more than this in one direction; open a new one")
        for layer in self._layers:
            data = layer.update(data)
        return data


def _agree(ephemeral: X25519PrivateKey, public: bytes) -> bytes:
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise InvalidInput("onion_pubkey: is no key that can be agreed with", remedy="See: cox-relay onion-key") from None
    return HKDF(SHA256(), 32, None, _INFO).derive(shared)
