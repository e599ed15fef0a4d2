"""A node's keys: AmneziaWG key and obfuscation set, REALITY key, mTLS key (node-contract.md 3.2, 6.1, 6.2, 8.1).

An existing file is never overwritten: one that cannot be understood makes the agent refuse to start.
"""

from __future__ import annotations

import base64
import json
import random
import secrets
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from coxswain.agent.state import MALFORMED, Files
from coxswain.errors import InvalidInput, Refused
from coxswain.model import Obfuscation
from coxswain.wire import validate
from coxswain.x25519 import clamped

__all__ = [
    "AwgIdentity",
    "XrayIdentity",
    "load_or_create_awg",
    "load_or_create_node_key",
    "load_or_create_xray",
    "new_csr",
    "new_obfuscation",
]

AWG_IDENTITY = "awg-node.json"
XRAY_IDENTITY = "xray-node.json"
NODE_KEY = "node.key"


@dataclass(frozen=True)
class AwgIdentity:
    """``private_key``: 32 raw bytes, unclamped."""

    private_key: bytes = field(repr=False)
    obfuscation: Obfuscation

    @cached_property
    def public_key(self) -> str:
        """Standard base64, 44 characters."""
        return base64.b64encode(_public(self.private_key)).decode("ascii")

    @property
    def private_text(self) -> str:
        """The private key as a conf takes it."""
        return base64.b64encode(self.private_key).decode("ascii")


@dataclass(frozen=True)
class XrayIdentity:
    """``private_key``: 32 bytes, clamped."""

    private_key: bytes = field(repr=False)

    @cached_property
    def public_key(self) -> str:
        """Base64url without padding, 43 characters."""
        return _url64(_public(self.private_key))

    @property
    def private_text(self) -> str:
        """The private key as the engine takes it, and as the file has it."""
        return _url64(self.private_key)


def load_or_create_awg(files: Files, rng: random.Random | None = None) -> AwgIdentity:
    """Reads ``awg-node.json``, or makes it. ``rng``: a seeded source for simulated nodes; default: the system's.

    Raises:
        Refused: the file is corrupt, open to others, or its obfuscation set breaks the rules.
    """
    content = files.read(AWG_IDENTITY, secret=True)
    if content is not None:
        return _parse_awg(content)
    source = rng or secrets.SystemRandom()
    identity = AwgIdentity(source.randbytes(32), new_obfuscation(source))
    numbers = {name: value for name, value in asdict(identity.obfuscation).items() if value != ""}
    document = {"private_key": identity.private_text, "obfuscation": numbers}
    files.write(AWG_IDENTITY, json.dumps(document, indent=2).encode() + b"\n", 0o600)
    return identity


def _parse_awg(content: bytes) -> AwgIdentity:
    try:
        document = json.loads(content)
        raw = base64.b64decode(document["private_key"], validate=True)
        found = document["obfuscation"]
        known = {f.name: found[f.name] for f in fields(Obfuscation) if f.name in found}
        if not all(isinstance(value, str if name.startswith("i") else int) for name, value in known.items()):
            raise _corrupt(AWG_IDENTITY, "obfuscation has a value of the wrong type")
        obfuscation = validate.obfuscation("obfuscation", Obfuscation(**known))
    except InvalidInput as error:
        raise _corrupt(AWG_IDENTITY, str(error)) from None
    except MALFORMED:
        # The parser's own words could quote the key.
        raise _corrupt(AWG_IDENTITY, "it is not the expected JSON") from None
    if len(raw) != 32:
        raise _corrupt(AWG_IDENTITY, "private_key is not 32 bytes")
    return AwgIdentity(raw, obfuscation)


def new_obfuscation(rng: random.Random) -> Obfuscation:
    """Draws a set from the ranges of node-contract.md 6.2, uniformly."""
    jmin = rng.randint(25, 75)
    s1, s2 = rng.randint(15, 150), rng.randint(15, 150)
    while s2 == s1 + 56:
        s2 = rng.randint(15, 150)
    headers: list[int] = []
    while len(headers) < 4:
        header = rng.randint(5, 2_147_483_647)
        if header not in headers:
            headers.append(header)
    s3, s4 = rng.randint(15, 150), rng.randint(15, 150)
    jc, jmax = rng.randint(3, 10), jmin + rng.randint(700, 900)
    h1, h2, h3, h4 = headers
    return Obfuscation(jc, jmin, jmax, s1, s2, s3, s4, h1, h2, h3, h4)


def load_or_create_xray(files: Files, rng: random.Random | None = None) -> XrayIdentity:
    """Reads ``xray-node.json``, or makes it. Raises ``Refused`` if it is corrupt."""
    content = files.read(XRAY_IDENTITY, secret=True)
    if content is None:
        identity = XrayIdentity(clamped((rng or secrets.SystemRandom()).randbytes(32)))
        document = {"private_key": identity.private_text}
        files.write(XRAY_IDENTITY, json.dumps(document, indent=2).encode() + b"\n", 0o600)
        return identity
    try:
        text = json.loads(content)["private_key"]
        raw_key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except MALFORMED:
        raise _corrupt(XRAY_IDENTITY, "it is not the expected JSON") from None
    if len(raw_key) != 32:
        raise _corrupt(XRAY_IDENTITY, "private_key is not 32 bytes")
    return XrayIdentity(raw_key)


def load_or_create_node_key(files: Files) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """Returns the mTLS key and whether it was made just now (ECDSA P-256, PKCS#8, 0600).

    Raises:
        Refused: there is one that is unreadable or no ECDSA key.
    """
    content = files.read(NODE_KEY, secret=True)
    if content is None:
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files.write(NODE_KEY, pem, 0o600)
        return made, True
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _corrupt(NODE_KEY, "it is no PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _corrupt(NODE_KEY, "it is no ECDSA key")
    return key, False


def new_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PEM certificate request with a fixed subject, no names, no attributes (node-contract.md 3.2)."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "PharosVPN"),
            x509.NameAttribute(NameOID.COMMON_NAME, "pharos-node-node"),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _corrupt(name: str, why: str) -> Refused:
    return Refused(f"{name}: {why}", remedy=f"Restore {name} from a backup; removing it gives the node a new identity.")
