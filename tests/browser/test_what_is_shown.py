"""What pages of other dashboards leave out (management-plane.md 12): how much and how long, why it ended, who did what."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.fleet import LiveFleet
from tests.machines import PASSWORD, Machine
from tests.support import eventually

_ID = re.compile(r"\b(nod|usr|dev|pth|rly|srv)_[a-z2-7]{16}\b")


def test_a_session_is_told_with_names_bytes_duration_and_the_reason_of_its_end(
    open_browser: Callable[..., Page], fleet: LiveFleet
) -> None:
    client = fleet.controller.client
    (key,) = fleet.nodes.do("inject", node=1, connect=1)["keys"]
    (mine,) = eventually(lambda: client.get("/api/sessions/history?active=true&node=n1"))
    fleet.nodes.do("inject", node=1, peer=key, rx=3_210_000_000, tx=45_600_000)
    pages = {
        where: open_browser()
        for where in ("/sessions", "/nodes/n1", f"/devices/{mine['device_id']}", f"/users/{mine['user_id']}")
    }
    for where, page in pages.items():
        page.goto(where)
        expect(page.locator("#live")).to_have_text("Live")
    fleet.nodes.do("inject", node=1, disconnect=[key])
    name = client.get(f"/api/devices/{mine['device_id']}")["name"]
    eventually(lambda: client.get(f"/api/sessions/history?node=n1&device={mine['device_id']}")[0]["closed_at"])
    closed = client.get(f"/api/sessions/history?node=n1&device={mine['device_id']}")[0]
    assert (closed["id"], closed["reason"]) == (mine["id"], "disconnect")
    for where, page in pages.items():
        table = page.locator("table").filter(has=page.get_by_role("columnheader", name="Opened"))
        row = table.get_by_role("row").filter(has_text=mine["endpoint"]).first  # the newest; others of it may be older
        expect(row.get_by_role("cell", name="disconnect", exact=True)).to_be_visible()
        expect(row.get_by_role("link", name=name)).to_have_attribute("href", f"/devices/{mine['device_id']}")
        expect(row.get_by_role("link", name="n1")).to_have_attribute("href", f"/nodes/{fleet.ids[1]}")
        cells = row.get_by_role("cell").all_inner_texts()
        assert re.fullmatch(r"\d+ (s|min)( \d+ s)?", cells[4]), f"{where}: {cells}"
        assert cells[5:7] == ["3.2 GB", "45.6 MB"], f"{where}: {cells}"


def test_a_session_that_ended_with_its_node_says_so(open_browser: Callable[..., Page], fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, open_browser()
    fleet.nodes.do("inject", node=2, connect=1)
    (mine,) = eventually(lambda: client.get("/api/sessions/history?active=true&node=n2"))
    page.goto("/sessions?node=n2")
    row = page.get_by_role("row").filter(has_text=mine["endpoint"]).first  # the newest; others of it may be older
    expect(row.get_by_text("connected", exact=True)).to_be_visible()
    fleet.nodes.do("stop", node=2)
    try:
        expect(row.get_by_role("cell", name="node shutdown")).to_be_visible(timeout=60_000)
    finally:
        fleet.nodes.do("start", node=2)
        fleet.controller.until("n2", link_state="live")


def test_the_log_names_what_was_acted_on_also_when_it_is_gone(browser_page: Page, fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, browser_page
    user = client.post("/api/users", {"name": "Named in the log"})["id"]
    page.goto(f"/audit?target_id={user}")
    row = page.get_by_role("row").filter(has_text="user.add")
    expect(row.get_by_role("link", name="Named in the log")).to_have_attribute("href", f"/users/{user}")
    client.call("DELETE", f"/api/users/{user}")
    page.reload()
    expect(row.get_by_text("Named in the log (removed)")).to_have_attribute("title", user)
    expect(row.get_by_role("link", name="Named in the log")).to_have_count(0)


def test_the_log_shows_the_detail_of_what_was_done(browser_page: Page, fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, browser_page
    made = client.post("/api/tokens", {"name": "of the audit test", "scope": "monitor", "expires": "720h"})
    client.call("DELETE", f"/api/tokens/{made['id']}")
    page.goto(f"/audit?target_id={made['id']}")
    row = page.get_by_role("row").filter(has_text="token.create")
    detail = row.get_by_role("list")
    expect(detail.get_by_text("name of the audit test", exact=True)).to_be_visible()
    expect(detail.get_by_text("scope monitor", exact=True)).to_be_visible()
    expect(row.get_by_text("done")).to_be_visible()
    assert "{" not in page.locator("tbody").inner_text(), "as facts, not as JSON"
    table = page.locator("table").first.bounding_box()
    assert table and table["x"] + table["width"] <= 1280, "the detail is what people come for"
    page.get_by_label("Result").select_option("error")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No records")).to_be_visible()


def test_in_a_detail_times_are_times_and_ids_are_names(browser_page: Page, fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, browser_page
    (relay,) = [each["id"] for each in client.get("/api/relays") if each["name"] == "harbour"]
    path = client.post("/api/control-paths", {"name": "in-the-log", "hops": [relay]})
    client.call("DELETE", f"/api/control-paths/{path['id']}?version={path['version']}")
    page.goto("/audit?action=control_path.add")
    detail = page.get_by_role("row").filter(has_text="in-the-log").first.get_by_role("list")
    expect(detail.get_by_role("link", name="harbour", exact=True)).to_have_attribute("href", f"/relays/{relay}")
    page.goto("/audit?action=node.enroll")
    detail = page.get_by_role("row").filter(has_text="not_after").first.get_by_role("list")
    stamp = detail.locator("li").filter(has_text="not_after").locator("time")
    expect(stamp).to_have_attribute("datetime", re.compile(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$"))
    expect(stamp).to_have_text(re.compile(r"^[A-Z][a-z]{2} \d{1,2}, 20\d\d$"))


def test_what_is_far_away_has_a_date(browser_page: Page) -> None:
    browser_page.goto("/system")
    until = browser_page.get_by_role("row").filter(has_text="CN=PharosVPN Root").locator("time")
    expect(until).to_have_text(re.compile(r"^[A-Z][a-z]{2} \d{1,2}, 20\d\d$"))


def test_the_feed_names_what_is_not_on_its_page(browser_page: Page, fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/?region=nowhere")  # so no row tells what a node is called
    expect(page.locator("#live")).to_have_text("Live")
    user = fleet.controller.client.post("/api/users", {"name": "Told in the feed"})
    item = page.locator(".feed li").filter(has_text="user added").first
    expect(item).to_contain_text("user added: Told in the feed")
    fleet.nodes.do("inject", node=2, connect=1)
    expect(page.locator(".feed li").filter(has_text="connected to n2").first).to_be_visible()
    fleet.controller.client.call("DELETE", f"/api/users/{user['id']}")


def test_the_feed_tells_what_falls_and_what_is_done_in_words(browser_page: Page, fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, browser_page
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    for actor, how in (("session_tracker", "raise"), (f"node_link:{fleet.ids[1]}", "vanish")):
        client.post("/api/chaos", {"actor": actor, "how": how})
    user = client.post("/api/users", {"name": "Told in words"})["id"]
    client.post("/api/users/" + user + "/suspend")
    client.post("/api/nodes/n0/push-policy")
    feed = page.locator(".feed")
    for told in (
        "session tracker is harmed on purpose (chaos)",
        "session tracker crashed on purpose (chaos)",
        "session tracker restarted",
        "link of n1 is harmed on purpose (chaos)",
        "link of n1 vanished: its thread ended without a word",
        "link of n1 restarted",
        "n1: backing off, its link fell and is being replaced: vanished: its thread ended without a word",
        "user added: Told in words",
        "user suspended: Told in words",
        "policy pushed to node: n0",
    ):
        expect(feed.get_by_role("listitem").filter(has_text=told).first).to_be_visible()
    assert not re.search(r"[a-z]_[a-z]|[a-z]\.[a-z]+:|failed:|RuntimeError", feed.inner_text()), feed.inner_text()
    client.call("DELETE", f"/api/users/{user}")


def test_the_feed_and_tables_speak_of_names_and_not_of_ids(browser_page: Page, fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    fleet.nodes.do("inject", node=0, connect=1)
    item = page.locator(".feed li").filter(has_text="connected to n0").first
    expect(item.get_by_role("link", name=re.compile(r"device \d"))).to_be_visible()
    fleet.nodes.do("inject", node=0, disconnect=1)
    expect(page.locator(".feed li").filter(has_text="left n0").first).to_be_visible()
    for where in ("/sessions", "/profiles", "/nodes/n0", "/paths"):
        page.goto(where)
        for table in page.locator("table").all():
            assert not _ID.search(table.inner_text()), where


def test_an_operation_is_told_with_names(browser_page: Page, fleet: LiveFleet) -> None:
    client, page = fleet.controller.client, browser_page
    path = client.post("/api/paths", {"name": "short-cut", "node_ids": fleet.ids[:2]})
    try:
        client.post("/api/devices/dev_0/bind", {"path_id": path["id"]})
        (operation, *_) = client.get("/api/operations?limit=1")
        page.goto(f"/operations/{operation['id']}")
        facts = page.locator("dl.facts").first
        expect(facts.get_by_role("link", name="device 0")).to_have_attribute("href", "/devices/dev_0")
        expect(facts.get_by_text("short-cut")).to_be_visible()
        page.goto("/operations")
        row = page.get_by_role("row").filter(has=page.locator(f'a[href$="{operation["id"]}"]'))
        expect(row.get_by_text("device 0")).to_be_visible()
    finally:
        client.call("DELETE", "/api/devices/dev_0/bind")
        client.call("DELETE", f"/api/paths/{path['id']}")


@acts("/operations", "POST /api/operations/*/retry")
@acts("/operations/{key}", "POST /api/operations/*/retry")
def test_an_operation_is_given_the_password_that_was_never_stored(
    browser_page: Page, fleet: LiveFleet, machine: Machine
) -> None:
    """In the list and on its own page; a wrong one is asked for again."""
    client, page = fleet.controller.client, browser_page
    body = {"ssh_host": machine.address, "host_key": machine.fingerprint, "name": "forgetful", "password": "wrong"}
    operation = client.begin("/api/servers", body)

    def state() -> str:
        return str(client.get(f"/api/operations/{operation['id']}")["state"])

    eventually(lambda: state() == "failed", timeout=60)
    places = {
        "/operations": page.get_by_role("row").filter(has=page.locator(f'a[href$="{operation["id"]}"]')),
        f"/operations/{operation['id']}": page.locator(".card").first,
    }
    for (where, place), password in zip(places.items(), ("still wrong", PASSWORD), strict=True):
        page.goto(where)
        place.get_by_role("button", name="Retry").click()
        place.get_by_role("button", name="Give what it needs").click(timeout=60_000)
        dialog = page.get_by_role("dialog", name="The host's password")
        expect(dialog).to_contain_text("never stored")
        dialog.get_by_label("Password").fill(password)
        dialog.get_by_role("button", name="Go on").click()
        expect(dialog).not_to_be_visible()
        expect(page.locator("#toasts")).to_contain_text("It goes on.")
        wanted = "done" if password == PASSWORD else "failed"
        expect(place.get_by_text(wanted, exact=True)).to_be_visible(timeout=60_000)
        expect(page.locator("#give-password [name=password]")).to_have_value("")
    (server,) = [server for server in client.get("/api/servers") if server["name"] == "forgetful"]
    client.call("DELETE", f"/api/servers/{server['id']}")


def test_who_says_no_to_a_question_leaves_everything_as_it_is(browser_page: Page, fleet: LiveFleet) -> None:
    """Of a dialog in front of what cannot be undone; the page behind it stays usable."""
    page = browser_page
    page.goto("/users/usr_test")
    page.get_by_role("button", name="Remove", exact=True).first.click()
    expect(page.locator("#confirm")).to_contain_text("cannot be undone")
    confirm(page, "Keep it as it is")
    expect(page.locator("#confirm")).not_to_be_visible()
    assert fleet.controller.client.get("/api/users/usr_test")["name"] == "Test"
