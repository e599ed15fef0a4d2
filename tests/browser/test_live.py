"""Pages stay as the controller is, without a reload, on all browsers at once, and across a lost connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from coxswain.cli.client import Client
from coxswain.live.ring import Stretch
from coxswain.messages.hub import EventsAfter
from coxswain.web import page as page_module
from coxswain.web.render import duration
from tests.browser.actions import acts
from tests.fleet import LiveFleet
from tests.support import an_addr, eventually


def status_of(page: Page, name: str) -> object:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True)).locator("td").nth(2)


def test_a_node_that_dies_turns_red_everywhere_and_green_again(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    pages = [open_browser(), open_browser()]
    for page in pages:
        page.goto("/")
        expect(page.locator("#live")).to_have_text("Live")
        expect(status_of(page, "n2")).to_have_text("active")
    fleet.nodes.do("stop", node=2)
    for page in pages:
        expect(status_of(page, "n2")).to_have_text("unreachable", timeout=30_000)
        expect(page.locator(".pin.bad")).to_have_count(1)
        expect(page.locator(".stat").filter(has_text="1needs attention")).to_be_visible()
    fleet.nodes.do("start", node=2)
    for page in pages:
        expect(status_of(page, "n2")).to_have_text("active", timeout=30_000)
        expect(page.locator(".pin.bad")).to_have_count(0)


def test_a_node_that_is_not_there_yet_is_no_trouble_and_not_forgotten(browser_page: Page, fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, browser_page
    fleet.controller.all_in_sync(3)
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    trouble = page.locator(".stat").filter(has_text="attention")
    expect(trouble).to_have_text("0need attention")
    node = client.post("/api/nodes", {"name": "tomorrow", "control_addr": an_addr()})
    try:
        expect(trouble).to_have_text("0need attention, 1 coming up")
        counts = client.get("/api/status")["fleet"]
        assert (counts["nodes"], counts["in_sync"], counts["troubled"], counts["coming_up"]) == (4, 3, 0, 1)
        client.post(f"/api/nodes/{node['id']}/disable")
        expect(trouble).to_have_text("0need attention")
    finally:
        client.call("DELETE", f"/api/nodes/{node['id']}")


def test_clients_appear_as_they_come_and_go(browser_page: Page, fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/nodes/n0")
    expect(page.locator("#live")).to_have_text("Live")
    fleet.nodes.do("inject", node=0, connect=1)
    expect(page.get_by_role("row").filter(has_text="connected").first).to_be_visible()
    fleet.nodes.do("inject", node=0, disconnect=1)
    expect(page.get_by_role("row").filter(has_text="disconnect").first).to_be_visible()


def test_a_lost_connection_is_shown_and_caught_up_with(browser_page: Page, fleet: LiveFleet, complaints: list[str]) -> None:
    page = browser_page
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    fleet.controller.client.post("/api/chaos", {"actor": "web_server", "how": "raise"})
    client = fleet.controller.client
    made = client.post("/api/nodes", {"name": "while-away", "control_addr": an_addr("127.0.0.1"), "region": "syd1"})
    try:
        expect(page.get_by_role("link", name="while-away", exact=True)).to_be_visible(timeout=20_000)
        expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
    finally:
        client.call("DELETE", f"/api/nodes/{made['id']}")
    expect(page.get_by_role("link", name="while-away", exact=True)).to_have_count(0)
    complaints.clear()  # the connections that failed


@acts("/system", "POST /api/chaos")
def test_a_crash_is_seen_and_healed_on_the_system_page(browser_page: Page) -> None:
    page = browser_page
    page.goto("/system")
    row = page.get_by_role("row").filter(has=page.get_by_text("session_tracker", exact=True))
    before = int(row.locator("td").nth(3).inner_text())
    row.get_by_role("button", name="Crash").click()
    page.locator("#confirm").get_by_role("button", name="Crash it").click()
    expect(row.locator("td").nth(3)).to_have_text(str(before + 1), timeout=20_000)
    expect(row.locator("td").nth(1)).to_have_text("running", timeout=20_000)


_NOTE_FRESH = """() => {
  window.fresh = new Set();
  const look = () => document.querySelectorAll("tr.fresh").forEach((row) => window.fresh.add(row.dataset.row));
  new MutationObserver(look).observe(document.querySelector("main"), { childList: true, subtree: true, attributes: true });
}"""


def uptime(client: Client, actor: str) -> float:
    found: float = next(c["uptime_s"] for c in client.get("/api/tree?links=false")["children"] if c["id"] == actor)
    return found


def test_a_highlight_means_that_something_happened(browser_page: Page, fleet: LiveFleet) -> None:
    """Uptime and mailboxes move by themselves; rows in which nothing else did are redrawn, and that is all."""
    page = browser_page
    page.goto("/system")
    expect(page.locator("#live")).to_have_text("Live")
    page.evaluate(_NOTE_FRESH)
    client = fleet.controller.client
    row = page.locator('tr[data-row="session_tracker"]')
    other = page.locator('tr[data-row="alert_engine"] td').nth(4)
    for _ in range(2):
        restarts, up = row.locator("td").nth(3).inner_text(), other.inner_text()
        eventually(lambda up=up: duration(uptime(client, "alert_engine")) != up)
        client.post("/api/chaos", {"actor": "session_tracker", "how": "raise"})
        expect(row.locator("td").nth(3)).not_to_have_text(restarts)
        expect(row.locator("td").nth(1)).to_have_text("running")
        expect(other).not_to_have_text(up)
    assert page.evaluate("[...window.fresh]") == ["session_tracker"]


@acts("/system", "GET /system", "POST /api/chaos")
def test_a_link_that_fell_is_told_on_the_system_page_and_any_is_found(browser_page: Page, fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/system?q=n1")
    expect(page.locator("#live")).to_have_text("Live")
    links = page.get_by_role("region", name="Links of nodes")
    links.scroll_into_view_if_needed()  # what is out of view is not kept up to date, and the tree above it may be long
    fleet.controller.client.post("/api/chaos", {"actor": f"node_link:{fleet.ids[1]}", "how": "raise"})
    row = links.get_by_role("row").filter(has=page.get_by_role("link", name="n1", exact=True))
    expect(row).to_contain_text("chaos: told to raise")
    restarts = int(row.locator("td").nth(3).inner_text())
    row.get_by_role("button", name="Crash").click()
    page.locator("#confirm").get_by_role("button", name="Crash it").click()
    expect(row.locator("td").nth(3)).to_have_text(str(restarts + 1))
    links.get_by_label("Show").select_option("all")
    links.get_by_label("Node").fill("N2")
    links.get_by_role("button", name="Filter").click()
    expect(links.get_by_role("row")).to_have_count(2)  # the heading and n2
    expect(links.get_by_role("link", name="n2", exact=True)).to_have_attribute("href", f"/nodes/{fleet.ids[2]}")
    links.get_by_label("Node").fill("nobody")
    links.get_by_role("button", name="Filter").click()
    expect(links.get_by_text("None of these")).to_be_visible()


def test_a_piece_is_made_once_for_all_dashboards(
    open_browser: Callable[..., Page], fleet: LiveFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = page_module.render

    def counted(template: str, context: Any) -> bytes:
        made.append(template)
        return real(template, context)

    browsers = [open_browser() for _ in range(3)]
    client = fleet.controller.client
    user = client.post("/api/users", {"name": "seen by all"})
    monkeypatch.setattr(page_module, "render", counted)
    try:
        heard: Stretch = fleet.controller.system.ask("event_hub", EventsAfter(0, 100_000), deadline=30)
        address = f"/ui/rows/users?seen={heard.last}"
        assert all("seen by all" in browser.request.get(address).text() for browser in browsers)
        assert len(made) == 1
    finally:
        client.call("DELETE", f"/api/users/{user['id']}")


def test_rows_that_are_out_of_view_wait_until_they_are_looked_at(
    open_browser: Callable[..., Page], fleet: LiveFleet
) -> None:
    page = open_browser(viewport={"width": 1280, "height": 700})
    client = fleet.controller.client
    users = [client.post("/api/users", {"name": f"many {number:03d}"}) for number in range(60)]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto("/users")
        expect(page.locator("#live")).to_have_text("Live")
        row = page.locator(f'[data-row="{users[-1]["id"]}"]')
        expect(row).to_be_attached()
        client.call("PATCH", f"/api/users/{users[-1]['id']}", {"version": 1, "name": "many changed"})
        client.call("PATCH", f"/api/users/{users[0]['id']}", {"version": 1, "name": "many first"})
        expect(page.get_by_role("link", name="many first")).to_be_visible()
        assert not any(users[-1]["id"] in url for url in asked if "/ui/rows/" in url), "nobody sees it"
        expect(row).to_contain_text("many 059")
        row.scroll_into_view_if_needed()
        expect(row).to_contain_text("many changed")
    finally:
        for user in users:
            client.call("DELETE", f"/api/users/{user['id']}")
