"""Every page: there, quick, small, accessible, in both themes, and quiet in the console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Response, expect

from coxswain.web import page as page_module
from coxswain.web.table import PAGES
from tests.browser.conftest import add_relay
from tests.browser.found_alerts import some_alerts
from tests.fleet import LiveFleet
from tests.support import an_addr

_WHOLE = [route.path for route in PAGES if not route.path.startswith("/ui/") and route.path != "/login"]
_MOST_BYTES = 200_000


@pytest.fixture(scope="module", autouse=True)
def _alerts(fleet: LiveFleet) -> Iterator[None]:
    with some_alerts(fleet):
        yield


def address(path: str, fleet: LiveFleet) -> str:
    """A page with something in it."""
    client = fleet.controller.client
    if path == "/nodes/{key}":
        return "/nodes/n0"
    if path == "/users/{key}":
        return "/users/usr_test"
    if path == "/devices/{key}":
        return "/devices/dev_0"
    if path == "/relays/{key}":
        return "/relays/harbour"
    if path == "/alerts/{key}":
        return f"/alerts/{client.get('/api/alerts?kind=impossible_travel')['alerts'][0]['id']}"
    if path == "/audit":
        return f"/audit?target_id={fleet.ids[0]}"  # axe takes its time over a hundred rows that are all alike
    if path == "/operations/{key}":
        found = client.get("/api/operations?limit=1")
        return f"/operations/{found[0]['id']}" if found else ""
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", _WHOLE)
def test_every_page(open_browser: Callable[..., Page], fleet: LiveFleet, pictures: Path, path: str, theme: str) -> None:
    where = address(path, fleet)
    if not where:
        assert path == "/operations/{key}"  # nothing happened yet; its own test makes one
        return
    page = open_browser(color_scheme=theme, viewport={"width": 1280, "height": 900})
    answer = page.goto(where)
    assert answer is not None
    assert answer.status == 200
    assert page.locator("h1").count() == 1
    page.get_by_text("Live", exact=True).wait_for()
    name = path.strip("/").replace("/", "-").replace("{key}", "one") or "fleet"
    page.screenshot(path=pictures / f"{name}-{theme}.png", full_page=True)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("path", [*_WHOLE, "/login"])
def test_no_page_is_heavy_or_asks_anybody_else(
    open_browser: Callable[..., Page], fleet: LiveFleet, base: str, path: str
) -> None:
    where = address(path, fleet)
    if not where:
        return
    page = open_browser()
    came: list[Response] = []

    def keep(response: Response) -> None:  # Playwright takes no built-in
        came.append(response)

    page.on("response", keep)
    page.goto(where, wait_until="networkidle")
    assert {response.url.split("/")[2] for response in came} == {base.removeprefix("http://")}
    assert 0 < sum(len(response.body()) for response in came if response.ok) < _MOST_BYTES


_TABLES_CUT = """() => [...document.querySelectorAll(".scroll > table:not(.tree, .numbers *)")]
  .filter((table) => table.scrollWidth > table.parentElement.clientWidth || !table.querySelector("td[data-label]"))
  .map((table) => table.closest(".card").textContent.slice(0, 80))"""
"""On a phone rows are cards, so that nobody has to drag a table aside to find its buttons."""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_nothing_sticks_out(open_browser: Callable[..., Page], fleet: LiveFleet, theme: str) -> None:
    page = open_browser(viewport={"width": 390, "height": 844}, color_scheme=theme)
    for path in (*_WHOLE, "/login"):
        where = address(path, fleet)
        if where:
            page.goto(where, wait_until="networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert page.evaluate(_TABLES_CUT) == [], path


_SQUEEZED = """() => [...document.querySelectorAll(".scroll > table:not(.numbers *)")].flatMap((table) => [
  ...(table.scrollWidth > table.parentElement.clientWidth ? ["sticks out: " + table.textContent.slice(0, 80)] : []),
  ...[...table.querySelectorAll("td:first-child")].map((c) => [c.offsetWidth, c.textContent.trim()])
    .filter(([width, text]) => width < 90 && text.length > 10).map(([, text]) => text)])"""


def test_long_names_leave_room_for_their_neighbours(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    """On a desk no table has to be dragged aside for them, and no name stands there one letter a line."""
    client, name = fleet.controller.client, "W" * 64
    users = [client.post("/api/users", {"name": n, "email": f"{n[:1]}@{'x' * 55}.example.org"}) for n in (name, "V")]
    node = client.post("/api/nodes", {"name": "W" * 100, "control_addr": an_addr("127.0.0.1"), "region": "W" * 30})
    token = client.post("/api/tokens", {"name": name})
    entry = fleet.controller.node("n0")
    client.call("PATCH", "/api/nodes/n0", {"version": entry["version"], "name": "W" * 63})
    client.post("/api/paths", {"name": "W" * 64, "node_ids": [entry["id"], "n1"], "fallback_ids": ["n2"]})
    relay = add_relay(fleet, name, 9, host=f"{'w' * 60}.example")
    control = client.post("/api/control-paths", {"name": "W" * 64, "hops": ["harbour"]})
    device = client.post(f"/api/users/{users[0]['id']}/devices", {"name": name})
    client.post("/api/profiles", {"device_id": device["id"], "name": name, "node_id": entry["id"]})
    about = (f"/users/{users[0]['id']}", f"/devices/{device['id']}", "/nodes/n1")
    page = open_browser(viewport={"width": 1280, "height": 900})
    try:
        for path in ("/", "/users", "/tokens", "/operations", "/paths", "/profiles", "/relays", *about):
            page.goto(path)
            page.get_by_text("Live", exact=True).wait_for()
            assert page.evaluate(_SQUEEZED) == [], path
    finally:
        for user in users:
            client.call("DELETE", f"/api/users/{user['id']}")
        client.call("DELETE", f"/api/nodes/{node['id']}")
        client.call("DELETE", f"/api/paths/{name}")
        client.call("DELETE", f"/api/control-paths/{control['id']}")
        client.call("DELETE", f"/api/relays/{relay}")
        version = fleet.controller.node(entry["id"])["version"]
        client.call("PATCH", f"/api/nodes/{entry['id']}", {"version": version, "name": "n0"})
        client.call("DELETE", f"/api/tokens/{token['id']}")


def test_a_long_name_stays_on_a_phone(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    """Names have up to 64 letters and need no blank, on pages and in the dialogs that ask about them."""
    client, name = fleet.controller.client, "W" * 64
    user = client.post("/api/users", {"name": name})
    device = client.post(f"/api/users/{user['id']}/devices", {"name": name})
    node = client.post("/api/nodes", {"name": name[:63], "control_addr": an_addr("127.0.0.1")})
    page = open_browser(viewport={"width": 390, "height": 844})
    try:
        for path in ("/users", f"/users/{user['id']}", f"/devices/{device['id']}", "/", f"/nodes/{node['id']}"):
            page.goto(path)
            page.get_by_text("Live", exact=True).wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            if path.count("/") < 2:
                continue
            page.get_by_role("button", name="Remove", exact=True).first.click()
            dialog = page.locator("#confirm")
            expect(dialog).to_contain_text(name[:63])
            assert dialog.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth"), path
            page.get_by_role("button", name="Keep it as it is").click()
    finally:
        client.call("DELETE", f"/api/users/{user['id']}")
        client.call("DELETE", f"/api/nodes/{node['id']}")


@pytest.mark.parametrize("path", ["/relays", "/", "/users"])
def test_what_is_a_card_on_a_phone_is_a_table_to_those_who_hear_it(open_browser: Callable[..., Page], path: str) -> None:
    page = open_browser(viewport={"width": 390, "height": 844})
    page.goto(path)
    page.get_by_text("Live", exact=True).wait_for()
    expect(page.get_by_role("columnheader", name="Status").last).to_be_attached()
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert found.violations_count == 0, found.generate_report()


def test_a_page_that_is_not_there_says_so(open_browser: Callable[..., Page], complaints: list[str]) -> None:
    page = open_browser()
    answer = page.goto("/nodes/nobody")
    assert answer is not None
    assert answer.status == 404
    page.get_by_text("There is nothing here").wait_for()
    complaints.clear()  # that the page was not found


def test_a_page_that_fails_says_so_to_a_person(
    open_browser: Callable[..., Page], monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    def fail(template: str, context: object) -> bytes:
        raise ZeroDivisionError("a fault of the page itself")

    monkeypatch.setattr(page_module, "render", fail)
    page = open_browser()
    answer = page.goto("/relays")
    assert answer is not None
    assert answer.status == 500
    page.get_by_text("its log tells why").wait_for()
    expect(page.get_by_role("link", name="Back to the fleet")).to_be_visible()
    assert "a fault" not in page.content()
    complaints.clear()  # that the page failed


@pytest.mark.parametrize("width", [1280, 1270, 1140, 870])
def test_what_a_node_runs_is_seen_without_scrolling(open_browser: Callable[..., Page], width: int) -> None:
    page = open_browser(viewport={"width": width, "height": 1800})
    page.goto("/nodes/n0")
    table = page.get_by_role("region", name="Services").locator(".scroll")
    row = table.get_by_role("row").filter(has_text="AmneziaWG")
    row.wait_for()
    for cell, busy in ((1, "running"), (2, "1000 / 1000"), (3, "23 h 59 min ago")):  # as a busy node says it
        row.locator("td").nth(cell).evaluate(f"cell => {{ (cell.firstElementChild || cell).textContent = '{busy}' }}")
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
