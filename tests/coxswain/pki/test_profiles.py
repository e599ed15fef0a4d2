"""What each certificate says of its use, to the last bit (node-contract.md 2.5, relay-contract.md 1,
accounts-profiles.md 7), and that no authority issues what another one does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from coxswain.errors import Refused
from coxswain.pki import (
    Authority,
    Leaf,
    Role,
    create_authorities,
    create_heir,
    hosts_of,
    is_for,
    issue_controller_leaf,
    issue_device_leaf,
    issue_grpc_leaf,
    issue_hop_leaf,
    issue_node_leaf,
    issue_relay_leaf,
    issue_relay_service_leaf,
    issued_by,
    server_name_of,
)

NOW = 1_767_225_600.0  # 2026-01-01
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
RELAY_NAMES = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("me.example")]

KINDS: dict[str, tuple[Role, Callable[[Authority], Leaf], list[x509.ObjectIdentifier], list[x509.GeneralName]]] = {
    "controller": (Role.CONTROL, lambda ca: issue_controller_leaf(ca, NOW), [CLIENT], []),
    "hop": (Role.FLEET, lambda ca: issue_hop_leaf(ca, NOW), [CLIENT], []),
    "node": (
        Role.FLEET,
        lambda ca: issue_node_leaf(ca, KEY, "fra.example", NOW, lambda bits: 2 ** (bits - 1)),
        [SERVER],
        [x509.DNSName("fra.example"), x509.DNSName(server_name_of(2**127))],
    ),
    "relay": (
        Role.FLEET,
        lambda ca: issue_relay_leaf(ca, KEY, "2001:db8::7", NOW),
        [SERVER, CLIENT],
        [x509.IPAddress(ipaddress.ip_address("2001:db8::7"))],
    ),
    "relay service": (
        Role.FLEET,
        lambda ca: issue_relay_service_leaf(ca, ["me.example", "localhost"], NOW),
        [SERVER, CLIENT],
        RELAY_NAMES,
    ),
    "account sync": (Role.FLEET, lambda ca: issue_grpc_leaf(ca, NOW), [SERVER], [x509.DNSName("coxswain-grpc")]),
    "device": (Role.DEVICE, lambda ca: issue_device_leaf(ca, KEY, "Ann's phone", NOW), [CLIENT], []),
}


@pytest.fixture(scope="module")
def cas() -> dict[Role, Authority]:
    return create_authorities(NOW)


def usage(*, ca: bool) -> x509.KeyUsage:
    """``certSign`` and ``crlSign`` of an authority, ``digitalSignature`` of a leaf, and no bit more."""
    nothing = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
        False,
    )
    return x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **nothing)


def said(certificate: x509.Certificate) -> dict[x509.ExtensionType, bool]:
    """All its extensions, and whether whoever does not know one has to refuse the certificate."""
    return {extension.value: extension.critical for extension in certificate.extensions}


def signed_by(issuer: Authority) -> x509.AuthorityKeyIdentifier:
    digest = x509.SubjectKeyIdentifier.from_public_key(issuer.key.public_key()).digest
    return x509.AuthorityKeyIdentifier(digest, None, None)


@pytest.mark.parametrize("role", Role)
def test_an_authority_says_this_and_no_more(cas: dict[Role, Authority], role: Role) -> None:
    certificate = cas[role].certificate
    expected: dict[x509.ExtensionType, bool] = {
        x509.BasicConstraints(ca=True, path_length=1 if role is Role.ROOT else 0): True,
        usage(ca=True): True,
        x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()): False,
    }
    if role is not Role.ROOT:
        expected[signed_by(cas[Role.ROOT])] = False
    assert said(certificate) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_leaf_says_this_and_no_more(cas: dict[Role, Authority], kind: str) -> None:
    role, issue, uses, names = KINDS[kind]
    leaf = issue(cas[role])
    certificate = leaf.certificate
    expected: dict[x509.ExtensionType, bool] = {
        x509.BasicConstraints(ca=False, path_length=None): True,
        usage(ca=False): True,
        x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()): False,
        signed_by(cas[role]): False,
        x509.ExtendedKeyUsage(uses): False,
    }
    if names:
        expected[x509.SubjectAlternativeName(names)] = False
    assert said(certificate) == expected
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA384)
    assert certificate.not_valid_before_utc.timestamp() == NOW - 300
    certificate.verify_directly_issued_by(cas[role].certificate)
    assert (leaf.key is None) == (kind in {"node", "relay", "device"}), "the keys of others never come here"


@pytest.mark.parametrize("wrong", Role)
@pytest.mark.parametrize("kind", KINDS)
def test_no_authority_issues_what_another_does(cas: dict[Role, Authority], kind: str, wrong: Role) -> None:
    right, issue, _, _ = KINDS[kind]
    if wrong is right:
        assert issued_by(issue(cas[right]).certificate, cas[right])
        return
    with pytest.raises(Refused, match=f"the {wrong.value} CA does not issue this; the {right.value} CA does"):
        issue(cas[wrong])


@pytest.mark.parametrize("role", [Role.FLEET, Role.DEVICE, Role.CONTROL])
def test_only_the_root_makes_heirs(cas: dict[Role, Authority], role: Role) -> None:
    with pytest.raises(Refused, match="the root CA does"):
        create_heir(role, cas[role], NOW)
    heir = create_heir(role, cas[Role.ROOT], NOW)
    assert heir.certificate.subject == cas[role].certificate.subject
    _, issue, _, _ = next(row for row in KINDS.values() if row[0] is role)
    assert issued_by(issue(heir).certificate, heir)
    assert not issued_by(issue(heir).certificate, cas[role]), "it has the same name, and is another"


def test_a_leaf_is_for_its_hosts_however_an_address_is_written(cas: dict[Role, Authority]) -> None:
    leaf = issue_relay_service_leaf(cas[Role.FLEET], ["me.example", "2001:db8::7"], NOW)
    assert hosts_of(leaf) == ("localhost", "me.example", "127.0.0.1", "2001:db8::7")
    for host in ("localhost", "me.example", "127.0.0.1", "2001:db8::7", "2001:0db8:0:0::7"):
        assert is_for(leaf, host)
    for host in ("other.example", "127.0.0.2", "2001:db8::8", "example"):
        assert not is_for(leaf, host)


def test_a_serial_number_is_never_zero(cas: dict[Role, Authority]) -> None:
    leaf = issue_node_leaf(cas[Role.FLEET], KEY, "fra.example", NOW, lambda bits: 0)
    assert leaf.certificate.serial_number == 1
