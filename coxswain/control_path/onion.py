"""Onion circuits, the controller's side: the setup in layers, and all hops' keystreams after it (relay-contract.md 6).

Between relays there is no integrity, and none is needed: what a circuit carries is TLS or SSH between its ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coxswain.errors import InvalidInput
from coxswain.relay.byte_stream import ByteStream
from coxswain.relay.onion_layers import Keystream, VeiledStream, seal_layer

__all__ = ["build", "veil"]

_MAX_SETUP = 60_000
"""Its length is sent in two bytes (relay-contract.md 6.3)."""


def build(
    hops: Sequence[tuple[str, bytes]],
    target: str,
    make_key: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
) -> tuple[bytes, tuple[bytes, ...]]:
    """The framed setup of a circuit, and the keys of its hops, the first hop's first.

    Args:
        hops: ``(onion endpoint, public key)``; the first is dialled by the controller.
        target: ``host:port`` that the last one dials.
        make_key: of the ephemeral keys, innermost first.

    Raises:
        InvalidInput: an address that is too long, or a key that is none.
    """
    if not hops:
        raise ValueError("a circuit has at least one hop")
    addresses = [*(endpoint for endpoint, _ in hops[1:]), target]
    inner, keys = b"", []
    for position in range(len(hops) - 1, -1, -1):
        last = position == len(hops) - 1
        inner, key = seal_layer(hops[position][1], addresses[position], inner, last=last, ephemeral=make_key())
        keys.append(key)
    if len(inner) > _MAX_SETUP:
        raise InvalidInput(f"circuit: its setup has {len(inner)} bytes; fewer hops are needed")
    return struct.pack(">H", len(inner)) + inner, tuple(reversed(keys))


def veil(stream: ByteStream, keys: Sequence[bytes]) -> ByteStream:
    """What is written and read passes the keystreams of all hops; in which order makes no difference."""
    for key in keys:
        stream = VeiledStream(stream, reading=Keystream(key, forward=False), writing=Keystream(key, forward=True))
    return stream
