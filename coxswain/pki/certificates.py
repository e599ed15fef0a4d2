"""The fleet's certificates as pure functions: authorities, the controller's leaf, nodes' leaves.

Fields follow node-contract.md 2.5 and accounts-profiles.md 7, with two additions:

- **A control-only intermediate.** Existing agents accept every client certificate under the anchor they were given, so with
  the root there, any enrolled device could drive any node. What we install as a node's ``ca.crt`` is the Control CA, which
  issues nothing but the controller's leaf.
- **A name of its own in every node leaf.** grpcio can neither show nor judge a server's certificate, but it checks names. So
  each node leaf carries, behind the address that is dialled, a DNS name made from its serial number, and the controller
  asks for exactly that name. A revoked leaf, an older one of the same host, or another node's does not have it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import random
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coxswain.errors import Refused

__all__ = [
    "GRPC_NAME",
    "RELAY_ORGANIZATION",
    "Authority",
    "Leaf",
    "RandomInt",
    "Role",
    "create_authorities",
    "create_heir",
    "device_fingerprint",
    "fingerprint",
    "hosts_of",
    "is_for",
    "is_of_another",
    "issue_controller_leaf",
    "issue_device_leaf",
    "issue_grpc_leaf",
    "issue_hop_leaf",
    "issue_node_leaf",
    "issue_relay_leaf",
    "issue_relay_service_leaf",
    "issued_by",
    "renewal_due_at",
    "server_name_of",
]

ORGANIZATION = "PharosVPN"
RELAY_ORGANIZATION = "PharosVPN Relay"
"""By which AccountSync knows that a caller is a relay, whose word on devices counts (relay-contract.md 1.3)."""

GRPC_NAME = "coxswain-grpc"
"""The name that relays ask for when they speak to AccountSync (relay-contract.md 1.3, L3)."""

_MAX_COMMON_NAME = 64
"""Bytes of UTF-8 (RFC 5280, appendix A.1)."""

_DAY = dt.timedelta(days=1)
_BACKDATE = dt.timedelta(minutes=5)
_ROOT_LIFE = 3650 * _DAY
_INTERMEDIATE_LIFE = 1825 * _DAY
_LEAF_LIFE = 365 * _DAY
_HOP_LEAF_LIFE = 30 * _DAY

RandomInt = Callable[[int], int]
"""A source of random integers: takes a number of bits."""


class Role(StrEnum):
    """Authorities, and what each one issues."""

    ROOT = "root"
    FLEET = "fleet"
    DEVICE = "device"
    CONTROL = "control"


_COMMON_NAMES = {
    Role.ROOT: "PharosVPN Root CA",
    Role.FLEET: "PharosVPN Fleet CA",
    Role.DEVICE: "PharosVPN Device CA",
    Role.CONTROL: "PharosVPN Control CA",
}


@dataclass(frozen=True)
class Authority:
    """A CA certificate with its key."""

    role: Role
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Leaf:
    """An issued leaf. ``server_name`` is empty for a client's."""

    certificate: x509.Certificate
    server_name: str = ""
    key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def serial(self) -> str:
        """Decimal text, as it is stored."""
        return str(self.certificate.serial_number)


def create_authorities(now: float, random_int: RandomInt = secrets.randbits) -> dict[Role, Authority]:
    """Makes a fresh root and the intermediates under it. ``now`` is epoch seconds."""
    root = _authority(Role.ROOT, None, now, random_int)
    made = {Role.ROOT: root}
    for role in (Role.FLEET, Role.DEVICE, Role.CONTROL):
        made[role] = _authority(role, root, now, random_int)
    return made


def create_heir(role: Role, root: Authority, now: float, random_int: RandomInt = secrets.randbits) -> Authority:
    """A fresh intermediate beside the one of the same role; its life ends with the root's. Raises ``Refused``."""
    _require(root, Role.ROOT, now)
    return _authority(role, root, now, random_int)


def issue_controller_leaf(control: Authority, now: float, random_int: RandomInt = secrets.randbits) -> Leaf:
    """The certificate that the controller shows to nodes. Raises ``Refused`` for a wrong or expired authority."""
    _require(control, Role.CONTROL, now)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(control, key.public_key(), _name(ORGANIZATION, "coxswain-controller"), now, _serial(random_int))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = builder.add_extension(usage, critical=False).sign(control.key, hashes.SHA384())
    return Leaf(certificate, key=key)


def issue_hop_leaf(fleet: Authority, now: float, random_int: RandomInt = secrets.randbits) -> Leaf:
    """The certificate that the controller shows to relays as hops, which trust the Fleet CA (relay-contract.md 1.3, L4).
    Nodes trust the Control CA, so it opens none of them. Raises ``Refused`` for a wrong or expired authority.
    """
    _require(fleet, Role.FLEET, now)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(ORGANIZATION, "coxswain-controller")
    builder = _leaf(fleet, key.public_key(), subject, now, _serial(random_int), life=_HOP_LEAF_LIFE)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return Leaf(builder.add_extension(usage, critical=False).sign(fleet.key, hashes.SHA384()), key=key)


def issue_node_leaf(
    fleet: Authority,
    public_key: ec.EllipticCurvePublicKey,
    host: str,
    now: float,
    random_int: RandomInt = secrets.randbits,
) -> Leaf:
    """The certificate that a node shows to the controller.

    Args:
        fleet: the Fleet intermediate.
        public_key: from the node's CSR, the only thing taken from there.
        host: the dialled host, IP or DNS name.
        now: epoch seconds.
        random_int: source of the serial.

    Raises:
        Refused: wrong or expired authority.
    """
    _require(fleet, Role.FLEET, now)
    serial = _serial(random_int)
    name = server_name_of(serial)
    builder = _leaf(fleet, public_key, _name("PharosVPN Node", host[:64]), now, serial)
    alternatives = x509.SubjectAlternativeName([_host_name(host), x509.DNSName(name)])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        builder.add_extension(usage, critical=False)
        .add_extension(alternatives, critical=False)
        .sign(fleet.key, hashes.SHA384())
    )
    return Leaf(certificate, name)


def issue_relay_leaf(
    fleet: Authority,
    public_key: ec.EllipticCurvePublicKey,
    hostname: str,
    now: float,
    random_int: RandomInt = secrets.randbits,
) -> Leaf:
    """The certificate of a relay: server to devices and the controller, client to the next hop (relay-contract.md 2).

    Raises:
        Refused: wrong or expired authority.
    """
    _require(fleet, Role.FLEET, now)
    builder = _leaf(fleet, public_key, _name(RELAY_ORGANIZATION, RELAY_ORGANIZATION), now, _serial(random_int))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        builder.add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName([_host_name(hostname)]), critical=False)
        .sign(fleet.key, hashes.SHA384())
    )
    return Leaf(certificate, hostname)


def issue_relay_service_leaf(
    fleet: Authority, hosts: Sequence[str], now: float, random_int: RandomInt = secrets.randbits
) -> Leaf:
    """The certificate with which the controller itself is a relay: to devices, and to remote relays (relay-contract.md 1.2).

    Args:
        fleet: the Fleet intermediate.
        hosts: under which devices reach it, beside ``localhost``.
        now: epoch seconds.
        random_int: source of the serial.

    Raises:
        Refused: wrong or expired authority.
    """
    _require(fleet, Role.FLEET, now)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(fleet, key.public_key(), _name(RELAY_ORGANIZATION, RELAY_ORGANIZATION), now, _serial(random_int))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    names = [_host_name(host) for host in dict.fromkeys(("localhost", "127.0.0.1", *hosts))]
    certificate = (
        builder.add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(fleet.key, hashes.SHA384())
    )
    return Leaf(certificate, key=key)


def hosts_of(leaf: Leaf) -> tuple[str, ...]:
    """The names and addresses that a leaf is for."""
    found = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress)))


def is_for(leaf: Leaf, host: str) -> bool:
    """Whether a leaf is for this name or address, however an address is written."""
    name = _host_name(host)
    return (str(name.value) if isinstance(name, x509.IPAddress) else host) in hosts_of(leaf)


def issue_grpc_leaf(fleet: Authority, now: float, random_int: RandomInt = secrets.randbits) -> Leaf:
    """The certificate under which AccountSync is served to relays (accounts-profiles.md 7.2).

    Raises ``Refused`` for a wrong or expired authority.
    """
    _require(fleet, Role.FLEET, now)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(fleet, key.public_key(), _name(ORGANIZATION, GRPC_NAME), now, _serial(random_int))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        builder.add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(GRPC_NAME)]), critical=False)
        .sign(fleet.key, hashes.SHA384())
    )
    return Leaf(certificate, GRPC_NAME, key)


def issue_device_leaf(
    device: Authority,
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    now: float,
    *,
    days: int = 365,
    random_int: RandomInt = secrets.randbits,
) -> Leaf:
    """The certificate that a device shows to relays (accounts-profiles.md 7.2).

    Args:
        device: the Device intermediate.
        public_key: from the device's CSR, the only thing taken from there.
        name: what its owner calls it; cut to what a certificate holds.
        now: epoch seconds.
        days: for how long; never longer than the authority's own.
        random_int: source of the serial.

    Raises:
        Refused: wrong or expired authority.
    """
    _require(device, Role.DEVICE, now)
    subject = _name("PharosVPN Device", _cut(name, _MAX_COMMON_NAME))
    builder = _leaf(device, public_key, subject, now, _serial(random_int), life=days * _DAY)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return Leaf(builder.add_extension(usage, critical=False).sign(device.key, hashes.SHA384()))


def device_fingerprint(leaf_pem: bytes) -> str:
    """What relays tell of a device: of the PEM's text, not of the DER (relay-contract.md 1.5)."""
    return f"sha256:{hashlib.sha256(leaf_pem).hexdigest()}"


def server_name_of(serial: int) -> str:
    """The DNS name that only the leaf with this serial number carries. ``.internal`` is reserved for private use."""
    return f"{serial:032x}.leaf.coxswain.internal"


def issued_by(certificate: x509.Certificate, authority: Authority) -> bool:
    """Whether it was, and not by another of the same name."""
    theirs = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return theirs == x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key()).digest


def fingerprint(certificate: x509.Certificate) -> str:
    """Lower hex SHA-256 of the DER, as enrolment links pin the root (accounts-profiles.md 7.3)."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def is_of_another(chain_pem: bytes, authorities: Collection[str], now: float) -> bool:
    """Whether a certificate that counts now, with what issued it, is of none of these authorities (by fingerprint)."""
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError:
        return False
    if len(chain) < 2 or chain[0].not_valid_after_utc <= _instant(now):
        return False
    return not any(fingerprint(certificate) in authorities for certificate in chain[1:])


def renewal_due_at(not_before: float, not_after: float, rng: random.Random) -> float:
    """When a certificate should be renewed (epoch seconds): at 2/3 of its life, and up to a tenth of the rest later."""
    two_thirds = not_before + (not_after - not_before) * 2 / 3
    return two_thirds + rng.uniform(0, (not_after - two_thirds) / 10)


def _authority(role: Role, parent: Authority | None, now: float, random_int: RandomInt) -> Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _name(ORGANIZATION, _COMMON_NAMES[role])
    start = _instant(now) - _BACKDATE
    end = _instant(now) + (_ROOT_LIFE if parent is None else _INTERMEDIATE_LIFE)
    if parent is not None:
        end = min(end, parent.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if parent is None else parent.certificate.subject)
        .public_key(key.public_key())
        .serial_number(_serial(random_int))
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if parent is not None:
        builder = builder.add_extension(_authority_key(parent), critical=False)
    return Authority(role, builder.sign(key if parent is None else parent.key, hashes.SHA384()), key)


def _leaf(
    issuer: Authority,
    public_key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    now: float,
    serial: int,
    *,
    life: dt.timedelta = _LEAF_LIFE,
) -> x509.CertificateBuilder:
    end = min(_instant(now) + life, issuer.certificate.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(_instant(now) - _BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )


def _require(authority: Authority, role: Role, now: float) -> None:
    if authority.role is not role:
        raise Refused(f"the {authority.role.value} CA does not issue this; the {role.value} CA does")
    end = authority.certificate.not_valid_after_utc
    if _instant(now) >= end:
        raise Refused(
            f"the {role.value} CA expired on {end:%Y-%m-%d} and issues nothing any more",
            remedy="Restore the state from before, or start a new fleet with: cox init",
        )


def _authority_key(issuer: Authority) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _cut(text: str, most: int) -> str:
    """At most so many bytes of UTF-8, and no half of a character. What no certificate can hold becomes a dash."""
    printable = "".join(c if c.isprintable() else "-" for c in text).strip() or "-"
    return printable.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _serial(random_int: RandomInt) -> int:
    """128 bits (accounts-profiles.md 7.1), never zero."""
    return random_int(128) or 1


def _instant(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)
