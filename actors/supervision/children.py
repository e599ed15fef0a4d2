"""What a supervisor knows of each child, and the steps that concern one child alone: start, stop, count."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.supervision.actor import Actor
from actors.supervision.context import Context
from actors.supervision.signals import Ended, How, Shutdown, Signal
from actors.supervision.spec import ChildSpec, ChildState
from actors.supervision.timers import Timer

if TYPE_CHECKING:
    from actors.supervision.system import System

__all__ = ["Child", "TreeNode"]

_CALM_S = 30.0
"""A child without a backoff that ran for so long does not fail in a row any more; only the log tells of it."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One line of a picture of the tree. Seconds; ``last_failure_at`` is epoch seconds, 0: never.

    ``busy_with`` names the type of the message it works on. ``zombies``: abandoned threads of this name that still run.
    ``strategy`` is empty for workers.
    """

    id: str
    kind: str
    state: ChildState
    incarnation: int
    restarts: int
    uptime_s: float
    mailbox: int
    busy_s: float
    busy_with: str
    zombies: int
    last_failure: str
    last_failure_at: float
    strategy: str = ""
    children: tuple[TreeNode, ...] = ()


class Child:
    """One child of one supervisor. Changed only on its supervisor's thread; read by anybody."""

    __slots__ = (
        "actor",
        "context",
        "failures_in_a_row",
        "incarnation",
        "last_failure",
        "last_failure_at",
        "spec",
        "started_at",
        "starts",
        "state",
        "timer",
    )

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state = ChildState.STOPPED
        self.actor: Actor | None = None
        self.context: Context | None = None
        self.incarnation = 0
        self.starts = 0
        self.failures_in_a_row = 0
        self.started_at = 0.0
        self.last_failure = ""
        self.last_failure_at = 0.0
        self.timer: Timer | None = None

    @property
    def is_up(self) -> bool:
        """Whether there is an incarnation whose end was not noted yet, one whose start already failed included."""
        return self.context is not None

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    def start(
        self,
        system: System,
        report: Callable[[Signal], object],
        rng: random.Random,
        wanted: AbstractContextManager[bool],
    ) -> None:
        """Starts a new incarnation. A failure, in ``__init__`` too, comes back through ``report``.

        Args:
            system: whose directory, timers and watch to use.
            report: takes ``Started`` and ``Ended``.
            rng: seeds the jitter of the incarnation.
            wanted: entered for the moment in which the new incarnation becomes visible; gives whether it should. The
                supervisor that starts it may have been fenced off while ``__init__`` ran, and then nobody would ever
                look after the child.
        """
        self.cancel_timer()
        name = self.spec.id
        self.incarnation = system.directory.next_incarnation(name)
        self.starts += 1
        self.state = ChildState.STARTING
        self.started_at = system.clock.monotonic()
        context = self.context = Context(name, self.incarnation, system=system, seed=rng.getrandbits(64), report=report)
        try:
            system.maybe_fail_start(name)
            actor: Actor = self.spec.actor(context, **self.spec.kwargs)
            context.bind(actor)
            with wanted as still:
                if still:
                    self.actor = actor
                    system.directory.publish(name, actor)
                    actor.launch()
                    system.watch.add(actor, self.spec.hang_s)
            if not still:
                context.void()
                context.release()
        except BaseException as error:  # raised on the supervisor's thread, but it is the child that failed
            trace = "".join(traceback.format_exception(error))
            context.ended(How.START_FAILED, f"failed to start: {type(error).__name__}: {error}"[:300], trace)

    def stop(self, system: System, on_late: Callable[[], object]) -> None:
        """Asks for an orderly end; ``on_late`` is called, on another thread, when ``shutdown_s`` passes without one."""
        self.cancel_timer()
        self.state = ChildState.STOPPING
        if self.actor is not None:
            self.actor.excused = True
            self.actor.put(Shutdown())
            self.timer = system.timers.after(self.spec.shutdown_s, on_late)

    def abandon(self, reason: str) -> None:
        """Fences the child off and lets go of what it held, because nobody looks after it any more. On any thread."""
        self.cancel_timer()
        if self.actor is not None:
            self.actor.fence(How.ORPHANED, reason)
            self.actor.context.system.watch.remove(self.actor)
        if self.context is not None:
            self.context.void()
            self.context.release()

    def note_end(self, ended: Ended, now: float, wall: float) -> bool:
        """Takes down how an incarnation ended, and lets go of what it held.

        Returns:
            Whether the failure is another one than the last time.
        """
        self.cancel_timer()
        actor, self.actor = self.actor, None
        context, self.context = self.context, None
        if actor is not None:
            actor.context.system.watch.remove(actor)
        if context is not None:
            context.release()
        if not ended.failed:
            return False
        calm_s = self.spec.backoff.reset_after_s if self.spec.backoff is not None else _CALM_S
        calm = now - self.started_at >= calm_s
        self.failures_in_a_row = 1 if calm else self.failures_in_a_row + 1
        is_new = ended.reason != self.last_failure
        self.last_failure = ended.reason
        self.last_failure_at = wall
        return is_new

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def snapshot(self, now: float, system: System, without: Collection[str] = ()) -> TreeNode:
        """A picture; from any thread, without waiting for anybody. ``without``: see ``System.tree``."""
        actor = self.actor
        busy = actor.busy if actor is not None else None
        describe: Callable[[float, Collection[str]], Any] | None = getattr(actor, "describe_children", None)
        children, strategy = describe(now, without) if describe is not None else ((), "")
        return TreeNode(
            id=self.spec.id,
            kind="supervisor" if hasattr(self.spec.actor, "describe_children") else "worker",
            state=self.state,
            incarnation=self.incarnation,
            restarts=self.restarts,
            uptime_s=max(0.0, now - self.started_at) if actor is not None else 0.0,
            mailbox=len(actor.mailbox) if actor is not None else 0,
            busy_s=max(0.0, now - busy[1]) if busy is not None else 0.0,
            busy_with=busy[0] if busy is not None else "",
            zombies=system.watch.zombies(self.spec.id),
            last_failure=self.last_failure,
            last_failure_at=self.last_failure_at,
            strategy=strategy,
            children=children,
        )
