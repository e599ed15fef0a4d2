"""The SIEM stream's end when the I/O loop ends before it."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from actors.siem import SiemStream
from coxswain.errors import Unavailable


@pytest.mark.parametrize("there_is_a_loop", [True, False])
def test_a_loop_that_ended_before_is_no_failure(there_is_a_loop: bool) -> None:
    said: list[str] = []

    def submit(_: Any) -> Future[None]:
        if not there_is_a_loop:
            raise Unavailable("the I/O loop is restarting")
        cancelled: Future[None] = Future()
        cancelled.cancel()
        return cancelled

    stream: Any = SimpleNamespace(
        _io=SimpleNamespace(submit=submit),
        _server=SimpleNamespace(close=lambda: None),
        context=SimpleNamespace(log=SimpleNamespace(warning=said.append)),
    )
    SiemStream.stopping(stream)
    assert said == ["the SIEM stream's server did not stop in time; it goes with the process"]
