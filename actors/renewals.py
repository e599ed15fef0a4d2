"""``renewals``: starts the renewal of nodes' and relays' certificates at two thirds of their life, a few at a time.

It decides nothing about certificates and touches no host: the CA says which are due, an operation (``node.renew``,
``relay.renew``) does it. Whatever fails here is tried again at the next round; certificates have a third of their life left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError
from coxswain.messages.audit import Caller
from coxswain.messages.ca import CaView, DescribeCa
from coxswain.messages.fleet import ListNodes, NodeView
from coxswain.messages.operations import ListOperations, OperationsPage, StartOperation
from coxswain.messages.servers import ListRelays
from coxswain.operations import OperationState
from coxswain.servers import Relay

__all__ = ["CheckRenewals", "Renewals"]

_EVERY_S = 3_600.0
_FIRST_S = 120.0
_AT_ONCE = 5
_AGAIN_S = 6 * 3_600.0
"""After one that failed; the operator sees it in ``cox operations``."""

_ASK_S = 10.0
_CALLER = Caller("renewals", "system")


@dataclass(frozen=True, slots=True)
class _Holder:
    """A node or relay (``what``) on a machine that the controller can log in to."""

    what: str
    key: str
    server_id: str
    name: str


class CheckRenewals:
    """To itself; asked by tests. Reply: how many renewals were started."""


class Renewals(Actor):
    """See the module."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)

    def started(self) -> None:
        self.context.after(_FIRST_S + self.context.rng.uniform(0, _FIRST_S), CheckRenewals())

    def receive(self, message: Any) -> Any:
        if not isinstance(message, CheckRenewals):
            return None
        try:
            return self._check()
        except CoxswainError as error:
            self.context.log.warning("certificates were not looked at, and will be: %s", error)
            return 0
        finally:
            if not self.is_asked():
                self.context.after(_EVERY_S * self.context.rng.uniform(0.9, 1.1), CheckRenewals())

    def _check(self) -> int:
        view: CaView = self.context.ask("certificate_authority", DescribeCa(), deadline=_ASK_S)
        newest: dict[str, Any] = {}
        for leaf in view.leaves:  # newest first
            if leaf.revoked_at is None:
                newest.setdefault(leaf.holder, leaf)
        due = [one for one in (*self._nodes(), *self._relays()) if one.key in newest and newest[one.key].renewal_due]
        due.sort(key=lambda one: float(newest[one.key].not_after))
        busy, tried = self._under_way()
        started = 0
        for one in due:
            if busy + started >= _AT_ONCE:
                break
            if one.key in tried:
                continue
            params = {f"{one.what}_id": one.key, "server_id": one.server_id, "name": one.name}
            try:
                self.context.ask("operations", StartOperation(_CALLER, f"{one.what}.renew", params), deadline=_ASK_S)
                started += 1
            except CoxswainError as error:
                self.context.log.warning(
                    "the certificate of %s %s is due, and will be renewed later: %s", one.what, one.name, error
                )
        return started

    def _nodes(self) -> list[_Holder]:
        views: list[NodeView] = self.context.ask("fleet", ListNodes(), deadline=_ASK_S)
        nodes = [view.node for view in views if view.node.server_id and view.node.enabled]
        return [_Holder("node", node.id, node.server_id, node.name) for node in nodes]

    def _relays(self) -> list[_Holder]:
        relays: list[Relay] = self.context.ask("servers", ListRelays(), deadline=_ASK_S)
        there = [relay for relay in relays if relay.server_id and relay.status == "active"]
        return [_Holder("relay", relay.id, relay.server_id, relay.name) for relay in there]

    def _under_way(self) -> tuple[int, set[str]]:
        """How many renewals run, and the nodes and relays that were tried a short while ago."""
        now = self.context.clock.now()
        busy, tried = 0, set()
        for what in ("node", "relay"):
            ask = ListOperations(kind=f"{what}.renew", limit=1_000)
            page: OperationsPage = self.context.ask("operations", ask, deadline=_ASK_S)
            for operation in page.operations:
                running = operation.state in (OperationState.QUEUED, OperationState.RUNNING)
                busy += running
                if running or now - operation.created_at < _AGAIN_S:
                    tried.add(str(operation.params.get(f"{what}_id")))
        return busy, tried
