"""Charts: there, to be read with eyes and ears, live, and honest about what nobody knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from coxswain.messages.hub import Publish
from coxswain.metering import FLEET, STEP_S, Cell
from coxswain.store import metric_series as rows
from tests.browser.history import write_history
from tests.fleet import LiveFleet
from tests.support import eventually


@pytest.fixture(scope="module", autouse=True)
def _history(fleet: LiveFleet) -> None:
    write_history(fleet.controller.store, fleet.ids)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", ["/", "/nodes/n0"])
def test_charts_are_readable(open_browser: Callable[..., Page], pictures: Path, path: str, width: int, theme: str) -> None:
    page = open_browser(color_scheme=theme, viewport={"width": width, "height": 900})
    page.goto(path)
    charts = page.locator(".over-time")
    expect(charts.get_by_role("img")).to_have_count(3)
    expect(charts.locator(".unknown").first).to_be_attached()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts.screenshot(path=pictures / f"charts-{'fleet' if path == '/' else 'node'}-{width}-{theme}.png")
    found = Axe().run(page, context=".over-time")
    assert found.violations_count == 0, found.generate_report()


def test_what_is_seen_is_also_said_and_in_a_table(browser_page: Page) -> None:
    page = browser_page
    page.goto("/nodes/n0")
    said = page.get_by_role("img", name="Traffic, the last 24 hours.")
    assert "Down: now" in (said.get_attribute("aria-label") or "")
    page.get_by_text("The same as a table").click()
    table = page.locator(".numbers table")
    expect(table.get_by_role("columnheader", name="Links up")).to_be_visible()
    assert 12 <= table.locator("tbody tr").count() <= 25
    assert "not known" in table.inner_text(), "of the time in which the controller was off"


def test_another_time_can_be_shown(browser_page: Page) -> None:
    page = browser_page
    page.goto("/nodes/n0")
    page.get_by_role("link", name="7 days").click()
    page.wait_for_url("**/nodes/*range=week*")
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("img", name="Sessions, the last 7 days.")).to_be_visible()


def test_the_numbers_of_the_moment_that_is_pointed_at(browser_page: Page) -> None:
    page = browser_page
    page.goto("/")
    chart = page.locator(".chart.traffic")
    now, when = chart.locator("[data-now]").first, chart.locator("[data-when]")

    def pointed_at(place: float) -> str:
        """A new minute may have been drawn under the pointer, so it points again until it is told a moment."""
        box = chart.locator(".plot").bounding_box()
        if box is None:
            return ""
        page.mouse.move(0, 0)
        page.mouse.move(box["x"] + box["width"] * place, box["y"] + 40)
        return now.inner_text() if when.inner_text() else ""

    assert eventually(lambda: pointed_at(0.1)).endswith("B/s")
    assert eventually(lambda: pointed_at(1 - 15.7 / 24)) == "not known"
    page.mouse.move(0, 0)
    expect(when).to_be_empty()
    assert now.inner_text() == now.get_attribute("data-now")


def test_a_new_minute_is_drawn_on_all_open_dashboards(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    pages = [open_browser(), open_browser()]
    for page in pages:
        page.goto("/")
        expect(page.locator("#live")).to_have_text("Live")
        page.get_by_text("The same as a table").click()
    now = time.time()
    cell = Cell(300, 300, 300, 300 * 512_000, 300, 300e15, 300e15)
    with fleet.controller.store.write() as tx:
        rows.add(tx, {(FLEET, int(now) // STEP_S): cell})
    assert fleet.controller.system.tell("event_hub", Publish("metrics.written", now, {}))
    for page in pages:
        expect(page.locator(".chart.sessions .scale")).to_contain_text("000")
        expect(page.locator(".chart.traffic .scale")).to_contain_text("TB/s")
        expect(page.locator(".numbers")).to_have_attribute("open", "")
