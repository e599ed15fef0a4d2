"""Onion hops: the contract's vector byte for byte, circuits, replays, what is no layer (relay-contract.md 6)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.relay.byte_stream import ByteStream, SocketStream
from coxswain.relay.listener import Listener
from coxswain.relay.onion import OnionRelay
from coxswain.relay.onion_layers import Keystream, VeiledStream, decode_key, encode_key, open_layer, seal_layer
from coxswain.relay.targets import AllowList
from tests.coxswain.relay.pipes import pipe
from tests.coxswain.relay.test_relay_egress import exactly, run

LOG = logging.getLogger("relay")

HOPS = [X25519PrivateKey.from_private_bytes(bytes([value]) * 32) for value in (0x11, 0x22)]
EPHEMERALS = [X25519PrivateKey.from_private_bytes(bytes([value]) * 32) for value in (0x33, 0x44)]
KEYS = [
    "cc611574ecf6a795391b4122076361295ff40e3e76514c27e6694d928a8ba858",
    "fa9753aa0e095ac70bed66eb0f6ed91d5775a8c1daf7fba4fb0fc364e2db85df",
]
LAYER_1 = (
    "ff2ee45601ec1b67310c7790404585ae697331eee1c1f8cf2419731c1fff3e6b69d7f71b671a9bab6abaeea5a91ca63e81f4ce624461d34ae5"
    "11d57380d9e4643e9e"
)
SETUP = (
    "7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14d1c34d370e6414fc0b68de2db77d77a85bb43c18685e3ad290"
    "929c7220f9b15a17d80e108c963305ff64d0e9615614235b3ce6ff1f1d93da7908de61d0480f8eba086488a67c85e9d58d40f719d520c3c16c"
    "db87bfda56c2beaf935e5fd9f40bce4e7682"
)


def public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def test_the_vector() -> None:
    assert encode_key(public(HOPS[0])) == "e06Qm75//kTEZaIgA31gjuNYl9Me+XLwf3SJLLD3PxM="
    assert encode_key(public(HOPS[1])) == "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
    inner, key1 = seal_layer(public(HOPS[1]), "127.0.0.1:29444", b"", last=True, ephemeral=EPHEMERALS[1])
    setup, key0 = seal_layer(public(HOPS[0]), "127.0.0.1:38457", inner, last=False, ephemeral=EPHEMERALS[0])
    assert (inner.hex(), setup.hex()) == (LAYER_1, SETUP)
    assert [key0.hex(), key1.hex()] == KEYS
    first = open_layer(HOPS[0], bytes.fromhex(SETUP))
    assert (first.address, first.exit, first.inner.hex(), first.key.hex()) == ("127.0.0.1:38457", False, LAYER_1, KEYS[0])
    second = open_layer(HOPS[1], first.inner)
    assert (second.address, second.exit, second.inner, second.key.hex()) == ("127.0.0.1:29444", True, b"", KEYS[1])


def test_the_keystreams_of_the_vector() -> None:
    wanted = [
        ("c18e95dce043ec80e1ddf0fe8235f852", "6d8d2805496390b34710f7115a7479b9"),
        ("663585a2de51064ac3cfd4e73248706d", "1566ad925fc85c27a4992856f920c8b3"),
    ]
    for key, streams in zip(KEYS, wanted, strict=True):
        made = tuple(Keystream(bytes.fromhex(key), forward=way).apply(bytes(16)).hex() for way in (True, False))
        assert made == streams
    said = b"hello node"
    for key in KEYS:
        said = Keystream(bytes.fromhex(key), forward=True).apply(said)
    assert said.hex() == "cfde7c12513284a54677"


def test_a_keystream_is_never_repeated() -> None:
    stream = Keystream(bytes(32), forward=True)
    stream._left = 10
    stream.apply(bytes(10))
    with pytest.raises(ConnectionAbortedError, match="256 GiB"):
        stream.apply(b"x")


def test_keys_as_text() -> None:
    assert decode_key(encode_key(bytes(32)) + "\n") == bytes(32)
    for wrong in ("", "AAAA", "!" * 44, "é"):
        with pytest.raises(InvalidInput, match="onion key"):
            decode_key(wrong)
    with pytest.raises(InvalidInput, match="not a public key"):
        seal_layer(bytes(32), "a:1", b"", last=True, ephemeral=EPHEMERALS[0])
    with pytest.raises(InvalidInput, match="255 at most"):
        seal_layer(public(HOPS[0]), "a" * 256, b"", last=True, ephemeral=EPHEMERALS[0])


@given(st.binary(max_size=200), st.integers(0, 131), st.integers(1, 255))
def test_nothing_but_a_layer_for_this_key_is_opened(noise: bytes, at: int, change: int) -> None:
    for blob in (noise, bytes.fromhex(SETUP)[:at], _changed(bytes.fromhex(SETUP), at, change)):
        with pytest.raises(InvalidInput, match="layer"):
            open_layer(HOPS[0], blob)


def _changed(blob: bytes, at: int, change: int) -> bytes:
    if at == 31:
        change &= 0x7F  # the top bit of an X25519 public key says nothing (RFC 7748, 5)
        change = change or 1
    return blob[:at] + bytes([blob[at] ^ change]) + blob[at + 1 :]


@contextlib.asynccontextmanager
async def hop(key: X25519PrivateKey, allow: Sequence[str] = ("127.0.0.0/8",), **options: Any) -> AsyncIterator[str]:
    listener = Listener(OnionRelay(key, allowed=AllowList(allow), **options).serve, LOG)
    try:
        yield await listener.start("127.0.0.1:0")
    finally:
        await listener.stop()


@contextlib.asynccontextmanager
async def node() -> AsyncIterator[str]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def circuit(hops: Sequence[tuple[str, X25519PrivateKey]], target: str) -> tuple[bytes, list[bytes]]:
    """The framed setup and the keys, outermost first."""
    inner, keys = b"", []
    following = target
    for index, (address, key) in reversed(list(enumerate(hops))):
        inner, shared = seal_layer(
            public(key), following, inner, last=index == len(hops) - 1, ephemeral=X25519PrivateKey.generate()
        )
        following = address
        keys.insert(0, shared)
    return len(inner).to_bytes(2) + inner, keys


async def enter(address: str, setup: bytes, keys: Sequence[bytes] = ()) -> ByteStream:
    host, _, port = address.rpartition(":")
    stream: ByteStream = SocketStream(*await asyncio.open_connection(host, int(port)))
    await stream.write(setup)
    for key in keys:
        stream = VeiledStream(stream, reading=Keystream(key, forward=False), writing=Keystream(key, forward=True))
    return stream


@pytest.mark.parametrize("length", [1, 2, 3])
def test_circuits_carry_bytes_both_ways(length: int) -> None:
    async def scenario() -> None:
        keys = [X25519PrivateKey.generate() for _ in range(length)]
        async with contextlib.AsyncExitStack() as stack:
            target = await stack.enter_async_context(node())
            hops = [(await stack.enter_async_context(hop(key)), key) for key in keys]
            many = []
            for _ in range(5):  # any number at once
                setup, shared = circuit(hops, target)
                many.append(await enter(hops[0][0], setup, shared))
            for number, stream in enumerate(many):
                body = bytes([number]) * 100_000
                writing = asyncio.create_task(stream.write(body))
                assert await exactly(stream, len(body)) == body
                await writing
                stream.close()

    run(scenario)


async def ends_silently(address: str, setup: bytes) -> None:
    stream = await enter(address, setup)
    with contextlib.suppress(ConnectionResetError):
        assert await stream.read() == b""
    stream.close()


def test_a_setup_is_good_once() -> None:
    async def scenario() -> None:
        key = X25519PrivateKey.generate()
        async with node() as target, hop(key) as relay:
            setup, keys = circuit([(relay, key)], target)
            stream = await enter(relay, setup, keys)
            await stream.write(b"once")
            assert await exactly(stream, 4) == b"once"
            await ends_silently(relay, setup)
            stream.close()

    run(scenario)


def test_only_so_many_setups_are_remembered() -> None:
    relay = OnionRelay(X25519PrivateKey.generate(), remembered=2)
    for number in range(5):
        relay._once(bytes([number]) * 32)
    assert len(relay._seen) == 2


def test_every_failure_is_the_end_of_the_connection_with_nothing_sent() -> None:
    async def scenario() -> None:
        key = X25519PrivateKey.generate()
        async with node() as target, hop(key, ["127.0.0.1:1"]) as strict, hop(key, setup_s=0.05) as relay:
            await ends_silently(strict, circuit([(strict, key)], target)[0])  # not allowed
            await ends_silently(relay, circuit([(relay, key)], "127.0.0.1:1")[0])  # nobody there
            await ends_silently(relay, circuit([(relay, key)], "not a target")[0])
            await ends_silently(relay, (100).to_bytes(2) + bytes(100))
            await ends_silently(relay, (100).to_bytes(2) + b"too little")  # and silence: the deadline
            await ends_silently(relay, bytes(2))

    run(scenario)


def test_a_veiled_stream_ends_as_the_one_beneath() -> None:
    async def scenario() -> None:
        near, far = await pipe()
        veiled = VeiledStream(near, reading=Keystream(bytes(32), forward=True), writing=Keystream(bytes(32), forward=False))
        await veiled.write(b"abc")
        await veiled.write_eof()
        assert len(await far.read()) == 3
        assert await far.read() == b""
        far.close()
        assert await veiled.read() == b""
        veiled.abort()

    run(scenario)
