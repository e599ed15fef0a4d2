"""The REALITY inbound as far as this agent has one: its configuration, revision and clients (node-contract.md 4.5, 8).

There is no XRay engine here. With the simulated data plane this pretends to run one; with a real one the service
answers UNIMPLEMENTED. Unlike the existing agent's, the state survives a restart (node-contract.md 9.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from coxswain.agent.state import State, XrayClient, XrayConfig

__all__ = ["Stale", "XrayInbound"]

Save = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a write of a state file, off the loop if it blocks."""


class Stale(Exception):
    """The revision is older than the applied one."""


class XrayInbound:
    """Configuration in force. ``config`` None: not configured; clients may be there all the same (4.7)."""

    def __init__(self, state: State, save: Save) -> None:
        self._state = state
        self._save = save
        self._early: tuple[XrayClient, ...] = ()
        found = state.xray()
        self.config: XrayConfig | None = found[0] if found is not None else None
        self.revision = found[1] if found is not None else 0

    @property
    def running(self) -> bool:
        return self.config is not None

    @property
    def clients(self) -> tuple[XrayClient, ...]:
        return self._early if self.config is None else self.config.clients

    async def push(self, revision: int, config: Callable[[], XrayConfig]) -> bool:
        """Returns whether it was reloaded. ``config`` is only looked at if it is to be applied.

        Raises:
            Stale: and nothing changed.
        """
        if revision < self.revision:
            raise Stale
        if revision == self.revision and self.running:
            return False
        await self._apply(config(), revision)
        return True

    async def add(self, client: XrayClient) -> bool:
        """Returns False if the client is there already, whatever its flow."""
        if any(known.id == client.id for known in self.clients):
            return False
        await self._set_clients((*self.clients, client))
        return True

    async def remove(self, uuid: str) -> bool:
        """Returns False if there is no such client."""
        kept = tuple(client for client in self.clients if client.id != uuid)
        if len(kept) == len(self.clients):
            return False
        await self._set_clients(kept)
        return True

    async def _set_clients(self, clients: tuple[XrayClient, ...]) -> None:
        if self.config is None:
            self._early = clients
        else:
            await self._apply(replace(self.config, clients=clients), self.revision)

    async def _apply(self, config: XrayConfig, revision: int) -> None:
        await self._save(lambda: self._state.set_xray(config, revision))
        self.config, self.revision = config, revision
