"""Every certificate, field by field, against node-contract.md 2.5 and accounts-profiles.md 7."""

from __future__ import annotations

import datetime as dt
import hashlib
import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import Refused
from coxswain.pki import (
    Authority,
    Role,
    create_authorities,
    device_fingerprint,
    fingerprint,
    issue_controller_leaf,
    issue_device_leaf,
    issue_grpc_leaf,
    issue_node_leaf,
    renewal_due_at,
    server_name_of,
)
from tests.relays import DEVICE_CERTIFICATE, DEVICE_FINGERPRINT

NOW = 1_767_225_600.0  # 2026-01-01
DAY = 86_400


@pytest.fixture(scope="module")
def cas() -> dict[Role, Authority]:
    return create_authorities(NOW)


@pytest.fixture(scope="module")
def node_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def name(certificate: x509.Certificate) -> tuple[str, str]:
    subject = certificate.subject
    organization = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
    return str(organization), str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize(
    ("role", "common_name", "days", "path_length"),
    [
        (Role.ROOT, "PharosVPN Root CA", 3650, 1),
        (Role.FLEET, "PharosVPN Fleet CA", 1825, 0),
        (Role.DEVICE, "PharosVPN Device CA", 1825, 0),
        (Role.CONTROL, "PharosVPN Control CA", 1825, 0),
    ],
)
def test_authorities(cas: dict[Role, Authority], role: Role, common_name: str, days: int, path_length: int) -> None:
    certificate = cas[role].certificate
    assert name(certificate) == ("PharosVPN", common_name)
    assert certificate.issuer == cas[Role.ROOT].certificate.subject
    assert certificate.not_valid_before_utc == at(NOW - 300)
    assert certificate.not_valid_after_utc == at(NOW + days * DAY)
    assert isinstance(certificate.public_key().curve, ec.SECP384R1)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA384)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, path_length)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    certificate.verify_directly_issued_by(cas[Role.ROOT].certificate)


def test_the_controller_leaf_is_the_control_cas(cas: dict[Role, Authority]) -> None:
    leaf = issue_controller_leaf(cas[Role.CONTROL], NOW)
    certificate = leaf.certificate
    certificate.verify_directly_issued_by(cas[Role.CONTROL].certificate)
    assert name(certificate) == ("PharosVPN", "coxswain-controller")
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    assert certificate.not_valid_after_utc == at(NOW + 365 * DAY)
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert leaf.key is not None


@pytest.mark.parametrize(("host", "kind"), [("203.0.113.7", x509.IPAddress), ("fra.example.net", x509.DNSName)])
def test_a_node_leaf(
    cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey, host: str, kind: type[x509.GeneralName]
) -> None:
    leaf = issue_node_leaf(cas[Role.FLEET], node_key.public_key(), host, NOW)
    certificate = leaf.certificate
    certificate.verify_directly_issued_by(cas[Role.FLEET].certificate)
    assert name(certificate) == ("PharosVPN Node", host)
    assert certificate.public_key() == node_key.public_key()
    assert leaf.key is None, "the node's key never leaves the node"
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    assert isinstance(names[0], kind)
    assert str(names[0].value) == host
    assert names[1] == x509.DNSName(server_name_of(certificate.serial_number))
    assert leaf.server_name == server_name_of(certificate.serial_number)
    assert leaf.serial == str(certificate.serial_number)
    assert 0 < certificate.serial_number < 2**128


def test_no_two_leaves_share_a_name(cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey) -> None:
    leaves = [issue_node_leaf(cas[Role.FLEET], node_key.public_key(), "10.0.0.1", NOW) for _ in range(20)]
    assert len({leaf.server_name for leaf in leaves}) == 20


def test_a_leaf_never_outlives_its_issuer(cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey) -> None:
    late = NOW + 1825 * DAY - 10 * DAY
    leaf = issue_node_leaf(cas[Role.FLEET], node_key.public_key(), "10.0.0.1", late)
    assert leaf.certificate.not_valid_after_utc == cas[Role.FLEET].certificate.not_valid_after_utc


def test_an_expired_authority_issues_nothing(cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey) -> None:
    over = NOW + 1826 * DAY
    with pytest.raises(Refused, match="fleet CA expired"):
        issue_node_leaf(cas[Role.FLEET], node_key.public_key(), "10.0.0.1", over)
    with pytest.raises(Refused, match="control CA expired"):
        issue_controller_leaf(cas[Role.CONTROL], over)


@pytest.mark.parametrize("role", [Role.ROOT, Role.DEVICE, Role.CONTROL])
def test_the_wrong_authority_is_refused(
    cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey, role: Role
) -> None:
    with pytest.raises(Refused, match="does not issue this"):
        issue_node_leaf(cas[role], node_key.public_key(), "10.0.0.1", NOW)


def test_keys_do_not_show(cas: dict[Role, Authority]) -> None:
    assert "PRIVATE" not in repr(cas[Role.ROOT])
    assert "key" not in repr(cas[Role.ROOT])
    assert "key=" not in repr(issue_controller_leaf(cas[Role.CONTROL], NOW))


def test_fingerprint_is_of_the_der(cas: dict[Role, Authority]) -> None:
    der = cas[Role.ROOT].certificate.public_bytes(Encoding.DER)
    assert fingerprint(cas[Role.ROOT].certificate) == hashlib.sha256(der).hexdigest()


@given(st.floats(1e9, 2e9), st.floats(3_600, 1e9), st.integers(0, 2**32))
def test_renewal_is_due_after_two_thirds_and_well_before_the_end(start: float, life: float, seed: int) -> None:
    due = renewal_due_at(start, start + life, random.Random(seed))
    assert start + life * 2 / 3 - 1 <= due <= start + life * 0.71


def test_a_devices_leaf(cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey) -> None:
    """accounts-profiles.md 7.2; for as long as is asked, and never longer than its issuer."""
    leaf = issue_device_leaf(cas[Role.DEVICE], node_key.public_key(), "Ann's phone", NOW)
    assert name(leaf.certificate) == ("PharosVPN Device", "Ann's phone")
    usage = leaf.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert leaf.certificate.not_valid_after_utc == at(NOW + 365 * DAY)
    short = issue_device_leaf(cas[Role.DEVICE], node_key.public_key(), "x", NOW, days=30)
    assert short.certificate.not_valid_after_utc == at(NOW + 30 * DAY)
    late = issue_device_leaf(cas[Role.DEVICE], node_key.public_key(), "x", NOW + 1_800 * DAY)
    assert late.certificate.not_valid_after_utc == cas[Role.DEVICE].certificate.not_valid_after_utc
    with pytest.raises(Refused):
        issue_device_leaf(cas[Role.FLEET], node_key.public_key(), "x", NOW)


@pytest.mark.parametrize(
    ("given_name", "wanted"), [("ü" * 80, "ü" * 32), ("x" * 80, "x" * 64), ("", "-"), ("\n", "-"), ("€" * 30, "€" * 21)]
)
def test_a_name_that_a_certificate_does_not_hold_is_cut(
    cas: dict[Role, Authority], node_key: ec.EllipticCurvePrivateKey, given_name: str, wanted: str
) -> None:
    leaf = issue_device_leaf(cas[Role.DEVICE], node_key.public_key(), given_name, NOW)
    assert name(leaf.certificate)[1] == wanted


def test_the_leaf_of_account_sync(cas: dict[Role, Authority]) -> None:
    """Only a server, and only under its name: it cannot pose as a relay, nor a relay as it."""
    leaf = issue_grpc_leaf(cas[Role.FLEET], NOW)
    assert name(leaf.certificate) == ("PharosVPN", "coxswain-grpc")
    extensions = leaf.certificate.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("coxswain-grpc")]


def test_the_fingerprint_of_a_device() -> None:
    """relay-contract.md 1.5: of the PEM's text; and as we write PEM, it is the same."""
    assert device_fingerprint(DEVICE_CERTIFICATE.encode()) == DEVICE_FINGERPRINT
    certificate = x509.load_pem_x509_certificate(DEVICE_CERTIFICATE.encode())
    assert device_fingerprint(certificate.public_bytes(Encoding.PEM)) == DEVICE_FINGERPRINT
