"""A controller with its API on TCP, shared by the tests of this folder that do not break it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import Controller
from tests.web import Web

PASSWORD = "correct horse battery"


@pytest.fixture(scope="package")
def webbed() -> Iterator[Controller]:
    with tempfile.TemporaryDirectory(prefix="cox-") as directory:
        home = Path(directory) / "state"
        home.mkdir(mode=0o700)
        running = Controller(home, web=True)
        running.start()
        try:
            running.client.post("/api/admins/admin/password", {"new_password": PASSWORD})
            yield running
        finally:
            running.stop()


@pytest.fixture
def web(webbed: Controller) -> Web:
    """Somebody without a credential, from an address of their own."""
    return Web(webbed.listen)


def token(controller: Controller, scope: str, expires: str = "") -> str:
    made = controller.client.post("/api/tokens", {"name": f"a {scope} token", "scope": scope, "expires": expires})
    secret: str = made["secret"]
    return secret
