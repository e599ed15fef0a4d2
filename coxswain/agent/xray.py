"""The REALITY inbound: its configuration, revision and clients (node-contract.md 4.5, 4.7, 4.8, 4.10, 8).

What runs it is an engine (``xray_engine.py``), swapped as a whole at each change (8.4). Unlike the existing agent's, the
configuration and the clients survive a restart (9.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.identity import XrayIdentity
from coxswain.agent.state import State, XrayClient, XrayConfig
from coxswain.agent.xray_engine import XrayEngine, render_xray
from coxswain.fingerprints import of_reality

__all__ = ["Stale", "XrayInbound"]

Save = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a write of a state file, off the loop if it blocks."""


class Stale(Exception):
    """The revision is older than the applied one."""


class XrayInbound:
    """What is configured. ``config`` None: nothing; clients may be there all the same (4.7).

    Args:
        remembered: what ``state`` has from an earlier process.
    """

    def __init__(
        self,
        state: State,
        save: Save,
        engine: XrayEngine,
        identity: XrayIdentity,
        remembered: tuple[XrayConfig, int] | None,
    ) -> None:
        self._state = state
        self._save = save
        self._engine = engine
        self._identity = identity
        self._early: tuple[XrayClient, ...] = ()
        self._named: tuple[XrayConfig, str] | None = None
        self.config: XrayConfig | None = remembered[0] if remembered is not None else None
        self.revision = remembered[1] if remembered is not None else 0

    @property
    def running(self) -> bool:
        return self.config is not None and self._engine.running

    @property
    def trouble(self) -> str:
        """Why it does not run although it is configured; empty: it does, or it is not."""
        if self.config is None or self._engine.running:
            return ""
        return self._engine.trouble or "not started"

    @property
    def clients(self) -> tuple[XrayClient, ...]:
        return self._early if self.config is None else self.config.clients

    @property
    def fingerprint(self) -> str:
        """Names what is configured by its content; empty: nothing is."""
        config = self.config
        if config is None:
            return ""
        if self._named is None or self._named[0] is not config:  # asked for with each status
            clients = ((client.id, client.flow) for client in config.clients)
            name = of_reality(config.port, config.dest, config.server_names, config.short_ids, clients)
            self._named = (config, name)
        return self._named[1]

    async def push(self, revision: int, config: Callable[[], XrayConfig]) -> bool:
        """Returns whether it was reloaded. ``config`` is only looked at if it is to be applied.

        Raises:
            Stale: and nothing changed.
            DataPlaneFailed: the configuration is no good, and the old one goes on; or it could not be started, and nothing
                runs while the old one is remembered (node-contract.md 4.5).
        """
        if revision < self.revision:
            raise Stale
        if revision == self.revision and self.running:
            return False
        wanted = config()
        await self._run(wanted)
        self.config = wanted
        await self._save(lambda: self._state.set_xray(wanted, revision))
        self.revision = revision  # last: what could not be saved is applied again when it is pushed again
        return True

    async def add(self, client: XrayClient) -> bool:
        """Returns False if the client is there already, whatever its flow.

        Raises:
            DataPlaneFailed: the client stays in the list (node-contract.md 4.7).
        """
        if any(known.id == client.id for known in self.clients):
            return False
        await self._set_clients((*self.clients, client))
        return True

    async def remove(self, uuid: str) -> bool:
        """Returns False if there is no such client.

        Raises:
            DataPlaneFailed: it is out all the same, because nothing runs any more.
        """
        kept = tuple(client for client in self.clients if client.id != uuid)
        if len(kept) == len(self.clients):
            return False
        try:
            await self._set_clients(kept)
        except DataPlaneFailed:
            await self._engine.stop()  # what still runs would let it in
            raise
        return True

    async def restart(self) -> None:
        """From what is remembered; nothing configured: nothing happens. Raises ``DataPlaneFailed``."""
        if self.config is not None:
            await self._run(self.config)

    async def _set_clients(self, clients: tuple[XrayClient, ...]) -> None:
        if self.config is None:
            self._early = clients
            return
        self.config = config = replace(self.config, clients=clients)
        await self._save(lambda: self._state.set_xray(config, self.revision))
        await self._run(config)

    async def _run(self, config: XrayConfig) -> None:
        document = render_xray(config, self._identity.private_text)
        await self._engine.check(document, config.port)
        await self._engine.swap(document, config.port)
