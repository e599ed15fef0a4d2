"""Requests are foreign bytes: whatever they hold, the answer is a key or ``InvalidInput``."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.pki import read_csr

KEY = ec.generate_private_key(ec.SECP256R1())


def request(key: object = KEY, *, names: tuple[str, ...] = (), common_name: str = "") -> bytes:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
        builder = builder.add_extension(san, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


GOOD = request()


def test_only_the_key_survives_and_foreign_names_are_reported() -> None:
    csr = read_csr(request(names=("bank.example", "other-node.example"), common_name="coxswain-controller"))
    assert csr.public_key == KEY.public_key()
    assert csr.ignored == ("subject CN=coxswain-controller", "SAN bank.example", "SAN other-node.example")


def test_p384_is_accepted() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    assert read_csr(request(key)).public_key == key.public_key()


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (b"", "no certificate request"),
        (b"hello", "no certificate request"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "private key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        (GOOD + b"x" * 70_000, "too many"),
        (request(rsa.generate_private_key(65537, 2048)), "RSA of 2048 bits"),
        (request(ed25519.Ed25519PrivateKey.generate()), "P-256 or P-384 is needed"),
        (request(ec.generate_private_key(ec.SECP521R1())), "curve secp521r1"),
    ],
    ids=["empty", "text", "key", "certificate", "broken", "oversize", "rsa", "ed25519", "p521"],
)
def test_what_is_no_sound_request_is_named(pem: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        read_csr(pem)
    assert "csr" in str(caught.value)
    assert "gen-csr" in caught.value.remedy


def test_a_request_signed_by_another_key_is_refused() -> None:
    der = x509.load_pem_x509_csr(GOOD).public_bytes(serialization.Encoding.DER)
    mine = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    theirs = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert mine in der
    forged = x509.load_der_x509_csr(der.replace(mine, theirs)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(InvalidInput, match="signature"):
        read_csr(forged)


@given(st.binary(max_size=600))
def test_fuzz_bytes(noise: bytes) -> None:
    for pem in (noise, b"-----BEGIN CERTIFICATE REQUEST-----\n" + noise + b"\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(InvalidInput):
            read_csr(pem)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_fuzz_one_byte(position: int, value: int) -> None:
    spoilt = GOOD[:position] + bytes([value]) + GOOD[position + 1 :]
    try:
        assert read_csr(spoilt).public_key == KEY.public_key()
    except InvalidInput:
        return


@given(st.integers(0, len(GOOD)))
def test_fuzz_truncation(length: int) -> None:
    try:
        assert read_csr(GOOD[:length]).public_key == KEY.public_key()
    except InvalidInput:
        return
