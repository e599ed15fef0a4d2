"""``node_links``: the dynamic supervisor of all node links. It holds exactly the links of the nodes that are ours.

The set is read late, from ``fleet``, whenever something says that it changed. A dead node is ordinary life, so links never
count towards a restart intensity: they back off with jitter.
"""

from __future__ import annotations

from typing import Any

from actors.node_link import LinkServices, NodeLink, link_name
from actors.ownership import Ownership
from actors.supervision import Backoff, ChildSpec, Context, DynamicSupervisor, Pending
from coxswain.errors import CoxswainError
from coxswain.messages.ca import (
    GetHopCredentials,
    GetLinkCredentials,
    HopCredentials,
    LinkCredentials,
    LinkCredentialsRenewed,
)
from coxswain.messages.control_paths import RouteChanged
from coxswain.messages.fleet import GetNodeSet
from coxswain.messages.links import NodeSetChanged

__all__ = ["LINK_HANG_S", "NodeLinks"]

LINK_HANG_S = 3.0
"""A link only ever waits for ``fleet``; one that is busy longer than this hangs."""

_LINK_BACKOFF = Backoff(min_s=0.05, max_s=20.0, factor=2.0, reset_after_s=30.0)
_ASK_S = 5.0
_RETRY_S = 1.0
_PAUSE_S = 0.2
"""A bulk import changes the set of nodes thousands of times, and each look at it takes all of them."""


class _ReadAgain:
    """To itself: the set of nodes and the credentials are to be read now; there is one of them at most."""


class NodeLinks(DynamicSupervisor):
    """See the module."""

    def __init__(self, context: Context, *, services: LinkServices, ownership: Ownership) -> None:
        super().__init__(context)
        self._services = services
        self._ownership = ownership
        self._held: set[str] = set()
        self._again = Pending(context)
        self._read_at = float("-inf")

    def started(self) -> None:
        super().started()
        self._read()

    def receive(self, message: Any) -> Any:
        match message:
            case NodeSetChanged() | LinkCredentialsRenewed():
                self._read_soon()
                return None
            case _ReadAgain():
                self._read()
                return None
            case RouteChanged():
                for node_id in self._held:  # they wait for their turn in the dialler's lanes
                    self.context.tell(link_name(node_id), message)
                return None
            case _:
                return super().receive(message)

    def _read_soon(self) -> None:
        """At once, or with what is about to be read anyhow: each attempt may wait for others for seconds."""
        rest = self._read_at + _PAUSE_S - self.context.clock.monotonic()
        if rest <= 0 and not self._again.waits:
            self._read()
        elif not self._again.waits:
            self._again.after(rest, _ReadAgain())

    def _read(self) -> None:
        self._again.cancel()
        try:
            credentials: LinkCredentials = self.context.ask("certificate_authority", GetLinkCredentials(), deadline=_ASK_S)
            for_hops: HopCredentials = self.context.ask("certificate_authority", GetHopCredentials(), deadline=_ASK_S)
            nodes: dict[str, bool] = self.context.ask("fleet", GetNodeSet(), deadline=_ASK_S)
        except CoxswainError as error:
            self.context.log.warning("the set of nodes is not to be had just now: %s", error)
            self._again.after(_RETRY_S, _ReadAgain())
            return
        self._services.dialer.use(credentials, for_hops)
        wanted = self._ownership.owned(nodes)
        for node_id in sorted(self._held - wanted):
            self.terminate_child(link_name(node_id))
        for node_id in sorted(wanted - self._held):
            self.start_child(self._spec(node_id))
        self._held = set(wanted)
        self._read_at = self.context.clock.monotonic()

    def _spec(self, node_id: str) -> ChildSpec:
        return ChildSpec(
            id=link_name(node_id),
            actor=NodeLink,
            kwargs={"node_id": node_id, "services": self._services},
            shutdown_s=10.0,
            hang_s=LINK_HANG_S,
            backoff=_LINK_BACKOFF,
        )
