"""Every page: there, quick, small, accessible, in both themes, and quiet in the console."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Response

from coxswain.web.table import PAGES
from tests.fleet import LiveFleet

_WHOLE = [route.path for route in PAGES if not route.path.startswith("/ui/") and route.path != "/login"]
_MOST_BYTES = 200_000


def address(path: str, fleet: LiveFleet) -> str:
    """A page with something in it."""
    client = fleet.controller.client
    if path == "/nodes/{key}":
        return "/nodes/n0"
    if path == "/users/{key}":
        return "/users/usr_test"
    if path == "/devices/{key}":
        return "/devices/dev_0"
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


def test_on_a_phone_nothing_sticks_out(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    page = open_browser(viewport={"width": 390, "height": 844})
    for path in (*_WHOLE, "/login"):
        where = address(path, fleet)
        if where:
            page.goto(where)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_a_page_that_is_not_there_says_so(open_browser: Callable[..., Page], complaints: list[str]) -> None:
    page = open_browser()
    answer = page.goto("/nodes/nobody")
    assert answer is not None
    assert answer.status == 404
    page.get_by_text("There is nothing here").wait_for()
    complaints.clear()  # that the page was not found
