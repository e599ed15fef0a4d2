"""``.pharos`` files: a profile document in the clear, under a password, or sealed (accounts-profiles.md 4.1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from coxswain.accounts.primitives import (
    NONCE_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    RandomBytes,
    compact,
    decrypt,
    derive_from_password,
    encrypt,
    from_base64,
    parse_object,
    random_bytes,
    to_base64,
)
from coxswain.accounts.sealed import SealedBundle, open_sealed, read_sealed
from coxswain.errors import InvalidInput

__all__ = ["FORMAT", "Container", "open_password", "read_container", "write_account", "write_password", "write_plain"]

FORMAT = "pharos-profile"
_VERSION = 1
_MAX_TEXT = 8 * 1024 * 1024
_MOST_PASSES, _MOST_MEMORY_KIB, _MOST_LANES = 16, 1_048_576, 16
"""A file may ask for other parameters than ours, but not for all of the machine."""

_WHERE = "profile file"


@dataclass(frozen=True, slots=True)
class Container:
    """A file taken apart. ``enc``: ``none``, ``password`` or ``account``; ``payload`` is what that makes of it."""

    enc: str
    payload: Any
    kdf: dict[str, Any] | None = None
    nonce: bytes = b""

    def document(self) -> dict[str, Any]:
        """Of a file in the clear. Raises ``InvalidInput`` for another one."""
        if self.enc != "none" or not isinstance(self.payload, dict):
            raise InvalidInput(f"{_WHERE}: it is not in the clear")
        return self.payload

    def open_account(self, private: bytes, signer: bytes) -> bytes:
        """Raises ``InvalidInput``."""
        if self.enc != "account" or not isinstance(self.payload, dict):
            raise InvalidInput(f"{_WHERE}: it is not sealed to a device or account")
        return open_sealed(read_sealed(self.payload), private, signer)


def write_plain(document: dict[str, Any]) -> str:
    """Everything in it can be read by whoever has the file."""
    return _text({"fmt": FORMAT, "v": _VERSION, "enc": "none", "payload": document})


def write_account(bundle: SealedBundle) -> str:
    return _text({"fmt": FORMAT, "v": _VERSION, "enc": "account", "payload": bundle.to_json()})


def write_password(document: bytes, password: str, rng: RandomBytes = random_bytes) -> str:
    """``document`` is compact JSON. Raises ``InvalidInput`` for an empty password."""
    if not password:
        raise InvalidInput("password: is empty; anything else will do")
    salt, nonce = rng(SALT_BYTES), rng(NONCE_BYTES)
    kdf = {"algo": "argon2id", "t": 1, "m": 65_536, "p": 4, "salt": to_base64(salt)}
    sealed = encrypt(derive_from_password(password, salt), nonce, document, _aad(kdf, nonce))
    header = {"fmt": FORMAT, "v": _VERSION, "enc": "password", "kdf": kdf, "nonce": to_base64(nonce)}
    return _text(header | {"payload": to_base64(sealed)})


def read_container(text: str | bytes) -> Container:
    """Takes a file apart; opens nothing. Raises ``InvalidInput``."""
    value = parse_object(text, _WHERE, most=_MAX_TEXT)
    if value.get("fmt") != FORMAT:
        raise InvalidInput(f"{_WHERE}: fmt is not {FORMAT}")
    if value.get("v") != _VERSION or isinstance(value["v"], bool):
        raise InvalidInput(f"{_WHERE}: its version is not {_VERSION}; this release reads no other")
    enc, payload = value.get("enc"), value.get("payload")
    match enc:
        case "none" | "account":
            if not isinstance(payload, dict):
                raise InvalidInput(f"{_WHERE}: payload is not an object")
            return Container(enc, payload)
        case "password":
            kdf = _kdf(value.get("kdf"))
            nonce = from_base64(value.get("nonce"), f"{_WHERE}.nonce", length=NONCE_BYTES)
            sealed = from_base64(payload, f"{_WHERE}.payload", at_least=TAG_BYTES)
            return Container(enc, sealed, kdf, nonce)
        case _:
            raise InvalidInput(f"{_WHERE}: enc is none of none, password, account")


def open_password(container: Container, password: str) -> bytes:
    """The document's bytes. Raises ``InvalidInput``: not such a file, or another password."""
    if container.enc != "password" or container.kdf is None:
        raise InvalidInput(f"{_WHERE}: it is not under a password")
    kdf = container.kdf
    salt = from_base64(kdf["salt"], f"{_WHERE}.kdf.salt", length=SALT_BYTES)
    key = derive_from_password(password, salt, passes=kdf["t"], memory_kib=kdf["m"], lanes=kdf["p"])
    return decrypt(key, container.nonce, container.payload, _WHERE, _aad(kdf, container.nonce))


def _aad(kdf: dict[str, Any], nonce: bytes) -> bytes:
    header = {"fmt": FORMAT, "v": _VERSION, "enc": "password", "kdf": kdf, "nonce": to_base64(nonce), "payload": None}
    return compact(header).encode()


def _kdf(value: Any) -> dict[str, Any]:
    """In the order in which it is authenticated. ``algo`` is taken as it stands; there is only one."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{_WHERE}: kdf is not an object")
    found: dict[str, Any] = {"algo": value.get("algo", "argon2id")}
    for name, most in (("t", _MOST_PASSES), ("m", _MOST_MEMORY_KIB), ("p", _MOST_LANES)):
        number = value.get(name)
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
            raise InvalidInput(f"{_WHERE}: kdf.{name} is not a whole number from 1 to {most}")
        found[name] = number
    if not isinstance(found["algo"], str) or found["m"] < 8 * found["p"]:
        raise InvalidInput(f"{_WHERE}: kdf is none that can be used")
    from_base64(value.get("salt"), f"{_WHERE}.kdf.salt", length=SALT_BYTES)
    return found | {"salt": value["salt"]}


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
