"""What one node's link knows: what the node should be, what it was seen to be, what was done; and the plan that follows.

Held by its ``NodeLink`` alone and used on that actor's thread. It asks ``fleet`` for the intent and for fresh revisions. Of
the connection it knows nothing: where a call raises, whoever called decides what becomes of that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from actors.link_calls import after, calls, doubted, served, touched_links
from actors.link_report import Known, Reporter
from actors.node_change import Change, Changed, Look
from actors.supervision import Context
from coxswain.errors import InvalidInput, NodeMisbehaved, Unavailable
from coxswain.messages.fleet import BeginLinks, BumpRevision, GetIntent, Intent, NodeDrifted
from coxswain.model import Node, Protocol
from coxswain.reconcile import codec
from coxswain.reconcile.desired import desired as desired_state
from coxswain.reconcile.desired import policy_fingerprint
from coxswain.reconcile.plan import CLAIMED, COOLED, DRIFT, FOREIGN, describe, forced, plan, remember
from coxswain.reconcile.types import (
    Desired,
    Finding,
    LinkMemory,
    Observed,
    Plan,
    PushPeers,
    Reason,
    SetPolicy,
)

__all__ = ["Knowledge"]

_FLEET_DEADLINE_S = 2.0
"""Less than a link may take for a message (``LINK_HANG_S``): where ``fleet`` is slow, links wait and do not fall."""

_LEAP = 1024
"""How far a refused revision of a link is overtaken: by this, then by its square and so on, at most by as much as it is.
Small leaps first: two controllers that get ahead of each other for weeks must not use the numbers up."""


class Knowledge:
    """See the module."""

    def __init__(self, context: Context, node_id: str, reporter: Reporter) -> None:
        self._context = context
        self._node_id = node_id
        self._reporter = reporter
        self._links_at_least = 0
        self._links_refused = 0
        self.intent: Intent | None = None
        self.desired: Desired | None = None
        self.findings: tuple[Finding, ...] = ()
        self.memory = LinkMemory()
        self.observed: Observed | None = None
        """None: there is no connection, or nobody looked through it yet."""
        self.peers_online: int | None = None
        self.stale = False
        """The intent changed, or may have, since it was read."""

    @property
    def called(self) -> str:
        """As the operator knows the node."""
        return self.intent.node.name if self.intent is not None else self._node_id

    @property
    def known(self) -> Known:
        """As it is reported."""
        return Known(self.intent, self.desired, self.observed, self.memory, self.peers_online)

    def require(self) -> Intent:
        """The intent. Raises ``Unavailable`` if it was not read yet."""
        if self.intent is None:
            raise Unavailable(f"the intent of node {self.called} was not read yet")
        return self.intent

    # -- what it should be

    def read(self) -> None:
        """Asks ``fleet`` for the intent. Raises ``NotFound`` and ``Unavailable``."""
        intent: Intent = self._context.ask("fleet", GetIntent(self._node_id), deadline=_FLEET_DEADLINE_S)
        self.take(intent)

    def take(self, intent: Intent) -> None:
        """The intent is this, from now on."""
        self.intent = intent
        self.desired, self.findings = desired_state(
            intent.node, intent.peers, self.desired, cascade=intent.cascade, reality=intent.reality
        )
        node, memory = intent.node, self.memory
        if memory.policy_confirmed == "" != node.policy_confirmed and not memory.policy_suspect:
            memory = dataclasses.replace(memory, policy_confirmed=node.policy_confirmed)
        if memory.wg_public_key == "":  # what an earlier run saw
            memory = dataclasses.replace(
                memory,
                wg_public_key=node.wg_public_key,
                applied_revision=node.applied_revision,
                applied_content=node.applied_content,
            )
        if memory.uptime_s is None and not memory.links:
            memory = dataclasses.replace(
                memory,
                links=dict(node.links_confirmed),
                xray_confirmed=node.xray_confirmed,
                agent_started_at=node.agent_started_at,
            )
        self.memory = memory
        self.stale = False

    def forget(self) -> None:
        """The node was taken out of the inventory."""
        self.intent = self.desired = None

    def is_newer(self, node: Node) -> bool:
        """Beyond doubt: neither asked for nor counted up in the meantime."""
        if self.intent is None or self.desired is None:
            return False
        return node.config_revision > self.desired.revision and node.version >= self.intent.node.version

    # -- what it is

    def absorb(self, look: Look, *, reconnected: bool) -> None:
        """Takes in what a look brought. Raises ``NodeMisbehaved``."""
        observed = codec.observed(look.status, look.peers, self._context.clock.now(), asked_at=look.asked_at, rows=look.rows)
        ours = None if self.desired is None else self.desired.revision
        now = self._context.clock.monotonic()
        wanted = self.desired
        policy = "" if wanted is None else policy_fingerprint(wanted.policy, wanted.transits, wanted.ports)
        told = wanted.xray if wanted is not None and Reason.XRAY_DIFFERS in self.memory.healed else None
        xray = "" if told is None else told.as_told
        self.memory = remember(self.memory, observed, now, reconnected=reconnected, ours=ours, policy=policy, xray=xray)
        self.observed = observed
        self.peers_online = sum(s.handshaking_peers for s in observed.services if s.protocol is Protocol.AMNEZIAWG)

    def note(self, change: Changed) -> None:
        """Takes in what came of a change; of one that was lost, too."""
        if self.desired is None:
            return
        version = self.observed.agent_version if self.observed is not None else ""
        self.memory = after(self.memory, self.desired, change, version)
        if change.stale and self.intent is not None:  # a restored database: go past whatever the node has seen
            self._links_refused += 1
            sent = self.intent.node.link_revision
            self._links_at_least = sent + min(sent, _LEAP**self._links_refused)
        elif change.configured:
            self._links_refused = 0

    def doubt_links(self, interfaces: Collection[str]) -> None:
        """The next plan tells the node of these links again, and of its policy, whose routes went with the interface."""
        doubtful = {name: f"{had.partition(':')[0]}:" for name, had in self.memory.links.items() if name in interfaces}
        if doubtful:
            self.memory = dataclasses.replace(self.memory, links={**self.memory.links, **doubtful}, policy_suspect=True)

    def acknowledged(self, change: Changed) -> None:
        """Takes in what the node acknowledged, until a look says it. Raises ``NodeMisbehaved`` if that is another revision
        than was pushed.
        """
        if self.desired is None or self.observed is None:
            return
        if change.policy_applied:  # what it has by now, it has not said yet
            self.observed = dataclasses.replace(self.observed, mapped_ports=None, policy="")
        if change.pushed is not None:
            applied = change.pushed.applied_revision
            if applied != self.desired.revision:
                raise NodeMisbehaved(f"PushConfig: revision {self.desired.revision} was pushed, {applied} was acknowledged")
            self.observed = dataclasses.replace(self.observed, applied_revision=applied, peers=None)
        if change.xray and self.desired.xray is not None:
            self.observed = dataclasses.replace(served(self.observed, len(self.desired.xray.clients)), xray="")

    def settled(self) -> None:
        """The node is as it should be."""
        if self.desired is not None and self.memory.applied_content != self.desired.content:
            self.memory = dataclasses.replace(self.memory, applied_content=self.desired.content)

    # -- what is to be done

    def plan(self) -> Plan:
        """What heals the node. Raises ``Unavailable`` if it was not looked at yet."""
        desired, observed = self._both()
        made = plan(desired, observed, self.memory, self._context.clock.monotonic())
        return Plan(made.steps, (*self.findings, *made.findings)) if self.findings else made

    def forced_plan(self) -> Plan:
        """Everything, whatever the node says that it has. Raises ``Unavailable`` if it was not looked at yet."""
        desired, observed = self._both()
        return forced(desired, observed, self.memory)

    @staticmethod
    def policy_plan() -> Plan:
        """The network policy, whatever the node has."""
        return Plan((SetPolicy(Reason.OPERATOR),), ())

    def _both(self) -> tuple[Desired, Observed]:
        if self.desired is None or self.observed is None:
            raise Unavailable(f"node {self.called} was not looked at yet")
        return self.desired, self.observed

    def change(self, make: Callable[[], Plan], *, verify: bool, made: Plan | None = None) -> Change:
        """The calls of a plan, durably announced where need be: that may change the intent, so then the plan is made again.
        ``made``: what ``make`` made just now.

        Raises ``Unavailable`` if a fresh revision is not to be had just now, ``NotFound`` if the node is gone, and
        ``NodeMisbehaved`` for a number of the node's after which none can be counted.
        """
        made = make() if made is None else made
        touched = touched_links(made)
        if touched is not None:
            self._begin_links(touched)
            made = make()
        for step in made.steps:
            if isinstance(step, PushPeers):
                if step.fresh_revision:
                    self.take(self._ask_fleet(BumpRevision(self._node_id, step.at_least), "GetStatus"))
                if step.reason is Reason.STALLED:
                    self.memory = dataclasses.replace(self.memory, last_stall_heal_at=self._context.clock.monotonic())
        self._note_reasons(made)
        self._tell_drift(made)
        desired, _ = self._both()
        verify = verify or any(step.reason in CLAIMED for step in made.steps)
        change = calls(made, desired, self.require().node.link_revision, verify=verify)
        self._doubt(change)
        return change

    def _note_reasons(self, made: Plan) -> None:
        """What the next plan has to know of this one."""
        now, memory = self._context.clock.monotonic(), self.memory
        if any(step.reason in FOREIGN and step.reason not in memory.healed for step in made.steps):
            memory = dataclasses.replace(memory, overtaken=(*memory.overtaken, now)[-2:])
        found = {
            step.reason: step.detail if isinstance(step, PushPeers) else "" for step in made.steps if step.reason in COOLED
        }
        if found:
            healed = {reason: (now, detail) for reason, detail in found.items()}
            memory = dataclasses.replace(memory, healed={**memory.healed, **healed})
        self.memory = memory

    def _tell_drift(self, made: Plan) -> None:
        steps = [(step.reason, text) for step, text in zip(made.steps, describe(made), strict=True) if step.reason in DRIFT]
        if steps:
            found = tuple(dict.fromkeys(text for _, text in steps))
            self._context.tell("fleet", NodeDrifted(self._node_id, found, frozenset(reason.value for reason, _ in steps)))

    def _begin_links(self, interfaces: tuple[str, ...]) -> None:
        intent = self._ask_fleet(BeginLinks(self._node_id, interfaces, self._links_at_least), "ConfigureInnerLink")
        self.take(intent)
        self.memory = dataclasses.replace(self.memory, links=dict(intent.node.links_confirmed))

    def _ask_fleet(self, message: BumpRevision | BeginLinks, about: str) -> Intent:
        try:
            intent: Intent = self._context.ask("fleet", message, deadline=_FLEET_DEADLINE_S)
        except InvalidInput as error:
            raise NodeMisbehaved(f"{about}: {error}") from None
        return intent

    def _doubt(self, change: Change) -> None:
        """From here until it is confirmed the node may have the one, the other or half of it (node-contract.md 7.5),
        whatever becomes of this connection, this actor or this daemon meanwhile.
        """
        memory = doubted(self.memory, change)
        if memory is not self.memory and memory != self.memory:
            self.memory = memory
            self._reporter.doubt(memory)
