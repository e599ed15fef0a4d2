"""``embedded_relay``: devices' connections on a port of this machine, when the configuration asks for it
(relay-contract.md 4). The same proxy as in ``cox-relay``; its way to AccountSync is the socket, with the same TLS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from actors.relays.standing import Standing, need
from coxswain.messages.relays import RelayCredentialsRenewed, TunnelState
from coxswain.relay.backend import Backend, Way
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.contexts import Credentials, client_context, server_context
from coxswain.relay.listener import Listener
from coxswain.relay.proxy import DeviceProxy

__all__ = ["EmbeddedRelay"]

_log = logging.getLogger(__name__)

_DRAIN_S = 1.0


class EmbeddedRelay(Standing):
    """Listens, and listens again if it could not; a renewed leaf is shown from then on."""

    up = TunnelState.LISTENING

    def work(self, stands: Callable[[], None]) -> Coroutine[Any, Any, str]:
        fleet: Credentials = need(self._services.towards_fleet())
        devices: Credentials = need(self._services.towards_devices())
        return _serve(self._view.endpoint, fleet, devices, self._services.socket, stands)

    def receive(self, message: Any) -> Any:
        if isinstance(message, RelayCredentialsRenewed):
            self.again()
            return None
        return super().receive(message)


async def _serve(listen: str, fleet: Credentials, devices: Credentials, socket: Path, stands: Callable[[], None]) -> str:
    async def near() -> SocketStream:
        return SocketStream(*await asyncio.open_unix_connection(socket))

    backend = Backend(lambda: [Way(near)], client_context(fleet, alpn=("h2",)))
    proxy = DeviceProxy(server_context(devices, client_must=False, tls12=True, alpn=("h2",)), backend, _log)
    listener = Listener(proxy.serve, _log)
    try:
        await listener.start(listen)
        stands()
        await asyncio.Event().wait()
        return ""
    finally:
        listener.stop_accepting()
        await proxy.drain(_DRAIN_S)
        await listener.stop()
        await backend.close()
