"""The bytes of onion circuits, against the vector that two existing relays accepted (relay-contract.md 6.5)."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coxswain.control_path import onion
from coxswain.errors import InvalidInput

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


def vector() -> tuple[bytes, tuple[bytes, ...]]:
    ephemerals = iter((b"\x44" * 32, b"\x33" * 32))  # innermost first
    hops = [("127.0.0.1:28457", onion.read_public_key(HOP0)), ("127.0.0.1:38457", onion.read_public_key(HOP1))]
    return onion.build(hops, "127.0.0.1:29444", lambda: X25519PrivateKey.from_private_bytes(next(ephemerals)))


def test_the_setup_is_that_of_the_vector() -> None:
    setup, keys = vector()
    assert setup == b"\x00\x84" + SETUP
    assert keys == KEYS


def test_the_keystreams_are_those_of_the_vector() -> None:
    assert onion.Keystream(KEYS, forward=True).apply(b"hello node").hex() == "cfde7c12513284a54677"
    for key, forward, back in (
        (KEYS[0], "c18e95dce043ec80e1ddf0fe8235f852", "6d8d2805496390b34710f7115a7479b9"),
        (KEYS[1], "663585a2de51064ac3cfd4e73248706d", "1566ad925fc85c27a4992856f920c8b3"),
    ):
        assert onion.Keystream([key], forward=True).apply(bytes(16)).hex() == forward
        assert onion.Keystream([key], forward=False).apply(bytes(16)).hex() == back


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_however_a_stream_is_cut_its_bytes_are_the_same(parts: list[bytes], forward: bool) -> None:
    whole = onion.Keystream(KEYS, forward=forward).apply(b"".join(parts))
    running = onion.Keystream(KEYS, forward=forward)
    assert b"".join(map(running.apply, parts)) == whole
    undone = onion.Keystream(tuple(reversed(KEYS)), forward=forward)
    assert undone.apply(whole) == b"".join(parts), "hops take their layers off in any order"


def test_a_direction_ends_before_a_relays_counter_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onion, "MAX_CIRCUIT_BYTES", 100)
    stream = onion.Keystream(KEYS, forward=True)
    stream.apply(bytes(100))
    with pytest.raises(OSError, match="open a new one"):
        stream.apply(b"x")


@given(st.integers(1, 3), st.text(alphabet="abc.:[]0123456789", min_size=1, max_size=255))
def test_each_hop_adds_51_bytes_and_the_address(count: int, target: str) -> None:
    hops = [(f"192.0.2.{number}:8457", onion.read_public_key(HOP0)) for number in range(count)]
    setup, keys = onion.build(hops, target)
    assert len(setup) == 2 + 51 * count + len(target) + sum(len(endpoint) for endpoint, _ in hops[1:])
    assert len(set(keys)) == count


@pytest.mark.parametrize("key", ["", "nonsense!", base64.b64encode(bytes(31)).decode(), "é"])
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        onion.read_public_key(key)
    assert not key or key not in str(caught.value)


def test_a_key_of_small_order_and_an_address_that_is_too_long_are_refused() -> None:
    with pytest.raises(InvalidInput, match="agreed"):
        onion.build([("192.0.2.1:8457", bytes(32))], "192.0.2.2:22")
    with pytest.raises(InvalidInput, match="256 bytes"):
        onion.build([("192.0.2.1:8457", onion.read_public_key(HOP0))], "a" * 256)
