"""The bytes of onion circuits, against the vector that two existing relays accepted (relay-contract.md 6.5)."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coxswain.control_path import onion
from coxswain.errors import InvalidInput
from coxswain.relay.byte_stream import CHUNK
from coxswain.relay.onion_layers import decode_key

HOP0 = "e06Qm75//kTEZaIgA31gjuNYl9Me+XLwf3SJLLD3PxM="
HOP1 = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
SETUP = bytes.fromhex(
    "7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14d1c34d370e6414fc0b68de2db77d77a85bb43c18685e3ad290929c7220f9b15a"
    "17d80e108c963305ff64d0e9615614235b3ce6ff1f1d93da7908de61d0480f8eba086488a67c85e9d58d40f719d520c3c16cdb87bfda56c2beaf935e5fd9f40b"
    "ce4e7682"
)
KEYS = (
    bytes.fromhex("cc611574ecf6a795391b4122076361295ff40e3e76514c27e6694d928a8ba858"),
    bytes.fromhex("fa9753aa0e095ac70bed66eb0f6ed91d5775a8c1daf7fba4fb0fc364e2db85df"),
)


RETURNING = ("6d8d2805496390b34710f7115a7479b9", "1566ad925fc85c27a4992856f920c8b3")
"""The keystreams of both hops on the way back, first 16 bytes."""


def vector() -> tuple[bytes, tuple[bytes, ...]]:
    ephemerals = iter((b"\x44" * 32, b"\x33" * 32))  # innermost first
    hops = [("127.0.0.1:28457", decode_key(HOP0)), ("127.0.0.1:38457", decode_key(HOP1))]
    return onion.build(hops, "127.0.0.1:29444", lambda: X25519PrivateKey.from_private_bytes(next(ephemerals)))


def test_the_setup_is_that_of_the_vector() -> None:
    setup, keys = vector()
    assert setup == b"\x00\x84" + SETUP
    assert keys == KEYS


class Wire:
    """Keeps what is written, and gives back what it is told to."""

    def __init__(self, answer: bytes = b"") -> None:
        self.written = bytearray()
        self._answer = answer

    async def read(self, limit: int = CHUNK) -> bytes:
        given, self._answer = self._answer[:limit], self._answer[limit:]
        return given

    async def write(self, data: bytes) -> None:
        self.written += data

    async def write_eof(self) -> None:
        raise AssertionError("relays know no half-close")

    def close(self) -> None: ...

    def abort(self) -> None: ...


def test_what_goes_over_the_circuit_is_that_of_the_vector() -> None:
    back = bytes(a ^ b for a, b in zip(*(bytes.fromhex(one) for one in RETURNING), strict=True))
    wire = Wire(bytes(a ^ b for a, b in zip(b"hello controller"[:16], back, strict=True)))
    circuit = onion.veil(wire, KEYS)
    asyncio.run(circuit.write(b"hello node"))
    assert wire.written.hex() == "cfde7c12513284a54677"
    assert asyncio.run(circuit.read()) == b"hello controller"[:16]


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_however_a_stream_is_cut_its_bytes_are_the_same(parts: list[bytes]) -> None:
    async def written(pieces: list[bytes], keys: tuple[bytes, ...]) -> bytes:
        wire = Wire()
        circuit = onion.veil(wire, keys)
        for piece in pieces:
            await circuit.write(piece)
        return bytes(wire.written)

    whole = asyncio.run(written([b"".join(parts)], KEYS))
    assert asyncio.run(written(parts, tuple(reversed(KEYS)))) == whole
    assert asyncio.run(written([whole], KEYS)) == b"".join(parts), "hops take their layers off in any order"


@given(st.integers(1, 3), st.text(alphabet="abc.:[]0123456789", min_size=1, max_size=255))
def test_each_hop_adds_51_bytes_and_the_address(count: int, target: str) -> None:
    hops = [(f"192.0.2.{number}:8457", decode_key(HOP0)) for number in range(count)]
    setup, keys = onion.build(hops, target)
    assert len(setup) == 2 + 51 * count + len(target) + sum(len(endpoint) for endpoint, _ in hops[1:])
    assert len(set(keys)) == count


def test_a_key_of_small_order_and_an_address_that_is_too_long_are_refused() -> None:
    with pytest.raises(InvalidInput, match="public key"):
        onion.build([("192.0.2.1:8457", bytes(32))], "192.0.2.2:22")
    with pytest.raises(InvalidInput, match="256 bytes"):
        onion.build([("192.0.2.1:8457", decode_key(HOP0))], "a" * 256)
