"""The keys of devices: made here, sealed at once, opened only to be handed to the device's owner."""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coxswain.ids import new_id
from coxswain.keyring import Keyring
from coxswain.model import Credential
from coxswain.x25519 import clamped

__all__ = ["mint", "new_preshared_key", "open_private_key"]

_KEY_BYTES = 32


def mint(keyring: Keyring, device_id: str, profile_id: str, address: str, *, credential_id: str = "") -> Credential:
    """New keys for a device and profile. ``credential_id``: of the row whose keys they replace; empty: a new row."""
    credential_id = credential_id or new_id("cred")
    raw = clamped(secrets.token_bytes(_KEY_BYTES))
    public = X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    return Credential(
        id=credential_id,
        device_id=device_id,
        profile_id=profile_id,
        address=address,
        wg_public_key=base64.b64encode(public).decode("ascii"),
        wg_private_key_sealed=keyring.seal(raw, _label(credential_id)),
        uuid=str(uuid.uuid4()),
    )


def open_private_key(keyring: Keyring, credential: Credential) -> str:
    """The WireGuard private key in base64. Raises ``KeyUnavailable``: sealed under another key, or for another row."""
    return base64.b64encode(keyring.open(credential.wg_private_key_sealed, _label(credential.id))).decode("ascii")


def new_preshared_key(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """32 random bytes in base64; each peer has its own."""
    return base64.b64encode(random_bytes(_KEY_BYTES)).decode("ascii")


def _label(credential_id: str) -> str:
    return f"credential {credential_id}"
