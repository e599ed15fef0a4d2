"""``SealedBundle`` v1: a document that the holder of one X25519 key can open, signed by the controller.

Byte for byte as accounts-profiles.md 3.2 has it: the signature is over compact JSON with the keys in this order and ``sig``
null, and is checked before anything else is done with the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coxswain.accounts.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    RandomBytes,
    agree,
    compact,
    decrypt,
    encrypt,
    from_base64,
    is_signed,
    parse_object,
    random_bytes,
    sign,
    to_base64,
    x25519_public_key,
)
from coxswain.errors import InvalidInput

__all__ = ["MAX_DOCUMENT_BYTES", "SealedBundle", "open_sealed", "read_sealed", "seal"]

MAX_DOCUMENT_BYTES = 3_000_000
"""Of the plain document: clients receive at most 4 MiB, and base64 costs a third (accounts-profiles.md 4.3)."""

_MAX_TEXT = 4 * 1024 * 1024
_SIGNATURE_BYTES = 64
_VERSION = 1
_WHERE = "bundle"


@dataclass(frozen=True, slots=True)
class SealedBundle:
    """The parts of a bundle. Nothing of it is secret to whoever lacks the recipient's key."""

    epk: bytes
    wn: bytes
    wk: bytes
    n: bytes
    ct: bytes
    sig: bytes = b""

    def signing_input(self) -> bytes:
        return compact(self._fields() | {"sig": None}).encode("ascii")

    def to_json(self) -> dict[str, Any]:
        """As an object, for a container; ``to_text`` as it is sent and stored."""
        return self._fields() | {"sig": to_base64(self.sig)}

    def to_text(self) -> str:
        return compact(self.to_json())

    def _fields(self) -> dict[str, Any]:
        parts = {name: to_base64(getattr(self, name)) for name in ("epk", "wn", "wk", "n", "ct")}
        return {"v": _VERSION, **parts}


def seal(document: bytes, recipient: bytes, signing_seed: bytes, rng: RandomBytes = random_bytes) -> SealedBundle:
    """Seals ``document`` for the X25519 public key ``recipient``, and signs with the Ed25519 ``signing_seed``.

    Randomness is drawn in the order: ephemeral key, data key, nonce of the wrap, nonce of the content.

    Raises:
        InvalidInput: the key is not one, or the document is too large for any client.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"document: {len(document)} bytes are more than clients take; at most {MAX_DOCUMENT_BYTES}")
    if len(recipient) != KEY_BYTES:
        raise InvalidInput(f"encryption key: {len(recipient)} bytes; {KEY_BYTES} are needed")
    ephemeral, data_key = rng(KEY_BYTES), rng(KEY_BYTES)
    wrap_nonce, nonce = rng(NONCE_BYTES), rng(NONCE_BYTES)
    wrap_key = agree(ephemeral, recipient, "encryption key")
    unsigned = SealedBundle(
        epk=x25519_public_key(ephemeral),
        wn=wrap_nonce,
        wk=encrypt(wrap_key, wrap_nonce, data_key),
        n=nonce,
        ct=encrypt(data_key, nonce, document),
    )
    return SealedBundle(
        unsigned.epk, unsigned.wn, unsigned.wk, unsigned.n, unsigned.ct, sign(signing_seed, unsigned.signing_input())
    )


def read_sealed(source: str | bytes | dict[str, Any]) -> SealedBundle:
    """Takes a bundle apart; opens nothing. Unknown keys are ignored. Raises ``InvalidInput``."""
    value = source if isinstance(source, dict) else parse_object(source, _WHERE, most=_MAX_TEXT)
    version = value.get("v")
    if version != _VERSION or isinstance(version, bool):
        raise InvalidInput(f"{_WHERE}: its version is not {_VERSION}; this release reads no other")

    def part(name: str, length: int | None = None, at_least: int = 0) -> bytes:
        return from_base64(value.get(name), f"{_WHERE}.{name}", length=length, at_least=at_least)

    return SealedBundle(
        epk=part("epk", KEY_BYTES),
        wn=part("wn", NONCE_BYTES),
        wk=part("wk", KEY_BYTES + TAG_BYTES),
        n=part("n", NONCE_BYTES),
        ct=part("ct", at_least=TAG_BYTES),
        sig=part("sig", _SIGNATURE_BYTES),
    )


def open_sealed(bundle: SealedBundle, private: bytes, signer: bytes) -> bytes:
    """The document, if ``signer`` (an Ed25519 public key) signed it and ``private`` is the recipient's key.

    Raises ``InvalidInput``.
    """
    if not is_signed(signer, bundle.sig, bundle.signing_input()):
        raise InvalidInput(f"{_WHERE}: it is not signed by the key that was given")
    wrap_key = agree(private, bundle.epk, f"{_WHERE}.epk")
    data_key = decrypt(wrap_key, bundle.wn, bundle.wk, f"{_WHERE}.wk")
    return decrypt(data_key, bundle.n, bundle.ct, f"{_WHERE}.ct")
