"""Paths over several nodes: planned, built, used by a device, and taken down."""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.fleet import LiveFleet
from tests.support import eventually


@acts(
    "/paths",
    "POST /api/paths",
    "POST /api/paths/plan",
    "POST /api/paths/*/provision",
    "POST /api/paths/*/exit",
    "PATCH /api/paths/*",
    "DELETE /api/paths/*",
)
@acts("/devices/{key}", "POST /api/devices/*/bind", "POST /api/devices/*/bind/plan", "DELETE /api/devices/*/bind")
def test_a_path_is_planned_built_used_and_removed(
    open_browser: Callable[..., Page], fleet: LiveFleet, complaints: list[str]
) -> None:
    client, page = fleet.controller.client, open_browser()
    page.goto("/paths")
    page.get_by_role("button", name="Add a path").click()
    dialog = page.locator("#add-path")
    dialog.get_by_label("Name").fill("round-the-world")
    dialog.get_by_label("Entry").select_option(label="n0 (fra1)")
    dialog.get_by_label("Second").select_option(label="n2 (sgp1)")
    dialog.get_by_label("Fallback").select_option(label="n1 (nyc1)")
    second = dialog.get_by_label("Second")
    second.select_option(label="n0 (fra1)")
    with page.expect_response(lambda response: response.status == 400), page.expect_console_message():
        page.get_by_role("button", name="Show the plan").click()
    expect(dialog.get_by_role("alert")).to_have_text(re.compile("^'n0' comes twice"))
    expect(page.locator("#path-plan")).to_be_hidden()
    complaints.clear()  # of the refusal
    second.select_option(label="n2 (sgp1)")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#path-plan")).to_contain_text("n2")
    expect(dialog.get_by_role("alert")).to_be_hidden()
    assert page.locator("#path-plan").evaluate("each => each.scrollWidth <= each.clientWidth"), "all of it is seen"
    dialog.get_by_label("Third").select_option(label="n1 (nyc1)")
    expect(page.locator("#path-plan")).to_be_hidden()  # it was of two nodes
    dialog.get_by_label("Third").select_option("")
    assert client.get("/api/paths") == []
    page.get_by_role("button", name="Build it").click()
    shown = page.locator("#toasts").get_by_role("link", name="Show how it goes")
    expect(shown).to_be_visible()  # it was begun
    (built,) = client.get("/api/operations?kind=path.add&limit=1")
    expect(shown).to_have_attribute("href", f"/operations/{built['id']}")
    row = page.get_by_role("row").filter(has_text="round-the-world")
    expect(row.get_by_text("active")).to_be_visible(timeout=30_000)
    row.get_by_role("button", name="Set up again").click()
    expect(page.get_by_text("It is being looked at.")).to_be_visible()

    expect(row.get_by_role("cell", name="nobody", exact=True)).to_be_visible()
    tops = {button.evaluate("each => each.offsetTop") for button in row.locator("td").last.get_by_role("button").all()}
    assert len(tops) == 1, "on one line"

    row.get_by_role("button", name="Leave at n1").click()
    expect(page.locator("#confirm")).to_contain_text("Everybody on it goes along")
    confirm(page, "Leave at n1")
    expect(row.get_by_text("Leaves at n1: ")).to_be_visible(timeout=30_000)
    row.get_by_role("button", name="Leave at n2").click()
    confirm(page, "Leave at n2")
    expect(row.get_by_text("Leaves at n1: ")).to_have_count(0, timeout=30_000)

    row.get_by_role("button", name="Edit").click()
    dialog = page.locator("#edit-path")
    for place, node in enumerate(("n1", "", "", "")):
        chosen = fleet.controller.node(node)["id"] if node else ""
        expect(dialog.get_by_role("combobox").nth(place)).to_have_value(chosen)
    dialog.get_by_label("Name").fill("round-the-globe")
    dialog.get_by_label("Colour").fill("#f08fb0")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    (path,) = client.get("/api/paths")
    assert (path["name"], path["color"], path["fallbacks"]) == ("round-the-globe", "#f08fb0", [fleet.ids[1]])
    row = page.get_by_role("row").filter(has_text="round-the-globe")
    row.get_by_role("button", name="Edit").click()
    dialog.get_by_label("First").select_option("")
    dialog.get_by_label("Name").fill("round-the-world")
    dialog.get_by_role("button", name="Save").click()
    expect(row).to_have_count(0)
    assert client.get("/api/paths")[0]["fallbacks"] == []

    page.goto("/")
    expect(page.locator(".map .arc")).to_have_count(1)

    for here, end, way, there in (("n0", "entry", "to", "n2"), ("n2", "exit", "from", "n0")):
        page.goto(f"/nodes/{here}")
        rows = page.get_by_role("region", name="Inner links").get_by_role("row").filter(has_text="round-the-world")
        link = rows.filter(has_text=f"{way} {there}")  # another one stands ready
        expect(link.get_by_role("cell", name=end, exact=True)).to_be_visible()
        expect(link.get_by_role("cell", name=f"{way} {there}")).to_be_visible()
        expect(link.get_by_text("active", exact=True)).to_be_visible()
        assert Axe().run(page, context="#content").violations_count == 0

    page.goto("/devices/dev_0")
    page.get_by_role("button", name="Move it", exact=True).click()
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#bind-plan")).to_contain_text("n0")
    page.locator("#bind").get_by_role("button", name="Move it").click()
    expect(page.get_by_text("Its traffic goes over the path round-the-world")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Take it off").click()
    expect(page.locator("#confirm")).to_contain_text("leaves at the entry node")
    confirm(page, "Take it off")
    expect(page.get_by_text("It is bound to no path")).to_be_visible(timeout=30_000)

    page.goto("/nodes/n2")
    links = page.get_by_role("region", name="Inner links")
    expect(links.get_by_text("round-the-world")).to_be_visible()
    other = open_browser()
    other.goto("/paths")
    row = other.get_by_role("row").filter(has_text="round-the-world")
    row.get_by_role("button", name="Remove").click()
    confirm(other, "Remove")
    expect(row).to_have_count(0, timeout=30_000)
    expect(links.get_by_text("No inner links")).to_be_visible()
    eventually(lambda: client.get("/api/node-links") == [], timeout=30)


def test_a_path_over_a_node_that_is_disabled_is_refused_in_its_form(
    open_browser: Callable[..., Page], fleet: LiveFleet, complaints: list[str]
) -> None:
    client, page = fleet.controller.client, open_browser()
    before = client.get("/api/operations")
    client.post("/api/nodes/n2/disable")
    try:
        page.goto("/paths")
        page.get_by_role("button", name="Add a path").click()
        form = page.locator("#add-path")
        form.get_by_label("Name").fill("nowhere")
        form.get_by_label("Entry").select_option(label="n0 (fra1)")
        form.get_by_label("Second").select_option(label="n2 (sgp1)")
        for name in ("Show the plan", "Build it"):
            with page.expect_response(lambda response: response.status == 409), page.expect_console_message():
                form.get_by_role("button", name=name).click()
            expect(form).to_contain_text("node n2: is disabled")
            expect(form).to_contain_text("cox nodes enable n2")
        assert client.get("/api/operations") == before and client.get("/api/paths") == []
        complaints.clear()  # of both refusals
    finally:
        client.post("/api/nodes/n2/enable")
        fleet.controller.until("n2", link_state="live", in_sync=True)


def test_fallbacks_that_somebody_else_changed_are_said_before_they_are_overwritten(
    open_browser: Callable[..., Page], fleet: LiveFleet, complaints: list[str]
) -> None:
    client, page = fleet.controller.client, open_browser()
    body = {"name": "hers-and-his", "node_ids": fleet.ids[:1] + fleet.ids[2:3], "fallback_ids": []}
    path = client.post("/api/paths", body)
    try:
        page.goto("/paths")
        page.get_by_role("row").filter(has_text="hers-and-his").get_by_role("button", name="Edit").click()
        client.call("PATCH", f"/api/paths/{path['id']}", {"version": path["version"], "fallback_ids": fleet.ids[1:2]})
        form = page.locator("#edit-path")
        form.get_by_label("Name").fill("his")
        with page.expect_response(lambda response: response.status == 409), page.expect_console_message():
            form.get_by_role("button", name="Save").click()
        expect(form.get_by_role("alert")).to_contain_text("changed this meanwhile (now fallback_ids: n1 (nyc1)).")
        complaints.clear()  # of the refusal
    finally:
        client.call("DELETE", f"/api/paths/{path['id']}")
