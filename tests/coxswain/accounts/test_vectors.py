"""Appendix B of accounts-profiles.md, and every other vector of its sections, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json

from coxswain.access.passwords import check_hash
from coxswain.accounts.container import open_password, read_container, write_account, write_password, write_plain
from coxswain.accounts.invites import hash_token
from coxswain.accounts.keyblob import unwrap_key, wrap_key
from coxswain.accounts.primitives import RandomBytes, agree, derive_from_password, signing_public_key, x25519_public_key
from coxswain.accounts.sealed import open_sealed, read_sealed, seal

PRIVATE = bytes(range(0x01, 0x21))
SEED = bytes(range(0x20, 0x40))
PLAIN = b'{"fleet_id":"","user":"usr_x","revision":1}'
PUBLIC = bytes.fromhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
SIGNER = bytes.fromhex("29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7")
SIGNING_INPUT = (
    '{"v":1,"epk":"17XoHTNuV4sTuNcG6C0GHjA4yWvOZs3PUNVmuW3buhA=","wn":"IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIi",'
    '"wk":"3KMUdQk9Y/JS/REF8gS4IA4L3ThDurZZCmGC6rWNxGExTVRxT1+BQbroc8b1y5Ef","n":"MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMz",'
    '"ct":"wYYR5R0Od2jr8Aqe7M/S9P40GYxuiVb5mBbJArI73TPKkLG9wKDsZvtyotL6Q8dCGs9cb87K+olGdaE=","sig":null}'
)
SIGNATURE = "uIHeuhE/3E8CS4wdgRBju/34hqdsWUkwns665fajlYeU5Y8r65M3snPY9R89rXc5iS3O0mS7vX5d//ZPHWgUDQ=="


def these(*parts: bytes) -> RandomBytes:
    """A source that gives exactly these, one after the other, each of the length that was asked for."""
    left = list(parts)

    def draw(count: int) -> bytes:
        part = left.pop(0)
        assert len(part) == count
        return part

    return draw


def sealed_vector() -> str:
    rng = these(b"\x40" * 32, b"\x11" * 32, b"\x22" * 24, b"\x33" * 24)
    return seal(PLAIN, PUBLIC, SEED, rng).to_text()


def test_the_keys() -> None:
    assert x25519_public_key(PRIVATE) == PUBLIC
    assert signing_public_key(SEED) == SIGNER
    ephemeral = x25519_public_key(b"\x40" * 32)
    assert agree(PRIVATE, ephemeral, "x").hex() == "4ce1d74a74986223acbc3d6909c976da565b92bd89dbf247d9dbac6220555730"


def test_a_sealed_bundle() -> None:
    bundle = read_sealed(sealed_vector())
    assert bundle.signing_input().decode() == SIGNING_INPUT
    digest = hashlib.sha256(bundle.signing_input()).hexdigest()
    assert digest == "b8744b4ad47f68784ff70a0f4773aeb8fabbd71c8e8ba71e7136f00e046c2ee0"
    assert base64.b64encode(bundle.sig).decode() == SIGNATURE
    assert sealed_vector() == SIGNING_INPUT.replace("null", f'"{SIGNATURE}"')
    assert open_sealed(bundle, PRIVATE, SIGNER) == PLAIN


def test_its_text_may_have_any_layout_and_more_keys() -> None:
    value = json.loads(sealed_vector())
    text = json.dumps({"more": 1, **dict(sorted(value.items()))}, indent=3)
    assert open_sealed(read_sealed(text), PRIVATE, SIGNER) == PLAIN


def test_a_file_under_a_password() -> None:
    key = derive_from_password("correct horse", b"\x44" * 16)
    assert key.hex() == "0f3181724b31765b084009f5ff1530e54e10d76a71c324de57265810471bf6d4"
    text = write_password(PLAIN, "correct horse", these(b"\x44" * 16, b"\x55" * 24))
    value = json.loads(text)
    assert list(value) == ["fmt", "v", "enc", "kdf", "nonce", "payload"]
    assert list(value["kdf"]) == ["algo", "t", "m", "p", "salt"]
    wanted = "cNGFmrZhv9IPdjhrdWX50TF6myyMZl55ssCROUkr3Imc3qNQIo8LxJM2QPwbVVwIPLBT95WPEVHLyPA="
    assert value["payload"] == wanted
    assert open_password(read_container(text), "correct horse") == PLAIN


def test_a_file_sealed_to_an_account_and_one_in_the_clear() -> None:
    text = write_account(read_sealed(sealed_vector()))
    assert read_container(text).open_account(PRIVATE, SIGNER) == PLAIN
    document = json.loads(PLAIN)
    assert read_container(write_plain(document)).document() == document


def test_a_wrapped_key() -> None:
    blob = wrap_key(PRIVATE, "pass phrase", these(b"\x66" * 16, b"\x77" * 24))
    assert blob.decode() == (
        '{"v":1,"salt":"ZmZmZmZmZmZmZmZmZmZmZg==","n":"d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3",'
        '"ct":"tTErfmfnEjsaxNQhVeXwN+NQrMegwlIxbxSeKYPu1/RQJ1oJbYJukNJ1iFws/Zgq"}'
    )
    assert unwrap_key(blob, "pass phrase") == PRIVATE


def test_a_ticket_and_a_password() -> None:
    """accounts-profiles.md 5.2 and 1.2."""
    assert hash_token("Zm9vYmFyLXRva2Vu") == "56060923f33d9af2059723bfa2ce695dd28111219c2e86d23f963b7d598bf0e7"
    phc = "$argon2id$v=19$m=65536,t=1,p=4$AAECAwQFBgcICQoLDA0ODw$cLQzlX0ZdAV5kRoBRrJddey2ua3cS+y8z6P4NVMhptA"
    assert check_hash("correct horse battery", phc)
