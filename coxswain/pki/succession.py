"""How an intermediate CA hands over to its heir before it ends, without anybody being cut off.

Two thirds into its life an intermediate gets an heir: a new key and certificate under the same root. From then on whoever
is given what to trust is given both: agents take every certificate in ``ca.crt`` as an anchor (node-contract.md 2.2), and
clients take several in ``fleet_ca_pem`` (accounts-profiles.md 10.1-12). Only later, five sixths into its life, does the heir
sign: by then, what was handed out before has been handed out anew. The one from before is trusted until it ends; its key is
forgotten.

The root is not replaced: it is what enrolment links pin. Its ten years are the limit of every heir's life.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from coxswain.pki.certificates import Authority, Role, create_heir

__all__ = ["HEIRS", "Line", "heir_due", "make_heir", "succession_due"]

HEIRS = (Role.FLEET, Role.DEVICE, Role.CONTROL)
"""Whoever has an heir in time."""


@dataclass(frozen=True)
class Line:
    """An intermediate: who signs, who will, and who did and is not over yet."""

    current: Authority
    heir: Authority | None = None
    retired: tuple[x509.Certificate, ...] = ()

    @property
    def trusted_pem(self) -> bytes:
        """What those who trust it are given: the present one first."""
        others = (*((self.heir.certificate,) if self.heir else ()), *self.retired)
        return self.current.pem + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in others)

    @property
    def published_at(self) -> float:
        """Since when its newest member is handed out (epoch seconds): what was handed out earlier lacks it."""
        return _start((self.heir or self.current).certificate)


def heir_due(line: Line, root: Authority, now: float) -> bool:
    """Whether it is time to make and publish an heir that would live longer than the present one."""
    certificate = line.current.certificate
    if line.heir is not None or root.certificate.not_valid_after_utc <= certificate.not_valid_after_utc:
        return False
    return now >= _start(certificate) + _life(certificate) * 2 / 3


def make_heir(line: Line, root: Authority, now: float) -> Authority:
    """Raises ``Refused`` if the root has expired."""
    return create_heir(line.current.role, root, now)


def succession_due(line: Line, now: float) -> bool:
    """Whether the heir may sign from now on, as far as time is concerned."""
    certificate = line.current.certificate
    return line.heir is not None and now >= _start(certificate) + _life(certificate) * 5 / 6


def _start(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def _life(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp() - _start(certificate)
