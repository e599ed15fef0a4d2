"""Messages to ``relays``, which holds the reverse tunnels to remote relays and the embedded relay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "EMBEDDED",
    "DescribeTunnels",
    "RelayCredentialsRenewed",
    "RelaySetChanged",
    "TunnelReport",
    "TunnelState",
    "TunnelView",
]

EMBEDDED = "embedded"
"""Where a relay's id would be, for the one inside the daemon."""


class TunnelState(StrEnum):
    """How the way to the devices stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    """A ping went through the tunnel and came back."""
    WAITING = "waiting"
    """The last attempt failed, or the tunnel fell; the next attempt comes by itself."""
    LISTENING = "listening"
    """The embedded relay takes devices' connections."""


@dataclass(frozen=True, slots=True)
class TunnelView:
    """One tunnel, or the embedded relay.

    Attributes:
        relay_id: of the inventory; ``EMBEDDED``; or the endpoint itself, when it is from the configuration.
        endpoint: what is dialled, or listened on.
        since: of this state, epoch seconds.
        error: why the last attempt or tunnel ended; empty: it has not, or it stands again.
        connects: how often it has stood since the daemon began.
    """

    relay_id: str
    endpoint: str
    state: TunnelState
    since: float
    error: str = ""
    connects: int = 0


@dataclass(frozen=True, slots=True)
class DescribeTunnels:
    """Asked by doors. Reply: tuple of ``TunnelView``, by relay id."""


@dataclass(frozen=True, slots=True)
class TunnelReport:
    """Told by each tunnel when its state changes."""

    view: TunnelView


@dataclass(frozen=True, slots=True)
class RelaySetChanged:
    """Told by ``servers``: a relay came, went or changed. A hint; the set is read late."""


@dataclass(frozen=True, slots=True)
class RelayCredentialsRenewed:
    """Told by ``certificate_authority``: new connections use the new leaf."""
