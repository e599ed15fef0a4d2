"""REALITY: what its inbound pretends to be (fleet-model.md 8, node-contract.md 8). The controller holds no secret of it."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.errors import InvalidInput
from coxswain.wire import validate

__all__ = ["DEFAULT_DECOY", "FINGERPRINT", "FLOW", "Reality", "reality_of"]

DEFAULT_DECOY = "www.microsoft.com"
"""``reality.decoy_site`` of both presets (fleet-model.md 8)."""

FLOW = "xtls-rprx-vision"
"""Of every client."""

FINGERPRINT = "chrome"
"""What a client's TLS looks like."""

PORT = 443


@dataclass(frozen=True, slots=True)
class Reality:
    """The inbound's face.

    Attributes:
        dest: whom it takes for itself, ``host:port``.
        server_names: the names by which clients ask for it.
        short_ids: an empty one is one.
        port: TCP.
        enabled: False: no node gets clients, and one that has some loses them.
    """

    dest: str
    server_names: tuple[str, ...]
    short_ids: tuple[str, ...] = ("",)
    port: int = PORT
    enabled: bool = True


def reality_of(decoy: str = DEFAULT_DECOY, *, enabled: bool = True, field: str = "reality.decoy_site") -> Reality:
    """``decoy``: ``host``, which means port 443, or ``host:port``. Raises ``InvalidInput``, which names the ``field``."""
    if not decoy:
        raise InvalidInput(f"{field}: is empty; a host such as {DEFAULT_DECOY} would do")
    dest = validate.endpoint(field, decoy if ":" in decoy else f"{decoy}:443")
    return Reality(dest, (dest.rpartition(":")[0],), enabled=enabled)
