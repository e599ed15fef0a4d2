"""A whole controller for the tests of its doors: the real tree on a real state, without nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import Controller


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    """One for all tests of a module: they name their own nodes, and leave no actor harmed."""
    with tempfile.TemporaryDirectory(prefix="cox-") as home:
        state = Path(home) / "state"
        state.mkdir(mode=0o700)
        (Path(home) / "cox.yaml").write_text("posture: personal\nstate_dir: ./state\n")
        running = Controller(state)
        running.start()
        try:
            yield running
        finally:
            running.stop()
