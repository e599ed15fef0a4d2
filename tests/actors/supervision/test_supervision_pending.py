"""What an actor tells itself later: never lost for a full mailbox, and never more of it than there is to do."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
from supervision_parts import running

from actors.supervision import Actor, ChildSpec, Context, Pending
from coxswain.clock import ManualClock
from tests.support import eventually


class Beat:
    pass


class Full(Actor):
    """Beats, and is kept from taking anything in."""

    mailbox_capacity: ClassVar[int] = 3

    def __init__(self, context: Context, *, gate: threading.Event, seen: list[Any]) -> None:
        super().__init__(context)
        self.gate, self.seen = gate, seen

    def receive(self, message: Any) -> Any:
        if isinstance(message, Beat):
            self.seen.append(message)
        elif message == "wait":
            self.gate.wait(30)
        elif message == "beat":
            self.context.after(0.0, Beat())
        elif message == "sure":
            return self.context.tell_self_surely(Beat())
        return None


@pytest.mark.parametrize("how", ["beat", "sure"])
def test_a_full_mailbox_takes_what_an_actor_tells_itself_and_nothing_else(how: str) -> None:
    gate, seen = threading.Event(), list[Any]()
    with running(ChildSpec("full", Full, {"gate": gate, "seen": seen})) as system:
        actor: Any = system.directory.find("full")
        assert system.tell("full", "wait")
        eventually(lambda: actor.busy is not None)
        while system.tell("full", "more"):
            pass
        if how == "beat":
            actor.context.after(0.0, Beat())
        else:
            assert actor.context.tell_self_surely(Beat())
        eventually(lambda: len(actor.mailbox) == Full.mailbox_capacity + 1)
        assert not system.tell("full", "more")
        gate.set()
        eventually(lambda: len(seen) == 1)


def test_one_that_is_over_hears_nothing_more() -> None:
    with running(ChildSpec("full", Full, {"gate": threading.Event(), "seen": []})) as system:
        actor: Any = system.directory.find("full")
        actor.context.void()
        assert not actor.context.tell_self_surely(Beat())


class Retries(Actor):
    def __init__(self, context: Context, *, seen: list[Any]) -> None:
        super().__init__(context)
        self.seen = seen
        self.again = Pending(context)

    def receive(self, message: Any) -> Any:
        match message:
            case Beat():
                self.again.cancel()
                self.seen.append(message)
            case "waits":
                return self.again.waits
            case "not":
                self.again.cancel()
            case float():
                self.again.after(message, Beat())
        return None


def test_of_many_reasons_for_a_retry_one_comes_of_it_when_the_last_one_said() -> None:
    clock, seen = ManualClock(), list[Any]()
    with running(ChildSpec("one", Retries, {"seen": seen}), clock=clock) as system:

        def ask(message: Any) -> Any:
            return system.ask("one", message, deadline=30)

        assert not ask("waits")
        for delay in (5.0, 1.0, 3.0):
            ask(delay)
        assert ask("waits")
        clock.advance(2.9)
        system.timers.after(0.0, lambda: None)  # wakes the thread, which otherwise looks at such a clock once a second
        assert ask("waits") and not seen
        clock.advance(0.1)
        eventually(lambda: not ask("waits"))
        assert len(seen) == 1
        ask(1.0)
        ask("not")
        assert not ask("waits")
        clock.advance(9.0)
        ask(1.0)
        clock.advance(1.0)
        eventually(lambda: not ask("waits"))
        assert len(seen) == 2
