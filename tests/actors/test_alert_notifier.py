"""Alerts that are on their way out when the I/O loop hangs for good."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from actors.alerts.notifier import Notifier
from coxswain.alerts.webhook import Hook
from coxswain.clock import ManualClock


class Io:
    """A loop: what is on the first one never ends, or does at last."""

    def __init__(self) -> None:
        self.posts: list[Future[None]] = []

    def submit(self, work: Any) -> Future[None]:
        work.close()
        self.posts.append(Future())
        return self.posts[-1]


def test_a_post_that_hangs_with_its_loop_is_given_up_and_tried_again() -> None:
    io, later, told = Io(), [], []  # type: ignore[var-annotated]
    context: Any = SimpleNamespace(
        clock=ManualClock(), after=lambda delay, message: later.append((delay, message)), tell_self=told.append
    )
    notifier = Notifier(context, io, lambda: Hook("https://hooks.example/x"))  # type: ignore[arg-type]
    notifier._queue.append(b"{}")
    notifier._go_on()
    ((delay, overdue),) = later
    assert delay > Hook("https://hooks.example/x").timeout_s
    notifier.delivered(overdue)
    assert later[1][0] == 1.0
    notifier.try_again()
    assert len(io.posts) == 2
    io.posts[0].cancel()
    notifier.delivered(told.pop())  # the first one, at last: nobody asks any more
    assert (notifier.sent, notifier.lost, len(notifier._queue)) == (0, 0, 1)
    io.posts[1].set_result(None)
    notifier.delivered(told.pop())
    notifier.delivered(later[2][1])
    assert (notifier.sent, notifier.lost, len(notifier._queue)) == (1, 0, 0)
