"""Control paths from the dashboard, over real relays: made, probed, used, seen on the map, and left again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from coxswain.messages.servers import EditRelay
from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.browser.test_machines_page import finished
from tests.control_paths import ME, Hop
from tests.fleet import LiveFleet
from tests.machines import PASSWORD, Machine
from tests.support import eventually

_SLOW_MS = 60_000


@pytest.fixture
def hops(fleet: LiveFleet, tmp_path: Path) -> Iterator[list[Hop]]:
    """Two relays at work, far from each other."""
    controller, client = fleet.controller, fleet.controller.client
    made = []
    for name, region in (("north-hop", "hel1"), ("south-hop", "syd1")):
        hop = Hop(controller, tmp_path / name, name, onion=False, ours=True)
        made.append(hop.start())
        edit = EditRelay(ME, hop.id, {"region": region}, "relay.egress", None)
        controller.system.ask("servers", edit, deadline=30)
    yield made
    for path in client.get("/api/control-paths"):
        client.call("DELETE", f"/api/control-paths/{path['id']}?allow_direct=true")
    for hop in made:
        client.call("DELETE", f"/api/relays/{hop.id}")
        hop.kill()
    controller.all_in_sync(len(fleet.ids))


def paths(page: Page) -> Locator:
    return page.get_by_role("region", name="Control paths")


def row(page: Page, name: str) -> Locator:
    return paths(page).get_by_role("row").filter(has_text=name)


@acts("/relays", "POST /api/control-paths", "POST /api/control-paths/*/activate")
@acts("/relays", "PATCH /api/control-paths/*", "POST /api/control-paths/deactivate", "DELETE /api/control-paths/*")
def test_a_control_path_is_made_probed_used_and_left(
    open_browser: Callable[..., Page], fleet: LiveFleet, hops: list[Hop], complaints: list[str]
) -> None:
    client, page, other, chart = fleet.controller.client, open_browser(), open_browser(), open_browser()
    for each, where in ((page, "/relays"), (other, "/relays"), (chart, "/")):
        each.goto(where)
        expect(each.locator("#live")).to_have_text("Live")
    expect(paths(other)).to_contain_text("they see the address of this controller")
    page.get_by_role("button", name="Add a control path").click()
    dialog = page.locator("#add-control-path")
    dialog.get_by_label("Name").fill("around")
    dialog.get_by_label("First relay").select_option(label="north-hop (hel1)")
    dialog.get_by_label("Second relay").select_option(label="south-hop (syd1)")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(row(other, "around")).to_contain_text("controller → north-hop → south-hop → node")
    expect(row(other, "around").get_by_text("not in use")).to_be_visible()

    activate = page.locator("#activate")  # what is mostly done next, so it is open already
    expect(activate).to_contain_text("around")
    hops[1].kill()
    activate.get_by_role("button", name="Ask them").click()
    expect(activate.get_by_role("alert")).to_contain_text("hop 2 of 2: relay south-hop", timeout=_SLOW_MS)
    assert not any(path["active"] for path in client.get("/api/control-paths")), "everything stays as it is"
    hops[1].start()
    activate.get_by_role("button", name="Ask them").click()
    expect(activate).not_to_be_visible(timeout=_SLOW_MS)
    for each in (page, other):
        expect(row(each, "around").get_by_text("active", exact=True)).to_be_visible()
        expect(paths(each)).to_contain_text("reached over around; where that fails, they are not dialled at all")
    fleet.controller.all_in_sync(len(fleet.ids))
    arc = chart.locator(".map .arc.control")
    expect(arc).to_have_count(1)
    expect(arc.locator("title")).to_have_text("control path around")
    expect(chart.get_by_text("how the controller reaches nodes")).to_be_visible()
    expect(chart.get_by_role("link", name="Sydney: relay south-hop active")).to_be_visible()
    for each in (page, chart):
        found = Axe().run(each, context="#content", options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
        assert found.violations_count == 0, found.generate_report()

    row(page, "around").get_by_role("button", name="Edit").click()
    expect(page.locator("#edit-control-path").get_by_label("First relay")).to_be_hidden()  # refused of the one in use
    page.locator("#edit-control-path").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go back to direct").click()
    expect(page.locator("#confirm")).to_contain_text("sees the address of this controller")
    confirm(page, "Dial directly")
    expect(row(other, "around").get_by_text("not in use")).to_be_visible()
    expect(arc).to_have_count(0)
    row(page, "around").get_by_role("button", name="Edit").click()
    dialog = page.locator("#edit-control-path")
    expect(dialog.get_by_label("First relay")).to_have_value(hops[0].id)
    expect(dialog.get_by_label("Second relay")).to_have_value(hops[1].id)
    dialog.get_by_label("Second relay").select_option("")
    dialog.get_by_role("button", name="Save").click()
    expect(row(other, "around")).to_contain_text("controller → north-hop → node")
    row(page, "around").get_by_role("button", name="Remove").click()
    expect(page.locator("#confirm")).to_contain_text("Its relays stay as they are")
    confirm(page, "Remove")
    for each in (page, other):
        expect(row(each, "around")).to_have_count(0)
    complaints.clear()  # the probe that failed


def test_nobody_goes_direct_without_saying_so(
    browser_page: Page, fleet: LiveFleet, hops: list[Hop], complaints: list[str]
) -> None:
    """A path without relays, and the removal of the one that is in use, both give the controller's address away."""
    client, page = fleet.controller.client, browser_page
    client.post("/api/control-paths", {"name": "plain", "hops": []})
    over = client.post("/api/control-paths", {"name": "hidden", "hops": [hops[0].id]})
    client.post(f"/api/control-paths/{over['id']}/activate", {})
    page.goto("/relays")
    row(page, "plain").get_by_role("button", name="Activate").click()
    dialog = page.locator("#activate")
    dialog.get_by_role("button", name="Ask them").click()
    expect(dialog.get_by_role("alert")).to_contain_text("direct")
    assert client.get(f"/api/control-paths/{over['id']}")["active"]
    dialog.get_by_label("Even if it dials directly").check()
    dialog.get_by_role("button", name="Ask them").click()
    expect(row(page, "plain").get_by_text("active", exact=True)).to_be_visible()

    page.get_by_role("button", name="Activate").click()
    expect(dialog.get_by_label("Even if it dials directly")).not_to_be_checked()
    hops[0].kill()
    dialog.get_by_label("Even if they do not answer").check()
    dialog.get_by_role("button", name="Ask them").click()
    expect(row(page, "hidden").get_by_text("active", exact=True)).to_be_visible()
    row(page, "hidden").get_by_role("button", name="Remove").click()
    expect(page.locator("#confirm")).to_contain_text("which is in use? Nodes are then dialled directly")
    confirm(page, "Remove")
    expect(row(page, "hidden")).to_have_count(0)
    eventually(lambda: [path["name"] for path in client.get("/api/control-paths")] == ["plain"])
    complaints.clear()  # what was refused


def test_a_path_that_somebody_else_took_meanwhile_is_said(
    open_browser: Callable[..., Page], fleet: LiveFleet, hops: list[Hop], complaints: list[str]
) -> None:
    client, page = fleet.controller.client, open_browser()
    made = client.post("/api/control-paths", {"name": "wanted", "hops": [hops[0].id]})
    page.goto("/relays")
    row(page, "wanted").get_by_role("button", name="Activate").click()
    client.post(f"/api/control-paths/{made['id']}/activate", {})
    page.locator("#activate").get_by_role("button", name="Ask them").click()
    expect(page.locator("#activate").get_by_role("alert")).to_be_visible()
    page.locator("#activate").get_by_role("button", name="Not now").click()
    expect(row(page, "wanted").get_by_text("active", exact=True)).to_be_visible()
    complaints.clear()  # the 409


def test_a_machine_is_reached_over_a_relay_for_this_once(
    browser_page: Page, fleet: LiveFleet, hops: list[Hop], machine: Machine
) -> None:
    client, page = fleet.controller.client, browser_page
    page.goto("/servers")
    page.get_by_role("button", name="Add a server").click()
    dialog = page.locator("#add-server")
    dialog.get_by_label("Address").fill(machine.address)
    dialog.get_by_label("Name").fill("far-side")
    dialog.get_by_label("Over the relay").select_option(label="north-hop (hel1)")
    dialog.get_by_role("button", name="Ask the host").click()
    expect(dialog.get_by_label("Host key")).to_have_value(machine.fingerprint, timeout=_SLOW_MS)
    dialog.get_by_label("One-time password").fill(PASSWORD)
    dialog.get_by_role("button", name="The key is right").click()
    finished(page)
    expect(page.get_by_role("link", name="north-hop")).to_be_visible()
    operation = client.get(f"/api/operations/{page.url.rpartition('/')[2]}")
    assert operation["params"]["route"] == [hops[0].id]
    record = next(each for each in client.get("/api/audit?limit=50") if each["action"] == "server.host-key")
    assert record["detail"]["route"] == [hops[0].id]
    (server,) = [server for server in client.get("/api/servers") if server["name"] == "far-side"]
    client.call("DELETE", f"/api/servers/{server['id']}")
