"""Rows of the controller's own leaves towards relays, by role. Plain functions of a transaction.

Roles: ``grpc`` serves AccountSync to relays; ``relay`` speaks to devices and to remote relays (accounts-profiles.md 7.2).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coxswain.clock import to_micros
from coxswain.errors import KeyUnavailable
from coxswain.keyring import Keyring
from coxswain.pki.certificates import Leaf
from coxswain.store.api import Tx

__all__ = ["newest_service_leaf", "purge_service_leaves", "save_service_leaf"]


def save_service_leaf(tx: Tx, keyring: Keyring, role: str, leaf: Leaf, now: float) -> None:
    """The leaf has its key with it; that is sealed under role and serial, so that rows cannot be swapped."""
    if leaf.key is None:
        raise ValueError("a service leaf has a key")
    plain = leaf.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = leaf.certificate
    tx.execute(
        "INSERT INTO service_certs (serial, role, cert_pem, key_sealed, not_before, not_after, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            leaf.serial,
            role,
            leaf.pem.decode(),
            keyring.seal(plain, _label(role, leaf.serial)),
            to_micros(certificate.not_valid_before_utc.timestamp()),
            to_micros(certificate.not_valid_after_utc.timestamp()),
            to_micros(now),
        ),
    )


def newest_service_leaf(tx: Tx, keyring: Keyring, role: str) -> Leaf | None:
    """Raises ``KeyUnavailable`` if its key does not open."""
    rows = tx.execute(
        "SELECT serial, cert_pem, key_sealed FROM service_certs WHERE role = ? ORDER BY created_at DESC, serial LIMIT 1",
        (role,),
    )
    if not rows:
        return None
    serial, pem, sealed = rows[0]
    key = serialization.load_der_private_key(keyring.open(bytes(sealed), _label(role, serial)), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyUnavailable(f"the key of the {role} leaf {serial} is of a foreign kind")
    return Leaf(x509.load_pem_x509_certificate(pem.encode()), key=key)


def purge_service_leaves(tx: Tx, now: float) -> None:
    """Forgets those that have expired."""
    tx.execute("DELETE FROM service_certs WHERE not_after < ?", (to_micros(now),))


def _label(role: str, serial: str) -> str:
    return f"service {role} {serial}"
