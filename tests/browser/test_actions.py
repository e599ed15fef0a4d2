"""Every action of every page is carried out by a test of this folder."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.browser.actions import Action, all_actions, carried_out_by


def _carried_out() -> dict[Action, list[str]]:
    found: dict[Action, list[str]] = {}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.browser.{file.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_"):
                for action in carried_out_by(getattr(test, "pytestmark", ())):
                    found.setdefault(action, []).append(name)
    return found


def test_the_list_is_read_from_the_templates() -> None:
    """Were the reading of templates broken, everything would seem to be tested."""
    found = all_actions()
    assert len(found) > 60
    assert {
        Action("*", "POST /api/auth/logout"), Action("/audit", "GET /audit"), Action("/tokens", "COPY #secret"),
        Action("/nodes/{key}", "POST /api/nodes/*/push"), Action("/account", "POST /api/admins/*/totp/confirm"),
        Action("/users/{key}", "POST /api/devices/*/revoke"), Action("/devices/{key}", "POST /api/devices/*/revoke"),
    } <= found  # fmt: skip


def test_every_action_of_every_page_is_carried_out_in_a_browser() -> None:
    carried_out = _carried_out()
    assert not sorted(all_actions() - carried_out.keys()), "no browser test does these"
    assert not sorted(carried_out.keys() - all_actions()), "there is no such action, or not on that page"
