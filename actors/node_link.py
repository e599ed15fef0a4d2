"""One node's link: an explicit state machine that keeps one node connected and as it should be.

Runs on its own thread, which sleeps in its inbox nearly always; the network is the loop's business
(``actors/node_connection.py``). At most one operation of a link is under way, so a node has one writer. Whatever says that
something changed (a commit, a clock, an operator) is only a hint: the intent is read late, from ``fleet``.

States (``coxswain.model.LinkState``)::

    disabled ──enable──▶ connecting ──status, peers, stream──▶ syncing ──nothing left to do──▶ live
                             ▲                                    │  ▲                         │  ▲
                             │                                    ▼  │ heal, change           ▼  │ healed
                        backing_off ◀──────── lost ──────────── degraded ◀───── cannot be mended, or a poll was missed
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from actors.event_funnel import EventFunnel
from actors.io_loop import IoLoop
from actors.link_knowledge import Knowledge
from actors.link_outage import MISSES_UNTIL_UNREACHABLE, Outage
from actors.link_parts import Done, Operation, StreamEnded, Timeout, Wake
from actors.link_questions import Questions
from actors.link_report import Reporter
from actors.link_work import Work
from actors.node_change import Change, Changed, Look
from actors.node_connection import Dialer, NodeConnection, Target, open_connection
from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError, NodeFailure, NodeMisbehaved, NodeUnreachable, NotFound, Refused, Unavailable
from coxswain.messages import links
from coxswain.messages.control_paths import RouteChanged
from coxswain.messages.fleet import Intent, Sighting
from coxswain.model import LinkState, NodeStatus
from coxswain.reconcile.pacing import heal_delay, verify_delay
from coxswain.reconcile.plan import describe
from coxswain.reconcile.types import Finding, Plan

__all__ = ["LinkServices", "NodeLink", "link_name", "node_of_link"]

_LAST_CHANGE_S = 8.0
"""At shutdown a change that is under way may finish within this time: a cancelled one kills the agent's tools halfway
(node-contract.md 4.1)."""


def link_name(node_id: str) -> str:
    """The name of a node's link in the directory."""
    return f"node_link:{node_id}"


def node_of_link(name: str) -> str:
    """The node id of a link's name; empty if it is no link's."""
    prefix, _, node_id = name.partition(":")
    return node_id if prefix == "node_link" else ""


@dataclass(frozen=True)
class LinkServices:
    """What all links share: the loop and what lives on it, and where they note what they see for ``fleet``."""

    io: IoLoop
    dialer: Dialer
    funnel: EventFunnel
    sightings: MutableMapping[str, Sighting] = field(default_factory=dict)


class NodeLink(Actor):
    """See the module. Its supervisor restarts it with a backoff and never gives up on it."""

    mailbox_capacity = 1_000
    rests_after_s = None  # it is looked at more often than a thread is worth starting

    def __init__(self, context: Context, *, node_id: str, services: LinkServices) -> None:
        super().__init__(context)
        self._node_id = node_id
        self._io = services.io
        self._dialer = services.dialer
        self._funnel = services.funnel
        self._state = LinkState.CONNECTING
        self._connection: NodeConnection | None = None
        self._dialled_by = 0  # number of the route
        self._doing = Work(context, services.io, self._close_unwanted)
        self._ended: str | None = None
        self._unanswered = False
        self._outage = Outage(context)
        self._heal_failures = 0
        self._questions = Questions()
        self._reporter = Reporter(context, node_id, services.sightings)
        self._knows = Knowledge(context, node_id, self._reporter)

    # -- life

    def started(self) -> None:
        self.context.on_void(self._abandon)
        self._begin()

    def stopping(self) -> None:
        future, operation = self._doing.future, self._doing.operation
        if future is not None and operation is not None and operation.changes:
            try:
                future.result(_LAST_CHANGE_S)
            except Exception as error:
                self.context.log.info("the last change of node %s did not finish: %s", self._knows.called, error)

    def _abandon(self) -> None:
        """This incarnation is over, in whatever way. On the supervisor's thread."""
        connection, future, operation = self._connection, self._doing.future, self._doing.operation
        if connection is not None:
            self._close(connection)
        if operation is Operation.OPEN and future is not None:
            future.cancel()
            future.add_done_callback(self._close_unwanted)
        self._questions.cancel()

    def _close_unwanted(self, opened: Future[tuple[NodeConnection, Look]]) -> None:
        """Nobody takes in what was opened any more."""
        if not opened.cancelled() and opened.exception() is None:
            self._close(opened.result()[0])

    def receive(self, message: Any) -> Any:
        try:
            return self._take(message)
        except NodeMisbehaved as error:  # wherever that shows: the connection goes, not the actor
            self._lose(str(error), NodeStatus.ERROR)
            if self.is_asked():
                raise
            return None

    def _take(self, message: Any) -> Any:
        match message:
            case Done():
                self._on_done(message)
            case StreamEnded(generation, reason) if generation == self._doing.generation:
                if self._doing.operation is not None and self._doing.operation.changes:
                    self._ended = reason  # a call that changes something is never cancelled (node-contract.md 11.4, rule 2)
                else:
                    self._lose(reason)
            case Timeout(generation, wake) if generation == self._doing.generation:
                self._on_timeout(wake)
            case links.IntentChanged(intent):
                self._on_intent_changed(intent)
            case links.CertificatesRenewed(server_names):
                self._on_certificates(server_names)
            case RouteChanged():
                self._on_route_changed()
            case links.Look(doubted):
                self._knows.doubt_links(doubted)
                self._look()
            case links.ReportAgain():
                self._reporter.again()
            case links.PreviewPlan():
                return self._ask(Operation.PREVIEW)
            case links.PushNow():
                return self._ask(Operation.FORCED_PUSH)
            case links.PushPolicy():
                return self._ask(Operation.FORCED_POLICY)
            case _:
                pass
        return None

    # -- intent

    def _begin(self) -> None:
        """Reads the intent and does what it says about the link itself. One that is not to be had is as before: a node is
        not cut off because ``fleet`` or the database is away.
        """
        self._read_intent()
        if self._knows.intent is not None:
            self._obey()

    def _obey(self) -> None:
        """Does what the intent says about the link itself: hold it, wait, or connect."""
        node = self._knows.require().node
        if not node.enabled:
            self._disconnect()
            self._enter(LinkState.DISABLED, "disabled by the operator", NodeStatus.STOPPED)
        elif not node.control_addr or not node.server_names:
            self._disconnect()
            self._enter(LinkState.BACKING_OFF, "no valid certificate: enrol it with cox nodes enroll", NodeStatus.PENDING)
        else:
            if self._connection is not None and self._connection.server_name not in node.server_names:
                self._disconnect()
                self._enter(LinkState.BACKING_OFF, "the certificate of this connection was revoked")
            if self._connection is None and self._doing.operation is None:
                self._connect()

    def _read_intent(self) -> None:
        """Where it is not to be had just now, it is tried again soon."""
        try:
            self._knows.read()
        except NotFound:
            self._gone()
        except Unavailable as error:
            self.context.log.warning("the intent of node %s is not to be had just now: %s", self._knows.called, error)
            self._knows.stale = True
            self._doing.wake(1.0, Wake.INTENT)

    def _gone(self) -> None:
        """The node was taken out of the inventory; whoever holds this link ends it in a moment."""
        self._knows.forget()
        self._disconnect()

    def _on_intent_changed(self, intent: Intent | None = None) -> None:
        """``intent``: what it was when this was sent; None: to be asked for."""
        self._reporter.intent_changed()
        if self._doing.operation is not None:
            self._knows.stale = True
            return
        before = self._knows.intent.node if self._knows.intent else None
        if intent is not None and self._knows.is_newer(intent.node):
            self._knows.take(intent)
            self._obey()
        else:
            self._begin()
        if self._connection is None or self._knows.intent is None:
            return
        after = self._knows.intent.node
        if before is not None and before.control_addr != after.control_addr:
            self._disconnect()
            self._connect()
            return
        self._reconcile()

    def _on_certificates(self, server_names: tuple[str, ...]) -> None:
        if self._connection is not None and self._connection.server_name not in server_names:
            self._disconnect()
            self._enter(LinkState.BACKING_OFF, "the certificate of this connection was revoked")
        elif self._connection is None and self._doing.operation is Operation.OPEN:
            self._disconnect()  # it may just be shaking hands with a certificate that is now void
        if self._doing.operation is None:
            self._begin()
        else:
            self._knows.stale = True

    def _on_route_changed(self) -> None:
        """Comes over to the route in force: at once, or when a change that is under way is done."""
        if self._doing.operation is not None and self._doing.operation.changes:
            return  # ``_on_done`` looks
        if self._connection is None and self._state is not LinkState.BACKING_OFF and self._doing.operation is None:
            return  # disabled
        if self._connection is not None and self._connection.number == self._dialer.routes.number:
            return
        if self._doing.operation is Operation.OPEN:
            if self._dialled_by == self._dialer.routes.number:
                return
            if self._doing.future is not None:
                self._doing.future.cancel()  # by the route that was left; what it opened all the same, ``_on_done`` closes
        self._disconnect()
        self._outage.over()
        if self._knows.intent is None:
            self._begin()
        else:
            self._obey()

    @property
    def _must_move(self) -> bool:
        return self._connection is not None and self._connection.number != self._dialer.routes.number

    # -- connecting

    def _connect(self) -> None:
        node = self._knows.require().node
        self._dialled_by = self._dialer.routes.number
        self._next_generation()
        if self._state is not LinkState.BACKING_OFF or self._outage.since is None:
            self._enter(LinkState.CONNECTING, "")
        target = Target(self._node_id, node.control_addr, node.server_names, retry=self._outage.since is not None)
        generation = self._doing.generation

        def on_end(reason: str) -> None:
            self.context.tell_self_surely(StreamEnded(generation, reason))

        self._doing.start(Operation.OPEN, open_connection(self._dialer, self._funnel, target, on_end))

    def _opened(self, connection: NodeConnection, look: Look) -> None:
        self._connection = connection
        self._outage.opened()
        if self._state is not LinkState.LIVE:
            self._enter(LinkState.SYNCING, "", report=False)
        self._absorb(look, reconnected=True)
        self._reconcile()

    def _lose(self, reason: str, status: NodeStatus | None = None) -> None:
        """The connection is of no use any more."""
        self._disconnect()
        delay = self._outage.lost()
        if status is None and self._outage.is_unreachable:
            status = NodeStatus.UNREACHABLE
        self._enter(LinkState.BACKING_OFF, reason, status)
        self._doing.wake(delay, Wake.CONNECT)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._next_generation()
        self._knows.observed = None
        if connection is not None:
            self._outage.closed()
            self._close(connection)
        self._questions.refuse_all(NodeUnreachable(f"node {self._knows.called}: the connection was lost"))

    def _close(self, connection: NodeConnection) -> None:
        try:
            self._io.submit(connection.close())
        except Unavailable:
            return  # the loop is gone, and the connection with it

    def _next_generation(self) -> None:
        self._doing.leave()
        self._ended = None

    # -- looking, planning, changing

    def _look(self) -> None:
        if self._doing.operation is not None:
            return
        if self._connection is not None:
            self._doing.start(Operation.LOOK, self._connection.look(self._funnel))

    def _absorb(self, look: Look, *, reconnected: bool = False) -> None:
        self._knows.absorb(look, reconnected=reconnected)
        self._outage.answered()
        self._unanswered = False

    def _reconcile(self) -> None:
        made = self._knows.plan()
        if not made.steps:
            self._settle(made)
            return
        change = self._change(self._knows.plan, verify=self._state is not LinkState.LIVE, made=made)
        if change is not None and self._connection is not None:
            if self._state is LinkState.DEGRADED:
                self._enter(LinkState.SYNCING, describe(made)[0], report=False)
            self._doing.start(Operation.CHANGE, self._connection.change(change, self._funnel))

    def _change(self, make: Callable[[], Plan], *, verify: bool, made: Plan | None = None) -> Change | None:
        """The calls of a plan; None: they are not to be had just now. Raises ``NodeMisbehaved``."""
        try:
            return self._knows.change(make, verify=verify, made=made)
        except NotFound:
            self._gone()
        except Unavailable as error:
            self.context.log.warning("no fresh revision for node %s just now: %s", self._knows.called, error)
            self._doing.wake(1.0, Wake.LOOK)
        return None

    def _changed(self, change: Changed) -> None:
        if self._knows.desired is None or self._knows.observed is None:
            return
        self._knows.acknowledged(change)
        self._knows.note(change)
        if change.failure is not None:
            self._stuck(f"{change.failure}", change.failure)
            return
        self._unanswered = False
        if change.look is not None:
            self._absorb(change.look)
            left = self._knows.plan()
            if left.steps and not self._knows.stale:
                self._stuck(f"still to do after a change: {describe(left)[0]}")
                return
        if self._knows.stale:
            self._on_intent_changed()
            return
        self._settle(self._knows.plan())
        if change.look is None:
            self._doing.wake(verify_delay(self.context.rng), Wake.LOOK)

    def _settle(self, made: Plan) -> None:
        """Nothing is left to do that would help."""
        if made.steps:
            self._stuck(describe(made)[0])
            return
        if self._unanswered:
            return  # nothing to do by what it last said, and that it did not say again
        self._knows.settled()
        self._heal_failures = 0
        worst = next((f.text for f in made.findings if f.degraded), None)
        state = LinkState.LIVE if worst is None else LinkState.DEGRADED
        self._enter(state, worst or "", NodeStatus.ACTIVE, findings=made.findings)

    def _stuck(self, reason: str, failure: NodeFailure | None = None) -> None:
        """The node answers, but is not what it should be. Tried again, ever more slowly."""
        if isinstance(failure, NodeUnreachable):
            self._lose(reason)
            return
        self._heal_failures += 1
        self._enter(LinkState.DEGRADED, reason, NodeStatus.ERROR)
        self._doing.wake(heal_delay(self._heal_failures, self.context.rng), Wake.LOOK)

    # -- operators' questions

    def _ask(self, operation: Operation) -> Future[Any]:
        if self._connection is None:
            reason = self._reporter.last_reason or "not connected yet"
            raise NodeUnreachable(f"node {self._knows.called} is {self._state.value.replace('_', ' ')}: {reason}")
        reply = self._questions.add(operation)
        if self._doing.operation is None:
            self._answer_next()
        return reply

    def _answer_next(self) -> None:
        if not self._questions or self._connection is None:
            return
        operation = self._questions.first
        if operation is Operation.PREVIEW:
            self._doing.start(operation, self._connection.look(self._funnel))
            return
        if self._knows.observed is None or self._knows.desired is None:
            return
        make = self._knows.forced_plan if operation is Operation.FORCED_PUSH else self._knows.policy_plan
        try:
            change = self._change(make, verify=False)
        except NodeMisbehaved as error:
            self._questions.refuse(error)
            raise
        if change is not None and self._connection is not None:
            self._doing.start(operation, self._connection.change(change, self._funnel))

    def _previewed(self, look: Look) -> None:
        try:
            self._absorb(look)
            self._reporter.sight(self._knows.known)
            made = self._knows.plan()
        except CoxswainError as error:
            self._questions.refuse(error)
            return
        self._questions.answer_plan(self._knows, made)

    def _pushed(self, change: Changed) -> None:
        self._questions.answer_push(self._knows, change)
        self._changed(change)

    # -- operations

    def _on_done(self, done: Done) -> None:
        if done.generation != self._doing.generation:
            if done.operation is Operation.OPEN and done.result is not None:
                self._close(done.result[0])
            return
        self._doing.ended()
        if self._ended is not None:
            self._finish_lost(done, self._ended)
            return
        if done.error is not None:
            self._failed(done.operation, done.error)
        else:
            self._succeeded(done.operation, done.result)
        if self._doing.operation is None and self._must_move:
            self._on_route_changed()
        # First what is wanted now: an operator's push must not carry what was wanted before under the newest number.
        if self._doing.operation is None and self._connection is not None and self._knows.stale:
            self._on_intent_changed()
        if self._doing.operation is None and self._connection is not None and self._questions:
            self._answer_next()

    def _finish_lost(self, done: Done, reason: str) -> None:
        """A change that was under way when the stream ended is done; now the connection can go."""
        if isinstance(done.result, Changed) and self._knows.desired is not None:
            self._knows.note(done.result)
            if done.operation is not Operation.CHANGE:
                self._questions.answer_push(self._knows, done.result)
        self._lose(reason)

    def _succeeded(self, operation: Operation, result: Any) -> None:
        match operation:
            case Operation.OPEN:
                self._opened(*result)
            case Operation.LOOK:
                self._absorb(result)
                self._reconcile()
            case Operation.CHANGE:
                self._changed(result)
            case Operation.PREVIEW:
                self._previewed(result)
            case Operation.FORCED_PUSH | Operation.FORCED_POLICY:
                self._pushed(result)

    def _failed(self, operation: Operation, error: BaseException) -> None:
        if not isinstance(error, CoxswainError):
            raise error  # a bug of ours: let the supervisor see it
        if operation in (Operation.PREVIEW, Operation.FORCED_PUSH, Operation.FORCED_POLICY) and self._questions:
            self._questions.refuse(error)
        self._unanswered = isinstance(error, NodeUnreachable)
        match operation:
            case Operation.OPEN:
                status = None if isinstance(error, (NodeUnreachable, Unavailable, Refused)) else NodeStatus.ERROR
                self._lose(str(error), status)
            case _ if isinstance(error, NodeMisbehaved):
                raise error
            case _ if isinstance(error, NodeUnreachable) and self._was_heard():
                self._enter(LinkState.DEGRADED, f"{error}, but its events still come")
                self._doing.wake(self.context.rng.uniform(1.0, 3.0), Wake.LOOK)
            case _ if isinstance(error, NodeUnreachable) and self._outage.missed + 1 < MISSES_UNTIL_UNREACHABLE:
                self._outage.missed += 1
                missed = f"{error} ({self._outage.missed} of {MISSES_UNTIL_UNREACHABLE} polls missed)"
                self._enter(LinkState.DEGRADED, missed)
                self._doing.wake(self.context.rng.uniform(1.0, 3.0), Wake.LOOK)
            case _ if isinstance(error, NodeUnreachable):
                self._lose(str(error), NodeStatus.UNREACHABLE)
            case _:
                self._stuck(str(error))

    def _was_heard(self) -> bool:
        """Events came while an answer did not: a busy node, not a lost one, and its events would be lost with the link."""
        return self._connection is not None and self._connection.heard_since(self._doing.asked_at)

    # -- timers and reports

    def _on_timeout(self, wake: Wake) -> None:
        self._doing.woken()
        if self._doing.operation is not None:
            return
        match wake:
            case Wake.CONNECT | Wake.INTENT:
                self._begin()
                if wake is Wake.INTENT and self._connection is not None and self._knows.intent is not None:
                    self._reconcile()
            case Wake.LOOK:
                self._look()

    def _enter(
        self,
        state: LinkState,
        reason: str,
        status: NodeStatus | None = None,
        *,
        findings: tuple[Finding, ...] = (),
        report: bool = True,
    ) -> None:
        self._state = state
        if report:
            self._reporter.report(state, reason, status, findings, self._knows.known)
