"""Nobody sees anything before signing in, and everybody comes to where they wanted to go."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from playwright.sync_api import Page, expect

from coxswain.web.refusal import safe_next
from coxswain.web.table import PAGES
from tests.browser.actions import acts
from tests.browser.conftest import sign_in
from tests.fleet import LiveFleet


@acts("/login", "POST /api/auth/login")
def test_one_comes_to_the_page_one_asked_for(open_browser: Callable[..., Page]) -> None:
    page = open_browser(signed_in=False)
    page.goto("/system")
    assert page.url.endswith("/login?next=%2Fsystem")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill("correct horse battery staple")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/system")


def test_a_wrong_password_is_told_and_shows_nothing(open_browser: Callable[..., Page], complaints: list[str]) -> None:
    page = open_browser(signed_in=False)
    page.goto("/login")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill("guessed")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert "/login" in page.url
    complaints.clear()  # the 401 itself


def test_signing_out_ends_it(open_browser: Callable[..., Page]) -> None:
    browser_page = open_browser(signed_in=False)
    sign_in(browser_page)
    browser_page.get_by_role("button", name="Sign out").click()
    expect(browser_page).to_have_url(re.compile("/login"))
    browser_page.goto("/")
    assert "/login" in browser_page.url


def test_what_was_typed_outlives_the_login(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    """Whoever was signed out meanwhile signs in elsewhere, and sends the form that is still there."""
    page = open_browser(signed_in=False)
    sign_in(page)
    page.goto("/users")
    page.get_by_text("Live", exact=True).wait_for()
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name").fill("Patient Penelope")
    page.context.clear_cookies()
    with page.expect_response(re.compile("/ui/")) as refused:
        gone = fleet.controller.client.post("/api/users", {"name": "news"})  # the page asks for what changed
    assert refused.value.status == 401
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Sign in in another tab")
    expect(page.get_by_label("Name")).to_have_value("Patient Penelope")
    other = page.context.new_page()
    sign_in(other)
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_url("**/users/usr_*")
    expect(page.get_by_role("heading", level=1)).to_have_text("Patient Penelope")
    key = page.url.rpartition("/")[2]
    page.context.clear_cookies()
    fleet.controller.client.call("PATCH", f"/api/users/{key}", {"version": 1, "name": "Penny"})  # it asks what changed
    page.wait_for_url("**/login?next=*")  # nothing is lost there
    for each in (gone["id"], key):
        fleet.controller.client.call("DELETE", f"/api/users/{each}")


def test_every_page_and_fragment_wants_a_credential(open_browser: Callable[..., Page], base: str) -> None:
    page = open_browser(signed_in=False)
    for route in PAGES:
        if route.path == "/login":
            continue
        answer = page.request.get(base + route.path.replace("{key}", "x"), max_redirects=0)
        assert answer.status == 401, route.path


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ("/system", "/system"), ("/nodes/x?y=1", "/nodes/x?y=1"), (None, "/"), ("", "/"), ("//evil.example", "/"),
        ("/\\evil.example", "/"), ("https://evil.example", "/"), ("javascript:alert(1)", "/"), ("/a\nb", "/"),
    ],
)  # fmt: skip
def test_no_login_leads_anywhere_else(wanted: str | None, where: str) -> None:
    assert safe_next(wanted) == where


@acts("/account", "POST /api/admins/*/totp", "POST /api/admins/*/totp/confirm", "POST /api/admins/*/totp/remove")
@acts("/account", "COPY #factor-secret", "COPY #recovery-codes")
def test_two_factors(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    client = fleet.controller.client
    client.post("/api/admins", {"email": "second@example.org", "password": "a password of hers"})
    page = open_browser(signed_in=False)
    page.goto("/login?next=/account")
    page.get_by_label("User name").fill("second@example.org")
    page.get_by_label("Password").fill("a password of hers")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/account")
    page.get_by_label("Your password").fill("a password of hers")
    page.get_by_role("button", name="Set it up").click()
    expect(page.locator("#factor-secret")).not_to_be_empty()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the key").click()
    secret = page.locator("#factor-secret").inner_text()
    page.get_by_role("textbox", name="Code").fill(_code(secret))
    page.get_by_role("button", name="Switch it on").click()
    expect(page.locator("#recovery-codes")).not_to_be_empty()
    codes = page.locator("#recovery-codes").inner_text().split()
    assert len(codes) >= 8
    page.locator("#codes").get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="I have kept them").click()
    expect(page.get_by_text("Signing in needs a code")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/login"))
    page.get_by_label("User name").fill("second@example.org")
    page.get_by_label("Password").fill("a password of hers")
    page.get_by_role("textbox", name="Code").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/login" not in url)
    page.goto("/account")
    page.get_by_label("Your password").fill("a password of hers")
    page.get_by_role("button", name="Switch it off").click()
    expect(page.get_by_role("button", name="Set it up")).to_be_visible()


def _code(secret: str) -> str:
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    return TOTP(key, 6, SHA1(), 30, enforce_key_length=False).generate(int(time.time())).decode()
