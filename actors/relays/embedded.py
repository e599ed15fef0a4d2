"""``embedded_relay``: devices' connections on a port of this machine, when the configuration asks for it
(relay-contract.md 4). The same proxy as in ``cox-relay``; its way to AccountSync is the socket, with the same TLS.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from actors.relays.standing import Standing, need
from coxswain.errors import CoxswainError
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
    """Listens, and listens again if it could not. A renewed leaf is shown to whoever comes next; who is connected stays."""

    up = TunnelState.LISTENING
    _shown: Callable[[ssl.SSLContext, ssl.SSLContext], None] | None = None

    def work(self, stands: Callable[[], None]) -> Coroutine[Any, Any, str]:
        towards_fleet, towards_devices = self._contexts()
        backend = Backend(lambda: [Way(partial(_near, self._services.socket))], towards_fleet)
        proxy = DeviceProxy(towards_devices, backend, _log)

        def show(fleet: ssl.SSLContext, devices: ssl.SSLContext) -> None:
            backend.use(fleet)
            proxy.use(devices)

        self._shown = show
        return _serve(self._view.endpoint, backend, proxy, stands)

    def receive(self, message: Any) -> Any:
        if not isinstance(message, RelayCredentialsRenewed):
            return super().receive(message)
        try:
            if self._view.state is self.up and self._shown is not None:
                self._shown(*self._contexts())
                return None
        except CoxswainError as error:
            self.context.log.warning("the renewed certificate cannot be shown: %s", error)
        self.again()
        return None

    def _contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        fleet: Credentials = need(self._services.towards_fleet())
        devices: Credentials = need(self._services.towards_devices())
        return client_context(fleet, alpn=("h2",)), server_context(devices, client_must=False, tls12=True, alpn=("h2",))


async def _near(socket: Path) -> SocketStream:
    return SocketStream(*await asyncio.open_unix_connection(socket))


async def _serve(listen: str, backend: Backend, proxy: DeviceProxy, stands: Callable[[], None]) -> str:
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
