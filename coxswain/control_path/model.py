"""Control paths and routes as plain values, and what may be one (fleet-model.md 9.1, 9.2).

A **control path** is what the operator made: a name and ids of relays. A **route** is what a connection takes: those relays
with their addresses, each of which was found fit to be a hop. There is no route that stands for "unknown": what cannot be
resolved raises, and nothing is dialled directly in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coxswain.errors import InvalidInput, Refused
from coxswain.inventory import host_of
from coxswain.servers import Relay, RelayKind

__all__ = ["DIRECT", "MAX_HOPS", "ControlPath", "Hop", "Route", "check_hops", "resolve", "unfit"]

MAX_HOPS = 3
"""As many as the dashboard offers (management-plane.md 13.6, item 42). Each hop adds a TLS layer and a round trip."""


@dataclass(frozen=True, slots=True)
class ControlPath:
    """``hops``: ids of relays, the first is dialled by the controller; none: directly. At most one path is active."""

    id: str
    name: str
    hops: tuple[str, ...] = ()
    is_active: bool = False
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Hop:
    """One relay of a route. ``egress`` and ``onion`` are ``host:port``; the key (base64 X25519) opens the relay to anybody
    who knows it (relay-contract.md 6.6), so it is not shown.
    """

    relay_id: str
    name: str = field(compare=False)  # another name is no other way
    egress: str
    onion: str = ""
    onion_pubkey: str = field(default="", repr=False)

    def is_at(self, host: str) -> bool:
        return host in {host_of(endpoint) for endpoint in (self.egress, self.onion) if endpoint}


@dataclass(frozen=True, slots=True)
class Route:
    """By which relays a connection goes; none: directly."""

    hops: tuple[Hop, ...] = ()

    @property
    def is_direct(self) -> bool:
        return not self.hops

    @property
    def is_onion(self) -> bool:
        """Circuits, where every hop can do that; else the nested TLS chain. No setting chooses (relay-contract.md 6.7)."""
        return bool(self.hops) and all(hop.onion and hop.onion_pubkey for hop in self.hops)

    @property
    def kind(self) -> str:
        return "direct" if self.is_direct else "onion" if self.is_onion else "egress"

    def before(self, host: str) -> Route:
        """The way to a machine that is itself a hop: the hops before it. It cannot be reached through itself while its relay
        is being upgraded, and learns nothing by this: who dials it, it knows as a hop.
        """
        for position, hop in enumerate(self.hops):
            if hop.is_at(host):
                return Route(self.hops[:position])
        return self

    def __str__(self) -> str:
        return " → ".join(hop.name for hop in self.hops) or "directly"


DIRECT = Route()


def check_hops(hops: Sequence[str], relays: Iterable[Relay]) -> tuple[str, ...]:
    """Ids of relays of which a control path can be made; each may be given by id or name.

    Raises:
        InvalidInput: names the hop, and why it is none.
    """
    known = _by_key(relays)
    if len(hops) > MAX_HOPS:
        raise InvalidInput(f"hops: {len(hops)} relays; a control path has at most {MAX_HOPS}")
    ids: list[str] = []
    for key in hops:
        relay = known.get(key)
        if relay is None:
            raise InvalidInput(f"hops: there is no relay with the id or name {key[:80]!r}", remedy="See: cox relays list")
        if relay.id in ids:
            raise InvalidInput(f"hops: relay {relay.name} comes twice")
        why = _cannot_be_hop(relay)
        if why:
            raise InvalidInput(f"hops: relay {relay.name} {why}", remedy=_DEPLOY)
        ids.append(relay.id)
    return tuple(ids)


def resolve(hops: Sequence[str], relays: Iterable[Relay]) -> Route:
    """The route over relays that are fit for it at this moment.

    Raises:
        Refused: names the hop that is not. Nobody may dial directly instead.
    """
    known = _by_key(relays)
    found = []
    for key in hops:
        relay = known.get(key)
        if relay is None:
            raise Refused(
                f"the control path has a hop that is gone: relay {key[:80]!r}; nothing is dialled", remedy=_WAY_OUT
            )
        why = unfit(relay)
        if why:
            raise Refused(f"relay {relay.name}, a hop of the control path, {why}; nothing is dialled", remedy=_WAY_OUT)
        found.append(Hop(relay.id, relay.name, relay.egress_endpoint, relay.onion_endpoint, relay.onion_pubkey))
    return Route(tuple(found))


def unfit(relay: Relay) -> str:
    """Why it can be no hop just now; empty: it can."""
    return _cannot_be_hop(relay) or ("" if relay.status == "active" else f"is {relay.status or 'not active'}")


_DEPLOY = "Onboard one that can be a hop: cox relays add SERVER --egress"
_WAY_OUT = "Mend the relay, activate another path (cox control-paths activate), or go back to dialling directly on purpose: cox control-paths deactivate --allow-direct"  # noqa: E501


def _cannot_be_hop(relay: Relay) -> str:
    if relay.kind is not RelayKind.REMOTE:
        return "is the one inside the controller, and no hop"
    return "" if relay.egress_endpoint else "has no egress role"


def _by_key(relays: Iterable[Relay]) -> Mapping[str, Relay]:
    found = list(relays)
    return {relay.name: relay for relay in found} | {relay.id: relay for relay in found}
