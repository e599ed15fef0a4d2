"""Supervisors: actors whose work is to keep other actors running.

A supervisor never blocks on a child. Going down and coming up are sequences of messages: the children concerned are asked
to end, last started first, one after the other; each that ends, or is fenced off at its deadline, lets the next one go;
when all are down, what is to run again is started in order, each when the one before is up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from actors.supervision.actor import Actor
from actors.supervision.children import Child, TreeNode
from actors.supervision.context import Context
from actors.supervision.intensity import RestartCounter
from actors.supervision.signals import Ended, How, LifecycleEvent, Signal, Started
from actors.supervision.spec import ChildSpec, ChildState, Intensity, Restart, Strategy
from actors.supervision.strategy import plan_restart, should_restart

__all__ = ["Supervisor", "WhichChildren"]

_ROUTINE_FAILURES = 2
"""So many failures in a row of a child with a backoff are routine, and logged as warnings; after that they are errors."""

_HUNG = frozenset({How.HUNG, How.OVERDUE})


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """Asked of any supervisor. Reply: tuple of ``TreeNode``, in start order. Raises nothing."""


@dataclass(frozen=True, slots=True)
class _Late(Signal):
    """A child did not stop in time."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class _RestartDue(Signal):
    """A backoff is over."""

    name: str
    incarnation: int


class Supervisor(Actor):
    """A fixed set of children with a strategy. It is up when all of them are, or back off.

    Args:
        context: given by whoever starts it.
        children: in start order.
        strategy: who falls with a failed child.
        intensity: how many restarts are too many. Children with a backoff do not count.
    """

    mailbox_capacity = 100_000

    def __init__(
        self,
        context: Context,
        *,
        children: Sequence[ChildSpec] = (),
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(context)
        self._strategy = strategy
        self._counter = RestartCounter(intensity)
        self._intensity = intensity
        self._children: dict[str, Child] = {spec.id: Child(spec) for spec in children}
        if len(self._children) != len(children):
            raise ValueError(f"{context.name} has two children of one id")
        self._falling: deque[str] = deque()
        self._rising: deque[str] = deque(self._children)
        self._coming_up: str | None = None
        self._leaving = False
        self._failure: str | None = None

    # -- life

    def started(self) -> None:
        self.context.on_void(self._abandon_children)
        self._go_on()

    def is_up(self) -> bool:
        return not self._rising and self._coming_up is None

    def receive(self, message: Any) -> Any:
        match message:
            case Started(name, incarnation):
                self._on_started(name, incarnation)
            case Ended():
                self._on_ended(message)
            case _Late(name, incarnation):
                self._on_late(name, incarnation)
            case _RestartDue(name, incarnation):
                self._on_restart_due(name, incarnation)
            case WhichChildren():
                return self.describe_children(self.context.clock.monotonic())[0]
            case _:
                self.context.log.warning("%s does not understand a %s", self.context.name, type(message).__name__)
        return None

    def shutdown(self) -> None:
        self._leave(None)

    def describe_children(self, now: float, without: Collection[str] = ()) -> tuple[tuple[TreeNode, ...], str]:
        """For the tree; from any thread."""
        system = self.context.system
        children = [] if self.context.name in without else list(self._children.values())
        return tuple(child.snapshot(now, system, without) for child in children), self._strategy.value

    # -- what happens to children

    def _on_started(self, name: str, incarnation: int) -> None:
        child = self._children.get(name)
        if child is None or child.incarnation != incarnation or child.state is not ChildState.STARTING:
            return
        child.state = ChildState.RUNNING
        self._observe(LifecycleEvent.RESTARTED if child.restarts else LifecycleEvent.STARTED, child)
        self._arrived(name)

    def _on_ended(self, ended: Ended) -> None:
        child = self._children.get(ended.name)
        if child is None or child.incarnation != ended.incarnation:
            return
        expected = child.state is ChildState.STOPPING or self._leaving or ended.name in self._falling
        is_new = child.note_end(ended, self.context.clock.monotonic(), self.context.clock.now())
        if ended.failed:
            self._log_failure(child, ended, is_new=is_new)
            self._observe(LifecycleEvent.HUNG if ended.how in _HUNG else LifecycleEvent.CRASHED, child, ended.reason)
        else:
            self._observe(LifecycleEvent.STOPPED, child)
        if self._leaving or expected:
            self._fallen(child, ended)
        elif should_restart(child.spec.restart, failed=ended.failed):
            self._recover(child)
        else:
            child.state = ChildState.FAILED if ended.failed else ChildState.STOPPED
            self._gone(child)
            self._arrived(ended.name)

    def _fallen(self, child: Child, ended: Ended) -> None:
        """A child is down that was meant to be."""
        if child.spec.id in self._rising:
            child.state = ChildState.RESTARTING
        else:
            child.state = ChildState.FAILED if ended.failed else ChildState.STOPPED
        self._go_on()

    def _recover(self, child: Child) -> None:
        """A child ended that should run."""
        name, backoff = child.spec.id, child.spec.backoff
        if backoff is not None:
            child.state = ChildState.BACKING_OFF
            delay = backoff.delay(child.failures_in_a_row, self.context.rng)
            child.timer = self.context.after(delay, _RestartDue(name, child.incarnation))
        elif self._counter.count(self.context.clock.monotonic()):
            child.state = ChildState.RESTARTING
        else:
            child.state = ChildState.FAILED
            limit = f"more than {self._intensity.max_restarts} restarts in {self._intensity.period_s:g} s"
            self._leave(f"{limit}, the last one of {name}: {child.last_failure or 'it stopped'}")
            return
        if self._strategy is Strategy.ONE_FOR_ONE:
            if backoff is None:
                self._start(child)
            else:
                self._arrived(name)  # it comes when it comes; the others do not stand on it
            return
        self._take_down_with(name)

    def _take_down_with(self, name: str) -> None:
        """Applies the strategy to a child that ended and shall run again."""
        children = self._children
        plan = plan_restart(
            self._strategy,
            list(children),
            name,
            up={n for n, c in children.items() if c.is_up and n not in self._falling and c.state is not ChildState.STOPPING},
            temporary={n for n, c in children.items() if c.spec.restart is Restart.TEMPORARY},
            pending=self._rising,
        )
        falling = {*self._falling, *plan.stop}
        self._falling = deque(n for n in reversed(children) if n in falling)
        self._rising = deque(plan.start)
        if self._coming_up is not None and (self._coming_up == name or self._coming_up in falling):
            self._coming_up = None
        self._go_on()

    def _on_restart_due(self, name: str, incarnation: int) -> None:
        child = self._children.get(name)
        if child is None or child.incarnation != incarnation or child.state is not ChildState.BACKING_OFF or self._leaving:
            return
        if self._strategy is Strategy.ONE_FOR_ONE:
            self._start(child)
        else:
            child.state = ChildState.RESTARTING
            self._go_on()

    def _on_late(self, name: str, incarnation: int) -> None:
        child = self._children.get(name)
        if child is not None and child.incarnation == incarnation and child.actor is not None:
            child.actor.fence(How.OVERDUE, f"did not stop within {child.spec.shutdown_s:g} s and was fenced off")

    def _gone(self, child: Child) -> None:
        """A child ended for good. A fixed set keeps its line."""

    # -- going down and coming up

    def _go_on(self) -> None:
        """The next step of going down; and of coming up, when all that had to go down are."""
        while self._falling:
            child = self._children.get(self._falling[0])
            if child is not None and child.is_up:
                if child.state is not ChildState.STOPPING:
                    self._stop_child(child)
                return
            self._falling.popleft()
        if self._leaving:
            self._end_self()
            return
        while self._rising and self._coming_up is None:
            child = self._children[self._rising[0]]
            if child.state is ChildState.BACKING_OFF:
                return  # those after it stand on it
            self._rising.popleft()
            self._coming_up = child.spec.id
            self._start(child)
        if self._begun and self.is_up():
            self.context.started()

    def _arrived(self, name: str) -> None:
        """Whoever waited for ``name`` to come up need not wait any more."""
        if self._coming_up == name:
            self._coming_up = None
        if not self._leaving:
            self._go_on()

    def _start(self, child: Child) -> None:
        context = self.context
        child.start(context.system, context.tell_self, context.rng, context.while_current())

    def _stop_child(self, child: Child) -> None:
        late = _Late(child.spec.id, child.incarnation)
        child.stop(self.context.system, lambda: self.context.tell_self(late))

    def _leave(self, failure: str | None) -> None:
        """Ends: all children first, the last started one before the others. ``failure``: why it fails, if it does."""
        if self._leaving:
            return
        self._leaving = True
        self._failure = failure
        self._rising.clear()
        self._coming_up = None
        for child in self._children.values():
            if not child.is_up:
                child.cancel_timer()
                if child.state is not ChildState.FAILED:
                    child.state = ChildState.STOPPED
        self._falling = deque(name for name, child in reversed(self._children.items()) if child.is_up)
        if failure is not None:
            self.context.log.error("%s gives up: %s", self.context.name, failure)
            self.context.system.observe(LifecycleEvent.ESCALATED, self.context.name, self.context.incarnation, failure)
        self._go_on()

    def _end_self(self) -> None:
        if self._failure is None:
            self.stop()
        else:
            self.actor_stopped.set()
            self.context.ended(How.CRASHED, f"gave up: {self._failure}")

    def _abandon_children(self) -> None:
        """This incarnation is over without an orderly stop: nobody looks after its children any more.

        Not on this actor's thread. No child is started after this, because its context is void already.
        """
        for child in reversed(list(self._children.values())):
            child.abandon(f"was left alone by {self.context.name}, which ended")

    # -- telling others

    def _log_failure(self, child: Child, ended: Ended, *, is_new: bool) -> None:
        # A child with a backoff may fail as a matter of course; only when it keeps failing is it somebody's problem.
        routine = child.spec.backoff is not None and child.failures_in_a_row <= _ROUTINE_FAILURES
        trace = f"\n{ended.trace.rstrip()}" if is_new and ended.trace else ""
        text = "%s (incarnation %d, failure %d in a row) %s%s"
        level = logging.WARNING if routine else logging.ERROR
        self.context.log.log(level, text, ended.name, ended.incarnation, child.failures_in_a_row, ended.reason, trace)

    def _observe(self, event: LifecycleEvent, child: Child, reason: str = "") -> None:
        self.context.system.observe(event, child.spec.id, child.incarnation, reason)
