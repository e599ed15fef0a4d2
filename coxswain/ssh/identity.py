"""The controller's own SSH key: one Ed25519 pair for all hosts (fleet-model.md 3.1)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coxswain.errors import KeyUnavailable
from coxswain.late import Late

if TYPE_CHECKING:
    import paramiko
else:
    paramiko = Late("paramiko")

__all__ = ["COMMENT", "SshIdentity"]

COMMENT = "cox@pharosvpn"


class SshIdentity:
    """The key pair. Never printed."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "SshIdentity()"

    @classmethod
    def make(cls) -> SshIdentity:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pkcs8(cls, der: bytes) -> SshIdentity:
        """Raises ``KeyUnavailable``."""
        try:
            key = serialization.load_der_private_key(der, None)
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnavailable("the controller's SSH key is no Ed25519 key")
        return cls(key)

    def pkcs8(self) -> bytes:
        """For the store, which seals it."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_line(self) -> str:
        """As it stands in ``authorized_keys``."""
        public = self._key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return f"{public.decode('ascii')} {COMMENT}"

    def signer(self) -> paramiko.PKey:
        """What paramiko signs with."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        return paramiko.Ed25519Key(file_obj=io.StringIO(pem.decode("ascii")))
