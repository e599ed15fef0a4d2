"""The locator in a real system: questions, a file that is replaced, a crash."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from actors.event_hub import EventHub
from actors.geo_locator import GeoLocator
from actors.supervision import ChildSpec, Harm, System
from coxswain.clock import SystemClock
from coxswain.live.ring import EventRing
from coxswain.messages.geo import GeoInfo, GetGeoInfo, Locate
from coxswain.messages.hub import EventsAfter
from coxswain.store import open_store
from tests.mmdb import city, write_mmdb
from tests.support import eventually

MOUNTAIN = {"8.8.8.0/24": city(37.4, -122.1, "Mountain View", "United States", "US")}
FRANKFURT = {"8.8.8.0/24": city(50.1, 8.7, "Frankfurt", "Germany", "DE")}


def test_it_answers_follows_its_file_and_outlives_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    store = open_store(tmp_path / "app.db")
    system = System(
        children=(
            ChildSpec("event_hub", EventHub, {"store": store, "ring": EventRing()}),
            ChildSpec("geo_locator", GeoLocator, {"files": [path], "refresh_s": 0.02}),
        ),
        clock=SystemClock(),
        rng=random.Random(1),
        allow_chaos=True,
    )

    def where() -> Any:
        found = system.ask("geo_locator", Locate(("8.8.8.8:443", "10.0.0.1")), deadline=30)
        return {host: place.city for host, place in found.items()}

    system.start()
    try:
        assert system.wait_up(10)
        assert where() == {}
        assert system.ask("geo_locator", GetGeoInfo(), deadline=30) == GeoInfo("")
        write_mmdb(path, MOUNTAIN)
        eventually(lambda: where() == {"8.8.8.8:443": "Mountain View"})
        told = system.ask("event_hub", EventsAfter(0), deadline=30)
        assert "inventory.places" in {event.event.kind for event in told.events}, "maps are drawn again"
        assert system.harm("geo_locator", Harm.RAISE, 0)
        eventually(lambda: where() == {"8.8.8.8:443": "Mountain View"})
        write_mmdb(path, FRANKFURT, "GeoLite2-City")
        eventually(lambda: where() == {"8.8.8.8:443": "Frankfurt"})
        assert system.ask("geo_locator", GetGeoInfo(), deadline=30).text == "GeoLite2 data created by MaxMind"
    finally:
        assert system.stop()
        store.close()
