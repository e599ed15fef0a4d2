"""Pictures of every page, behind ``tools/screenshots``: a small fleet with people, paths and a node in trouble."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
from playwright.sync_api import Page, sync_playwright
from rig import ROOT, Daemon, RigError, Simulator, end_at_sigterm, enrol, make_csrs, scratch, wait_until

from coxswain.alerts.model import Alert, AlertStatus, Severity
from coxswain.servers import Relay
from coxswain.store import open_store
from coxswain.store.alerts import insert as insert_alert
from coxswain.store.servers import insert_relay
from tests.support import some_ports

NODES = ("fra-1", "fra-2", "ams-1", "hel-1", "lon-1", "nyc-1", "sfo-1", "sgp-1", "nrt-1", "syd-1")
IN_TROUBLE = 9
MOST_BYTES = 147_000
PEOPLE = {
    "Amara Okafor": ("pixel", "thinkpad"),
    "Bruno Conti": ("iphone", "macbook", "ipad"),
    "Chiara Weiss": ("galaxy", "framework"),
    "Dmitri Halonen": ("fairphone", "desktop"),
    "Esi Mensah": ("pixel", "surface"),
    "Farid Karimi": ("iphone", "macbook"),
    "Greta Lindqvist": ("pixel", "zenbook"),
    "Hana Sato": ("xperia", "vaio"),
}
PLATFORMS = {"iphone": "ios", "ipad": "ios", "macbook": "macos", "surface": "windows", "vaio": "windows", "desktop": "linux",
             "thinkpad": "linux", "framework": "linux", "zenbook": "windows"}  # fmt: skip


RELAYS = (
    Relay("rly_screenshot000001", "ams-lighthouse", endpoint="198.51.100.7:8444", egress_endpoint="198.51.100.7:8456",
          egress_hop=1, onion_endpoint="198.51.100.7:8457", onion_pubkey="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
          region="ams3", agent_version="v0.4.0", status="active"),
    Relay("rly_screenshot000002", "oslo-pier", endpoint="198.51.100.23:8444", egress_endpoint="198.51.100.23:8456",
          egress_hop=2, region="osl1", agent_version="v0.4.0", status="active"),
)  # fmt: skip
"""Written into the inventory, because installing one would need a machine; nobody answers there."""


def add_relays(home: Path) -> None:
    with closing(open_store(home / "state/app.db")) as store, store.write() as tx:
        for relay in RELAYS:
            insert_relay(tx, relay)


def add_alerts(home: Path, ids: list[str], device: dict[str, Any]) -> None:
    """What rules find within days, so that there is something to see; written beside the running daemon."""
    now = time.time()
    travel = {
        "from": {"ip": "203.0.113.9", "city": "Oslo", "country": "NO", "at": "2026-03-01T10:00:00Z"},
        "to": {"ip": "198.51.100.7", "city": "Sydney", "country": "AU", "at": "2026-03-01T11:00:00Z"},
        "distance_km": 15_948.2, "minutes": 60, "implied_kmh": 16_218.51, "max_kmh": 900,
    }  # fmt: skip
    logins = {"source_ip": "198.51.100.99", "failure_count": 7, "window": "10m0s", "attempted_usernames": ["admin", "root"]}
    about = {"device_id": device["id"], "user_id": device["user_id"], "node_id": ids[0]}
    kinds: list[tuple[str, Severity, dict[str, Any], dict[str, str]]] = [
        ("impossible_travel", Severity.CRITICAL, travel, about),
        ("auth_failure_spike", Severity.WARNING, logins, {}),
        ("new_geo", Severity.INFO, {"country_name": "Iceland", "city": "Reykjavik"}, about),
    ]
    rng = random.Random(3)  # noqa: S311 - pictures
    with closing(open_store(home / "state/app.db")) as store, store.write() as tx:
        for number in range(45):
            kind, severity, detail, of = kinds[number if number < 3 else rng.choice((1, 1, 2, 2, 2))]
            at = now - (60 * (number + 1) if number < 3 else rng.uniform(0.1, 6.9) * 86_400)
            status = AlertStatus.OPEN if number < 3 else AlertStatus.RESOLVED
            insert_alert(
                tx, Alert(f"alr_screenshot{number:06d}", at, kind, severity, status, f"{kind}:{number}", at, **of,
                          detail=detail, created_at=at, updated_at=at),
            )  # fmt: skip


def furnish(daemon: Daemon, ids: list[str]) -> dict[str, str]:
    """People with devices, profiles, paths, tokens and admins. Returns the addresses of the pages about one of them."""
    client = daemon.client()
    for number, key in enumerate(ids):
        change = {"endpoint_ips": [f"203.0.113.{number + 10}"], "version": client.get(f"/api/nodes/{key}")["version"]}
        client.call("PATCH", f"/api/nodes/{key}", change)
    wait_until("every node is in sync", lambda: client.get("/api/status")["fleet"]["in_sync"] == len(ids), 60)
    client.post("/api/paths", {"name": "europe-to-tokyo", "node_ids": [ids[0], ids[8]], "color": "#f6c177"})
    client.post("/api/paths", {"name": "over-three-seas", "node_ids": [ids[4], ids[5], ids[6]]})
    paths = client.get("/api/paths")
    devices = []
    for name, gadgets in PEOPLE.items():
        email = f"{name.split()[0].lower()}@example.org"
        user = client.post("/api/users", {"name": name, "email": email})
        for gadget in gadgets:
            body = {"name": f"{name.split()[0].lower()}-{gadget}", "platform": PLATFORMS.get(gadget, "android")}
            devices.append(client.post(f"/api/users/{user['id']}/devices", body))
    for number, device in enumerate(devices):
        if number % 2:
            profile = {"device_id": device["id"], "protocol": "amneziawg"}
            target = {"path_id": paths[number % 2]["id"]} if number % 5 == 0 else {"node_id": ids[number % 8]}
            client.post("/api/profiles", profile | target | {"name": ("home", "travel", "work")[number % 3]})
        else:
            client.post(f"/api/devices/{device['id']}/provision")
    client.post(f"/api/devices/{devices[4]['id']}/suspend")
    client.post(f"/api/devices/{devices[0]['id']}/bind", {"path_id": paths[0]["id"]})
    for name, hops in (("over-the-north-sea", RELAYS), ("by-amsterdam", RELAYS[:1])):
        client.post("/api/control-paths", {"name": name, "hops": [relay.id for relay in hops]})
    client.post("/api/tokens", {"name": "grafana", "scope": "monitor", "expires": "2160h"})
    client.post("/api/tokens", {"name": "inventory export", "scope": "readonly", "expires": "720h"})
    gone = client.post("/api/tokens", {"name": "old laptop", "scope": "admin", "expires": "720h"})
    client.call("DELETE", f"/api/tokens/{gone['id']}")
    client.post("/api/admins", {"email": "ops@example.org", "password": "a password of the night shift"})
    client.post("/api/servers/self", {"host": "controller.example.org"})
    operation = client.get("/api/operations?limit=1")[0]
    return {
        "node": f"/nodes/{ids[0]}",
        "user": f"/users/{devices[0]['user_id']}",
        "device": f"/devices/{devices[0]['id']}",
        "operation": f"/operations/{operation['id']}",
        "relay": f"/relays/{RELAYS[0].id}",
        "alert": "/alerts/alr_screenshot000000",
    }


@contextmanager
def furnished(home: Path) -> Iterator[tuple[Daemon, dict[str, str]]]:
    """A daemon with a fleet at work, and one node that does not answer."""
    daemon = Daemon(home)
    fleet = home / "fleet"
    fleet.mkdir()
    base_port = some_ports(len(NODES))
    simulator = Simulator(fleet, base_port)
    try:
        daemon.init()
        add_relays(home)
        daemon.start()
        make_csrs(fleet, len(NODES))
        ids = [node["id"] for node in enrol(daemon.client(), fleet, NODES, base_port)]
        simulator.start("--lively", "--seed", "11")
        pages = furnish(daemon, ids)
        add_alerts(home, ids, daemon.client().get("/api/devices?limit=1")[0])
        simulator.command("connect", peers=40)
        simulator.command("stop", node=IN_TROUBLE)
        client, lost = daemon.client(), f"/api/nodes/{ids[IN_TROUBLE]}"
        wait_until("the node in trouble is seen", lambda: client.get(lost)["status"] != "active", 60)
        wait_until("clients are connected", lambda: client.get("/api/status")["sessions"]["active"] > 20, 60)
        yield daemon, pages
    finally:
        simulator.stop()
        daemon.kill()


def sign_in(page: Page, daemon: Daemon) -> None:
    page.goto("/login")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(daemon.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("Live", exact=True).wait_for()


def addresses(one: dict[str, str]) -> dict[str, str]:
    from coxswain.web.table import PAGES  # noqa: PLC0415 - after the rig has set up the path

    whole = [route.path for route in PAGES if not route.path.startswith("/ui/") and "{" not in route.path]
    return {path.strip("/") or "fleet": path for path in whole} | one


def shoot(page: Page, file: Path, *, whole: bool) -> None:
    """For the docs, only as much of the page as makes a small file."""
    page.screenshot(path=file, full_page=whole)
    size = page.viewport_size or {"width": 0, "height": 0}
    height = size["height"]
    while not whole and file.stat().st_size > MOST_BYTES:
        height -= 40
        page.screenshot(path=file, clip={"x": 0, "y": 0, "width": size["width"], "height": height})


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs/images", help="Where to.")
@click.option("--theme", type=click.Choice(["light", "dark"]), multiple=True, default=["light"])
@click.option("--width", type=int, multiple=True, default=[1280])
@click.option("--only", multiple=True, help="Some pages, by name.")
def main(*, out: Path, theme: tuple[str, ...], width: tuple[int, ...], only: tuple[str, ...]) -> None:
    """Make pictures of every page."""
    end_at_sigterm()
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        raise RigError("no Chromium here; on Debian: apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    several = len(theme) * len(width) > 1
    with scratch("screenshots") as home, furnished(home) as (daemon, one), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        state = None
        for scheme in theme:
            for across in width:
                size: Any = {"width": across, "height": 860 if across > 500 else 844}
                more: dict[str, Any] = {"color_scheme": scheme, "viewport": size, "storage_state": state}
                context = browser.new_context(base_url=f"http://{daemon.listen}", reduced_motion="reduce", **more)
                page = context.new_page()
                if state is None:
                    page.goto("/login")
                    sign_in(page, daemon)
                    state = context.storage_state()
                for name, path in addresses(one).items():
                    if not only or name in only:
                        page.goto(path, wait_until="networkidle")
                        if name == "fleet":
                            page.locator(".feed li:nth-child(4)").wait_for(timeout=120_000)
                        file = out / f"dashboard-{name}{f'-{scheme}-{across}' if several else ''}.png"
                        shoot(page, file, whole=several)
                        click.echo(f"{file.name}: {file.stat().st_size // 1000} kB")
                context.close()
        browser.close()


if __name__ == "__main__":
    try:
        main()
    except RigError as error:
        click.echo(f"screenshots: {error}", err=True)
        sys.exit(1)
