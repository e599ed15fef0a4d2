"""The relay's keys on its host: the TLS key and its certificate request, the onion key (relay-contract.md 6.1, 7.1, 7.2)."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from coxswain.errors import Refused
from coxswain.relay.onion_layers import decode_key, encode_key

__all__ = ["load_or_create_onion_key", "load_or_create_relay_key", "new_csr", "write_whole"]


def load_or_create_relay_key(path: Path) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """The key, and whether it was made just now. Raises ``Refused`` when there is a file that is no P-256 key."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        write_whole(path, key.private_bytes(encoding, form, serialization.NoEncryption()))
        return key, True
    try:
        found = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise Refused(f"{path}: is not a P-256 key", remedy="Remove it if it is to be made anew.")
    return found, False


def new_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM. The controller takes the public key from it and nothing else."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pharos-relay")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def load_or_create_onion_key(path: Path) -> tuple[X25519PrivateKey, bool]:
    """The key, and whether it was made just now. Raises ``InvalidInput`` when there is a file that is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        key = X25519PrivateKey.generate()
        write_whole(path, f"{encode_key(key.private_bytes_raw())}\n".encode("ascii"))
        return key, True
    return X25519PrivateKey.from_private_bytes(decode_key(text)), False


def write_whole(path: Path, content: bytes) -> None:
    """A file of mode 0600 that is there whole or not at all, also after the power failed. Directories get 0755."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
