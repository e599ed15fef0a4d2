"""``alert_engine``: runs the rules, keeps the alerts.

A sweep runs at the start and then at every interval, a slice at a time, so that whoever asks is answered in between. Nodes
are judged at once when ``fleet`` tells of a change: a killed node is an alert when its link has missed three polls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from actors.alerts.book import AlertBook
from actors.alerts.nodes import NODE_KINDS, NodeWatch
from actors.alerts.notifier import Delivered, Notifier, TryAgain
from actors.alerts.sweep import Sweeper
from actors.io_loop import IoLoop
from actors.supervision import Actor, Context
from coxswain.alerts.model import KINDS, Severity
from coxswain.alerts.settings import RuleSettings, Values
from coxswain.alerts.webhook import Hook
from coxswain.errors import CoxswainError, StoreUnavailable, Unavailable
from coxswain.losses import WEBHOOK, Losses
from coxswain.messages import alerts as m
from coxswain.messages.fleet import ListNodes
from coxswain.store import Store, alert_counts
from coxswain.store import alerts as rows

__all__ = ["AlertEngine"]

_TOGETHER_S = 0.1
"""Nodes that change within this time are judged together: a thousand that fall at once are one transaction."""

_ASK_S = 5.0
_AGAIN_S = 1.0
_PURGE_EVERY_S = 3_600.0
_DAY_S = 86_400.0


class _Sweep:
    """To itself: a sweep is due."""


class _Step:
    """To itself: the next slice of the sweep."""


class _Judge:
    """To itself: look at nodes that changed, or whose time has come."""


class AlertEngine(Actor):
    """Whatever it holds can be found out again; alerts, and how far the rules have read, are in the store.

    Args:
        context: its place in the system.
        store: where alerts are.
        settings: the configuration; asked again before each sweep.
        state_dir: whose disk must not be full; None: not looked at.
        io: on which alerts are sent out; None: they are not.
        losses: what was dropped on its way; None: nobody counts.
    """

    mailbox_capacity = 20_000

    def __init__(
        self,
        context: Context,
        *,
        store: Store,
        settings: Values,
        state_dir: Path | None = None,
        io: IoLoop | None = None,
        losses: Losses | None = None,
    ) -> None:
        super().__init__(context)
        self._store = store
        self._settings = settings
        self._losses = Losses(context.clock) if losses is None else losses
        self._notifier = Notifier(context, io, self._hook, lambda: self._losses.add(WEBHOOK))
        self._book = AlertBook(context, store, lambda alert, new: self._notifier.take(alert, new=new))
        self._nodes = NodeWatch()
        self._sweeper = Sweeper(context, store, self._book, state_dir, self._losses)
        self._steps: Iterator[None] | None = None
        self._waiting: list[Future[None]] = []
        self._next: list[Future[None]] = []
        self._judging = False
        self._remembers = False
        self._timer: Any = None
        self._sweeps = 0
        self._swept_at = 0.0
        self._took_s = self._working_s = 0.0
        self._failing: dict[str, str] = {}
        self._purged_at = float("-inf")

    def started(self) -> None:
        self.context.tell_self_surely(_Sweep())

    def receive(self, message: Any) -> Any:
        match message:
            case m.NodeSeen(view):
                self._nodes.seen(view)
                self._judge_soon()
            case m.NodeGone(node_id):
                self._nodes.gone(node_id)
                self._judge_soon()
            case m.ListAlerts():
                with self._store.read() as tx:
                    return rows.list_alerts(tx, message)
            case m.GetAlert(alert_id):
                return self._book.get(alert_id)
            case m.AckAlert():
                return self._book.acknowledge(message)
            case m.ResolveAlert():
                return self._book.resolve(message)
            case m.SnoozeAlert():
                return self._book.snooze(message)
            case m.CountOpen():
                with self._store.read() as tx:
                    return alert_counts.open_now(tx)
            case m.CountOpened(since, step):
                with self._store.read() as tx:
                    return alert_counts.opened(tx, since, step)
            case m.DescribeAnalytics():
                return self._describe()
            case m.SweepNow():
                return self._sweep_now()
            case Delivered():
                self._notifier.delivered(message)
            case TryAgain():
                self._notifier.try_again()
            case _Judge():
                self._judging = False
                self._judge()
            case _Step():
                self._step()
            case _Sweep():
                self._begin()
                self.context.after(float(self._settings["analytics.interval_seconds"]), message)
        return None

    @property
    def _enabled(self) -> bool:
        return not self._settings["analytics.disabled"]

    def _hook(self) -> Hook:
        values = self._settings
        severity = Severity(values["analytics.webhook_severity"])
        return Hook(values["analytics.webhook_url"], values["analytics.webhook_secret"], severity)

    # -- sweeps

    def _sweep_now(self) -> Future[None]:
        """One that is under way may have looked already at what the asker wants seen: then the next one counts."""
        done: Future[None] = Future()
        (self._next if self._steps is not None else self._waiting).append(done)
        self._begin()
        return done

    def _begin(self) -> None:
        if self._steps is None:
            self._steps = self._sweep()
            self._working_s = 0.0
            self.context.tell_self_surely(_Step())

    def _step(self) -> None:
        steps = self._steps
        if steps is None:
            return
        began = time.thread_time()
        over = next(steps, self) is self
        self._working_s += time.thread_time() - began
        if not over:
            self.context.tell_self_surely(_Step())
            return
        self._steps = None
        self._sweeps += 1
        self._swept_at, self._took_s = self.context.clock.now(), self._working_s
        waiting, self._waiting, self._next = self._waiting, self._next, []
        for done in waiting:
            done.set_result(None)
        if self._waiting:
            self._begin()

    def _sweep(self) -> Iterator[None]:
        """One slice of work between two yields."""
        self._guard("retention", self._purge)
        self._guard("snooze", self._book.wake_snoozed)
        yield
        if not self._enabled:
            return
        self._guard("fleet_health", self._look_at_fleet)
        yield
        settings = RuleSettings.of(self._settings)
        sweeper = self._sweeper
        for name, rule in (
            ("auth_failure_spike", sweeper.logins),
            ("link_reused", sweeper.claims),
            ("unknown_peer", sweeper.strangers),
            ("certificate_expiring", sweeper.expiring),
            ("audit_broken", sweeper.audit),
            ("storage_low", sweeper.storage),
            ("exit_failover", sweeper.exits),
            ("events_dropped", sweeper.drops),
        ):
            self._guard(name, partial(rule, settings))
            yield
        yield from self._guarded("histories", sweeper.absorb(settings))
        yield from self._guarded("devices", sweeper.devices(settings))

    def _guarded(self, name: str, slices: Iterator[None]) -> Iterator[None]:
        """As ``_guard``, for what takes more than one slice."""
        over = False

        def go_on() -> None:
            nonlocal over
            over = True
            over = next(slices, self) is self

        while not over:
            self._guard(name, go_on)
            yield

    def _guard(self, name: str, work: Callable[[], object]) -> None:
        """A rule that fails stops no other one (management-plane.md 7.1), and is tried again with the next sweep."""
        try:
            work()
        except CoxswainError as error:
            self._note_failure(name, str(error))
        except Exception as error:
            self.context.log.exception("the rule %s fell; the others go on", name)
            self._note_failure(name, f"{type(error).__name__}: {error}")
        else:
            self._failing.pop(name, None)

    def _note_failure(self, name: str, why: str) -> None:
        if self._failing.get(name) != why:
            self.context.log.warning("the rule %s came to nothing, and is tried again: %s", name, why)
        self._failing[name] = why[:300]

    def _purge(self) -> None:
        days = int(self._settings["retention.metrics_days"])
        if days > 0 and self.context.clock.monotonic() - self._purged_at >= _PURGE_EVERY_S:
            self._book.purge(self.context.clock.now() - days * _DAY_S)
            self._purged_at = self.context.clock.monotonic()

    # -- nodes

    def _look_at_fleet(self) -> None:
        """The safety net, and the beginning: what was told while nobody listened."""
        self._nodes.all_are(self.context.ask("fleet", ListNodes(), deadline=_ASK_S))
        stale = {key.partition(":")[2] for key in self._book.open_keys(NODE_KINDS)}
        for node_id in stale:
            self._nodes.look_again(node_id)
        self._judge()

    def _judge_soon(self, delay: float = _TOGETHER_S) -> None:
        if not self._judging:
            self._judging = True
            self.context.after(delay, _Judge())

    def _judge(self) -> None:
        if not self._enabled:
            return
        settings = RuleSettings.of(self._settings)
        now = self.context.clock.now()
        try:
            if not self._remembers:
                self._nodes.remember(self._book.unresolved(NODE_KINDS))
                self._remembers = True
            findings, well = self._nodes.judge(now, settings)
            ended = well & self._book.open_keys(NODE_KINDS) if well else set()
            self._book.apply(findings, ended=ended)
        except StoreUnavailable as error:
            self.context.log.warning("what became of nodes is no alert yet: %s", error)
            self._nodes.judge_all_again()
            self._judge_soon(_AGAIN_S)
            return
        due = self._nodes.next_due
        if due is not None:
            self._wake(max(_TOGETHER_S, due - now))

    def _wake(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.context.after(delay, _Judge())

    # -- questions

    def _describe(self) -> m.AnalyticsState:
        try:
            with self._store.read() as tx:
                counts = rows.counts(tx)
        except Unavailable:
            counts = {}
        off = frozenset(self._settings["analytics.rules_off"])
        return m.AnalyticsState(
            enabled=self._enabled,
            sweeps=self._sweeps,
            swept_at=self._swept_at,
            took_s=self._took_s,
            opened=dict(self._book.opened),
            failing=dict(self._failing),
            counts=counts,
            dropped=self._losses.totals(),
            rules=tuple(kind for kind in KINDS if kind not in off),
        )
