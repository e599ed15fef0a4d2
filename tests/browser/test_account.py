"""One's own account, and the door: passwords, sessions, a second factor, themes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import Error, Page, expect

from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.fleet import LiveFleet

_OLD, _NEW = "a password of hers", "another one of hers"


@pytest.fixture
def admin(fleet: LiveFleet) -> Iterator[str]:
    """The e-mail address of somebody who may sign in, and whose account a test may change."""
    made = fleet.controller.client.post("/api/admins", {"email": "mary@example.org", "password": _OLD})
    yield made["email"]
    fleet.controller.client.call("DELETE", f"/api/admins/{made['id']}")


def enter(page: Page, email: str, password: str) -> None:
    page.goto("/login?next=/account")
    page.get_by_label("User name").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/account")
    page.get_by_text("Live", exact=True).wait_for()


@acts("/account", "DELETE /api/auth/sessions/*", "POST /api/auth/password")
@acts("*", "POST /api/auth/logout")
def test_another_session_is_ended_and_the_password_changed(
    open_browser: Callable[..., Page], admin: str, complaints: list[str]
) -> None:
    here, there = open_browser(signed_in=False), open_browser(signed_in=False)
    enter(there, admin, _OLD)
    enter(here, admin, _OLD)
    here.get_by_role("button", name="End", exact=True).click()
    confirm(here, "End it")
    expect(here.get_by_role("button", name="End", exact=True)).to_have_count(0)
    with suppress(Error):  # the page may be leaving for the login by itself, as its stream ended
        there.goto("/account")
    expect(there).to_have_url(re.compile("/login"))
    here.get_by_label("Present password").fill(_OLD)
    here.get_by_label("New password").fill(_NEW)
    here.get_by_role("button", name="Change it").click()
    expect(here.get_by_text("Your other sessions were ended.")).to_be_visible()
    here.get_by_role("button", name="Sign out").click()
    here.wait_for_url("**/login")
    enter(here, admin, _NEW)
    complaints.clear()  # of the one that was thrown out


@acts("*", "CLICK #theme")
def test_the_theme_is_switched_and_remembered(open_browser: Callable[..., Page]) -> None:
    page = open_browser(color_scheme="light")
    page.goto("/tokens")
    body = page.locator("body")
    light = body.evaluate("e => getComputedStyle(e).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto("/account")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert body.evaluate("e => getComputedStyle(e).backgroundColor") != light
