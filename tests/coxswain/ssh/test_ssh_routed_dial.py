"""Dialling over relays when the I/O loop ends, or does not come round in time."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

import pytest

from coxswain.control_path.model import Hop, Route
from coxswain.control_path.routes import Routes
from coxswain.control_path.ways import Ways
from coxswain.errors import NodeUnreachable, Unavailable
from coxswain.ssh import dial as tested
from coxswain.ssh.dial import RoutedDialer


class Loop:
    """Takes the work, and does none of it; ``dialled`` is what would come of it."""

    def __init__(self) -> None:
        self.dialled: Future[socket.socket] = Future()

    def submit(self, work: Coroutine[Any, Any, socket.socket]) -> Future[socket.socket]:
        work.close()
        return self.dialled


def dialer(loop: Loop) -> RoutedDialer:
    routes = Routes()
    routes.set(Route((Hop("rly_a", "a", "a.example:8456"),)))
    return RoutedDialer(routes, Ways(), list, loop.submit)


def test_a_loop_that_ends_while_it_dials_is_a_failure_to_be_tried_again() -> None:
    loop = Loop()
    loop.dialled.cancel()
    with pytest.raises(Unavailable, match="try again"):
        dialer(loop).dial("b.example", 22, timeout=1)


def test_a_connection_that_comes_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "_GRACE_S", 0.0)
    loop = Loop()
    loop.dialled.set_running_or_notify_cancel()  # it cannot be cancelled any more
    with pytest.raises(NodeUnreachable, match="no answer within"):
        dialer(loop).dial("b.example", 22, timeout=0.01)
    ours, theirs = socket.socketpair()
    loop.dialled.set_result(ours)
    assert theirs.recv(1) == b""
    theirs.close()
