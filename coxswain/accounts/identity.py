"""``.pharosid`` files: all that a device needs to fetch its profile (accounts-profiles.md 5.6). They hold private keys."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from coxswain.accounts.primitives import KEY_BYTES, from_base64, parse_object, text_of, to_base64
from coxswain.errors import InvalidInput

__all__ = ["DeviceIdentity", "read_identity", "write_identity"]

_FORMAT = "pharos-device"
_MAX_TEXT = 256 * 1024
_WHERE = "device identity"
_PEM = re.compile(r"-----BEGIN X25519 PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END X25519 PRIVATE KEY-----\s*")


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Certificates and ``device_key`` are PEM. ``encryption_key``: 32 bytes; empty: the account's key has to do."""

    relay_addr: str
    fleet_ca: str
    device_cert: str
    device_key: str = field(repr=False)
    relay_server_name: str = ""
    ca_fingerprint: str = ""
    user: str = ""
    alias: str = ""
    signing_public_key: bytes = b""
    encryption_key: bytes = field(default=b"", repr=False)


def write_identity(identity: DeviceIdentity) -> str:
    """The text of the file. Keys that are empty are left out, where clients do not need them."""
    value: dict[str, Any] = {"fmt": _FORMAT, "v": 1}
    value |= {name: text for name in ("user", "alias") if (text := getattr(identity, name))}
    value |= {"relay_addr": identity.relay_addr, "relay_server_name": identity.relay_server_name}
    if identity.ca_fingerprint:
        value["ca_fingerprint"] = identity.ca_fingerprint
    value |= {"fleet_ca": identity.fleet_ca, "device_cert": identity.device_cert, "device_key": identity.device_key}
    if identity.signing_public_key:
        value["signing_public_key"] = to_base64(identity.signing_public_key)
    if identity.encryption_key:
        body = base64.b64encode(identity.encryption_key).decode("ascii")
        value["encryption_key"] = f"-----BEGIN X25519 PRIVATE KEY-----\n{body}\n-----END X25519 PRIVATE KEY-----\n"
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_identity(text: str | bytes) -> DeviceIdentity:
    """Raises ``InvalidInput``."""
    value = parse_object(text, _WHERE, most=_MAX_TEXT)
    if value.get("fmt") != _FORMAT or value.get("v") != 1 or isinstance(value["v"], bool):
        raise InvalidInput(f"{_WHERE}: fmt is not {_FORMAT} of version 1")
    signer = text_of(value, "signing_public_key", _WHERE, needed=False)
    return DeviceIdentity(
        relay_addr=text_of(value, "relay_addr", _WHERE),
        fleet_ca=text_of(value, "fleet_ca", _WHERE),
        device_cert=text_of(value, "device_cert", _WHERE),
        device_key=text_of(value, "device_key", _WHERE),
        relay_server_name=text_of(value, "relay_server_name", _WHERE, needed=False),
        ca_fingerprint=text_of(value, "ca_fingerprint", _WHERE, needed=False),
        user=text_of(value, "user", _WHERE, needed=False),
        alias=text_of(value, "alias", _WHERE, needed=False),
        signing_public_key=from_base64(signer, f"{_WHERE}.signing_public_key", length=KEY_BYTES) if signer else b"",
        encryption_key=_raw_key(text_of(value, "encryption_key", _WHERE, needed=False)),
    )


def _raw_key(pem: str) -> bytes:
    if not pem:
        return b""
    match = _PEM.fullmatch(pem.strip() + "\n")
    if match is None:
        raise InvalidInput(f"{_WHERE}: encryption_key is no PEM block X25519 PRIVATE KEY")
    return from_base64("".join(match[1].split()), f"{_WHERE}.encryption_key", length=KEY_BYTES)
