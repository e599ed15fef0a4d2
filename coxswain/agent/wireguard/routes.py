"""Routes to peers through an interface (node-contract.md 6.5, 4.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from coxswain.agent.dataplane import PeerConfig
from coxswain.agent.wireguard.commands import Shell, ToolFailed

__all__ = ["BATCH_ABOVE", "Routes", "routed"]

BATCH_ABOVE = 32
"""With more routes than this, one ``ip -batch`` does them all: a process for each of 1,000 peers takes seconds."""

_GONE = ("no such process", "not found", "cannot find device")


def routed(peers: Iterable[PeerConfig]) -> tuple[str, ...]:
    """What is to be routed to an interface with these peers, each once; default routes are not (node-contract.md 6.5)."""
    destinations: dict[str, None] = {}
    for peer in peers:
        for text in peer.allowed_ips:
            destination = _destination(text)
            if destination:
                destinations[destination] = None
    return tuple(destinations)


@lru_cache(maxsize=65_536)
def _destination(text: str) -> str:
    try:
        network = ipaddress.ip_interface(text).network
    except ValueError:
        return ""  # only in a conf that somebody else wrote: the tools have refused it by now
    if network.prefixlen == 0:
        return ""
    # A route may not have host bits; where there are none, the text stays as it came.
    host_bits = "/" in text and str(network.network_address) != str(ipaddress.ip_interface(text).ip)
    return str(network) if host_bits else text


class Routes:
    """Routes by ``ip``, through one interface at a time."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def add(self, interface: str, destinations: tuple[str, ...]) -> None:
        """Raises ``ToolFailed``."""
        if len(destinations) > BATCH_ABOVE:
            lines = "".join(f"route replace {each} dev {interface}\n" for each in destinations)
            (await self._shell("ip", "-batch", "-", stdin=lines)).check()
            return
        for each in destinations:
            (await self._shell("ip", "route", "replace", each, "dev", interface)).check()

    async def remove(self, interface: str, destinations: tuple[str, ...]) -> None:
        """One that is not there is no error. Raises ``ToolFailed`` for the first of the others that cannot be removed."""
        if len(destinations) > BATCH_ABOVE:
            lines = "".join(f"route del {each} dev {interface}\n" for each in destinations)
            # -force: goes on after one that is not there. Which ones failed for other reasons shows at the next change.
            await self._shell("ip", "-force", "-batch", "-", stdin=lines)
            return
        failed = None
        for each in destinations:
            ended = await self._shell("ip", "route", "del", each, "dev", interface)
            if not ended.ok and not any(words in ended.said for words in _GONE):
                failed = failed or ended
        if failed is not None:
            raise ToolFailed(failed.complaint())
