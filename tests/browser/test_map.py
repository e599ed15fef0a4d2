"""Pins from a GeoIP database that arrives while people look, and the credit that its licence wants."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from actors.geo_locator import _Refresh
from tests.fleet import LiveFleet
from tests.mmdb import city, write_mmdb
from tests.support import an_addr


def test_a_database_puts_pins_on_the_map_with_its_credit(browser_page: Page, fleet: LiveFleet, base: str) -> None:
    page, client = browser_page, fleet.controller.client
    made = client.post("/api/nodes", {"name": "far", "control_addr": an_addr("127.0.0.1"), "public_ip": "8.8.8.8"})
    file = fleet.controller.home / "dbip-city-lite.mmdb"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    try:
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.get_by_text("1 not on the map")).to_be_visible()
        expect(page.get_by_role("link", name="IP Geolocation by DB-IP")).to_have_count(0)
        write_mmdb(file, {"8.8.8.0/24": city(-33.9, 151.2, "Sydney", "Australia", "AU")})
        assert fleet.controller.system.tell("geo_locator", _Refresh())
        expect(page.get_by_role("link", name="IP Geolocation by DB-IP")).to_have_attribute("href", "https://db-ip.com")
        pin = page.get_by_role("link", name="Sydney: far")
        expect(pin).to_be_visible()
        assert Axe().run(page, context=".map").violations_count == 0
        pin.focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/nodes/{made['id']}")
        assert all(url.startswith((base, base.replace("http", "ws"))) for url in asked), "offline: nobody else is asked"
    finally:
        file.unlink(missing_ok=True)
        fleet.controller.system.tell("geo_locator", _Refresh())
        client.call("DELETE", f"/api/nodes/{made['id']}")
