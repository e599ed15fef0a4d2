"""A real browser on a real controller with real (simulated) nodes. Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    StorageState,
    expect,
    sync_playwright,
)

from coxswain.messages.audit import Caller, Committed
from coxswain.messages.servers import AddRelay
from coxswain.servers import Relay
from tests.browser.actions import Recorder, carried_out_by
from tests.fleet import LiveFleet, live_fleet
from tests.machines import Machine, agent_file, relay_file

PASSWORD = "correct horse battery staple"
expect.set_options(timeout=20_000)
_addresses = itertools.count(20)
REGIONS = ("fra1", "nyc1", "sgp1")
_CONFIG = """\
posture: personal
state_dir: ./state
node:
  binary_path: {home}/node
relay:
  binary_path: {home}/relay
  public_endpoint: relay.example.org:443
"""


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the controller lives, beside the programs that it installs on machines."""
    made = tmp_path_factory.mktemp("browser")
    agent_file(made / "node", version="0.3.1")
    relay_file(made / "relay")
    return made


@pytest.fixture(scope="package")
def fleet(home: Path) -> Iterator[LiveFleet]:
    config = _CONFIG.format(home=home)
    with live_fleet(home, 3, 14_700, web=True, regions=REGIONS, interval_s=2.0, config=config) as found:
        found.controller.client.post("/api/admins/usr_admin/password", {"new_password": PASSWORD})
        for place, key in enumerate(found.ids):  # without an address nobody can be sent there, and no path leads there
            version = found.controller.node(key)["version"]
            change = {"endpoint_ips": [f"192.0.2.{place + 10}"], "version": version}
            found.controller.client.call("PATCH", f"/api/nodes/{key}", change)
        add_relay(found, "harbour")
        found.add_peers(2)
        found.controller.all_in_sync(3)
        yield found


def add_relay(fleet: LiveFleet, name: str, hop: int = 1, host: str = "192.0.2.200") -> str:
    """A relay in all its roles, as if it were installed on a machine that only others can log in to. Its id."""
    relay = Relay(
        "", name, endpoint=f"{host}:8455", egress_endpoint=f"{host}:8456", egress_hop=hop,
        onion_endpoint=f"{host}:8457", onion_pubkey="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        hostname=host, region="ams3", agent_version="v0.4.0", status="active",
    )  # fmt: skip
    done: Committed[Relay] = fleet.controller.system.ask("servers", AddRelay(Caller("tests", "system"), relay), deadline=30)
    return done.value.id


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert binary, "no Chromium here; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--explicitly-allowed-ports=10080"]  # a free port may be that one, which it holds for unsafe
        browser = playwright.chromium.launch(executable_path=binary, args=args)
        yield browser
        browser.close()


@pytest.fixture
def base(fleet: LiveFleet) -> str:
    return f"http://{fleet.controller.listen}"


@pytest.fixture(scope="package")
def credential(chromium: Browser, fleet: LiveFleet) -> StorageState:
    """The cookie of one login, which most tests share: each login costs what a password's hash has to cost."""
    context = chromium.new_context(base_url=f"http://{fleet.controller.listen}")
    sign_in(context.new_page())
    state = context.storage_state()
    close(context)
    return state


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the browsers of this test complained about: errors in scripts, refused by the CSP, things that are not there."""
    found: list[str] = []
    yield found
    assert not found


@pytest.fixture
def done(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """What browsers did; a test that says what it carries out has to have done it."""
    recorder = Recorder()
    yield recorder
    promised = carried_out_by(request.node.own_markers)
    assert not [action for action in promised if not recorder.did(action)], "was not done"


@pytest.fixture
def open_browser(
    chromium: Browser, base: str, credential: StorageState, complaints: list[str], done: Recorder
) -> Iterator[Callable[..., Page]]:
    """Opens a browser of its own, signed in unless told otherwise; its console has to stay clean."""
    contexts: list[BrowserContext] = []

    def opened(*, signed_in: bool = True, **options: object) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 1800})  # what is out of view is not redrawn
        context = chromium.new_context(base_url=base, storage_state=credential if signed_in else None, **options)
        contexts.append(context)
        done.watch(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda message: complaints.extend(_complaint(page, message)))
        return page

    yield opened
    for context in contexts:
        close(context)


def close(context: BrowserContext) -> None:
    """With its pages at rest: a close that meets a navigation is lost in Chromium, and waited for without end
    (microsoft/playwright#42366). A page may be on its way to the login, say.
    """
    for page in context.pages:
        for _ in range(20):
            try:
                page.goto("about:blank")
                break
            except Error:  # another navigation came first
                page.wait_for_timeout(100)
    context.close()


def _complaint(page: Page, message: ConsoleMessage) -> list[str]:
    """That what a page looks at is gone, because a test removed it or signed out, is no fault of the page."""
    asked = any(door in message.location["url"] for door in ("/ui/", "/api/"))
    gone = asked and any(status in message.text for status in ("404", "401"))
    return [f"{page.url}: {message.text}"] if message.type in ("error", "warning") and not gone else []


@pytest.fixture
def browser_page(open_browser: Callable[..., Page]) -> Page:
    return open_browser()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots are kept, as artefacts of the run; never in the checkout's history."""
    directory = Path(os.environ.get("COXSWAIN_SCREENSHOTS", "build/screenshots"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A host with a real sshd, to be set up from the dashboard."""
    with Machine(tmp_path, f"127.0.4.{next(_addresses)}") as started:
        yield started


def confirm(page: Page, name: str) -> None:
    """Says yes to the question that a button asked."""
    page.locator("#confirm").get_by_role("button", name=name, exact=True).click()


def sign_in(page: Page, password: str = PASSWORD) -> None:
    page.goto("/login")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/login" not in url)
