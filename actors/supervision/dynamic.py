"""A supervisor whose children come and go: thousands of them, each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from actors.supervision.children import Child
from actors.supervision.context import Context
from actors.supervision.signals import Ended
from actors.supervision.spec import ChildSpec, ChildState, Intensity, Strategy
from actors.supervision.supervisor import Supervisor
from coxswain.errors import AlreadyExists, Unavailable

__all__ = ["DynamicSupervisor", "StartChild", "TerminateChild"]


@dataclass(frozen=True, slots=True)
class StartChild:
    """To a dynamic supervisor. Reply: None, when the child was launched; it may not be up yet.

    Raises ``AlreadyExists`` when a child of that id runs, ``Unavailable`` when the supervisor is stopping.
    """

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class TerminateChild:
    """To a dynamic supervisor. Reply: None, when the child has ended. Unknown ids are no error."""

    id: str


class DynamicSupervisor(Supervisor):
    """Any number of children, started and ended at any time, one for one. No step is linear in their number.

    When it ends itself, all children are asked to end at once: one after the other would take minutes.

    Args:
        context: given by whoever starts it.
        children: started with it, one after the other.
        intensity: how many restarts are too many. Children with a backoff do not count.
    """

    def __init__(
        self,
        context: Context,
        *,
        children: Sequence[ChildSpec] = (),
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(context, children=children, strategy=Strategy.ONE_FOR_ONE, intensity=intensity)
        self._terminating: dict[str, Future[None]] = {}
        self._successors: dict[str, ChildSpec] = {}

    def receive(self, message: Any) -> Any:
        match message:
            case StartChild(spec):
                return self._on_start_child(spec)
            case TerminateChild(name):
                return self.terminate_child(name)
            case _:
                return super().receive(message)

    def start_child(self, spec: ChildSpec) -> None:
        """On this actor's thread. A child of that id that is just being ended is followed by this one.

        Raises:
            AlreadyExists: a child of that id runs.
            Unavailable: this supervisor is stopping.
        """
        if self._leaving:
            raise Unavailable(f"{self.context.name} is stopping")
        if spec.id in self._terminating:
            self._successors[spec.id] = spec
            return
        if spec.id in self._children:
            raise AlreadyExists(f"a child named {spec.id} runs already")
        child = Child(spec)
        self._children[spec.id] = child
        self._start(child)

    def terminate_child(self, name: str) -> Future[None]:
        """On this actor's thread. Returns at once; what it returns is done when the child is gone."""
        self._successors.pop(name, None)
        gone = self._terminating.get(name)
        if gone is not None:
            return gone
        gone = Future()
        child = self._children.get(name)
        if child is None:
            gone.set_result(None)
        elif child.is_up:
            self._terminating[name] = gone
            if child.state is not ChildState.STOPPING:
                self._stop_child(child)
        else:
            child.cancel_timer()
            self._forget(name)
            gone.set_result(None)
        return gone

    def _on_start_child(self, spec: ChildSpec) -> None:
        try:
            self.start_child(spec)
        except (AlreadyExists, Unavailable) as error:
            if self.is_asked():
                raise
            self.context.log.warning("%s: %s", self.context.name, error)  # told: nobody to answer, no reason to die

    def _on_ended(self, ended: Ended) -> None:
        child = self._children.get(ended.name)
        super()._on_ended(ended)
        if child is None or child.is_up or ended.name not in self._terminating:
            return
        gone = self._terminating.pop(ended.name)
        self._forget(ended.name)
        gone.set_result(None)
        successor = self._successors.pop(ended.name, None)
        if successor is not None and not self._leaving:
            self.start_child(successor)

    def _leave(self, failure: str | None) -> None:
        if self._leaving:
            return
        super()._leave(failure)
        for child in self._children.values():
            if child.is_up and child.state is not ChildState.STOPPING:
                self._stop_child(child)

    def _gone(self, child: Child) -> None:
        self._forget(child.spec.id)

    def _forget(self, name: str) -> None:
        self._children.pop(name, None)
        if name in self._rising:
            self._rising.remove(name)
