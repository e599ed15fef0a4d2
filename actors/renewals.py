"""``renewals``: starts the renewal of nodes' certificates at two thirds of their life, a few at a time.

It decides nothing about certificates and touches no host: the CA says which are due, an operation (``node.renew``) does it.
Whatever fails here is tried again at the next round; certificates have a third of their life left.
"""

from __future__ import annotations

from typing import Any

from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError
from coxswain.messages.audit import Caller
from coxswain.messages.ca import CaView, DescribeCa
from coxswain.messages.fleet import ListNodes, NodeView
from coxswain.messages.operations import ListOperations, OperationsPage, StartOperation
from coxswain.operations import OperationState

__all__ = ["CheckRenewals", "Renewals"]

_EVERY_S = 3_600.0
_FIRST_S = 120.0
_AT_ONCE = 5
_AGAIN_S = 6 * 3_600.0
"""After one that failed; the operator sees it in ``cox operations``."""

_ASK_S = 10.0
_CALLER = Caller("renewals", "system")


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
        nodes: list[NodeView] = self.context.ask("fleet", ListNodes(), deadline=_ASK_S)
        due = [
            v.node
            for v in nodes
            if v.node.server_id and v.node.enabled and v.node.id in newest and newest[v.node.id].renewal_due
        ]
        due.sort(key=lambda node: float(newest[node.id].not_after))
        busy, tried = self._under_way()
        started = 0
        for node in due:
            if busy + started >= _AT_ONCE:
                break
            if node.id in tried:
                continue
            params = {"node_id": node.id, "server_id": node.server_id, "name": node.name}
            try:
                self.context.ask("operations", StartOperation(_CALLER, "node.renew", params), deadline=_ASK_S)
                started += 1
            except CoxswainError as error:
                self.context.log.warning(
                    "the certificate of node %s is due, and will be renewed later: %s", node.name, error
                )
        return started

    def _under_way(self) -> tuple[int, set[str]]:
        """How many renewals run, and the nodes that were tried a short while ago."""
        page: OperationsPage = self.context.ask(
            "operations", ListOperations(kind="node.renew", limit=1_000), deadline=_ASK_S
        )
        now = self.context.clock.now()
        running = [o for o in page.operations if o.state in (OperationState.QUEUED, OperationState.RUNNING)]
        tried = {str(o.params.get("node_id")) for o in page.operations if now - o.created_at < _AGAIN_S}
        return len(running), tried | {str(o.params.get("node_id")) for o in running}
