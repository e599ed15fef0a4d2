"""Findings become alerts, and alerts are handled: one transaction each, told to everybody when it is made.

Only the thread of ``alert_engine`` touches it, and only through it alerts change: so what was read just before is what is
written over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from actors.supervision import Context
from coxswain.alerts import lifecycle
from coxswain.alerts.model import Alert, AlertStatus, Finding, Handled
from coxswain.alerts.view import alert_frame
from coxswain.audit import record
from coxswain.clock import rfc3339
from coxswain.errors import NotFound
from coxswain.ids import new_id
from coxswain.messages import alerts as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.messages.hub import PublishAll
from coxswain.store import Durability, Store, Tx
from coxswain.store import alert_reads as reads
from coxswain.store import alerts as rows

__all__ = ["AlertBook"]

_BY_ITSELF = "system"
_MOST_AT_ONCE = 500
"""Alerts that retention resolves in one transaction; the others at the next look."""


@dataclass
class _Changes:
    """Of one transaction. ``made``: alerts by key, as they will be; ``before``: as they are in the store."""

    before: dict[str, Alert] = field(default_factory=dict)
    made: dict[str, Alert] = field(default_factory=dict)


class AlertBook:
    """See the module.

    Args:
        context: of ``alert_engine``.
        store: where alerts are.
        notify: told of each alert that changed, and whether it is new or worse.

    Attributes:
        opened: how many alerts were opened since the start of this actor, by kind.
    """

    def __init__(
        self, context: Context, store: Store, notify: Callable[[Alert, bool], object] = lambda _alert, _new: None
    ) -> None:
        self._context = context
        self._store = store
        self._notify = notify
        self.opened: Counter[str] = Counter()

    def open_keys(self, kinds: Collection[str]) -> set[str]:
        """Keys of alerts of these kinds that are not resolved, and of conditions that have not ended yet."""
        with self._store.read() as tx:
            return rows.open_keys(tx, sorted(kinds))

    def unresolved(self, kinds: Collection[str]) -> list[Alert]:
        """Alerts of these kinds that are not resolved."""
        with self._store.read() as tx:
            return list(rows.owners(tx, sorted(rows.open_keys(tx, sorted(kinds)))).values())

    def apply(
        self,
        findings: Iterable[Finding],
        *,
        ended: Collection[str] = (),
        also: Callable[[Tx], object] | None = None,
    ) -> None:
        """Takes findings in. Nothing is written where nothing is new.

        Args:
            findings: of any rules.
            ended: keys of conditions that are over.
            also: written in the same transaction: how far a rule has read, and what it has learnt.
        """
        found = list(findings)
        now = self._context.clock.now()
        keys = list(dict.fromkeys([*(finding.key for finding in found), *ended]))
        handled: dict[str, Handled] = {}
        changes = _Changes()
        if keys:
            with self._store.read() as tx:
                changes.before, handled = rows.owners(tx, keys), rows.handled(tx, keys)
        for finding in found:
            owner = changes.made.get(finding.key) or changes.before.get(finding.key)
            made = lifecycle.take(finding, owner, handled.get(finding.key), new_id=new_id("alr"), now=now)
            if made is not None:
                changes.made[finding.key] = made
        for key in ended:
            owner = changes.before.get(key)
            if owner is not None:
                changes.made[key] = lifecycle.resolve(owner, _BY_ITSELF, now=now)
        over = [key for key in ended if key in handled]
        if not (changes.made or over or also is not None):
            return
        with self._store.write(Durability.BATCHED) as tx:
            if also is not None:
                also(tx)
            rows.forget_handled(tx, over)
            self._write(tx, changes)
        self._tell(changes)

    def acknowledge(self, message: m.AckAlert) -> Committed[Alert]:
        return self._handle(message.caller, message.id, "alert.ack", lambda alert, by, now: lifecycle.acknowledge(
            alert, by, version=message.version, now=now
        ))  # fmt: skip

    def resolve(self, message: m.ResolveAlert) -> Committed[Alert]:
        return self._handle(message.caller, message.id, "alert.resolve", lambda alert, by, now: lifecycle.resolve(
            alert, by, version=message.version, now=now
        ))  # fmt: skip

    def snooze(self, message: m.SnoozeAlert) -> Committed[Alert]:
        return self._handle(message.caller, message.id, "alert.snooze", lambda alert, by, now: lifecycle.snooze(
            alert, message.until, by, version=message.version, now=now
        ))  # fmt: skip

    def get(self, alert_id: str) -> Alert:
        """Raises ``NotFound``."""
        with self._store.read() as tx:
            return _found(rows.get(tx, alert_id), alert_id)

    def wake_snoozed(self) -> None:
        """Those that were snoozed until now are told again."""
        now = self._context.clock.now()
        with self._store.read() as tx:
            over = rows.snoozes_over(tx, now)
        if not over:
            return
        with self._store.write(Durability.BATCHED) as tx:
            woken = [rows.update(tx, lifecycle.wake(alert, now=now)) for alert in over]
        self._publish((alert, True) for alert in woken)

    def purge(self, before: float) -> int:
        """Forgets resolved alerts from before ``before`` (epoch seconds), and what was kept of devices that are gone;
        returns how many alerts. What nobody did anything about by then is resolved, and forgotten after as long again.
        """
        now = self._context.clock.now()
        with self._store.read() as tx:
            stale = rows.left_alone(tx, before, _MOST_AT_ONCE)
        with self._store.write(Durability.BATCHED) as tx:
            done = [rows.update(tx, lifecycle.resolve(alert, _BY_ITSELF, now=now)) for alert in stale]
            for alert in done:
                rows.note_handled(tx, alert.kind, alert.key, lifecycle.handled_with(alert), now=now)
            reads.forget_histories(tx)
            gone = rows.purge(tx, before)
        self._publish((alert, False) for alert in done)
        return gone

    # -- inside

    def _handle(
        self, caller: Caller, alert_id: str, action: str, change: Callable[[Alert, str, float], Alert]
    ) -> Committed[Alert]:
        now = self._context.clock.now()
        with self._store.write() as tx:
            before = _found(rows.get(tx, alert_id), alert_id)
            after = change(before, caller.actor, now)
            if after is not before:
                after = rows.update(tx, after)
            if after.status is AlertStatus.RESOLVED and before.status is not AlertStatus.RESOLVED:
                rows.note_handled(tx, after.kind, after.key, lifecycle.handled_with(after), now=now)
            detail = {"status": after.status.value, "kind": after.kind}
            if after.snoozed_until:
                detail["until"] = rfc3339(after.snoozed_until)
            outbox_id = record(tx, caller, action, ("alert", after.id), detail, now=now)
        self._context.tell("audit_writer", OutboxGrew())
        if after is not before:
            self._publish([(after, False)])
        return Committed(after, outbox_id)

    def _write(self, tx: Tx, changes: _Changes) -> None:
        # Those that end come first: their keys are free then.
        for key, alert in sorted(changes.made.items(), key=lambda item: item[1].status is not AlertStatus.RESOLVED):
            if key in changes.before:
                changes.made[key] = rows.update(tx, alert)
            else:
                rows.insert(tx, alert)

    def _tell(self, changes: _Changes) -> None:
        told = []
        for key, alert in changes.made.items():
            before = changes.before.get(key)
            if before is None:
                self.opened[alert.kind] += 1
                self._context.log.warning("alert %s: %s (%s)", alert.id, alert.key, alert.severity)
            told.append((alert, lifecycle.escalates(before, alert)))
        self._publish(told)

    def _publish(self, told: Iterable[tuple[Alert, bool]]) -> None:
        pairs = list(told)
        if pairs:
            self._context.tell("event_hub", PublishAll(tuple(alert_frame(alert, new=new) for alert, new in pairs)))
        for alert, new in pairs:
            self._notify(alert, new)


def _found(alert: Alert | None, alert_id: str) -> Alert:
    if alert is None:
        raise NotFound(f"alert: there is none with the id {alert_id[:80]!r}", remedy="See: cox alerts")
    return alert
