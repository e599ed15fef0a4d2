"""Rows of certificates and sealed keys. Plain functions of a transaction."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coxswain.clock import Clock, to_micros
from coxswain.errors import KeyUnavailable
from coxswain.keyring import Keyring
from coxswain.pki.certificates import Authority, Leaf, Role, create_authorities
from coxswain.store.api import Durability, Store, Tx

__all__ = [
    "NodeCert",
    "ensure_authorities",
    "insert_node_cert",
    "load_authorities",
    "newest_controller_leaf",
    "node_certs",
    "open_authority_key",
    "put_authority",
    "revoke_node_certs",
    "save_controller_leaf",
    "seal_authority_key",
]


def ensure_authorities(store: Store, keyring: Keyring, clock: Clock) -> dict[Role, Authority]:
    """Loads the authorities, or makes them the first time, all in one transaction."""
    with store.write(Durability.ACKNOWLEDGED) as tx:
        if tx.execute("SELECT 1 FROM authorities LIMIT 1"):
            return load_authorities(tx, keyring)
        made = create_authorities(clock.now())
        for authority in made.values():
            put_authority(tx, keyring, authority, clock.now())
        return made


def put_authority(tx: Tx, keyring: Keyring, authority: Authority, now: float) -> None:
    """It is the one that signs; there is none of its role."""
    certificate = authority.certificate
    tx.execute(
        "INSERT INTO authorities (role, cert_pem, key_sealed, serial, not_before, not_after, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            authority.role.value,
            authority.pem.decode(),
            seal_authority_key(keyring, authority),
            str(certificate.serial_number),
            *_validity(certificate),
            to_micros(now),
        ),
    )


def seal_authority_key(keyring: Keyring, authority: Authority) -> bytes:
    return _seal(keyring, authority.key, _authority_label(authority.role, authority.certificate))


def open_authority_key(
    keyring: Keyring, sealed: bytes, role: Role, certificate: x509.Certificate
) -> ec.EllipticCurvePrivateKey:
    """Raises ``KeyUnavailable``."""
    return _open(keyring, sealed, _authority_label(role, certificate))


def load_authorities(tx: Tx, keyring: Keyring) -> dict[Role, Authority]:
    """Raises ``KeyUnavailable`` if a sealed key does not open, or an authority is missing."""
    found: dict[Role, Authority] = {}
    for role_name, pem, sealed in tx.execute("SELECT role, cert_pem, key_sealed FROM authorities"):
        role = Role(role_name)
        certificate = x509.load_pem_x509_certificate(pem.encode())
        found[role] = Authority(role, certificate, open_authority_key(keyring, sealed, role, certificate))
    missing = [role.value for role in Role if role not in found]
    if missing:
        raise KeyUnavailable(f"this state has no {', '.join(missing)} CA", remedy="Run: cox init")
    return found


def save_controller_leaf(tx: Tx, keyring: Keyring, leaf: Leaf, now: float) -> None:
    if leaf.key is None:
        raise ValueError("a controller leaf has a key")
    tx.execute(
        "INSERT INTO controller_certs (serial, cert_pem, key_sealed, not_before, not_after, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            leaf.serial,
            leaf.pem.decode(),
            _seal(keyring, leaf.key, f"controller {leaf.serial}"),
            *_validity(leaf.certificate),
            to_micros(now),
        ),
    )


def newest_controller_leaf(tx: Tx, keyring: Keyring) -> Leaf | None:
    rows = tx.execute("SELECT serial, cert_pem, key_sealed FROM controller_certs ORDER BY created_at DESC LIMIT 1")
    if not rows:
        return None
    serial, pem, sealed = rows[0]
    key = _open(keyring, sealed, f"controller {serial}")
    return Leaf(x509.load_pem_x509_certificate(pem.encode()), key=key)


@dataclass(frozen=True, slots=True)
class NodeCert:
    """One issued node certificate. Times are epoch seconds."""

    serial: str
    node_id: str
    server_name: str
    not_before: float
    not_after: float
    revoked_at: float | None


def insert_node_cert(tx: Tx, node_id: str, leaf: Leaf, now: float) -> None:
    tx.execute(
        "INSERT INTO node_certs (serial, node_id, server_name, cert_pem, not_before, not_after, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (leaf.serial, node_id, leaf.server_name, leaf.pem.decode(), *_validity(leaf.certificate), to_micros(now)),
    )


def revoke_node_certs(tx: Tx, node_id: str, serial: str | None, reason: str, now: float) -> tuple[str, ...]:
    """Revokes what is not revoked yet. Returns the serials."""
    narrow, params = ("", ()) if serial is None else (" AND serial = ?", (serial,))
    rows = tx.execute(
        "UPDATE node_certs SET revoked_at = ?, revoke_reason = ? WHERE node_id = ? AND revoked_at IS NULL"  # noqa: S608
        f"{narrow} RETURNING serial",
        (to_micros(now), reason, node_id, *params),
    )
    return tuple(row[0] for row in rows)


def node_certs(tx: Tx, now: float) -> list[NodeCert]:
    """All that are not expired, newest first."""
    rows = tx.execute(
        "SELECT serial, node_id, server_name, not_before, not_after, revoked_at FROM node_certs WHERE not_after > ? "
        "ORDER BY created_at DESC, serial DESC",
        (to_micros(now),),
    )
    return [NodeCert(r[0], r[1], r[2], r[3] / 1e6, r[4] / 1e6, None if r[5] is None else r[5] / 1e6) for r in rows]


def _authority_label(role: Role, certificate: x509.Certificate) -> str:
    return f"authority {role.value} {certificate.serial_number}"


def _validity(certificate: x509.Certificate) -> tuple[int, int]:
    return (
        to_micros(certificate.not_valid_before_utc.timestamp()),
        to_micros(certificate.not_valid_after_utc.timestamp()),
    )


def _seal(keyring: Keyring, key: ec.EllipticCurvePrivateKey, label: str) -> bytes:
    plain = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return keyring.seal(plain, label)


def _open(keyring: Keyring, sealed: bytes, label: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(keyring.open(bytes(sealed), label), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyUnavailable(f"the key of {label} is of a foreign kind")
    return key
