"""Users, their devices and profiles, from the first to the last."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from coxswain.model import Protocol
from coxswain.sessions import OpenSession
from coxswain.store.sessions import save
from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.caravel import Caravel, relay_leg
from tests.fleet import LiveFleet
from tests.support import eventually


@pytest.fixture
def user(fleet: LiveFleet, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Somebody of this test alone, with a device that has no keys yet."""
    client = fleet.controller.client
    made = client.post("/api/users", {"name": f"Grace {request.node.name[5:40]}"})
    made["device"] = client.post(f"/api/users/{made['id']}/devices", {"name": "pocket", "platform": "android"})
    yield made
    client.call("DELETE", f"/api/users/{made['id']}")


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


@acts("/users", "POST /api/users")
@acts("/users/{key}", "PATCH /api/users/*", "POST /api/users/*/suspend", "POST /api/users/*/resume", "DELETE /api/users/*")
def test_a_user_is_added_edited_suspended_resumed_and_removed(browser_page: Page, fleet: LiveFleet) -> None:
    page = browser_page
    page.goto("/users")
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("E-mail").fill("ada@example.org")
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_url("**/users/usr_*")
    key = page.url.rpartition("/")[2]
    page.get_by_role("button", name="Edit").click()
    page.locator("#edit-user").get_by_label("Name").fill("Ada Lovelace")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ada Lovelace")
    page.get_by_role("button", name="Suspend").click()
    expect(page.locator("#confirm")).to_contain_text("All their devices are cut off")
    confirm(page, "Suspend")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert fleet.controller.client.get(f"/api/users/{key}")["status"] == "suspended"
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Suspend")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    page.wait_for_url("**/users")
    expect(page.get_by_role("link", name="Ada Lovelace")).to_have_count(0)


@acts("/users/{key}", "POST /api/users/*/devices", "DELETE /api/devices/*")
def test_a_device_is_added_and_removed(browser_page: Page, user: dict[str, Any]) -> None:
    page = browser_page
    page.goto(f"/users/{user['id']}")
    page.get_by_role("button", name="Add a device").click()
    page.locator("#add-device").get_by_label("Name").fill("laptop")
    page.get_by_label("Platform").fill("linux")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(row(page, "laptop").get_by_text("linux")).to_be_visible()
    row(page, "laptop").get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    expect(row(page, "laptop")).to_have_count(0)


def test_a_form_that_is_sent_twice_adds_one(browser_page: Page, fleet: LiveFleet, user: dict[str, Any]) -> None:
    page = browser_page
    page.goto(f"/users/{user['id']}")
    page.get_by_role("button", name="Add a device").click()
    page.locator("#add-device").get_by_label("Name").fill("impatience")
    page.locator("#add-device form").evaluate("form => { form.requestSubmit(); form.requestSubmit(); }")
    expect(row(page, "impatience")).to_be_visible()
    page.wait_for_load_state("networkidle")
    names = [each["name"] for each in fleet.controller.client.get(f"/api/users/{user['id']}/devices")]
    assert sorted(names) == ["impatience", "pocket"]


_DEVICE = (
    "POST /api/devices/*/provision",
    "POST /api/devices/*/suspend",
    "POST /api/devices/*/resume",
    "POST /api/devices/*/revoke",
)


@acts("/users/{key}", *_DEVICE)
@acts("/devices/{key}", *_DEVICE)
def test_a_device_is_provisioned_suspended_resumed_and_revoked(
    browser_page: Page, fleet: LiveFleet, user: dict[str, Any]
) -> None:
    """Where its user is shown and on its own page, which must not offer what is over."""
    client, page = fleet.controller.client, browser_page
    second = client.post(f"/api/users/{user['id']}/devices", {"name": "spare"})
    for where, key in ((f"/users/{user['id']}", user["device"]["id"]), (f"/devices/{second['id']}", second["id"])):
        page.goto(where)
        place = row(page, user["device"]["name"]) if "users" in where else page.locator(".head")

        def status(key: str = key) -> str:
            return str(client.get(f"/api/devices/{key}")["status"])

        place.get_by_role("button", name="Provision").click()
        expect(page.get_by_text("Its keys are on its nodes.")).to_be_visible()
        eventually(lambda key=key: client.get(f"/api/devices/{key}")["peer_count"] >= len(fleet.ids))
        place.get_by_role("button", name="Suspend").click()
        confirm(page, "Suspend")
        expect(place.get_by_role("button", name="Resume")).to_be_visible()
        assert status() == "suspended"
        place.get_by_role("button", name="Resume").click()
        expect(place.get_by_role("button", name="Suspend")).to_be_visible()
        place.get_by_role("button", name="Revoke").click()
        expect(page.locator("#confirm")).to_contain_text("cannot be undone")
        confirm(page, "Revoke")
        expect(place.get_by_text("revoked")).to_be_visible()
        expect(place.get_by_role("button", name="Revoke")).to_have_count(0)
        assert status() == "revoked"


def test_a_suspension_is_undone_from_its_toast(browser_page: Page, fleet: LiveFleet, user: dict[str, Any]) -> None:
    page = browser_page
    page.goto(f"/devices/{user['device']['id']}")
    page.get_by_role("button", name="Suspend").click()
    confirm(page, "Suspend")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone.")).to_be_visible()
    expect(page.get_by_role("button", name="Suspend")).to_be_visible()
    assert fleet.controller.client.get(f"/api/devices/{user['device']['id']}")["status"] == "active"


@acts("/devices/{key}", "DELETE /api/devices/*")
def test_a_device_that_removes_itself_leads_back_to_its_user(
    browser_page: Page, user: dict[str, Any], complaints: list[str]
) -> None:
    page = browser_page
    page.goto(f"/devices/{user['device']['id']}")
    page.get_by_role("button", name="Remove", exact=True).click()
    confirm(page, "Remove")
    page.wait_for_url(f"**/users/{user['id']}")
    expect(page.get_by_text("No devices")).to_be_visible()
    complaints.clear()  # its page may still have asked for what is gone


@acts("/devices/{key}", "PATCH /api/devices/*")
def test_a_device_is_renamed(browser_page: Page, fleet: LiveFleet, user: dict[str, Any], complaints: list[str]) -> None:
    client, key, page = fleet.controller.client, user["device"]["id"], browser_page
    page.goto(f"/devices/{key}")
    page.get_by_role("button", name="Edit").click()
    dialog = page.locator("#edit-device")
    expect(dialog.get_by_label("Platform")).to_have_value("android")
    dialog.get_by_label("Name").fill("old phone")
    client.call("PATCH", f"/api/devices/{key}", {"version": user["device"]["version"], "platform": "ios"})
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("(now platform: ios)")
    complaints.clear()  # the 409
    dialog.get_by_label("Platform").fill("ios")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("old phone")
    assert client.get(f"/api/devices/{key}")["platform"] == "ios"


@acts("/profiles", "PATCH /api/profiles/*")
@acts("/devices/{key}", "PATCH /api/profiles/*")
@acts("/profiles", "POST /api/profiles", "DELETE /api/profiles/*")
@acts("/devices/{key}", "POST /api/profiles", "DELETE /api/profiles/*")
def test_a_profile_is_added_and_removed(browser_page: Page, fleet: LiveFleet, user: dict[str, Any]) -> None:
    page, key = browser_page, user["device"]["id"]
    for where in ("/profiles", f"/devices/{key}"):
        page.goto(where)
        page.get_by_role("button", name="Add a profile").click()
        expect(page.locator("#add-profile")).to_contain_text("Its first one takes the others from it")
        if where == "/profiles":
            page.locator("#add-profile").get_by_label("Device").select_option(key)
        page.locator("#add-profile").get_by_label("Name").fill("abroad")
        page.get_by_label("Leaves at the node").select_option(label="n1 (nyc1)")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(row(page, "abroad").get_by_role("link", name="n1")).to_be_visible()
        (profile,) = fleet.controller.client.get(f"/api/profiles?device={key}")
        assert (profile["name"], profile["node_id"]) == ("abroad", fleet.ids[1])
        row(page, "abroad").get_by_role("button", name="Edit").click()
        dialog = page.locator("#edit-profile")
        expect(dialog.get_by_label("Protocol")).to_have_value("amneziawg")
        dialog.get_by_label("Name").fill("abroad again")
        dialog.get_by_label("Lead it to the node").select_option(label="n2 (sgp1)")
        dialog.get_by_role("button", name="Save").click()
        expect(row(page, "abroad again").get_by_role("link", name="n2")).to_be_visible()
        row(page, "abroad").get_by_role("button", name="Remove").click()
        expect(page.get_by_role("dialog")).to_contain_text("the last one, the device keeps the keys and is given every node")
        confirm(page, "Remove")
        expect(row(page, "abroad")).to_have_count(0)


@acts("/profiles", "POST /api/devices/*/export")
@acts("/devices/{key}", "POST /api/devices/*/export")
def test_what_a_device_is_given_is_exported_to_a_file(
    open_browser: Callable[..., Page], fleet: LiveFleet, user: dict[str, Any], tmp_path: Path, complaints: list[str]
) -> None:
    client, page, key = fleet.controller.client, open_browser(viewport={"width": 390, "height": 844}), user["device"]["id"]
    page.goto(f"/devices/{key}")
    page.get_by_role("button", name="Export").click()
    dialog = page.locator("#export")
    with page.expect_response(lambda response: response.status == 409), page.expect_console_message():
        dialog.get_by_role("button", name="Export").click()
    expect(dialog.get_by_role("alert")).to_have_text(re.compile(r"^device .+[^.]\. [A-Z].+$"))  # what is wrong. What to do.
    complaints.clear()  # of the refusal
    client.post(f"/api/devices/{key}/provision")
    assert Axe().run(page, context="#export").violations_count == 0

    def exported(where: Locator, kind: str = "conf", **choose: str) -> tuple[str, str]:
        where.get_by_role("button", name="Export").click()
        expect(dialog.get_by_label("Password")).to_be_hidden()
        dialog.get_by_role("combobox", name=re.compile("^For")).select_option(kind)
        for label, text in choose.items():
            if label == "node":
                dialog.get_by_label("Enters by the node").select_option(label=text)
            else:
                dialog.get_by_label("Password").fill(text)
        with page.expect_download() as found:
            dialog.get_by_role("button", name="Export").click()
        expect(page.get_by_text("It is among your downloads.").last).to_be_visible()
        expect(dialog).to_be_hidden()
        found.value.save_as(tmp_path / found.value.suggested_filename)
        return found.value.suggested_filename, (tmp_path / found.value.suggested_filename).read_text()

    dialog.get_by_role("combobox", name=re.compile("^For")).select_option("pharos")
    dialog.get_by_label("Password").fill("typed, and then not wanted")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.locator("[name=password]")).to_have_value("")
    head = page.locator(".head")
    name, text = exported(head, node="n2 (sgp1)")
    assert (name, "PrivateKey" in text) == ("pocket-n2.conf", True)
    name, text = exported(head, "pharos", password="a secret of the file")
    assert name.endswith(".pharos") and "PrivateKey" not in text
    assert "PrivateKey" not in page.content() and "a secret of the file" not in page.content()
    expect(dialog.get_by_label("Password")).to_have_value("")

    profile = client.post("/api/profiles", {"device_id": key, "name": "abroad", "node_id": fleet.ids[1]})
    for where in ("/profiles", f"/devices/{key}"):
        page.goto(where)
        mine = row(page, "abroad")
        assert exported(mine)[0] == "pocket-n1.conf"
    client.call("DELETE", f"/api/profiles/{profile['id']}")


@acts("/sessions", "GET /sessions")
def test_sessions_are_filtered(browser_page: Page, fleet: LiveFleet) -> None:
    fleet.nodes.do("inject", node=1, connect=1)
    page = browser_page
    page.goto("/sessions")
    page.get_by_label("Show").select_option("true")
    page.get_by_role("textbox", name="Node").fill("n1")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/sessions?active=true&node=n1*")
    expect(page.get_by_role("row").filter(has_text="connected").first).to_be_visible()
    expect(page.get_by_role("row").filter(has=page.get_by_role("link", name=re.compile("^n[02]$")))).to_have_count(0)
    fleet.nodes.do("inject", node=1, disconnect=1)
    page.get_by_role("link", name="Reset").click()
    page.wait_for_url("**/sessions")
    expect(page.get_by_text("All").first).to_be_attached()


def test_sessions_of_what_was_removed_are_found_by_name(browser_page: Page, fleet: LiveFleet, user: dict[str, Any]) -> None:
    client, page, now = fleet.controller.client, browser_page, time.time()
    session = OpenSession(10**12, (fleet.ids[0], Protocol.AMNEZIAWG, "key of pocket"), now, now)
    session.device_id, session.user_id = user["device"]["id"], user["id"]
    session.closed_at, session.reason = now, "idle"
    with fleet.controller.store.write() as tx:
        save(tx, [session])
    client.call("DELETE", f"/api/devices/{session.device_id}")
    page.goto("/sessions")
    page.get_by_role("textbox", name="User").fill(user["name"])
    page.get_by_role("textbox", name="Device").fill("pocket")
    page.get_by_role("button", name="Filter").click()
    mine = row(page, "pocket (removed)")
    expect(mine).to_have_count(1)
    expect(mine.get_by_role("link", name=user["name"])).to_be_visible()
    expect(mine.get_by_role("link", name="pocket")).to_have_count(0)
    page.goto(f"/audit?target_id={session.device_id}&action=device.rm")
    expect(row(page, "device.rm")).to_contain_text("pocket (removed)")
    page.goto("/sessions?device=fridge")
    expect(page.get_by_role("alert")).to_contain_text("there is no device with the id or name 'fridge'")
    expect(page.get_by_role("textbox", name="Device")).to_have_value("fridge")


@acts("*", "CLICK #menu")
def test_the_menu_of_a_phone_opens_and_closes(open_browser: Callable[..., Page]) -> None:
    page = open_browser(viewport={"width": 390, "height": 844})
    page.goto("/users")
    menu = page.get_by_role("button", name="Menu")
    menu.click()
    expect(menu).to_have_attribute("aria-expanded", "true")
    page.get_by_role("link", name="Profiles").click()
    page.wait_for_url("**/profiles")
    expect(page.get_by_role("heading", level=1)).to_have_text("Profiles")


@acts("/users/{key}", "POST /api/users/*/invite", "COPY #invitation-url", "DELETE /api/invites/*")
def test_somebody_is_invited_with_a_link_and_its_picture_and_the_invite_is_revoked(
    open_browser: Callable[..., Page], fleet: LiveFleet, user: dict[str, Any], pictures: Path
) -> None:
    """The link is shown once, and the list of invites follows on all dashboards."""
    page = open_browser(color_scheme="dark", viewport={"width": 390, "height": 844})
    other = open_browser()
    for each in (page, other):
        each.goto(f"/users/{user['id']}")
        expect(each.locator("#live")).to_have_text("Live")
        expect(each.get_by_text("No invites")).to_be_visible()
    page.get_by_role("button", name="Invite", exact=True).click()
    dialog = page.locator("#invite")
    expect(dialog).to_contain_text("Whoever has it becomes that device")
    dialog.get_by_label("Device").select_option(label="pocket")
    dialog.get_by_label("Valid for").select_option("86400")
    dialog.get_by_role("button", name="Make the link").click()
    shown = page.get_by_role("dialog", name="Invite for")
    link = shown.locator("#invitation-url").inner_text()
    assert re.fullmatch(r"pharosvpn://enroll\?ca=[0-9a-f]{64}&relay=relay.example.org%3A443&token=[\w-]{43}", link), link
    picture = shown.get_by_role("img", name="QR code of the link")
    eventually(lambda: picture.evaluate("image => image.complete && image.naturalWidth") == 512)
    expect(shown.get_by_text("in 24 hours").or_(shown.get_by_text("tomorrow"))).to_be_visible()
    assert Axe().run(page, context="#invitation").violations_count == 0
    page.screenshot(path=pictures / "invitation.png")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.get_by_role("button", name="Copy the link").click()
    eventually(lambda: page.evaluate("navigator.clipboard.readText()") == link)
    shown.get_by_role("button", name="Done").click()
    expect(page.locator("#invitation-url")).to_be_empty()
    expect(page.locator("#invitation img")).to_have_attribute("src", "data:,")
    assert "token=" not in page.content(), "it is in the page no longer"

    for each in (page, other):
        invites = each.get_by_role("region", name="Invites")
        expect(invites.get_by_text("valid", exact=True)).to_be_visible()
        expect(invites.get_by_role("link", name="pocket")).to_be_visible()
    page.get_by_role("region", name="Invites").get_by_role("button", name="Revoke").click()
    expect(page.locator("#confirm")).to_contain_text("of no use any more")
    confirm(page, "Revoke")
    for each in (page, other):
        invites = each.get_by_role("region", name="Invites")
        expect(invites.get_by_text("revoked", exact=True)).to_be_visible()
        expect(invites.get_by_role("button", name="Revoke")).to_have_count(0)
    (invite,) = fleet.controller.client.get(f"/api/users/{user['id']}/invites")
    assert invite["revoked_at"]


def test_who_used_an_invite_is_told_as_it_happens(browser_page: Page, fleet: LiveFleet, user: dict[str, Any]) -> None:
    """A device claims it, by itself, with the calls of the existing client."""
    page, client = browser_page, fleet.controller.client
    made = client.post(f"/api/users/{user['id']}/invite", {"relay": "relay.example:443"})
    page.goto(f"/users/{user['id']}")
    invites = page.get_by_role("region", name="Invites")
    expect(invites.get_by_text("a new device")).to_be_visible()
    leg = relay_leg(fleet.controller)
    try:
        Caravel("self-made phone").enroll(leg, made["url"])
    finally:
        leg.close()
    expect(invites.get_by_text("used", exact=True)).to_be_visible()
    expect(invites.get_by_role("link", name="self-made phone")).to_be_visible()
    expect(invites.get_by_role("button", name="Revoke")).to_have_count(0)
    expect(page.get_by_role("region", name="Devices").get_by_role("link", name="self-made phone")).to_be_visible()
