"""One real agent: state directory, data plane, observer and server, started and stopped in order (contract 3.5, 3.6).

The order of start: identities, revision, policy and certificates are loaded (anything unusable there ends the start);
then inner links, network policy and awg0 are brought back, whose failures are only reported; then the observer, then
the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import coxswain
from coxswain.agent.config import AgentConfig
from coxswain.agent.dataplane import DataPlane
from coxswain.agent.events import EventHub
from coxswain.agent.identity import AwgIdentity, load_or_create_awg, load_or_create_xray
from coxswain.agent.observer import POLL_S, Observer
from coxswain.agent.server import AgentServer, TlsFiles, bind_targets, reloading_credentials
from coxswain.agent.service import NodeService
from coxswain.agent.state import DirectoryFiles, State
from coxswain.clock import Clock, SystemClock
from coxswain.errors import Refused

__all__ = ["Agent", "OpenPlane"]

OpenPlane = Callable[[AwgIdentity], DataPlane]

_log = logging.getLogger(__name__)


class Agent:
    """Args as in ``cox-node run``; ``poll_s``: seconds between two looks of the observer."""

    def __init__(
        self,
        directory: Path,
        config: AgentConfig,
        open_plane: OpenPlane,
        *,
        clock: Clock | None = None,
        poll_s: float = POLL_S,
        version: str = coxswain.__version__,
    ) -> None:
        self.port = 0
        self._directory = directory
        self._config = config
        self._open_plane = open_plane
        self._clock = clock if clock is not None else SystemClock()
        self._poll_s = poll_s
        self._version = version
        self._ticking: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when the port is open.

        Raises:
            Refused: a file is missing or corrupt, or the port is taken.
        """
        files = DirectoryFiles(self._directory)
        try:
            awg = load_or_create_awg(files)
            xray = load_or_create_xray(files)
            self.plane = self._open_plane(awg)
            self._hub = EventHub(self._clock)
            self._observer = Observer(self.plane, self._hub, self._clock)
            self.service = NodeService(
                State(files),
                self.plane,
                self._observer,
                self._hub,
                awg,
                xray,
                self._clock,
                version=self._version,
                allowed_clients=self._config.allowed_clients,
            )
        except OSError as error:
            raise Refused(f"{error.filename or self._directory}: {error.strerror}") from None
        credentials = reloading_credentials(TlsFiles(self._directory))
        await self.service.restore()
        await self._observer.poll()
        self._server = AgentServer(self.service.handler(), credentials)
        try:
            self.port = await self._server.start(bind_targets(self._config.listen_addr))
        except Refused:
            await self.plane.close()
            raise
        self._ticking = [asyncio.create_task(self._every(self._poll_s, self._observer.poll))]
        if self._config.heal_interval_s:
            self._ticking.append(asyncio.create_task(self._every(self._config.heal_interval_s, self.service.heal)))
        _log.info("serving on port %d with the %s data plane", self.port, self.plane.name)

    async def stop(self) -> None:
        """Shutdown events, streams end OK, running calls get their grace; interfaces and rules stay."""
        for task in self._ticking:
            task.cancel()
        await asyncio.gather(*self._ticking, return_exceptions=True)
        self._observer.close()
        await self._server.stop(self._config.stop_grace_s)
        if not await self.service.drain(self._config.stop_grace_s):
            _log.warning("a change is still running; it is left to itself")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.plane.close(), self._config.stop_grace_s)

    @staticmethod
    async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                _log.exception("a look at the data plane failed")
