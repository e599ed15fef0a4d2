"""``relay_tunnel:<id>``: the reverse tunnel to one remote relay (relay-contract.md 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from actors.relays.standing import Standing, need
from coxswain.relay.contexts import client_context
from coxswain.relay.tunnel import carry

__all__ = ["RelayTunnel"]


class RelayTunnel(Standing):
    """Dials, and dials again; what comes is joined with AccountSync. A renewed leaf is used from the next dial on.

    A relay with a certificate that the store does not know is not let in, here and by AccountSync: it was issued after the
    backup that was restored, and nobody can tell whether it was taken back since.
    """

    def work(self, stands: Callable[[], None]) -> Coroutine[Any, Any, str]:
        context = client_context(need(self._services.towards_fleet()))
        services = self._services
        return carry(self._view.endpoint, context, services.socket, stands, services.timing, vouch=services.vouch)
