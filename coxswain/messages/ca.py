"""Messages to ``certificate_authority``, the only holder of CA keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from coxswain.messages.audit import Caller

__all__ = [
    "AuthorityView",
    "CaView",
    "DescribeCa",
    "GetLinkCredentials",
    "IssueNodeCertificate",
    "IssueRelayCertificate",
    "IssuedNodeCertificate",
    "IssuedRelayCertificate",
    "LeafView",
    "LinkCredentials",
    "LinkCredentialsRenewed",
    "RevokeNodeCertificates",
]


@dataclass(frozen=True, slots=True)
class GetLinkCredentials:
    """Asked by ``node_links`` at its start and after ``LinkCredentialsRenewed``. Reply: ``LinkCredentials``."""


@dataclass(frozen=True, slots=True)
class LinkCredentials:
    """What the controller presents to nodes, and what it trusts. PEM bytes; the chain is leaf, then the control-only
    intermediate.
    """

    root_pem: bytes
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    not_after: float


@dataclass(frozen=True, slots=True)
class LinkCredentialsRenewed:
    """Told by ``certificate_authority`` to ``node_links``: new connections use the new leaf, running ones stay."""


@dataclass(frozen=True, slots=True)
class IssueNodeCertificate:
    """Asked by doors (``cox nodes enroll --csr``). Only the CSR's public key is used. Reply:
    ``Committed[IssuedNodeCertificate]``. Raises ``InvalidInput`` (a malformed or weak CSR), ``NotFound``.
    """

    caller: Caller
    node_id: str
    csr_pem: bytes


@dataclass(frozen=True, slots=True)
class IssuedNodeCertificate:
    """What goes to the host: ``node.crt`` (leaf, then the Fleet intermediate) and ``ca.crt`` (the control-only
    intermediate). PEM bytes. ``ignored`` are names that the CSR asked for; the controller chooses names itself.
    """

    node_id: str
    serial: str
    server_name: str
    not_after: float
    node_crt: bytes
    ca_crt: bytes
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IssueRelayCertificate:
    """Asked by the operation ``relay.add``. Only the CSR's public key is used; the name is the relay's ``hostname``. Reply:
    ``Committed[IssuedRelayCertificate]``. Raises ``InvalidInput``, ``NotFound``.
    """

    caller: Caller
    relay_id: str
    csr_pem: bytes


@dataclass(frozen=True, slots=True)
class IssuedRelayCertificate:
    """What goes to the host: ``relay.crt`` (leaf, then the Fleet intermediate), ``fleet-ca.crt``, ``device-ca.crt``. PEM."""

    relay_id: str
    serial: str
    hostname: str
    not_after: float
    relay_crt: bytes
    fleet_ca_crt: bytes
    device_ca_crt: bytes


@dataclass(frozen=True, slots=True)
class RevokeNodeCertificates:
    """Asked by doors. ``serial`` None: all of the node's. Reply: ``Committed[tuple[str, ...]]``, the revoked serials."""

    caller: Caller
    node_id: str
    serial: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DescribeCa:
    """Asked by doors (``cox ca show``). Reply: ``CaView``."""


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """One authority. ``fingerprint``: lower hex SHA-256 of the DER (accounts-profiles.md 7.3)."""

    role: str
    subject: str
    serial: str
    not_before: float
    not_after: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LeafView:
    """One leaf. ``holder`` is ``controller`` or a node id."""

    holder: str
    serial: str
    server_name: str
    not_after: float
    renewal_due: bool
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class CaView:
    """The authorities and every leaf that is not expired."""

    authorities: tuple[AuthorityView, ...]
    leaves: tuple[LeafView, ...]
    key_source: str
