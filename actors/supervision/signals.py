"""The messages that supervision itself sends, and how an incarnation can end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Chaos", "Ended", "Harm", "How", "LifecycleEvent", "LifecycleRecord", "Shutdown", "Signal", "Started", "Wake"]


class How(StrEnum):
    """The ways out. All but ``STOPPED`` are failures."""

    STOPPED = "stopped"
    CRASHED = "crashed"
    START_FAILED = "start_failed"
    HUNG = "hung"
    VANISHED = "vanished"
    OVERDUE = "overdue"
    ORPHANED = "orphaned"


class Signal:
    """Base of what supervision sends to actors; gets into full mailboxes too."""

    __slots__ = ()


class Wake(Signal):
    """Only to make a waiting actor look whether it is still wanted."""

    __slots__ = ()


class Shutdown(Signal):
    """Asks an actor to end in good order, after what it was sent before."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Started(Signal):
    """To a supervisor: a child is up; of a supervisor, when its children are."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Ended(Signal):
    """To a supervisor: an incarnation of one of its children is over."""

    name: str
    incarnation: int
    how: How
    reason: str
    trace: str = ""

    @property
    def failed(self) -> bool:
        return self.how is not How.STOPPED


class Harm(StrEnum):
    """Ways to hurt an actor on purpose: an exception, ``SystemExit``, a hang, a thread that ends without a word."""

    RAISE = "raise"
    EXIT = "exit"
    HANG = "hang"
    VANISH = "vanish"


@dataclass(frozen=True, slots=True)
class Chaos(Signal):
    """Makes an actor fail, for tests and demonstrations; without effect unless ``System(allow_chaos=True)``.

    ``seconds``: how long a ``HANG`` lasts.
    """

    how: Harm
    seconds: float = 3600.0


class LifecycleEvent(StrEnum):
    """What happened to a child.

    ``started`` is the first incarnation that came up, ``restarted`` each later one; ``hung`` also stands for one that did
    not stop in time; ``escalated`` is a supervisor that gave up.
    """

    STARTED = "started"
    CRASHED = "crashed"
    HUNG = "hung"
    RESTARTED = "restarted"
    ESCALATED = "escalated"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LifecycleRecord:
    """One line in the life of the tree (``System.on_record``).

    Attributes:
        event: what happened.
        name: to which child.
        incarnation: to which of its incarnations.
        reason: a sentence, for failures.
        at: epoch seconds.
    """

    event: LifecycleEvent
    name: str
    incarnation: int
    reason: str
    at: float
