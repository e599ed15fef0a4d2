"""How an operation is written: a kind names its steps, and what happens when one fails or the controller dies.

A step is a function of ``Work``. It has to be *idempotent*: after a crash it is done again from its start, whatever it
had got done before. It has to *register its undo before it changes anything*: that it began is in the journal before ``do``
is called, and what ``undo`` will need goes into the journal with ``Work.remember`` before the change. ``undo`` is idempotent
too, and works when ``do`` never got anywhere.

Steps run on a thread that belongs to their operation alone, and may block; whatever can block for long is given to
``Work.hold``, so that it can be cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from coxswain.errors import Unavailable
from coxswain.messages.audit import Caller

__all__ = ["Closeable", "Kind", "NeedsSecret", "OnFailure", "Recovery", "Step", "Work", "no_locks"]

T = TypeVar("T")
C = TypeVar("C", bound="Closeable")

Params = Mapping[str, Any]


class NeedsSecret(Unavailable):
    """A secret is needed that is not, or no longer, in memory. The operation waits for it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name}: is needed again; it was never stored", remedy=f"Give it with: cox operations retry ID --{name}"
        )
        self.name = name


class Recovery(StrEnum):
    """What happens with an operation in whose middle the controller died.

    ``resume``: its step is done again. ``undo``: taken back.
    """

    RESUME = "resume"
    UNDO = "undo"


class OnFailure(StrEnum):
    """What happens when a step fails. ``keep``: it stays as it is, to be retried. ``undo``: taken back at once."""

    KEEP = "keep"
    UNDO = "undo"


class Closeable(Protocol):
    """What blocks, and stops to when closed on another thread: a connection, a socket."""

    def close(self) -> object: ...


class Work(Protocol):
    """What a step may use. All of it on the operation's own thread."""

    @property
    def id(self) -> str:
        """Of the operation."""
        ...

    @property
    def params(self) -> Params:
        """What was asked for."""
        ...

    @property
    def data(self) -> Mapping[str, Any]:
        """What earlier steps kept with ``keep``."""
        ...

    @property
    def remembered(self) -> Mapping[str, Any]:
        """What this step, in whatever attempt, kept with ``remember``."""
        ...

    @property
    def caller(self) -> Caller:
        """Who asked for the operation; what steps change is done in their name."""
        ...

    def keep(self, **values: Any) -> None:
        """Writes results of the operation; durable when it returns. JSON values, no secrets."""
        ...

    def remember(self, **values: Any) -> None:
        """Writes what this step's undo needs; durable when it returns, so call it before the change."""
        ...

    def secret(self, name: str) -> str:
        """Raises ``NeedsSecret``: the operation then waits until somebody gives it."""
        ...

    def say(self, line: str) -> None:
        """One line of progress."""
        ...

    def ask(self, actor: str, message: Any, *, deadline: float = 10.0) -> Any:
        """Asks an actor. Never ``operations`` about itself."""
        ...

    def tell(self, actor: str, message: Any) -> None:
        """Tells an actor."""
        ...

    def change(self, actor: str, message: Any, *, deadline: float = 30.0) -> Any:
        """Asks for a change that replies ``Committed``; returns its value."""
        ...

    def hold(self, thing: C) -> C:
        """Registers what is closed when the operation is cancelled, killed or over its deadline, and at its end."""
        ...

    def shared(self, name: str, make: Callable[[], C]) -> C:
        """What several steps share, e.g. a connection: made and held the first time in each run."""
        ...

    def drop(self, name: str) -> None:
        """Closes what ``shared`` made; the next one is made anew."""
        ...

    def check(self) -> None:
        """Raises when the operation was cancelled, cut off or is over its deadline; loops call it."""
        ...

    def wait_for(self, look: Callable[[], T], what: str, *, timeout: float, every: float = 0.2) -> T:
        """Calls ``look`` until it returns something true, and returns that. Raises ``DeadlineExceeded`` naming ``what``."""
        ...

    def now(self) -> float:
        """Epoch seconds."""
        ...


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: stays the same between releases, because journals hold it.
        title: what an operator reads.
        undo: None: there is nothing to take back.
        deadline_s: how long it, or its undo, may take.
    """

    name: str
    title: str
    do: Callable[[Work], None]
    undo: Callable[[Work], None] | None = None
    deadline_s: float = 60.0


def no_locks(_params: Params) -> tuple[str, ...]:
    """Any number of them at once."""
    return ()


@dataclass(frozen=True)
class Kind:
    """One kind of operation.

    Attributes:
        name: e.g. ``server.add``.
        action: in the audit log when it ended (management-plane.md 9.7); empty: its name.
        steps: which ones, in order; the same for the same params.
        check: raises ``InvalidInput``; returns the params as they are kept.
        target: type and id of what it is about, from params and data.
        locks: what no two operations may work on at once, e.g. ``node:nod_…``.
        after_failure: when a step failed and what it changed is kept: says so where others look, e.g. a status.
        overtaken_by: kinds that, done on what it locks, overtake one of this kind that failed before: what it would go on
            with, or take back, is theirs since then.
        light: does little by itself and waits for other operations; takes no place among those that run at once.
    """

    name: str
    steps: Callable[[Params], Sequence[Step]]
    check: Callable[[Params], dict[str, Any]] = dict
    target: Callable[[Params, Mapping[str, Any]], tuple[str, str]] = lambda _params, _data: ("", "")
    locks: Callable[[Params], tuple[str, ...]] = no_locks
    overtaken_by: tuple[str, ...] = ()
    after_crash: Recovery = Recovery.RESUME
    on_failure: OnFailure = OnFailure.KEEP
    light: bool = False
    after_failure: Callable[[Work], None] | None = None
    action: str = ""
