"""The parsers of accounts/: what is not sound is refused with a sentence, whatever it is; nothing of a secret is shown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.accounts.container import open_password, read_container, write_password, write_plain
from coxswain.accounts.identity import DeviceIdentity, read_identity, write_identity
from coxswain.accounts.invites import JoinLink, check_relay, host_of_relay, new_token, parse_link
from coxswain.accounts.keyblob import read_wrapped, unwrap_key, wrap_key
from coxswain.accounts.primitives import agree, signing_public_key, x25519_public_key
from coxswain.accounts.sealed import MAX_DOCUMENT_BYTES, open_sealed, read_sealed, seal
from coxswain.errors import InvalidInput

PRIVATE, SEED = b"\x07" * 32, b"\x09" * 32
PUBLIC, SIGNER = x25519_public_key(PRIVATE), signing_public_key(SEED)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

READERS: dict[str, tuple[Callable[[Any], object], str]] = {
    "bundle": (read_sealed, seal(b"{}", PUBLIC, SEED).to_text()),
    "container": (read_container, write_plain({"profiles": []})),
    "key": (read_wrapped, wrap_key(PRIVATE, "x").decode()),
    "identity": (
        read_identity, write_identity(DeviceIdentity("r:443", "ca", "cert", "key", encryption_key=PRIVATE))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_no_foreign_bytes_do_more_than_be_refused(name: str, data: st.DataObject) -> None:
    read, good = READERS[name]
    value = json.loads(good)
    key = data.draw(st.sampled_from(sorted(value)))
    damaged = {**value, key: data.draw(JSON)}
    cut = good[: data.draw(st.integers(0, len(good)))]
    for text in (data.draw(st.text()), json.dumps(data.draw(JSON)), json.dumps(damaged), cut):
        for form in (text, text.encode("utf-8", "surrogatepass")):
            with contextlib.suppress(InvalidInput):
                read(form)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "x" * 9_000_000, '{"v": NaN}', '{"v": 1e999}'])
def test_nor_do_deep_large_or_strange_ones(text: str) -> None:
    for read, _ in READERS.values():
        with pytest.raises(InvalidInput):
            read(text.encode())


@given(st.binary(max_size=300), st.integers(0, 5), st.integers(0, 10_000), st.integers(1, 255))
def test_a_bundle_of_which_one_byte_was_changed_is_not_opened(plain: bytes, part: int, place: int, change: int) -> None:
    bundle = seal(plain, PUBLIC, SEED)
    assert open_sealed(read_sealed(bundle.to_text()), PRIVATE, SIGNER) == plain
    name = ("epk", "wn", "wk", "n", "ct", "sig")[part]
    raw = bytearray(getattr(bundle, name))
    raw[place % len(raw)] ^= change
    parts = {key: getattr(bundle, key) for key in ("epk", "wn", "wk", "n", "ct", "sig")} | {name: bytes(raw)}
    with pytest.raises(InvalidInput, match="not signed"):
        open_sealed(type(bundle)(**parts), PRIVATE, SIGNER)


def test_nobody_else_opens_it_and_nobody_elses_signature_will_do() -> None:
    bundle = seal(b"secret", PUBLIC, SEED)
    with pytest.raises(InvalidInput, match="another key"):
        open_sealed(bundle, b"\x08" * 32, SIGNER)
    with pytest.raises(InvalidInput, match="not signed"):
        open_sealed(bundle, PRIVATE, signing_public_key(b"\x0a" * 32))
    assert b"secret" not in bundle.to_text().encode()


def test_two_seals_have_nothing_in_common() -> None:
    one, two = seal(b"x", PUBLIC, SEED), seal(b"x", PUBLIC, SEED)
    for part in ("epk", "wn", "wk", "n", "ct", "sig"):
        assert getattr(one, part) != getattr(two, part)


def test_a_key_with_which_there_is_no_secret_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no secret"):
        agree(PRIVATE, bytes(32), "key")
    with pytest.raises(InvalidInput, match="no secret"):
        seal(b"x", bytes(32), SEED)


def test_a_document_that_no_client_takes_is_not_sealed() -> None:
    seal(b"x" * MAX_DOCUMENT_BYTES, PUBLIC, SEED)
    with pytest.raises(InvalidInput, match="more than clients take"):
        seal(b"x" * (MAX_DOCUMENT_BYTES + 1), PUBLIC, SEED)


def test_a_wrong_password_opens_nothing_and_is_not_shown() -> None:
    text = write_password(b"{}", "right")
    with pytest.raises(InvalidInput) as refused:
        open_password(read_container(text), "wrong-password")
    assert "wrong-password" not in str(refused.value)
    with pytest.raises(InvalidInput):
        unwrap_key(wrap_key(PRIVATE, "right"), "wrong-password")


@pytest.mark.parametrize(
    ("name", "value"), [("t", 1_000), ("m", 64 * 1024 * 1024), ("p", 300), ("m", True), ("t", 1.0), ("p", 0)]
)
def test_a_file_may_not_ask_for_all_of_the_machine(name: str, value: object) -> None:
    container = json.loads(write_password(b"{}", "x"))
    container["kdf"][name] = value
    with pytest.raises(InvalidInput, match="kdf"):
        read_container(json.dumps(container))


def test_the_header_of_a_file_under_a_password_is_authenticated() -> None:
    container = json.loads(write_password(b"{}", "x"))
    container["kdf"]["algo"] = "argon2i"
    with pytest.raises(InvalidInput, match="cannot be opened"):
        open_password(read_container(json.dumps(container)), "x")


def test_an_identity_reads_as_it_was_written_and_shows_no_key() -> None:
    whole = DeviceIdentity("r:443", "ca", "cert", "device key", "r", "ab" * 32, "usr_x", "Ann", SIGNER, PRIVATE)
    assert read_identity(write_identity(whole)) == whole
    bare = DeviceIdentity("r:443", "ca", "cert", "device key")
    assert read_identity(write_identity(bare)) == bare
    assert set(json.loads(write_identity(bare))) == {
        "fmt", "v", "relay_addr", "relay_server_name", "fleet_ca", "device_cert", "device_key"
    }  # fmt: skip
    assert "device key" not in repr(whole)
    assert repr(PRIVATE) not in repr(whole)


def test_a_join_link_as_clients_know_it() -> None:
    link = JoinLink("ab" * 32, "[2001:db8::1]:443", new_token())
    assert link.url() == f"pharosvpn://enroll?ca={'ab' * 32}&relay=%5B2001%3Adb8%3A%3A1%5D%3A443&token={link.token}"
    assert parse_link(link.url()) == link
    loose = f"pharosvpn://enroll?token={link.token}&ca=SHA256:{':'.join(['AB'] * 32)}&relay= relay.example:443 "
    assert parse_link(loose) == JoinLink("ab" * 32, "relay.example:443", link.token)
    assert len(link.token) == 43
    assert link.token not in repr(link)


@given(st.text(max_size=200) | st.from_regex(r"pharosvpn://enroll\?(ca|relay|token)=.{0,40}&.{0,40}", fullmatch=True))
def test_other_texts_are_no_join_links(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_link(text)


@pytest.mark.parametrize("text", ["", "relay", "relay:0", "relay:65536", ":443", "re lay:443", "[::1:443", "a&b=c:443"])
def test_what_is_no_relay(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_relay(text)


def test_the_host_of_a_relay() -> None:
    assert host_of_relay(check_relay("relay.example:443")) == "relay.example"
    assert host_of_relay(check_relay("[2001:db8::1]:443")) == "2001:db8::1"
    assert host_of_relay(check_relay("203.0.113.7:8443")) == "203.0.113.7"
