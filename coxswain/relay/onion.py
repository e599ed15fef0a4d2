"""The onion role: a hop that knows its neighbours and nothing else (relay-contract.md 6, the relay's side).

Anybody who knows the relay's public key may use it; so it connects only to what its policy allows, if it has one. Beat: a
setup is accepted once, so that a recorded one gives nobody a keystream a second time; and it must come within a deadline.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coxswain.errors import Refused
from coxswain.relay.byte_stream import ByteStream, SocketStream, splice
from coxswain.relay.onion_layers import KEY_BYTES, Keystream, VeiledStream, open_layer
from coxswain.relay.targets import Allowed, AllowList, dial

__all__ = ["OnionRelay"]

SETUP_S = 15.0
"""Seconds in which a connection must say where it goes."""

_REMEMBERED = 65_536
"""Setups whose second use is refused: 6 MB at most."""


class OnionRelay:
    """Handles the connections of one listener; ``serve`` is for ``Listener``."""

    def __init__(
        self,
        private: X25519PrivateKey,
        *,
        allowed: Allowed | None = None,
        setup_s: float = SETUP_S,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._private = private
        self._allowed = allowed or AllowList(())
        self._setup_s = setup_s
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._remembered = remembered

    async def serve(self, stream: SocketStream) -> None:
        """One circuit. Every failure is the end of the connection, with nothing sent."""
        async with asyncio.timeout(self._setup_s):
            setup = await _exactly(stream, int.from_bytes(await _exactly(stream, 2)))
        layer = open_layer(self._private, setup)
        self._once(setup[:KEY_BYTES])
        onward = await dial(layer.address, self._allowed)
        try:
            if not layer.exit:
                await onward.write(len(layer.inner).to_bytes(2) + layer.inner)
            behind = VeiledStream(
                stream, reading=Keystream(layer.key, forward=True), writing=Keystream(layer.key, forward=False)
            )
            await splice(behind, onward)
        finally:
            onward.close()

    def _once(self, ephemeral: bytes) -> None:
        if ephemeral in self._seen:
            raise Refused("layer: was used before")
        self._seen[ephemeral] = None
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)


async def _exactly(stream: ByteStream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await stream.read(count - len(got))
        if not part:
            raise ConnectionResetError("cut off")
        got += part
    return got
