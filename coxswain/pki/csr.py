"""Reading certificate requests: foreign bytes, bounded, from which nothing but the public key is kept."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coxswain.errors import InvalidInput

__all__ = ["MAX_CSR_BYTES", "Csr", "read_csr"]

MAX_CSR_BYTES = 64 * 1024

_HINT = "Make one on the host with: cox-node gen-csr"
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True)
class Csr:
    """What matters of a request. ``ignored`` are names it asked for, which the controller chooses itself."""

    public_key: ec.EllipticCurvePublicKey
    ignored: tuple[str, ...]


def read_csr(pem: bytes) -> Csr:
    """Reads one PKCS#10 request in PEM. Raises ``InvalidInput`` for everything that is not a sound one."""
    if len(pem) > MAX_CSR_BYTES:
        raise InvalidInput(f"csr: {len(pem)} bytes are too many; at most {MAX_CSR_BYTES}", remedy=_HINT)
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        raise InvalidInput(f"csr: this is {_guess(pem)}; a PEM block CERTIFICATE REQUEST is needed", remedy=_HINT)
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        sound = request.is_signature_valid
        ignored = tuple(_names(request))
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.UnsupportedGeneralNameType) as error:
        raise InvalidInput(f"csr: it cannot be read: {_first_line(error)}", remedy=_HINT) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise InvalidInput(f"csr: its key is {_kind(key)}; P-256 or P-384 is needed", remedy=_HINT)
    if not sound:
        raise InvalidInput("csr: its signature is not by its own key; it was damaged or tampered with", remedy=_HINT)
    return Csr(key, ignored)


def _names(request: x509.CertificateSigningRequest) -> list[str]:
    found = [f"subject {request.subject.rfc4514_string()}"[:200]] if list(request.subject) else []
    for extension in request.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            found += [f"SAN {_printable(str(name.value))}" for name in extension.value][:20]
    return [_printable(name) for name in found]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _kind(key: object) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"on the curve {key.curve.name}"
    return type(key).__name__.strip("_")


def _guess(pem: bytes) -> str:
    if b"PRIVATE KEY" in pem:
        return "a private key (which should never leave its host)"
    if b"BEGIN CERTIFICATE-----" in pem:
        return "a certificate"
    return "no certificate request"


def _first_line(error: BaseException) -> str:
    return _printable((str(error).splitlines() or [type(error).__name__])[0])
