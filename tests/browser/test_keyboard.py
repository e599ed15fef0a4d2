"""The main flows without a mouse: every stop of the Tab key can be seen, and nothing needs a pointer."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from coxswain.web.pages.palette import ACTIONS
from tests.browser.actions import acts
from tests.browser.conftest import PASSWORD
from tests.fleet import LiveFleet

_MOST_STOPS = 60
_FOCUS = """() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  const ring = style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2;
  const halo = at.matches(".pin") && getComputedStyle(at.querySelector(".halo")).opacity > 0.5;
  const box = at.getBoundingClientRect();
  return {
    name: (at.getAttribute("aria-label") || at.textContent || at.labels?.[0]?.textContent || at.tagName).trim(),
    seen: at === document.body || ((ring || halo) && box.width > 0 && box.bottom > 0 && box.top < innerHeight),
  };
}"""


def tab_to(page: Page, name: str, *, back: bool = False) -> None:
    """Presses Tab until it comes to what is called that. Each stop on the way has to be visible, with a visible focus."""
    passed = []
    for _ in range(_MOST_STOPS):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        stop = page.evaluate(_FOCUS)
        passed.append(stop["name"])
        assert stop["seen"], f"one cannot see where one is: {passed}"
        if re.match(name, stop["name"]):
            return
    raise AssertionError(f"{name} is not reached with the Tab key, only {passed}")


def find(page: Page, what: str) -> None:
    """Ctrl-K, a few letters, Enter."""
    page.keyboard.press("Control+k")
    page.keyboard.type(what)
    expect(page.get_by_role("option").filter(has_text=what).first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")


@acts("*", "CLICK #search", "POST /api/auth/logout")
@acts("/login", "POST /api/auth/login")
@acts("/nodes/{key}", "POST /api/nodes/*/push")
@acts("/users", "POST /api/users")
@acts("/users/{key}", "POST /api/users/*/devices", "POST /api/devices/*/revoke", "DELETE /api/users/*")
def test_a_day_without_a_mouse(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    page = open_browser(signed_in=False, viewport={"width": 1280, "height": 900})
    page.goto("/login")
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type("admin")
    tab_to(page, "Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)
    page.get_by_text("Live", exact=True).wait_for()

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    tab_to(page, "Frankfurt")  # a pin of the map
    tab_to(page, "Find", back=True)
    page.keyboard.press("Enter")
    expect(page.locator("#palette input")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).not_to_be_visible()
    expect(page.get_by_role("button", name="Find")).to_be_focused()

    find(page, "n2")
    page.wait_for_url("**/nodes/nod_*")
    expect(page.get_by_role("heading", level=1)).to_have_text("n2")
    tab_to(page, "Push$")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep it as it is")).to_be_focused()  # the harmless answer is the nearest
    tab_to(page, "Push$")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Pushed.")).to_be_visible()
    expect(page.get_by_role("button", name="Push")).to_be_focused()

    find(page, "Users and dev")
    page.wait_for_url("**/users")
    tab_to(page, "Add a user")
    page.keyboard.press("Enter")
    page.keyboard.type("Katherine")
    page.keyboard.press("Enter")
    page.wait_for_url("**/users/usr_*")
    expect(page.get_by_role("heading", level=1)).to_have_text("Katherine")
    tab_to(page, "Add a device")
    page.keyboard.press("Enter")
    page.keyboard.type("tablet")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="tablet")).to_be_visible()
    tab_to(page, "Revoke")
    page.keyboard.press("Enter")
    tab_to(page, "Revoke")
    page.keyboard.press("Enter")
    expect(page.get_by_role("cell", name="revoked")).to_be_visible()
    (device,) = fleet.controller.client.get(f"/api/users/{page.url.rpartition('/')[2]}/devices")
    assert device["status"] == "revoked"

    tab_to(page, "Remove", back=True)
    page.keyboard.press("Escape")
    find(page, "Katherine")
    page.wait_for_url("**/users/usr_*")
    page.get_by_text("Live", exact=True).wait_for()
    tab_to(page, "Remove$")
    page.keyboard.press("Enter")
    tab_to(page, "Remove$")
    page.keyboard.press("Enter")
    page.wait_for_url("**/users")
    page.get_by_text("Live", exact=True).wait_for()
    tab_to(page, "Sign out")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login")


def test_leaving_a_dialog_with_escape_changes_nothing_and_keeps_the_place(browser_page: Page) -> None:
    page = browser_page
    page.goto("/tokens")
    page.get_by_text("Live", exact=True).wait_for()
    tab_to(page, "Create a token")
    page.keyboard.press("Enter")
    page.keyboard.type("typed")
    page.keyboard.press("Escape")
    expect(page.locator("#add-token")).not_to_be_visible()
    expect(page.get_by_role("button", name="Create a token")).to_be_focused()


def test_the_palette_leads_to_every_action(browser_page: Page) -> None:
    page = browser_page
    page.goto("/audit")
    page.get_by_text("Live", exact=True).wait_for()
    for label, where in ACTIONS:
        find(page, label)
        path, _, target = where.partition("#")
        if target == "verify":
            expect(page.get_by_text("Intact:")).to_be_visible()
            continue
        expect(page.locator(f"#{target}")).to_be_visible()
        assert page.url.endswith(path)
        page.keyboard.press("Escape")
    page.goto("/users")
    page.get_by_text("Live", exact=True).wait_for()
    find(page, "Add a user")  # of the page on which one is already
    expect(page.locator("#add-user")).to_be_visible()
    expect(page.locator("#palette")).not_to_be_visible()


def test_who_closes_a_dialog_whose_button_is_gone_is_in_the_content(browser_page: Page) -> None:
    """What somebody else does may take it away meanwhile."""
    page = browser_page
    page.goto("/users")
    page.get_by_role("button", name="Add a user").press("Enter")
    page.get_by_role("button", name="Add a user").evaluate("button => button.remove()")
    page.keyboard.press("Escape")
    expect(page.locator("#add-user")).to_be_hidden()
    expect(page.locator("#content")).to_be_focused()
