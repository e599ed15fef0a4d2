"""Relays: what there is to know of each, and what can be done to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from coxswain.messages.hub import Publish
from tests.browser.actions import acts
from tests.browser.conftest import add_relay, confirm
from tests.browser.test_machines_page import finished, newer
from tests.fleet import LiveFleet
from tests.machines import PASSWORD, Machine, relay_file


@pytest.fixture
def spare(fleet: LiveFleet) -> Iterator[str]:
    """A relay of its own for a test that changes it. Its id."""
    key = add_relay(fleet, "spare-relay", 7)
    yield key
    if any(relay["id"] == key for relay in fleet.controller.client.get("/api/relays")):
        fleet.controller.client.call("DELETE", f"/api/relays/{key}")


def test_the_list_leads_to_what_there_is_to_know_of_a_relay(browser_page: Page) -> None:
    page = browser_page
    page.goto("/")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Relays").click()
    row = page.get_by_role("row").filter(has_text="harbour")
    for text in ("ingress", "egress, hop 1", "onion", "192.0.2.200", "ams3"):
        expect(row.get_by_text(text, exact=True)).to_be_visible()
    expect(row).to_contain_text("v0.4.0")
    expect(row.get_by_text(re.compile("^(connecting|waiting)$"))).to_be_visible()
    row.get_by_role("link", name="harbour").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("harbour")
    roles = page.get_by_role("region", name="Roles")
    for endpoint in ("192.0.2.200:8455", "192.0.2.200:8456", "192.0.2.200:8457"):
        expect(roles.get_by_text(endpoint)).to_be_visible()
    assert "MDEyMzQ1Njc4" not in page.content(), "whoever knows it can use the relay (relay-contract.md 6.6)"


@acts("/relays/{key}", "POST /api/relays/*/egress", "DELETE /api/relays/*")
def test_a_relay_changes_its_hop_loses_its_role_and_is_forgotten_on_all_dashboards(
    open_browser: Callable[..., Page], fleet: LiveFleet, spare: str, complaints: list[str]
) -> None:
    client, page, other = fleet.controller.client, open_browser(), open_browser()
    other.goto("/relays")
    expect(other.locator("#live")).to_have_text("Live")
    row = other.get_by_role("row").filter(has_text="spare-relay")
    page.goto(f"/relays/{spare}")
    expect(page.locator("#live")).to_have_text("Live")
    page.get_by_role("button", name="Change its hop").click()
    page.get_by_role("spinbutton", name="Hop").fill("9")
    page.locator("#edit-egress").get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="Roles")).to_contain_text("hop 9")
    expect(row.get_by_text("egress, hop 9")).to_be_visible()

    page.get_by_role("button", name="Take the egress role").click()
    expect(page.locator("#confirm")).to_contain_text("Nothing is dialled through it any more")
    confirm(page, "Take it")
    expect(page.get_by_role("button", name="Take the egress role")).to_have_count(0)
    expect(row.get_by_text("egress")).to_have_count(0)
    assert client.get(f"/api/relays/{spare}")["egress"] is False

    page.get_by_role("button", name="Forget").click()
    expect(page.locator("#confirm")).to_contain_text("left as it is")
    confirm(page, "Forget it")
    page.wait_for_url("**/relays")
    expect(row).to_have_count(0)
    complaints.clear()  # its page may still have asked for what is gone


def test_a_hop_that_somebody_else_changed_meanwhile_is_not_overwritten(
    open_browser: Callable[..., Page], fleet: LiveFleet, spare: str, complaints: list[str]
) -> None:
    page = open_browser()
    page.goto(f"/relays/{spare}")
    expect(page.locator("#live")).to_have_text("Live")
    page.get_by_role("button", name="Change its hop").click()
    page.get_by_role("spinbutton", name="Hop").fill("9")
    fleet.controller.client.post(f"/api/relays/{spare}/egress", {"hop": 3})
    expect(page.get_by_text("Somebody just changed this")).to_be_visible()
    page.locator("#edit-egress").get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else changed this meanwhile (now hop: 3)")
    expect(page.get_by_role("spinbutton", name="Hop")).to_have_value("9")
    assert fleet.controller.client.get(f"/api/relays/{spare}")["egress_hop"] == 3
    page.locator("#edit-egress").get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="Roles")).to_contain_text("hop 9")
    complaints.clear()  # the 409 itself


@acts("/relays/{key}", "POST /api/relays/*/update-agent", "POST /api/relays/*/renew", "POST /api/relays/*/remove")
def test_a_relay_on_a_machine_is_upgraded_and_uninstalled(
    browser_page: Page, fleet: LiveFleet, home: Path, machine: Machine
) -> None:
    client, page = fleet.controller.client, browser_page
    relay_file(home / "relay", version="0.4.0")
    body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint, "name": "quay"}
    server = client.post("/api/servers", body)
    client.post(f"/api/servers/{server['id']}/deploy", {"role": "relay", "name": "ferry"})
    newer(relay_file(home / "relay", version="0.5.0"), "v0.5.0")
    page.goto("/relays")
    row = page.get_by_role("row").filter(has_text="ferry")
    expect(row.get_by_role("link", name="quay")).to_have_attribute("href", f"/servers#{server['id']}")
    expect(row.get_by_text("v0.5.0 is there")).to_be_visible()
    row.get_by_role("link", name="ferry").click()
    page.get_by_role("button", name="Upgrade to v0.5.0").click()
    expect(page.locator("#confirm")).to_contain_text("the old one comes back")
    confirm(page, "Upgrade to v0.5.0")
    finished(page)

    page.goto("/relays/ferry")
    page.get_by_role("button", name="Renew its certificate").click()
    expect(page.locator("#confirm")).to_contain_text("interrupted for a moment")
    confirm(page, "Renew its certificate")
    finished(page)

    page.goto("/relays/ferry")
    page.get_by_role("button", name="Uninstall").click()
    confirm(page, "Uninstall")
    finished(page)
    page.goto("/relays")
    expect(row).to_have_count(0)
    client.call("DELETE", f"/api/servers/{server['id']}")


def test_a_tunnel_is_told_as_it_stands_and_falls(open_browser: Callable[..., Page], fleet: LiveFleet, spare: str) -> None:
    """On all dashboards, with why; each attempt to have it back is not news."""
    page, feed = open_browser(), open_browser()
    page.goto(f"/relays/{spare}")
    feed.goto("/")
    for each in (page, feed):
        expect(each.locator("#live")).to_have_text("Live")
    # Of one that nobody dials: what the controller itself says of the spare one may come first, and is then the news.
    told = {"relay_id": "rly_nobodydials", "endpoint": "192.0.2.201:8455", "state": "waiting", "error": "the test said so"}
    for state in ("connecting", "waiting", "connecting", "waiting"):
        frame = told | {"state": state, "error": "" if state == "connecting" else told["error"]}
        assert fleet.controller.system.tell("event_hub", Publish("relay.tunnel", time.time(), frame))
    unknown = "tunnel to rly_nobodydials (192.0.2.201:8455): waiting, the test said so"
    expect(feed.locator(".feed").get_by_text(unknown)).to_have_count(1)
    known = {"relay_id": spare, "endpoint": "192.0.2.202:8455", "state": "connected", "error": ""}
    assert fleet.controller.system.tell("event_hub", Publish("relay.tunnel", time.time(), known))
    expect(feed.locator(".feed").get_by_text("tunnel to spare-relay (192.0.2.202:8455): connected")).to_have_count(1)
    expect(feed.locator(".feed").get_by_text("undefined")).to_have_count(0)
    expect(page.get_by_role("region", name="State").get_by_text("Tunnel")).to_be_visible()
