"""``reconcile_clock``: decides when which node is looked at again.

Looks are spread over the interval by node id (``coxswain.reconcile.schedule``), so that a thousand nodes at 45 s are 22
looks a second and no spike. One tick takes all that are due. A look is only a hint to the link, which does one thing at
a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.node_link import link_name
from actors.supervision import Actor, Context
from coxswain.errors import Unavailable
from coxswain.messages.configuration import SetInterval
from coxswain.messages.fleet import GetNodeSet
from coxswain.messages.links import Look, NodeSetChanged
from coxswain.reconcile.schedule import LookSchedule

__all__ = ["ReconcileClock"]

_TICK_S = 0.5
"""Looks that are due within it begin together: the loop is woken once for all of them."""
_ASK_S = 5.0
_READ_EVERY_S = 1.0
"""A bulk import changes the set of nodes thousands of times; it is read once a second at most."""


class _Tick:
    """To itself."""


class ReconcileClock(Actor):
    """See the module.

    Args:
        context: its place in the system.
        interval_s: says the seconds between two looks at one node (management-plane.md 8.1: 45).
        looks_per_s: over the whole fleet, at most.
    """

    def __init__(self, context: Context, *, interval_s: Callable[[], float], looks_per_s: float = 250.0) -> None:
        super().__init__(context)
        self._schedule = LookSchedule(interval_s(), looks_per_s, context.rng)
        self._is_stale = True
        self._read_again_at = float("-inf")

    def started(self) -> None:
        self._tick()

    def receive(self, message: Any) -> Any:
        match message:
            case _Tick():
                self._tick()
            case NodeSetChanged():
                self._is_stale = True
            case SetInterval(seconds):
                self._schedule.set_interval(seconds, self.context.clock.monotonic())

    def _tick(self) -> None:
        now = self.context.clock.monotonic()
        if self._is_stale and now >= self._read_again_at:
            self._read(now)
        for node_id in self._schedule.take_due(now):
            self.context.tell(link_name(node_id), Look())
        self.context.on_beat(_TICK_S, _Tick())

    def _read(self, now: float) -> None:
        self._read_again_at = now + _READ_EVERY_S
        try:
            nodes: dict[str, bool] = self.context.ask("fleet", GetNodeSet(), deadline=_ASK_S)
        except Unavailable as error:
            self.context.log.warning("the set of nodes is not to be had just now: %s", error)
            return
        self._is_stale = False
        self._schedule.replace_nodes((node_id for node_id, is_enabled in nodes.items() if is_enabled), now)
