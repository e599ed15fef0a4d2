"""A controller with its API on TCP, shared by the tests of this folder that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet import Controller, lone_controller
from tests.web import Web

PASSWORD = "correct horse battery"


@pytest.fixture(scope="package")
def webbed() -> Iterator[Controller]:
    with lone_controller(web=True) as running:
        running.client.post("/api/admins/admin/password", {"new_password": PASSWORD})
        yield running


@pytest.fixture
def web(webbed: Controller) -> Web:
    """Somebody without a credential, from an address of their own."""
    return Web(webbed.listen)


def token(controller: Controller, scope: str, expires: str = "") -> str:
    made = controller.client.post("/api/tokens", {"name": f"a {scope} token", "scope": scope, "expires": expires})
    secret: str = made["secret"]
    return secret
