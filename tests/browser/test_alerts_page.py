"""Alerts: seen on every dashboard, told as facts, and handled."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from coxswain.messages.alerts import SweepNow
from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.browser.found_alerts import some_alerts
from tests.fleet import LiveFleet
from tests.support import eventually


@pytest.fixture
def alerts(fleet: LiveFleet) -> Iterator[dict[str, str]]:
    """Kind to id."""
    with some_alerts(fleet) as found:
        yield found


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("article", name=title)


def test_evidence_is_told_as_facts_with_names(browser_page: Page, alerts: dict[str, str], fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/alerts")
    one = card(page, "Impossible travel")
    for text in ("critical", "Oslo, NO (203.0.113.9)", "Sydney, AU (198.51.100.7)", "15,948 km", "16,219 km/h"):
        expect(one.get_by_text(text).first).to_be_visible()
    expect(one.get_by_role("link", name="device 0")).to_have_attribute("href", "/devices/dev_0")
    expect(one.get_by_role("link", name="Test", exact=True)).to_have_attribute("href", "/users/usr_test")
    expect(one.get_by_role("link", name="n0")).to_have_attribute("href", f"/nodes/{fleet.ids[0]}")
    expect(card(page, "Many failed logins").get_by_text("admin, root")).to_be_visible()
    assert not re.search(r"[{}]", page.locator("main").inner_text()), "facts, not JSON"


@acts("/alerts", "GET /alerts")
def test_alerts_are_filtered(browser_page: Page, alerts: dict[str, str]) -> None:
    page = browser_page
    page.goto("/alerts")
    page.get_by_label("Severity").select_option("critical")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/alerts?show=open&severity=critical*")
    expect(card(page, "Impossible travel")).to_be_visible()
    expect(card(page, "Many failed logins")).to_have_count(0)
    page.get_by_label("Severity").select_option("")
    page.get_by_label("Kind").select_option("new_geo")
    page.get_by_role("button", name="Filter").click()
    expect(card(page, "First connection from a country")).to_be_visible()
    expect(card(page, "Impossible travel")).to_have_count(0)
    page.get_by_role("navigation", name="Which alerts").get_by_role("link", name="Resolved").click()
    page.wait_for_url("**show=resolved&kind=new_geo*")
    expect(page.get_by_text("No alerts")).to_be_visible()
    page.get_by_role("link", name="Reset").click()
    page.wait_for_url("**/alerts?show=resolved")


@acts("/alerts", "POST /api/alerts/*/ack", "POST /api/alerts/*/snooze", "POST /api/alerts/*/resolve")
@acts("/alerts/{key}", "POST /api/alerts/*/ack", "POST /api/alerts/*/snooze", "POST /api/alerts/*/resolve")
def test_alerts_are_handled_and_all_dashboards_follow(
    open_browser: Callable[..., Page], fleet: LiveFleet, alerts: dict[str, str]
) -> None:
    """In the list and on an alert's own page; what one does, the other shows without a reload."""
    titles = {"impossible_travel": "Impossible travel", "new_geo": "First connection from a country"}
    hers, his = open_browser(), open_browser()
    his.goto("/alerts")
    expect(his.locator("#live")).to_have_text("Live")
    for kind, where in (("impossible_travel", "/alerts"), ("new_geo", f"/alerts/{alerts['new_geo']}")):
        hers.goto(where)
        expect(hers.locator("#live")).to_have_text("Live")
        mine, theirs = card(hers, titles[kind]), card(his, titles[kind])
        mine.get_by_role("button", name="Snooze").click()
        hers.get_by_label("For").select_option("14400")
        hers.locator("#snooze").get_by_role("button", name="Snooze").click()
        expect(theirs).to_have_count(0)
        until = _stamp(_alert_of(fleet, alerts[kind])["snoozed_until"]) - time.time()
        assert 14_000 < until < 14_800
        if where == "/alerts":
            expect(mine).to_have_count(0)
            hers.get_by_role("link", name="Snoozed").click()
        mine.get_by_role("button", name="Wake it").click()
        expect(theirs).to_be_visible()
        if where == "/alerts":
            hers.get_by_role("navigation", name="Which alerts").get_by_role("link", name="Open").click()
        mine.get_by_role("button", name="Acknowledge").click()
        expect(hers.get_by_text("it is yours")).to_be_visible()
        expect(theirs).to_have_count(0)
        if where == "/alerts":
            hers.get_by_role("link", name="Acknowledged").click()
        expect(mine.get_by_text("acknowledged")).to_be_visible()
        expect(mine.get_by_text("admin").first).to_be_visible()
        mine.get_by_role("button", name="Resolve").click()
        expect(hers.locator("#confirm")).to_contain_text("only when something new is found")
        confirm(hers, "Resolve")
        eventually(lambda kind=kind: _alert_of(fleet, alerts[kind])["status"] == "resolved")
        if where == "/alerts":
            hers.get_by_role("link", name="Resolved").click()
        expect(mine.get_by_text("resolved", exact=True)).to_be_visible()
        expect(mine.get_by_role("button")).to_have_count(0)


def _alert_of(fleet: LiveFleet, key: str) -> dict[str, Any]:
    found: dict[str, Any] = fleet.controller.client.get(f"/api/alerts/{key}")
    return found


def _stamp(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def test_a_snooze_is_undone_from_its_toast(browser_page: Page, fleet: LiveFleet, alerts: dict[str, str]) -> None:
    page = browser_page
    page.goto("/alerts")
    expect(page.locator("#live")).to_have_text("Live")
    card(page, "Many failed logins").get_by_role("button", name="Snooze").click()
    page.locator("#snooze").get_by_role("button", name="Snooze").click()
    expect(card(page, "Many failed logins")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone.")).to_be_visible()
    expect(card(page, "Many failed logins")).to_be_visible()
    assert "snoozed_until" not in _alert_of(fleet, alerts["auth_failure_spike"])


def test_what_somebody_else_did_first_is_not_done_again(
    browser_page: Page, fleet: LiveFleet, alerts: dict[str, str], complaints: list[str]
) -> None:
    """The page is older than what is: the press is refused, and the page shows what is."""
    page, key = browser_page, alerts["auth_failure_spike"]
    page.route("**/ui/fragments/alerts?*", lambda route: route.abort())
    page.goto("/alerts")
    one = card(page, "Many failed logins")
    version = _alert_of(fleet, key)["version"]
    fleet.controller.client.post(f"/api/alerts/{key}/ack", {"version": version})
    one.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("alert")).to_contain_text("changed by somebody else")
    page.unroute("**/ui/fragments/alerts?*")
    fleet.controller.client.post(f"/api/alerts/{key}/snooze", {"until": None})
    expect(one).to_have_count(0)
    complaints.clear()  # the 409, and the fragments that were held back


def _open(fleet: LiveFleet) -> int:
    return int(fleet.controller.client.get("/api/alerts/summary")["open"])


def _counted(page: Page) -> int:
    """What the badge in the navigation says; none: nothing is open."""
    said = page.locator(".nav .count").all_inner_texts()
    return int(re.findall(r"\d+", said[0])[0]) if said else 0


def test_a_node_that_falls_is_told_on_every_page_until_it_is_back(
    open_browser: Callable[..., Page], fleet: LiveFleet
) -> None:
    """A toast, the count in the navigation, the node's own page; and gone by itself when it has healed."""
    # Of alerts that come together only the first has a toast of its own: those about tests before come now.
    fleet.controller.system.ask("alert_engine", SweepNow(), deadline=30)
    pages = {where: open_browser() for where in ("/users", "/nodes/n2", "/")}
    for where, page in pages.items():
        page.goto(where)
        expect(page.locator("#live")).to_have_text("Live")
    fleet.nodes.do("stop", node=2)
    try:
        for page in pages.values():
            expect(page.locator(".toast").filter(has_text="Node is down")).to_be_visible(timeout=60_000)
            eventually(lambda page=page: _counted(page) == _open(fleet) > 0)
        expect(pages["/nodes/n2"].get_by_role("region", name="Alerts").get_by_text("Node is down")).to_be_visible()
        expect(pages["/"].locator(".feed").get_by_role("link", name="Node is down")).to_be_visible()
        assert Axe().run(pages["/nodes/n2"]).violations_count == 0
        pages["/users"].get_by_role("link", name="Show it").click()
        pages["/users"].wait_for_url("**/alerts/alr_*")
        expect(card(pages["/users"], "Node is down").get_by_role("link", name="n2")).to_be_visible()
    finally:
        fleet.nodes.do("start", node=2)
    eventually(lambda: not fleet.controller.client.get(f"/api/alerts?node={fleet.ids[2]}&status=open")["alerts"], timeout=60)
    for page in pages.values():
        eventually(lambda page=page: _counted(page) == _open(fleet))
    expect(pages["/nodes/n2"].get_by_role("region", name="Alerts")).to_have_count(0)
    expect(card(pages["/users"], "Node is down").get_by_text("resolved", exact=True)).to_be_visible()
    fleet.controller.until("n2", link_state="live")


def test_how_many_were_opened_when_is_a_chart_and_a_table(browser_page: Page, alerts: dict[str, str]) -> None:
    page = browser_page
    page.goto("/alerts")
    said = page.get_by_role("img", name="Alerts that were opened in the last 7 days")
    expect(said).to_be_visible()
    assert re.search(r": \d+ critical, \d+ warning, \d+ info\.", said.get_attribute("aria-label") or "")
    expect(said.locator(".bar.bad")).not_to_have_count(0)
    page.get_by_text("The same as a table").click()
    expect(page.locator(".numbers tbody tr").first).to_be_visible()
    page.get_by_role("link", name="24 h").click()
    page.wait_for_url("**range=day*")
    expect(page.get_by_role("img", name="the last 24 hours")).to_be_visible()


def test_filters_and_the_time_shown_keep_each_other(browser_page: Page, alerts: dict[str, str]) -> None:
    page = browser_page
    page.goto("/alerts?show=all&kind=impossible_travel&severity=critical&device=dev_0&user=usr_test")
    page.get_by_role("link", name="24 h").click()
    kept = {"show": "all", "kind": "impossible_travel", "severity": "critical", "device": "dev_0", "user": "usr_test"}
    page.wait_for_url("**range=day*")
    assert dict(parse_qsl(urlsplit(page.url).query)) == kept | {"range": "day"}
    expect(card(page, "Impossible travel")).to_be_visible()
    expect(card(page, "First connection from a country")).to_have_count(0)
    page.get_by_label("Severity").select_option("")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**severity=&*")
    del kept["severity"]
    assert dict(parse_qsl(urlsplit(page.url).query)) == kept | {"range": "day"}
    expect(page.get_by_role("img", name="the last 24 hours")).to_be_visible()


def test_alerts_of_a_device_lead_to_the_list_of_them(browser_page: Page, alerts: dict[str, str]) -> None:
    page = browser_page
    for where in ("/devices/dev_0", "/users/usr_test", "/nodes/n0"):
        page.goto(where)
        about = page.get_by_role("region", name="Alerts")
        expect(about.get_by_role("link", name="Impossible travel")).to_be_visible()
        about.get_by_role("link", name="All of them").click()
        page.wait_for_url("**/alerts?show=all&*")
        expect(card(page, "Impossible travel")).to_be_visible()
        expect(card(page, "Many failed logins")).to_have_count(0)


def test_the_word_about_the_database_is_read_once(open_browser: Callable[..., Page]) -> None:
    page = open_browser()
    page.goto("/alerts")
    notice = page.get_by_text("SQLite serves one controller")
    expect(notice).to_be_visible()
    page.get_by_role("button", name="Do not say so again").click()
    expect(notice).not_to_be_visible()
    page.reload()
    expect(page.locator("#live")).to_have_text("Live")
    expect(notice).not_to_be_visible()


def test_a_rule_that_fails_is_said(browser_page: Page, fleet: LiveFleet) -> None:
    """What a page shows of the engine's own troubles; the engine is asked, and finds its table gone."""
    page = browser_page
    with fleet.controller.store.write() as tx:
        tx.execute("ALTER TABLE alert_handled RENAME TO alert_handled_gone")
    try:
        fleet.controller.system.ask("alert_engine", SweepNow(), deadline=30)
        page.goto("/alerts")
        expect(page.get_by_text("came to nothing, and is tried again").first).to_be_visible()
    finally:
        with fleet.controller.store.write() as tx:
            tx.execute("ALTER TABLE alert_handled_gone RENAME TO alert_handled")
        fleet.controller.system.ask("alert_engine", SweepNow(), deadline=30)
    page.reload()
    expect(page.get_by_text("came to nothing, and is tried again")).to_have_count(0)
