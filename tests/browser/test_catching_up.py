"""Nothing is missed: between looking and following, while the line is down, and across a restart of the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect

from tests.browser.conftest import PASSWORD, sign_in
from tests.fleet import Daemon, LiveFleet
from tests.support import an_addr, eventually, free_port

_WATCH_STATES = """() => {
  window.states = [];
  const live = document.querySelector("#live");
  new MutationObserver(() => window.states.push(live.dataset.state)).observe(live, { attributes: true });
}"""


def _spare(name: str) -> dict[str, str]:
    return {"name": name, "control_addr": an_addr("127.0.0.1"), "region": "syd1"}


@pytest.fixture
def made(fleet: LiveFleet) -> Iterator[list[str]]:
    """Ids of nodes that a test added, which go with it."""
    found: list[str] = []
    yield found
    for key in found:
        fleet.controller.client.call("DELETE", f"/api/nodes/{key}")


def test_what_happens_between_looking_and_following_is_not_lost(
    browser_page: Page, fleet: LiveFleet, made: list[str]
) -> None:
    """The page is rendered, something happens, and only then does its script begin to follow."""
    page = browser_page

    def slowly(route: object) -> None:
        if not made:
            made.append(fleet.controller.client.post("/api/nodes", _spare("in-between"))["id"])
        route.continue_()  # type: ignore[attr-defined]

    page.route("**/static/live.js", slowly)
    page.goto("/")
    expect(page.get_by_role("link", name="in-between", exact=True)).to_be_visible()


def test_a_page_resumes_from_the_number_that_it_saw_last(
    browser_page: Page, fleet: LiveFleet, made: list[str], complaints: list[str]
) -> None:
    page = browser_page
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 - Playwright takes no built-in
    page.goto("/users")
    expect(page.locator("#live")).to_have_text("Live")
    made.append(fleet.controller.client.post("/api/nodes", _spare("first-of-two"))["id"])
    page.evaluate(_WATCH_STATES)
    fleet.controller.client.post("/api/chaos", {"actor": "io_loop", "how": "raise"})
    eventually(lambda: page.evaluate("window.states.includes('lost') && window.states.at(-1) === 'open'"))
    first, *_, last = (int(parse_qs(urlsplit(socket.url).query)["after"][0]) for socket in sockets)
    assert last > first
    complaints.clear()  # the connections that failed


def test_what_another_browser_removes_is_said_to_be_gone(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    made = fleet.controller.client.post("/api/users", {"name": "Short of time"})
    hers, his = open_browser(), open_browser()
    for page in (hers, his):
        page.goto(f"/users/{made['id']}")
        expect(page.locator("#live")).to_have_text("Live")
    his.get_by_role("button", name="Edit").click()
    hers.get_by_role("button", name="Remove").click()
    hers.locator("#confirm").get_by_role("button", name="Remove").click()
    hers.wait_for_url("**/users")
    expect(hers.get_by_role("heading", level=1)).to_have_text("Users and devices")
    expect(his.get_by_role("alert")).to_contain_text("was removed")
    expect(his.locator("#edit-user")).not_to_be_visible()
    his.get_by_role("link", name="Back to Users and devices").click()
    expect(his.get_by_role("heading", level=1)).to_have_text("Users and devices")


def test_two_browsers_stay_in_step_on_people(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    """A change in one is in the other without a reload: lists, buttons, badges."""
    user = fleet.controller.client.post("/api/users", {"name": "Seen twice"})
    hers, his = open_browser(), open_browser()
    for page in (hers, his):
        page.goto(f"/users/{user['id']}")
        expect(page.locator("#live")).to_have_text("Live")
    hers.get_by_role("button", name="Add a device").click()
    hers.locator("#add-device").get_by_label("Name").fill("shared phone")
    hers.get_by_role("button", name="Add", exact=True).click()
    expect(his.get_by_role("link", name="shared phone")).to_be_visible()
    his.get_by_role("button", name="Suspend").first.click()
    his.locator("#confirm").get_by_role("button", name="Suspend").click()
    expect(his.get_by_role("button", name="Resume").first).to_be_visible()
    expect(hers.get_by_role("button", name="Resume").first).to_be_visible()
    fleet.controller.client.call("DELETE", f"/api/users/{user['id']}")
    for page in (hers, his):
        expect(page.get_by_role("alert")).to_contain_text("was removed")


def test_a_page_outlives_a_restart_of_the_daemon(chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL, a change made while nobody was there to tell it, another daemon: the page shows it without a reload."""
    listen = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("COX_UI__LISTEN", listen)
    daemon = Daemon(tmp_path)
    daemon.start()
    context = chromium.new_context(base_url=f"http://{listen}", viewport={"width": 1280, "height": 1800})
    try:
        daemon.client().post("/api/admins/usr_admin/password", {"new_password": PASSWORD})
        daemon.client().post("/api/nodes", _spare("before"))
        page = context.new_page()
        sign_in(page)
        page.evaluate("window.untouched = true")
        expect(page.locator("#live")).to_have_text("Live")
        daemon.kill()
        expect(page.locator("#live")).to_contain_text("Not connected")
        daemon.start()
        daemon.client().post("/api/nodes", _spare("after"))
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.get_by_role("link", name="after", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name="before", exact=True)).to_be_visible()
        assert page.evaluate("window.untouched"), "it was loaded anew"
    finally:
        context.close()
        daemon.kill()
