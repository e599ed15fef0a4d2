"""What operators ask of a node's link: a plan to look at, a push now, the policy now; and what they are answered."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from actors.link_knowledge import Knowledge
from actors.link_parts import Operation
from actors.node_change import Changed
from coxswain.errors import Unavailable
from coxswain.messages import links
from coxswain.model import Protocol
from coxswain.reconcile.plan import describe
from coxswain.reconcile.seen import peers_seen, services_seen
from coxswain.reconcile.types import Desired, Plan
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["Questions"]


class Questions:
    """What operators asked, in order; each needs an operation of its own. Any thread may ``cancel``."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Operation, Future[Any]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, operation: Operation) -> Future[Any]:
        reply: Future[Any] = Future()
        self._waiting.append((operation, reply))
        return reply

    @property
    def first(self) -> Operation:
        return self._waiting[0][0]

    def answer(self, value: Any) -> None:
        self._waiting.pop(0)[1].set_result(value)

    def refuse(self, error: BaseException) -> None:
        self._waiting.pop(0)[1].set_exception(error)

    def refuse_all(self, error: BaseException) -> None:
        while self._waiting:
            self.refuse(error)

    def cancel(self) -> None:
        for _, reply in self._waiting:
            reply.cancel()

    def answer_plan(self, knows: Knowledge, made: Plan) -> None:
        """The first question was for the plan, and this is it."""
        desired, observed = knows.desired, knows.observed
        if desired is None or observed is None:
            return
        self.answer(
            links.PlanView(
                desired.node_id,
                desired.revision,
                observed.applied_revision,
                describe(made),
                tuple(finding.text for finding in made.findings),
                services_seen(observed),
                peers_seen(desired, observed),
            )
        )

    def answer_push(self, knows: Knowledge, change: Changed) -> None:
        """The first question was for a push, and this came of it."""
        desired = knows.desired
        if change.failure is not None:
            self.refuse(change.failure)
        elif desired is None:
            self.refuse(Unavailable(f"node {knows.called} was taken out of the inventory"))
        elif change.pushed is not None:
            self.answer(_push_outcome(desired, change, change.pushed))
        else:
            self.answer(_policy_outcome(desired))


def _policy_outcome(desired: Desired) -> links.PolicyOutcome:
    policy = desired.network
    return links.PolicyOutcome(policy.forwarding, policy.masquerade, policy.isolation, len(policy.transits))


def _push_outcome(desired: Desired, change: Changed, pushed: pb.PushConfigResponse) -> links.PushOutcome:
    return links.PushOutcome(
        amneziawg_peers=sum(peer.protocol is Protocol.AMNEZIAWG for peer in desired.peers),
        pushed_revision=desired.revision,
        applied_revision=pushed.applied_revision,
        reloaded=pushed.reloaded,
        policy_applied=change.policy_applied,
        xray_peers=len(desired.xray.clients) if desired.xray is not None and change.xray else 0,
        xray_skipped=change.xray is False,
        links_configured=len(change.configured),
        cascade_reapplied=desired.cascade != "",
    )
