"""Sessions by country, through all doors, with a GeoIP database there."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.main import cli
from coxswain.messages.geo import LookAgain
from coxswain.messages.sessions import EventBatch, EventKind, NodeEvent
from coxswain.model import Protocol
from tests.coxswain.api.conftest import PASSWORD
from tests.fleet import PERSONAL, Controller, lone_controller
from tests.mmdb import city, write_mmdb
from tests.support import eventually
from tests.web import Web

PLACES = {
    "5.1.0.0/16": city(52.5, 13.4, "Berlin", "Germany", "DE"),
    "1.1.1.0/24": city(-33.9, 151.2, "Sydney", "Australia", "AU"),
}


@pytest.fixture(scope="module")
def placed() -> Iterator[Controller]:
    """A device that goes from Berlin to Sydney, one that stays in Berlin, one that is nowhere."""

    def put_places(state: Path) -> None:
        write_mmdb(state / "dbip-city-lite.mmdb", PLACES)

    with lone_controller(config=PERSONAL, before_start=put_places, web=True) as controller:
        controller.client.post("/api/admins/admin/password", {"new_password": PASSWORD})
        node = controller.client.post("/api/nodes", {"name": "n", "control_addr": "192.0.2.1"})["id"]
        start = time.time() - 600
        stays = (("roamer", "5.1.2.3:4000"), ("berlin", "5.1.2.3:4001"), ("home", "10.0.0.1:5"), ("roamer", "1.1.1.1:7"))
        events = tuple(
            NodeEvent(node, start + i, start + i, EventKind.PEER_CONNECTED, Protocol.AMNEZIAWG, peer, "", endpoint)
            for i, (peer, endpoint) in enumerate(stays)
        )
        assert controller.system.tell("session_tracker", EventBatch("test", 1, events))
        eventually(lambda: len(controller.client.get("/api/sessions")) == 5)
        yield controller


def test_records_and_sessions_by_country(placed: Controller) -> None:
    def records(query: str) -> list[tuple[str, str, str | None]]:
        found = placed.client.get(f"/api/sessions?{query}")
        return [(r["event_type"], r["peer_id"], r.get("country")) for r in found]

    berlin = [("disconnect", "roamer", "DE"), ("connect", "berlin", "DE"), ("connect", "roamer", "DE")]
    assert records("country=DE") == records("country=de&node=n") == berlin
    assert records("country=AU&event_type=connect") == [("connect", "roamer", "AU")]
    assert records("country=NZ") == [], "there is a database, and nobody was there"
    assert ("connect", "home", None) in records(""), "where nobody knows, nothing is said"
    for query in ("history?", "active?", "history?node=n&"):
        found = placed.client.get(f"/api/sessions/{query}country=DE")
        assert [(s["peer_key"], s["country"]) for s in found] == [("berlin", "DE")], "the other one has gone on"


def test_the_command_line_asks_for_countries(placed: Controller) -> None:
    config = str(placed.home.parent / "cox.yaml")

    def said(*words: str) -> str:
        done = CliRunner().invoke(cli, ["sessions", *words, "--config", config], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "5.1.2.3:4001 DE" in said("--country", "de") and "AU" not in said("--country", "de")
    assert "1.1.1.1:7 AU" in said("events", "--country", "AU")
    assert [row["country"] for row in csv.DictReader(io.StringIO(said("export")))] == ["", "DE", "AU"]
    assert len(list(csv.DictReader(io.StringIO(said("export", "--country", "AU"))))) == 1


def test_the_page_filters_and_shows_them(placed: Controller) -> None:
    web = Web(placed.listen)
    web.log_in("admin", PASSWORD)
    page = web.get("/sessions?country=AU").body.decode()
    assert "1.1.1.1:7" in page and "5.1.2.3:4001" not in page
    assert '<span class="hint">AU</span>' in page and 'name="country" value="AU"' in page


def test_a_database_that_goes_takes_nothing_along(placed: Controller) -> None:
    there, away = placed.home / "dbip-city-lite.mmdb", placed.home / "away.mmdb"
    web = Web(placed.listen)
    web.log_in("admin", PASSWORD)
    there.rename(away)
    try:
        placed.system.ask("geo_locator", LookAgain(), deadline=10)
        told = web.get("/sessions?country=NZ").body.decode()
        assert "there is no GeoIP database" in told and "cox geoip update" in told, "beside the form"
        assert "1.1.1.1:7" in web.get("/sessions?country=AU").body.decode(), "what was recorded stays known"
    finally:
        away.rename(there)
        placed.system.ask("geo_locator", LookAgain(), deadline=10)
