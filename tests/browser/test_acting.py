"""What can be done from the pages, done as a person would."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.fleet import LiveFleet
from tests.support import an_addr, eventually


@pytest.fixture
def new_node(fleet: LiveFleet) -> Iterator[str]:
    """A node of its own for a test that changes it; nobody listens there. Its id."""
    made = fleet.controller.client.post(
        "/api/nodes", {"name": "spare", "control_addr": an_addr("127.0.0.1"), "region": "hel1"}
    )
    yield made["id"]
    fleet.controller.client.call("DELETE", f"/api/nodes/{made['id']}")


@acts("/", "POST /api/nodes")
@acts("/nodes/{key}", "POST /api/nodes/*/enroll", "COPY #issued-crt", "COPY #issued-ca", "DELETE /api/nodes/*")
def test_a_node_is_added_and_its_request_signed(browser_page: Page, fleet: LiveFleet, complaints: list[str]) -> None:
    page = browser_page
    page.goto("/")
    page.get_by_role("button", name="Add a node").click()
    page.get_by_label("Name").fill("by-hand")
    page.get_by_label("Address").fill("127.0.0.1:9")
    page.get_by_label("Region").fill("lon1")
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_url("**/nodes/nod_*")
    page.get_by_label("Certificate request").fill(fleet.nodes.csr(0))
    page.get_by_role("button", name="Sign it").click()
    expect(page.locator("#issued-crt")).to_contain_text("BEGIN CERTIFICATE")
    expect(page.locator("#issued-ca")).to_contain_text("BEGIN CERTIFICATE")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for copy in page.locator("#issued").get_by_role("button", name="Copy").all():
        copy.click()
        expect(page.get_by_text("Copied.").last).to_be_visible()
    eventually(lambda: "BEGIN CERTIFICATE" in page.evaluate("navigator.clipboard.readText()"))
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    page.wait_for_url(lambda url: url.endswith("/"))
    expect(page.get_by_role("link", name="by-hand")).to_have_count(0)
    complaints.clear()  # its page may still have asked for what is gone


def test_bad_input_names_the_field_and_keeps_what_was_typed(
    browser_page: Page, fleet: LiveFleet, complaints: list[str]
) -> None:
    page = browser_page
    page.goto("/")
    page.get_by_role("button", name="Add a node").click()
    page.get_by_label("Name").fill("n0")
    page.get_by_label("Address").fill("127.0.0.1:9")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("n0")
    expect(page.get_by_label("Name")).to_have_value("n0")
    expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Name").fill("a-twin")
    page.get_by_label("Address").fill(fleet.controller.node("n0")["control_addr"])
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("is that of node n0 already")
    complaints.clear()  # the two 409


@acts(
    "/nodes/{key}",
    "POST /api/nodes/*/push",
    "POST /api/nodes/*/look",
    "POST /api/nodes/*/disable",
    "POST /api/nodes/*/enable",
)
def test_a_node_is_pushed_looked_at_disabled_and_enabled(browser_page: Page, fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/nodes/n1")
    page.get_by_role("button", name="Push").click()
    confirm(page, "Push")
    expect(page.get_by_text("Pushed.")).to_be_visible()
    page.get_by_role("button", name="Look and heal").click()
    expect(page.get_by_text("It is looked at now.")).to_be_visible()
    page.get_by_role("button", name="Disable").click()
    confirm(page, "Disable")
    eventually(lambda: fleet.controller.node("n1")["link_state"] == "disabled")
    page.get_by_role("button", name="Undo").click()
    eventually(lambda: fleet.controller.node("n1")["link_state"] == "live")


def test_saying_no_changes_nothing(browser_page: Page, fleet: LiveFleet, new_node: str) -> None:
    page = browser_page
    page.goto(f"/nodes/{new_node}")
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Keep it as it is").click()
    assert fleet.controller.node(new_node)["id"] == new_node


@acts("/nodes/{key}", "PATCH /api/nodes/*")
def test_a_stale_save_shows_what_changed_and_loses_nothing(
    open_browser: Callable[..., Page], fleet: LiveFleet, new_node: str, complaints: list[str]
) -> None:
    hers, his = open_browser(), open_browser()
    for page in (hers, his):
        page.goto(f"/nodes/{new_node}")
        page.get_by_role("button", name="Settings").click()
    hers.get_by_label("Region").fill("ams3")
    hers.get_by_role("button", name="Save").click()
    expect(hers.get_by_text("ams3 ·")).to_be_visible()
    expect(his.get_by_text("Somebody just changed this")).to_be_visible()
    his.get_by_label("Name").fill("renamed")
    his.get_by_role("button", name="Save").click()
    expect(his.get_by_role("alert")).to_contain_text("region: ams3")
    expect(his.get_by_label("Name")).to_have_value("renamed")
    his.get_by_role("button", name="Save").click()
    expect(his.get_by_role("heading", name="renamed")).to_be_visible()  # it has been loaded anew
    assert fleet.controller.node(new_node)["name"] == "renamed"
    complaints.clear()  # the 409 itself


def test_ports_and_a_decoy_are_given_to_a_node_and_ports_taken_away(
    browser_page: Page, fleet: LiveFleet, complaints: list[str]
) -> None:
    page = browser_page
    page.goto("/nodes/n0")

    def save(ports: str) -> None:
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Entry ports").fill(ports)
        page.get_by_role("button", name="Save").click()

    save("50000-60000")
    expect(page.get_by_role("alert")).to_contain_text("inner links")
    complaints.clear()  # the 400 itself
    page.get_by_role("button", name="Cancel").click()
    save("20000-29999")
    expect(page.get_by_text("UDP 20000-29999", exact=True)).to_be_visible()
    assert fleet.controller.node("n0")["endpoint_ports"] == "20000-29999"
    save("")
    expect(page.get_by_text("UDP 443", exact=True)).to_be_visible()
    fleet.controller.until("n0", endpoint_ports="", mapped_ports="")

    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Decoy").fill("decoy.example.net")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("decoy.example.net", exact=True)).to_be_visible()
    assert fleet.controller.node("n0")["decoy_site"] == "decoy.example.net"


@acts("/tokens", "POST /api/tokens", "COPY #secret", "DELETE /api/tokens/*")
def test_a_token_is_shown_once_works_and_is_revoked(browser_page: Page, base: str) -> None:
    page = browser_page
    page.goto("/tokens")
    page.get_by_role("button", name="Create a token").click()
    page.get_by_label("Name").fill("monitoring")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("#secret")).to_contain_text("cox_")
    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"cox_ro_[\w-]{43}", secret)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    eventually(lambda: page.evaluate("navigator.clipboard.readText()") == secret)
    page.get_by_role("button", name="Done").click()
    row = page.get_by_role("row").filter(has_text="monitoring")
    expect(row).to_be_visible()
    assert secret not in row.inner_text()
    assert page.request.get(f"{base}/api/nodes", headers={"Authorization": f"Bearer {secret}"}).status == 200
    row.get_by_role("button", name="Revoke").click()
    confirm(page, "Revoke")
    expect(row.get_by_text("revoked")).to_be_visible()
    assert page.request.get(f"{base}/api/nodes", headers={"Authorization": f"Bearer {secret}"}).status == 401


@acts("/admins", "POST /api/admins", "DELETE /api/admins/*")
def test_an_admin_is_added_and_removed(browser_page: Page) -> None:
    page = browser_page
    page.goto("/admins")
    page.get_by_role("button", name="Add an admin").click()
    page.get_by_label("E-mail").fill("third@example.org")
    page.get_by_label("Password").fill("a long password")
    page.get_by_role("button", name="Add", exact=True).click()
    row = page.get_by_role("row").filter(has_text="third@example.org")
    row.get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    expect(row).to_have_count(0)


@acts("/audit", "GET /audit", "GET /ui/fragments/audit/verify")
def test_the_log_is_filtered_and_verified(browser_page: Page) -> None:
    page = browser_page
    page.goto("/audit")
    page.get_by_role("textbox", name="Action").fill("node.add")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/audit?action=node.add*")
    for cell in page.locator("tbody tr td:nth-child(3)").all_inner_texts():
        assert cell == "node.add"
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_text("Intact:")).to_be_visible()


@acts("/nodes/{key}", "POST /api/network-policy/preview")
def test_the_rules_of_a_policy_are_shown_before_it_is_saved(browser_page: Page, fleet: LiveFleet) -> None:
    """With everything off there are none, and the preview says so (management-plane.md 12, defects)."""
    page = browser_page
    page.goto("/nodes/n0")
    page.get_by_role("button", name="Settings").click()
    page.get_by_text("The rules on the node").click()
    expect(page.locator("#rules")).not_to_be_empty()  # as the switches stand now
    isolation = page.get_by_label("Keep clients from each other")
    isolation.set_checked(not isolation.is_checked())
    expect(page.locator("#rules")).to_contain_text("iptables")
    page.get_by_label("Forward clients' packets").uncheck()
    for other in ("Masquerade", "Keep clients from each other"):
        expect(page.get_by_label(other)).to_be_disabled()
        expect(page.get_by_label(other)).not_to_be_checked()
    expect(page.locator("#rules")).to_have_text("No rules.")
    assert fleet.controller.node("n0")["version"] == int(page.locator('[name="version"]').input_value())
