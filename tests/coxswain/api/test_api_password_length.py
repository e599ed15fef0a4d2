"""How long a new password is at least: the contract's eight characters, or what the operator says."""

from __future__ import annotations

from pathlib import Path

import pytest

from coxswain.cli.client import RemoteError
from tests.fleet import lone_controller


def test_how_long_a_new_password_is_at_least_is_the_operators(tmp_path: Path) -> None:
    configuration = tmp_path / "cox.yaml"
    with lone_controller(tmp_path, config="posture: personal\nadmin:\n  password_min_length: 12\n") as controller:
        for path, body in (
            ("/api/admins", {"email": "ann@example.org", "password": "11 otters !"}),
            ("/api/users", {"name": "bob", "password": "11 otters !"}),
            ("/api/admins/admin/password", {"new_password": "11 otters !"}),
        ):
            with pytest.raises(RemoteError, match="11 characters; it takes 12 to 512"):
                controller.client.post(path, body)
        configuration.write_text("posture: personal\n")
        controller.client.post("/api/config/reload")
        with pytest.raises(RemoteError, match="7 characters; it takes 8 to 512"):
            controller.client.post("/api/users", {"name": "bob", "password": "otters!"})
        controller.client.post("/api/users", {"name": "bob", "password": "8 otters"})  # management-plane.md 3.2
        controller.client.post("/api/admins", {"email": "ann@example.org", "password": "8 otters"})
