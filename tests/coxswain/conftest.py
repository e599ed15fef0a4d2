"""A whole controller for the tests of its doors: the real tree on a real state, without nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet import PERSONAL, Controller, lone_controller


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    """One for all tests of a module: they name their own nodes, and leave no actor harmed."""
    with lone_controller(config=PERSONAL) as running:
        yield running
