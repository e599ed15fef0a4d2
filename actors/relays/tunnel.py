"""``relay_tunnel:<id>``: the reverse tunnel to one remote relay (relay-contract.md 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from actors.relays.standing import Standing, need
from coxswain.relay.contexts import client_context
from coxswain.relay.tunnel import carry

__all__ = ["RelayTunnel"]


class RelayTunnel(Standing):
    """Dials, and dials again; what comes is joined with AccountSync. A renewed leaf is used from the next dial on."""

    def work(self, stands: Callable[[], None]) -> Coroutine[Any, Any, str]:
        context = client_context(need(self._services.towards_fleet()))
        return carry(self._view.endpoint, context, self._services.socket, stands, self._services.timing)
