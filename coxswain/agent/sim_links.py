"""Inner links of a simulated node: which are up, who remembers them, what went through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coxswain.agent.dataplane import DataPlaneFailed, LinkConfig
from coxswain.netpolicy import Policy

__all__ = ["Carried", "LinkState", "LinkTraffic", "SimLinks"]


@dataclass(frozen=True, slots=True)
class LinkTraffic:
    """Bytes that a link received from its exit and sent to it."""

    rx_bytes: int = 0
    tx_bytes: int = 0


Carried = Mapping[tuple[str, str], LinkTraffic]
"""Counters of clients that have a transit, as the link counts them, by interface and public key."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link that is up: how it was configured, and its counters since it was made."""

    config: LinkConfig
    traffic: LinkTraffic


class SimLinks:
    """The inner links of one node. A reboot takes them all; configuring them again makes them anew.

    Args:
        existing_agent: forgets which links are its own when it restarts, so that removing one does nothing and says it
            did (node-contract.md 4.13); takes a repeated revision for applied although the link is gone (4.12); ignores
            a changed port, MTU or obfuscation; and does not start with a policy whose links are missing (12.1).
    """

    def __init__(self, *, existing_agent: bool = False) -> None:
        self.up: dict[str, LinkConfig] = {}
        self.existing_agent = existing_agent
        self._registry: set[str] = set()
        self._carried: Carried = {}
        self._counted: dict[str, LinkTraffic] = {}

    def check(self, policy: Policy, *, restoring: bool) -> None:
        """Raises ``DataPlaneFailed`` for a transit whose link is missing, as the command for its route would fail."""
        if restoring and not self.existing_agent:
            return
        for transit in policy.transits:
            if transit.inner_interface not in self.up:
                raise DataPlaneFailed(
                    f"ip route replace default dev {transit.inner_interface} table {transit.table}: exit status 1: "
                    f'Cannot find device "{transit.inner_interface}"'
                )

    def looks_up(self, interface: str) -> bool:
        """Does the agent believe that it is there?"""
        return self.existing_agent or interface in self.up

    def configure(self, link: LinkConfig, carried: Carried) -> None:
        known = self.up.get(link.interface)
        if known is None:
            self.settle(carried)
            self._counted.pop(link.interface, None)
        elif self.existing_agent and link.interface in self._registry:
            link = LinkConfig(known.interface, known.listen_port, known.mtu, known.obfuscation, link.exit)
        self.up[link.interface] = link
        self._registry.add(link.interface)

    def remove(self, interface: str) -> None:
        if self.existing_agent and interface not in self._registry:
            return
        self._registry.discard(interface)
        self.up.pop(interface, None)
        self._counted.pop(interface, None)

    def take_away(self, interface: str) -> None:
        del self.up[interface]
        self._counted.pop(interface, None)

    def restarted(self) -> None:
        self._registry.clear()

    def reboot(self, *, links_up: bool = False) -> None:
        """``links_up``: the unit brings interfaces up from their confs before the agent starts."""
        if not links_up:
            self.up.clear()
        self._registry.clear()
        self._carried = {}
        self._counted.clear()

    # -- traffic

    def settle(self, carried: Carried) -> None:
        """Books what went through since the last time. A client that was not bound then starts from here."""
        for (interface, key), now in carried.items():
            before, counted = self._carried.get((interface, key)), self._counted.get(interface, LinkTraffic())
            if before is not None and interface in self.up:
                self._counted[interface] = LinkTraffic(
                    counted.rx_bytes + max(0, now.rx_bytes - before.rx_bytes),
                    counted.tx_bytes + max(0, now.tx_bytes - before.tx_bytes),
                )
        self._carried = dict(carried)

    def state(self, interface: str, carried: Carried) -> LinkState | None:
        if interface not in self.up:
            return None
        self.settle(carried)
        return LinkState(self.up[interface], self.counted(interface))

    def counted(self, interface: str) -> LinkTraffic:
        """As of the last time that anything was booked."""
        return self._counted.get(interface, LinkTraffic())
