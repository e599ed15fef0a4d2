"""The roles of ``cox-relay`` as running programs: listeners, log lines, the end (relay-contract.md 3.4, 7.1)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from coxswain.errors import InvalidInput, Refused
from coxswain.limits import raise_descriptor_limit
from coxswain.relay.backend import Backend
from coxswain.relay.contexts import Credentials, client_context, server_context
from coxswain.relay.egress import EgressRelay
from coxswain.relay.ingress import Tunnels
from coxswain.relay.keys import load_or_create_onion_key
from coxswain.relay.listener import Listener
from coxswain.relay.onion import OnionRelay
from coxswain.relay.policy import REQUIRED, TAKES_POLICIES, PolicyFile
from coxswain.relay.proxy import DeviceProxy
from coxswain.relay.targets import Allowed, AllowList

__all__ = ["run_egress", "run_ingress", "run_onion"]

DRAIN_S = 10.0
"""Seconds for calls that are under way at the end; less than the unit's ``TimeoutStopSec``."""


_CIRCUITS = 8192
"""Of an onion relay. They come from few addresses: a controller's, or those of the hops before. A controller of a thousand
nodes has a circuit for each, and for a while two, when it changes its path or its line broke.
"""


async def run_ingress(directory: Path, client_addr: str, tunnel_addr: str, log: logging.Logger) -> None:
    """Serves until SIGTERM or SIGINT. Raises ``Refused`` (its files), ``OSError`` (its ports)."""
    raise_descriptor_limit()
    fleet, device = _material(directory, "fleet-ca.crt"), _material(directory, "device-ca.crt")
    tunnels = Tunnels(_context(lambda: server_context(fleet)), log)
    backend = Backend(tunnels.ways, _context(lambda: client_context(fleet, alpn=("h2",))))
    proxy = DeviceProxy(_context(lambda: server_context(device, client_must=False, tls12=True, alpn=("h2",))), backend, log)
    front, back = Listener(proxy.serve, log), Listener(tunnels.serve, log, limit=64, per_host=16)
    over = _signalled()
    tunnel_at = await back.start(tunnel_addr)
    client_at = await front.start(client_addr)
    log.info("[relay] remote relay ready — caravel clients on %s, coxswain tunnel on %s", client_at, tunnel_at)
    log.info("[relay] relay serving caravel clients on %s", client_at)
    await over.wait()
    log.info("[relay] shutdown signal received")
    front.stop_accepting()
    await proxy.drain(DRAIN_S)
    await front.stop()
    await backend.close()
    await back.stop()


async def run_egress(
    directory: Path, tunnel_addr: str, allow: Sequence[str], log: logging.Logger, *, anywhere: bool = False
) -> None:
    """Serves until SIGTERM or SIGINT. Raises as ``run_ingress`` and ``_allowed``."""
    raise_descriptor_limit()
    context = _context(lambda: server_context(_material(directory, "fleet-ca.crt"), alpn=(TAKES_POLICIES,)))
    relay = EgressRelay(context, log, allowed=_allowed(directory, allow, anywhere=anywhere, log=log))
    listener = Listener(relay.serve, log, limit=256, per_host=64)
    over = _signalled()
    log.info("[relay] egress relay ready — coxswain egress tunnel on %s", await listener.start(tunnel_addr))
    await over.wait()
    log.info("[relay] shutdown signal received")
    await listener.stop()


async def run_onion(
    directory: Path, listen: str, allow: Sequence[str], log: logging.Logger, *, anywhere: bool = False
) -> None:
    """Serves until SIGTERM or SIGINT. Raises ``InvalidInput`` (its key), ``OSError``, and as ``_allowed``."""
    raise_descriptor_limit()
    key, _ = load_or_create_onion_key(directory / "onion.key")
    allowed = _allowed(directory, allow, anywhere=anywhere, log=log)
    listener = Listener(OnionRelay(key, allowed=allowed).serve, log, limit=_CIRCUITS, per_host=_CIRCUITS // 2)
    over = _signalled()
    log.info("[relay] onion relay ready on %s", await listener.start(listen))
    await over.wait()
    log.info("[relay] shutdown signal received")
    await listener.stop()


def _allowed(directory: Path, allow: Sequence[str], *, anywhere: bool, log: logging.Logger) -> Allowed:
    """What the flags say; without any, what the controller's policy says (``PolicyFile``).

    Raises:
        InvalidInput: flags that cannot be.
        Refused: no flag, and no policy where there has to be one, or one that is not for this relay.
    """
    if allow and anywhere:
        raise InvalidInput("allow-any: says that --allow limits nothing; give one of them")
    if allow or anywhere:
        return AllowList(allow, anywhere=anywhere)
    name, value = REQUIRED
    return PolicyFile(directory, log, needed=os.environ.get(name) == value)


def _material(directory: Path, anchor: str) -> Credentials:
    try:
        return Credentials.read(directory, anchor)
    except OSError as error:
        raise Refused(f"read relay material: {error.strerror}: {error.filename}") from None


def _context(make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    try:
        return make()
    except (ssl.SSLError, ValueError) as error:
        raise Refused(f"read relay material: {error}") from None


def _signalled() -> asyncio.Event:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    return over
