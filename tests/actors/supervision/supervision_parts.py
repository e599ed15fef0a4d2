"""Actors and systems that the tests of supervision share."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from actors.supervision import Actor, ChildSpec, Context, System, TreeNode
from coxswain.clock import SystemClock

__all__ = ["Do", "Journal", "Worker", "node", "running", "worker"]


@dataclass(frozen=True)
class Do:
    """Runs ``work(actor)`` on the actor's thread; what it returns is the answer."""

    work: Callable[[Any], Any]


class Journal:
    """What happened, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[tuple[str, str]] = []

    def note(self, what: str, name: str) -> None:
        with self._lock:
            self._lines.append((what, name))

    def __getitem__(self, what: str) -> list[str]:
        """Names, in the order in which ``what`` happened to them."""
        with self._lock:
            return [name for w, name in self._lines if w == what]

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()


class Worker(Actor):
    """Does what it is told, and writes a journal of its life."""

    def __init__(
        self,
        context: Context,
        *,
        journal: Journal | None = None,
        on_init: Callable[[Any], None] | None = None,
        on_start: Callable[[Any], None] | None = None,
        on_stop: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(context)
        self.journal = journal or Journal()
        self.on_start_ = on_start
        self.on_stop_ = on_stop
        if on_init is not None:
            on_init(self)

    def started(self) -> None:
        if self.on_start_ is not None:
            self.on_start_(self)
        self.journal.note("started", self.context.name)

    def receive(self, message: Any) -> Any:
        if isinstance(message, Do):
            return message.work(self)
        return message, self.context.incarnation

    def stopping(self) -> None:
        if self.on_stop_ is not None:
            self.on_stop_(self)
        self.journal.note("stopping", self.context.name)


def worker(name: str, *, journal=None, on_init=None, on_start=None, on_stop=None, **spec: Any) -> ChildSpec:
    """A child spec; what is not a hook of ``Worker`` goes to it."""
    kwargs = {"journal": journal, "on_init": on_init, "on_start": on_start, "on_stop": on_stop}
    return ChildSpec(name, Worker, kwargs, **spec)


@contextmanager
def running(*children: ChildSpec, up: bool = True, **kwargs: Any) -> Iterator[System]:
    """A started system with chaos; stopped in the end, whatever happened."""
    kwargs = {"clock": SystemClock(), "rng": random.Random(7), "allow_chaos": True, "shutdown_s": 20.0} | kwargs
    system = System(children=children, **kwargs)
    system.start()
    try:
        if up:
            assert system.wait_up(10)
        yield system
    finally:
        system.stop(10)


def node(system: System, name: str) -> TreeNode:
    """The line of ``name`` in the tree."""

    def find(at: TreeNode) -> TreeNode | None:
        return at if at.id == name else next((f for c in at.children if (f := find(c)) is not None), None)

    found = find(system.tree())
    assert found is not None, f"{name} is not in the tree"
    return found
