"""The whole tree with nothing to do: how many threads that takes is a budget (links and forty, gRPC's handful included)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from actors.supervision import Actor
from tests.fleet import lone_controller
from tests.support import eventually

_MOST = 21
"""Python's threads of a daemon without nodes: loops that always turn, and whoever does something every other second."""


def test_an_idle_daemon_needs_few_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Actor, "rests_after_s", 1.5)  # of what it is in life, ten seconds
    others = set(threading.enumerate())

    def mine() -> list[str]:
        return sorted(thread.name for thread in threading.enumerate() if thread not in others)

    with lone_controller(tmp_path, web=True) as controller:
        eventually(lambda: len(mine()) <= _MOST and "network" not in mine(), timeout=60.0)
        assert controller.client.get("/readyz"), "and all are there when they are asked"
        assert {child.restarts for child in controller.system.tree().children} == {0}
