"""Messages to node links (``node_link:<node id>``) and to their supervisor ``node_links``."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.messages.fleet import Intent
from coxswain.model import Protocol

__all__ = [
    "CertificatesRenewed",
    "IntentChanged",
    "Look",
    "NodeSetChanged",
    "PeerSeen",
    "PlanView",
    "PolicyOutcome",
    "PreviewPlan",
    "PushNow",
    "PushOutcome",
    "PushPolicy",
    "ReportAgain",
    "ServiceSeen",
]


@dataclass(frozen=True, slots=True)
class Look:
    """Told by ``reconcile_clock``, by ``fleet``, by doors and by steps of operations: compare the node with its intent now
    and heal what differs.

    ``doubted``: interfaces of inner links that do not carry, whatever the node acknowledged: it is told of them again.
    """

    doubted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntentChanged:
    """Told by ``fleet`` after a commit. Only a hint: a link that is busy reads the intent when it is not.

    ``intent``: what it is now, where one change touched many nodes: a thousand links that all ask at once cost more than the
    pushes themselves (docs/performance.md).
    """

    intent: Intent | None = None


@dataclass(frozen=True, slots=True)
class CertificatesRenewed:
    """Told by ``fleet`` (node certificates issued or revoked). ``server_names`` are the only ones now accepted; a link
    whose present connection was made under another name closes it at once.
    """

    server_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreviewPlan:
    """Asked by doors: what would a reconcile change? Changes nothing. Reply: ``PlanView``. Raises ``NodeFailure``."""


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A data plane as its node just told (node-contract.md 1.3). ``handshake_age_s``: of the newest; -1: there was none."""

    protocol: Protocol
    running: bool
    listening: bool
    peers: int
    handshaking: int
    handshake_age_s: int
    detail: str


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """A peer as its node just told. ``device_id`` empty: nobody's here. ``last_handshake``: epoch seconds, 0: never."""

    public_key: str
    device_id: str
    endpoint: str
    last_handshake: float
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan as an operator reads it: one line per step with its reason, what was noticed besides, and what it is made of.
    ``peers``: those that were there last, not all.
    """

    node_id: str
    intended_revision: int
    applied_revision: int
    steps: tuple[str, ...]
    findings: tuple[str, ...]
    services: tuple[ServiceSeen, ...] = ()
    peers: tuple[PeerSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class PushNow:
    """Asked by doors: push the whole intent under a fresh revision, needed or not. Reply: ``PushOutcome``."""


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What a push did (management-plane.md 3.3, PushResult). ``xray_skipped``: the agent has none. ``cascade_reapplied``:
    paths make something of the node, and it was told that again, too.
    """

    amneziawg_peers: int
    pushed_revision: int
    applied_revision: int
    reloaded: bool
    policy_applied: bool
    xray_peers: int = 0
    xray_skipped: bool = False
    links_configured: int = 0
    cascade_reapplied: bool = False


@dataclass(frozen=True, slots=True)
class PushPolicy:
    """Asked by doors: put the network policy in force again, with its transits. Reply: ``PolicyOutcome``."""


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """The policy that the node acknowledged; ``transits``: how many."""

    forwarding: bool
    masquerade: bool
    isolation: bool
    transits: int


@dataclass(frozen=True, slots=True)
class NodeSetChanged:
    """Told by ``fleet`` to ``node_links``: nodes were added, removed, enabled or disabled. The receiver reads late."""


@dataclass(frozen=True, slots=True)
class ReportAgain:
    """Told by ``fleet`` when it was restarted: what links reported before is forgotten."""
