"""Places of addresses, from databases as they are and as they should not be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.geoip import Credit, GeoDatabase, Location, candidates, credit_of, public_address
from tests.mmdb import city, write_mmdb

PLACES = {
    "8.8.8.0/24": city(37.4, -122.1, "Mountain View", "United States", "US"),
    "9.9.9.9/32": city(0.0, 0.0),
    "1.1.1.0/24": city(-27.5, 153.0, "", "Australia", "AU"),
    "10.0.0.0/8": city(1.0, 1.0, "Nowhere", "Nowhere", "XX"),
    "2001:4860::/32": city(50.1, 8.7, "Frankfurt", "Germany", "DE"),
    "5.5.5.5/32": city(500.0, 8.0, "Off the map", "Nowhere", "XX"),
    "6.6.6.6/32": {"location": {"accuracy_radius": 5}, "country": {"iso_code": "US"}},
    "7.7.7.7/32": {"location": "text where a map should be"},
}


@pytest.fixture
def database(tmp_path: Path) -> GeoDatabase:
    write_mmdb(tmp_path / "city.mmdb", PLACES)
    found = GeoDatabase([tmp_path / "city.mmdb"])
    assert found.refresh()
    return found


@pytest.mark.parametrize("host", ["8.8.8.8", "8.8.8.8:443", " 8.8.8.77 "])
def test_an_address_is_where_the_database_says(database: GeoDatabase, host: str) -> None:
    assert database.locate(host) == Location(37.4, -122.1, "Mountain View", "United States", "US")


def test_addresses_of_both_kinds_and_places_without_a_city(database: GeoDatabase) -> None:
    seen = database.locate("[2001:4860:4860::8888]:443")
    assert (seen and seen.city) == "Frankfurt"
    assert database.locate("2001:4860::1") == seen
    assert database.locate("1.1.1.1") == Location(-27.5, 153.0, "", "Australia", "AU")


@pytest.mark.parametrize(
    "host",
    ["10.1.2.3", "127.0.0.1:8444", "::1", "fd00::1", "169.254.1.1", "100.64.0.1", "192.0.2.1", "224.0.0.1",
     "fra.example.org", "fra.example.org:8444", "", ":443", "[", "999.1.1.1", "9.9.9.9", "5.5.5.5", "6.6.6.6", "7.7.7.7",
     "4.4.4.4"],
)  # fmt: skip
def test_what_is_no_public_address_or_in_no_known_place_is_nowhere(database: GeoDatabase, host: str) -> None:
    assert database.locate(host) is None


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    assert isinstance(public_address(text), str)


@given(st.ip_addresses())
def test_only_global_addresses_are_looked_up(address: object) -> None:
    found = public_address(str(address))
    assert found in ("", str(address))


def test_the_preferred_one_that_can_be_read_is_taken(tmp_path: Path) -> None:
    (tmp_path / "GeoLite2-City.mmdb").write_bytes(b"this is no database")
    write_mmdb(tmp_path / "dbip-city-lite.mmdb", PLACES)
    found = GeoDatabase(candidates(str(tmp_path / "missing.mmdb"), tmp_path))
    assert found.refresh()
    assert found.source == "DBIP-City-Lite"
    write_mmdb(tmp_path / "missing.mmdb", PLACES, "GeoLite2-City")
    assert found.refresh()
    assert found.source == "GeoLite2-City"


def test_a_database_that_knows_no_cities_is_passed_over(tmp_path: Path) -> None:
    write_mmdb(tmp_path / "city.mmdb", PLACES, "GeoLite2-ASN")
    found = GeoDatabase([tmp_path / "city.mmdb"])
    assert not found.refresh()
    assert (found.source, found.locate("8.8.8.8")) == ("", None)


def test_it_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    found = GeoDatabase([path])
    assert not found.refresh()
    assert found.locate("8.8.8.8") is None
    write_mmdb(path, PLACES)
    assert found.refresh()
    assert not found.refresh(), "nothing is different"
    first = found.locate("8.8.8.8")
    write_mmdb(path, {"8.8.8.0/24": city(1.0, 2.0, "Elsewhere", "Elsewhere", "EE")})
    assert found.locate("8.8.8.8") == first, "the old one is read until it is looked at"
    assert found.refresh()
    moved = found.locate("8.8.8.8")
    assert (moved and moved.city) == "Elsewhere"
    path.unlink()
    assert found.refresh()
    assert (found.locate("8.8.8.8"), found.source) == (None, "")


def test_a_cut_or_mangled_database_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    write_mmdb(path, PLACES)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        for mangled in (whole[:cut], whole[:cut] + os.urandom(8) + whole[cut + 8 :]):
            path.write_bytes(mangled)
            found = GeoDatabase([path])
            found.refresh()
            for host in ("8.8.8.8", "1.1.1.1", "2001:4860::1"):
                found.locate(host)
            found.close()


@pytest.mark.parametrize(
    ("source", "credit"),
    [
        ("DBIP-City-Lite", Credit("IP Geolocation by DB-IP", "https://db-ip.com")),
        ("db-ip city", Credit("IP Geolocation by DB-IP", "https://db-ip.com")),
        ("GeoLite2-City", Credit("GeoLite2 data created by MaxMind", "https://www.maxmind.com")),
        ("GeoIP2-City", Credit("GeoLite2 data created by MaxMind", "https://www.maxmind.com")),
        ("Somebody's-City", None),
        ("", None),
    ],
)
def test_credit_is_given_where_it_is_due(source: str, credit: Credit | None) -> None:
    assert credit_of(source) == credit
