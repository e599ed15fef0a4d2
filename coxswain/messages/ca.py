"""Messages to ``certificate_authority``, the only holder of CA keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from coxswain.messages.audit import Caller
from coxswain.messages.versions import Seen

__all__ = [
    "AuthorityView",
    "CaView",
    "DescribeCa",
    "GetGrpcCredentials",
    "GetHopCredentials",
    "GetLinkCredentials",
    "GetRelayCredentials",
    "GrpcCredentials",
    "GrpcCredentialsRenewed",
    "HopCredentials",
    "IssueDeviceCertificate",
    "IssueNodeCertificate",
    "IssueRelayCertificate",
    "IssuedDeviceCertificate",
    "IssuedNodeCertificate",
    "IssuedRelayCertificate",
    "LeafView",
    "LinkCredentials",
    "LinkCredentialsRenewed",
    "RelayCredentials",
    "RevokeNodeCertificates",
    "SignTargetPolicy",
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
class GetHopCredentials:
    """Asked by ``node_links`` when it asks for the others. Reply: ``HopCredentials``."""


@dataclass(frozen=True, slots=True)
class HopCredentials:
    """What the controller presents to relays that are hops of a control path. These trust the Fleet CA alone
    (relay-contract.md 1.3), so it is another leaf than nodes get, with another key: what is shown to a relay is of no use
    against a node. It is in memory only, and made anew by each incarnation.
    """

    root_pem: bytes
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    not_after: float


@dataclass(frozen=True, slots=True)
class LinkCredentialsRenewed:
    """Told by ``certificate_authority`` to ``node_links``: new connections use the new leaves, running ones stay."""


@dataclass(frozen=True, slots=True)
class IssueNodeCertificate:
    """Asked by doors (``cox nodes enroll --csr``). Only the CSR's public key is used. Reply:
    ``Committed[IssuedNodeCertificate]``. Raises ``InvalidInput`` (a malformed or weak CSR), ``NotFound``, ``StaleVersion``.
    """

    caller: Caller
    node_id: str
    csr_pem: bytes
    seen: Seen | None = None


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
class SignTargetPolicy:
    """Asked by onboarding: where a relay may connect, with the signature that it trusts. ``hostname``: in its certificate.
    Reply: the document, bytes (``coxswain.relay.policy``). Changes nothing.
    """

    hostname: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RevokeNodeCertificates:
    """Asked by doors. ``serial`` None: all of the node's. Reply: ``Committed[tuple[str, ...]]``, the revoked serials. Raises
    ``NotFound``, ``StaleVersion``.
    """

    caller: Caller
    node_id: str
    serial: str | None = None
    reason: str = ""
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class DescribeCa:
    """Asked by doors (``cox ca show``). Reply: ``CaView``."""


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """One authority. ``state``: it ``signs``; it is the ``heir``, which is trusted and signs later; it is ``retired`` and
    trusted until it ends. ``fingerprint``: lower hex SHA-256 of the DER (accounts-profiles.md 7.3).
    """

    role: str
    state: str
    subject: str
    serial: str
    not_before: float
    not_after: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LeafView:
    """One leaf. ``holder`` is ``controller``, the role of another one of the controller's own, or a node id."""

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


@dataclass(frozen=True, slots=True)
class GetGrpcCredentials:
    """Asked by ``accounts`` at its start and after ``GrpcCredentialsRenewed``. Reply: ``GrpcCredentials``."""


@dataclass(frozen=True, slots=True)
class GrpcCredentials:
    """With what AccountSync is served, and whose certificates its callers show. PEM bytes.

    ``chain_pem`` is the leaf and the Fleet intermediate, which is also the anchor ``fleet_ca_pem``.
    """

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    fleet_ca_pem: bytes
    not_after: float


@dataclass(frozen=True, slots=True)
class GetRelayCredentials:
    """Asked by ``relays``. ``host``: the name or address under which devices reach the embedded relay, or empty; the leaf is
    issued anew when it lacks it. Reply: ``RelayCredentials``.
    """

    host: str = ""


@dataclass(frozen=True, slots=True)
class RelayCredentials:
    """What the controller shows as a relay: to devices, to remote relays, to its own AccountSync. PEM bytes.

    ``chain_pem`` is the leaf and the Fleet intermediate; ``fleet_ca_pem`` and ``device_ca_pem`` are anchors.
    ``relay_serials``: of the certificates of remote relays that are good; one that shows another certificate is not let in.
    """

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    fleet_ca_pem: bytes
    device_ca_pem: bytes
    not_after: float
    relay_serials: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class GrpcCredentialsRenewed:
    """Told by ``certificate_authority`` to ``accounts``: new connections are served with the new leaf."""


@dataclass(frozen=True, slots=True)
class IssueDeviceCertificate:
    """Asked by ``accounts``. Reply: ``IssuedDeviceCertificate``. Only the CSR's public key is used.

    Nothing is recorded here: the certificate is good once the transaction of the claim knows its fingerprint, and nobody
    gets to see it before. Raises ``InvalidInput``.
    """

    csr_pem: bytes
    name: str
    days: int


@dataclass(frozen=True, slots=True)
class IssuedDeviceCertificate:
    """``fingerprint``: of its PEM (relay-contract.md 1.5). ``ignored``: names that the CSR asked for."""

    pem: bytes
    fingerprint: str
    serial: str
    not_after: float
    fleet_ca_pem: bytes
    root_fingerprint: str
    ignored: tuple[str, ...] = ()
