"""Which simulated hosts there are, by the key of their client interface: what inner links between them lead to.

A link dials without a keepalive (node-contract.md 6.6). So it shakes hands, and its bytes are counted at both ends, while
somebody sends into it and its exit takes it: that has the dialler among its peers with the link's preshared key, and is
dialled with its own obfuscation. Whoever looks at the exit works that out, as with everything that is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from coxswain.agent.dataplane import LinkConfig
from coxswain.agent.sim_links import LinkTraffic
from coxswain.model import Obfuscation

__all__ = ["Host", "Sent", "SimNetwork", "understood"]

_FARTHEST = 8
"""Links between a host that is looked at and those that what it shows may depend on: more than any path has."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a host's inner links carry to one other host.

    Attributes:
        port: UDP port of the link that somebody sends into now; 0: nobody sends, or it does not get through.
        traffic: as the links count it, since they were made.
    """

    port: int = 0
    traffic: LinkTraffic = LinkTraffic()


class Host(Protocol):
    """A host that other hosts may dial."""

    def takes(self, dialler: str, link: LinkConfig) -> bool:
        """Does it answer the host with this key, which dials as ``link`` says?"""
        ...

    def sent_to(self, key: str) -> Sent:
        """What goes from it to the host with this key."""
        ...


class SimNetwork:
    """The hosts of one process. Those of others are unknown here, and what dials from there is as a client is."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host | None] = {}
        self._depth = 0
        self._heard: set[str] = set()

    def join(self, key: str, host: Host) -> None:
        self._hosts[key] = host

    def leave(self, key: str) -> None:
        """The host is no more. Whoever still has its key among its peers does not take it for a client's."""
        self._hosts[key] = None

    def __contains__(self, key: str) -> bool:
        return key in self._hosts

    def among(self, keys: Iterable[str]) -> list[str]:
        """Those that are, or were, a host's."""
        return [key for key in keys if key in self._hosts]

    def takes(self, key: str, dialler: str, link: LinkConfig) -> bool:
        """Does the host with ``key`` take a link? One that is not known is believed to."""
        host = self._hosts.get(key)
        return host.takes(dialler, link) if host is not None else key not in self._hosts

    def look(self, key: str, hear: Callable[[], None]) -> None:
        """Has the host with ``key`` hear who dials it, who hears before who dials that. Hosts may dial each other all round
        and in rows of any length: so each does it once while one is looked at, and none that is too far away.
        """
        if key in self._heard or self._depth == _FARTHEST:
            return
        self._heard.add(key)
        self._depth += 1
        try:
            hear()
        finally:
            self._depth -= 1
            if not self._depth:
                self._heard.clear()

    def sent(self, dialler: str, key: str) -> Sent:
        """What the host ``dialler`` sends to the host with ``key``."""
        host = self._hosts.get(dialler)
        return host.sent_to(key) if host is not None else Sent()


def understood(said: Obfuscation, own: Obfuscation) -> bool:
    """Does a host make sense of packets? Noise before a handshake is skipped: its settings may differ."""
    return all(getattr(said, name) == getattr(own, name) for name in ("s1", "s2", "s3", "s4", "h1", "h2", "h3", "h4"))
