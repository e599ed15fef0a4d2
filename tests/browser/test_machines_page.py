"""From an address to a node and a relay, from the dashboard alone: a real sshd, the real agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.actions import acts
from tests.browser.conftest import confirm
from tests.fleet import LiveFleet
from tests.machines import PASSWORD, Machine, agent_file, relay_file

_SLOW_MS = 60_000


def finished(page: Page) -> None:
    """Waits on the page of an operation until all its steps are done."""
    page.wait_for_url("**/operations/op_*")
    expect(page.locator(".card").first.get_by_text("done", exact=True)).to_be_visible(timeout=_SLOW_MS)


def newer(path: Path, version: str) -> None:
    """A program that says its version the way a release does, to those who only look at its bytes."""
    with path.open("ab") as file:
        file.write(f'\nRELEASE = """\nmod\tcoxswain.example/agent\t{version}\t\n"""\n'.encode())


@acts("/servers", "POST /api/servers", "POST /api/servers/host-key", "POST /api/servers/*/deploy", "COPY #ssh-key")
@acts("/servers", "POST /api/nodes/*/update-agent", "POST /api/nodes/*/remove", "DELETE /api/servers/*")
@acts("/servers", "POST /api/relays/*/update-agent", "POST /api/relays/*/remove")
def test_a_server_is_added_set_up_upgraded_and_cleared(
    browser_page: Page, fleet: LiveFleet, home: Path, machine: Machine, complaints: list[str]
) -> None:
    page = browser_page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/servers")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == fleet.controller.client.get("/api/ssh-key")["public_key"]

    page.get_by_role("button", name="Add a server").click()
    dialog = page.locator("#add-server")
    dialog.get_by_role("button", name="Ask the host").click()
    expect(dialog.get_by_label("Address")).to_be_focused()  # it says itself that it is needed
    dialog.get_by_label("Address").fill("not an address")
    with page.expect_response(lambda response: response.status == 400), page.expect_console_message():
        dialog.get_by_role("button", name="Ask the host").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Address: 'not an address'")
    complaints.clear()  # of the refusal
    dialog.get_by_label("Address").fill(machine.address)
    dialog.get_by_label("Name").fill("host-one")
    dialog.get_by_role("button", name="Ask the host").click()
    expect(dialog.get_by_label("Host key")).to_have_value(machine.fingerprint)
    dialog.get_by_label("One-time password").fill(PASSWORD)
    dialog.get_by_role("button", name="The key is right").click()
    finished(page)
    page.goto("/servers")
    facts = page.get_by_role("region", name="host-one").locator("dl.facts")
    expect(facts.locator("dt")).to_contain_text(["System", "Memory", "Rights", "AmneziaWG's tools"])
    expect(facts).not_to_contain_text("memory_mb")

    # one after the other: they would listen on the same port
    kinds = (("node", agent_file, "0.3.1", "0.3.2"), ("relay", relay_file, "0.4.0", "0.5.0"))
    for what, make, old, new in kinds:
        make(home / what, version=old)
        page.goto("/servers")
        page.get_by_label("host-one").get_by_role("button", name="Install a node or relay").click()
        dialog = page.locator("#deploy")
        dialog.get_by_label("What").select_option(what)
        expect(dialog.get_by_text("egress:")).to_be_visible(visible=what == "relay")
        if what == "relay":
            assert Axe().run(page, context="#deploy").violations_count == 0
            expect(dialog.get_by_label("no ingress")).to_be_disabled()
            dialog.get_by_label("egress:").check()
            dialog.get_by_label("Egress port").fill("9456")
            dialog.get_by_label("Hop").fill("8")
            dialog.get_by_label("Endpoint").fill(f"{machine.address}:9444")
        dialog.get_by_text("Another program").click()
        digest = dialog.get_by_label("SHA-256")
        dialog.get_by_role("textbox", name="URL in place").fill("https://example.org/node")
        digest.fill("too short")
        assert Axe().run(page, context="#deploy").violations_count == 0
        dialog.get_by_text("Another program").click()
        with page.expect_response(lambda response: response.status == 400), page.expect_console_message():
            dialog.get_by_role("button", name="Install it").click()
        expect(dialog.get_by_role("alert")).to_contain_text("SHA-256: what is behind a URL")
        expect(digest).to_be_focused()  # it was folded away
        complaints.clear()  # of the refusal
        dialog.get_by_role("textbox", name="URL in place").fill("")
        digest.fill("")
        dialog.get_by_role("textbox", name="File on").fill(f"{home}/{what}")
        dialog.get_by_label("Name", exact=True).fill(f"{what}-on-host")
        dialog.get_by_role("button", name="Install it").click()
        finished(page)
        if what == "relay":
            relay = fleet.controller.client.get("/api/relays/relay-on-host")
            assert (relay["endpoint"], relay["egress_hop"]) == (f"{machine.address}:9444", 8)
            assert relay["egress_endpoint"] == f"{machine.address}:9456"

        newer(make(home / what, version=new), f"v{new}")
        page.goto("/servers")
        page.get_by_role("button", name=f"Upgrade to v{new}").click()
        if page.locator("#confirm").is_visible():
            confirm(page, f"Upgrade to v{new}")
        finished(page)
        if what == "node":
            assert fleet.controller.node("node-on-host")["link_state"] == "live"
            assert fleet.controller.node("node-on-host")["agent_version"] == new

        page.goto("/servers")
        page.get_by_role("region", name="host-one").get_by_role("button", name="Remove").click()
        confirm(page, "Remove")
        expect(page.locator("#toasts")).to_contain_text("Remove what runs on it first")
        complaints.clear()  # the 409
        page.get_by_role("button", name="Uninstall").click()
        confirm(page, "Uninstall")
        finished(page)

    page.goto("/servers")
    card = page.get_by_role("region", name="host-one")
    card.get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    expect(page.locator("#toasts")).to_contain_text("Removed.")
    expect(card).to_have_count(0)
    assert machine.files("/usr/local/bin") == []


@acts("/servers", "POST /api/rollouts")
@acts(
    "/nodes/{key}",
    "POST /api/nodes/*/renew",
    "POST /api/nodes/*/rollback",
    "POST /api/nodes/*/stop",
    "POST /api/nodes/*/guard",
)
@acts("/nodes/{key}", "POST /api/nodes/*/start", "POST /api/nodes/*/update-agent", "POST /api/nodes/*/remove")
def test_an_agent_is_seen_to_from_the_page_of_its_node(
    open_browser: Callable[..., Page], fleet: LiveFleet, home: Path, machine: Machine
) -> None:
    client, page = fleet.controller.client, open_browser(viewport={"width": 390, "height": 844})
    agent_file(home / "node", version="0.3.1")
    body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint, "name": "host-four"}
    server = client.post("/api/servers", body)
    client.post(f"/api/servers/{server['id']}/deploy", {"role": "node", "name": "cared-for"})
    newer(agent_file(home / "node", version="0.3.2"), "v0.3.2")

    def press(button: str, answer: str = "") -> None:
        page.goto("/nodes/cared-for")
        page.get_by_role("region", name="On its machine").get_by_role("button", name=button).click()
        if button != "Start the agent":
            confirm(page, answer or button)
        finished(page)

    press("Upgrade to v0.3.2")
    assert fleet.controller.node("cared-for")["agent_version"] == "0.3.2"
    press("Put the previous agent back", "Put it back")
    assert fleet.controller.node("cared-for")["agent_version"] == "0.3.1"
    press("Stop the agent")
    press("Start the agent")
    press("Renew its certificate")
    press("Guard its control port", "Set the rules")
    page.goto("/nodes/cared-for")
    state = page.locator(".card").filter(has=page.get_by_role("heading", name="State", exact=True))
    expect(state.get_by_text("Operation")).to_have_count(0)  # what is done is over
    machine.stop_sshd()
    failing = client.begin("/api/nodes/cared-for/renew", {})
    link = state.get_by_role("link", name="Renew a node's certificate")
    expect(link).to_have_attribute("href", f"/operations/{failing['id']}")
    expect(state.get_by_text("failed", exact=True)).to_be_visible(timeout=_SLOW_MS)
    expect(state).to_contain_text("connect, and look at what the host is, 1 of ")
    machine.start()
    client.post(f"/api/operations/{failing['id']}/cancel", {})
    expect(link).to_have_count(0)

    page.goto("/servers")
    page.get_by_role("button", name="Upgrade nodes").click()
    dialog = page.locator("#rollout")
    expect(dialog.get_by_role("heading")).to_have_text("Upgrade nodes to v0.3.2")
    expect(dialog.locator("option")).to_have_count(1)  # those of others are on no machine of ours
    assert Axe().run(page, context="#rollout").violations_count == 0
    dialog.get_by_label("Then at a time").fill("2")
    dialog.get_by_role("button", name="Upgrade them").click()
    finished(page)
    operation = client.get(f"/api/operations/{page.url.rpartition('/')[2]}")
    assert (operation["params"]["canary"], operation["params"]["batch"]) == (1, 2)
    facts = page.locator("dl.facts").first
    expect(facts.get_by_role("link", name="cared-for")).to_be_visible()
    expect(facts).not_to_contain_text("node_id")
    assert fleet.controller.node("cared-for")["agent_version"] == "0.3.2"

    page.goto("/nodes/cared-for")
    page.get_by_role("button", name="Forget").click()
    expect(page.locator("#confirm")).to_contain_text("The agent on its machine is left as it is")
    page.get_by_role("button", name="Keep it as it is").click()
    press("Uninstall")
    client.call("DELETE", f"/api/servers/{server['id']}")


@acts("/servers", "POST /api/servers/*/trust")
@acts("/operations", "POST /api/operations/*/retry", "POST /api/operations/*/cancel")
@acts("/operations/{key}", "POST /api/operations/*/retry", "POST /api/operations/*/cancel")
def test_another_host_key_is_refused_until_it_is_trusted(browser_page: Page, fleet: LiveFleet, machine: Machine) -> None:
    """And what failed for it is retried or given up from the list of operations and from its own page."""
    client, page = fleet.controller.client, browser_page
    body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint, "name": "host-two"}
    server = client.post("/api/servers", body)
    machine.new_host_key()
    for where in ("/operations", "/operations/{}"):
        failed = client.begin(f"/api/servers/{server['id']}/deploy", {"role": "node"})
        page.goto(where.format(failed["id"]))
        place = page.get_by_role("row").filter(has=page.locator(f'a[href$="{failed["id"]}"]'))
        place = place if where == "/operations" else page.locator(".card").first
        expect(place.get_by_text("failed", exact=True)).to_be_visible(timeout=_SLOW_MS)
        place.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("It goes on.")).to_be_visible()
        expect(place.get_by_text("failed", exact=True)).to_be_visible(timeout=_SLOW_MS)
        place.get_by_role("button", name="Cancel").click()
        confirm(page, "Cancel it")
        expect(place.get_by_text("undone", exact=True).or_(place.get_by_text("cancelled", exact=True))).to_be_visible(
            timeout=_SLOW_MS
        )
    page.goto("/servers")
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.get_by_text("another host key")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="It is not its key").click()
    expect(page.get_by_text("another host key")).to_have_count(0)
    assert client.get(f"/api/servers/{server['id']}")["host_key"] == server["host_key"]
    client.begin(f"/api/servers/{server['id']}/deploy", {"role": "node"})
    expect(page.get_by_text("another host key")).to_be_visible(timeout=_SLOW_MS)
    card = page.get_by_role("region", name="host-two")
    expect(card.get_by_text("another host key")).to_be_visible()
    card.get_by_role("button", name="Trust it").click()
    expect(page.locator("#confirm")).to_contain_text("somebody may be between")
    confirm(page, "Trust it")
    expect(card.get_by_text("another host key")).to_have_count(0)
    assert client.get(f"/api/servers/{server['id']}")["host_key"] == machine.fingerprint
    client.call("DELETE", f"/api/servers/{server['id']}")


def test_a_password_that_was_wrong_is_given_again_by_keyboard(
    browser_page: Page, fleet: LiveFleet, machine: Machine
) -> None:
    client, page = fleet.controller.client, browser_page
    body = {"ssh_host": machine.address, "password": "wrong", "host_key": machine.fingerprint, "name": "host-five"}
    failed = client.begin("/api/servers", body)
    page.goto("/operations")
    row = page.get_by_role("row").filter(has=page.locator(f'a[href$="{failed["id"]}"]'))
    expect(row.get_by_text(f"host-five ({machine.address})")).to_be_visible()
    page.goto(f"/operations/{failed['id']}")
    page.get_by_role("button", name="Retry").press("Enter")
    give = page.get_by_role("button", name="Give what it needs")
    expect(give).to_be_focused()  # in the place of what was pressed
    give.press("Enter")
    page.locator("#give-password").get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    finished(page)
    expect(page.locator("body")).not_to_be_focused()  # or Tab would begin at the top
    assert page.evaluate("document.querySelector('#content').contains(document.activeElement)")
    (server,) = [each for each in client.get("/api/servers") if each["name"] == "host-five"]
    client.call("DELETE", f"/api/servers/{server['id']}")
    page.reload()
    expect(page.locator("dl.facts").get_by_text("host-five (removed)")).to_be_visible()


@acts("/servers", "PATCH /api/servers/*")
def test_a_machine_that_moved_is_logged_in_to_at_its_new_address(
    open_browser: Callable[..., Page], fleet: LiveFleet, machine: Machine, complaints: list[str]
) -> None:
    """What is refused is said in the form, which keeps what was typed; so does what somebody else changed meanwhile."""
    client, page = fleet.controller.client, open_browser(viewport={"width": 390, "height": 844})
    body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint, "name": "host-three"}
    server = client.post("/api/servers", body)
    own = client.post("/api/servers/self", {"host": "127.0.4.1"})
    page.goto("/servers")
    mine = page.get_by_role("region", name=own["name"], exact=True)
    expect(mine).not_to_contain_text("root@")
    mine.get_by_role("button", name="Install a node or relay").click()
    expect(page.locator("#deploy")).to_contain_text("the machine that the controller itself runs on")
    page.locator("#deploy").get_by_role("button", name="Cancel").click()
    page.get_by_role("region", name="host-three").get_by_role("button", name="Install a node or relay").click()
    expect(page.locator("#deploy .notice")).to_be_hidden()
    page.locator("#deploy").get_by_role("button", name="Cancel").click()
    mine.get_by_role("button", name="Settings").click()
    dialog = page.locator("#edit-server")
    expect(dialog.get_by_label("Address")).to_be_hidden()  # nobody logs in to the controller's own machine
    dialog.get_by_label("Region").fill("hel1")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()

    page.get_by_role("button", name="Add a server").click()
    adding = page.locator("#add-server")
    adding.get_by_label("Address").fill("127.0.4.250")
    page.set_viewport_size({"width": 390, "height": 420})
    adding.get_by_role("button", name="Ask the host").click()  # nobody is there, and no field is named
    expect(adding.get_by_role("alert")).to_contain_text("127.0.4.250")
    expect(adding.get_by_role("alert")).to_be_in_viewport()
    complaints.clear()  # the 502
    page.set_viewport_size({"width": 390, "height": 844})
    adding.get_by_role("button", name="Cancel").click()

    card = page.get_by_role("region", name="host-three")
    card.get_by_role("button", name="Settings").click()
    login = (("Address", machine.address), ("User", "root"), ("Port", "22"))
    for label, value in (("Name", "host-three"), ("Region", ""), *login):
        expect(dialog.get_by_label(label)).to_have_value(value)
    assert Axe().run(page, context="#edit-server").violations_count == 0
    dialog.get_by_label("Address").fill("no such host")
    dialog.get_by_label("Region").fill("fra1")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Address: ")
    expect(dialog.get_by_role("alert")).to_be_in_viewport()
    expect(dialog.get_by_label("Address")).to_be_focused()
    expect(dialog.get_by_label("Address")).to_have_attribute("aria-invalid", "true")
    complaints.clear()  # the 400
    client.call("PATCH", f"/api/servers/{server['id']}", {"version": server["version"], "name": "host-3"})
    dialog.get_by_label("Address").fill("moved.example.org")
    dialog.get_by_label("Port").fill("2222")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody else changed this meanwhile (now name: host-3).")
    complaints.clear()  # the 409
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    expect(card.get_by_text("root@moved.example.org:2222")).to_be_visible()
    changed = client.get(f"/api/servers/{server['id']}")
    assert (changed["name"], changed["region"], changed["host_key"]) == ("host-three", "fra1", machine.fingerprint)

    card.get_by_role("button", name="Settings").click()
    dialog.get_by_label("Name").fill("not this one")
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("region", name=own["name"]).get_by_role("button", name="Settings").click()
    expect(dialog.get_by_label("Name")).to_have_value(own["name"])
    client.call("DELETE", f"/api/servers/{server['id']}")
