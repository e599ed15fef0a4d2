"""A fresh GeoIP database, from a real server to the map: fetched, looked into, put in place; or the old one stays."""

from __future__ import annotations

import datetime as dt
import functools
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from actors.main import cli
from actors.supervision import Harm
from coxswain.cli.client import RemoteError
from coxswain.fetch import Bounds
from coxswain.geoip import UPDATED, check_database
from coxswain.geoip_update import geoip_update, months
from coxswain.messages.geo import Locate
from tests.file_server import Files, serving
from tests.fleet import PERSONAL, Controller, lone_controller
from tests.mmdb import city, write_mmdb
from tests.support import eventually

OLD = {"8.8.8.0/24": city(37.4, -122.1, "Mountain View", "United States", "US")}
NEW = {"8.8.8.0/24": city(50.1, 8.7, "Frankfurt", "Germany", "DE")}


def test_the_month_before_on_whatever_day() -> None:
    """The existing controller takes a month off the day of the month, and on the 31st lands in the same one."""

    def on(*day: int) -> tuple[str, str]:
        return months(dt.datetime(*day, 23, 59, 59, tzinfo=dt.UTC).timestamp())  # type: ignore[misc]

    assert on(2026, 3, 31) == on(2026, 3, 30) == on(2026, 3, 29) == on(2026, 3, 1) == ("2026-03", "2026-02")
    assert on(2028, 3, 29) == ("2028-03", "2028-02")
    assert on(2026, 1, 31) == ("2026-01", "2025-12")
    assert on(2026, 5, 31) == ("2026-05", "2026-04")
    assert on(2026, 12, 31) == ("2026-12", "2026-11")


@given(st.integers(0, 4_000_000_000))
def test_it_is_always_the_one_before(now: int) -> None:
    this, before = (dt.date.fromisoformat(f"{month}-01") for month in months(float(now)))
    assert this.replace(day=1) == dt.datetime.fromtimestamp(now, dt.UTC).date().replace(day=1)
    assert (this - before).days in (28, 29, 30, 31) and before.day == 1


@pytest.fixture
def files() -> Iterator[Files]:
    with serving() as server:
        yield server


@pytest.fixture
def controller(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    """Whose default is a server of ours."""
    published = files.url + "/free/dbip-city-lite-{month}.mmdb.gz"
    bounds = Bounds(wire=1_000_000, unpacked=2_000_000)
    monkeypatch.setattr("actors.tree.geoip_update", functools.partial(geoip_update, published=published, bounds=bounds))
    with lone_controller(tmp_path, config=PERSONAL) as running:
        try:
            yield running
        finally:
            files.released.set()


def packed(directory: Path, records: dict[str, Any], kind: str = "DBIP-City-Lite") -> bytes:
    write_mmdb(directory / "made.mmdb", records, kind)
    return gzip.compress((directory / "made.mmdb").read_bytes())


def where(controller: Controller) -> str:
    found = controller.system.ask("geo_locator", Locate(("8.8.8.8",)), deadline=30)
    return found["8.8.8.8"].city if found else ""


def records(controller: Controller) -> list[tuple[str, str]]:
    return [(e["action"], e["result"]) for e in controller.client.get("/api/audit?action=geoip.update")]


def test_this_months_or_else_last_months_is_put_in_place_and_used_at_once(
    controller: Controller, files: Files, tmp_path: Path
) -> None:
    this, before = months(controller.system.clock.now())
    files.give(f"/free/dbip-city-lite-{before}.mmdb.gz", packed(tmp_path, OLD))
    found = controller.client.post("/api/geoip/update", {})
    assert found["available"] and found["source"] == "DBIP-City-Lite"
    assert found["attribution"]["url"] == "https://db-ip.com"
    assert files.asked == [f"/free/dbip-city-lite-{month}.mmdb.gz" for month in (this, before)]
    assert where(controller) == "Mountain View"
    files.give(f"/free/dbip-city-lite-{this}.mmdb.gz", packed(tmp_path, NEW))
    controller.client.post("/api/geoip/update", {})
    assert where(controller) == "Frankfurt", "without a restart, and without waiting"
    assert records(controller) == [("geoip.update", "ok")] * 2
    assert (controller.home / UPDATED).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("what", ["noise", "country", "empty", "cut", "digest", "large", "status"])
def test_whatever_is_wrong_with_it_the_old_one_stays(
    controller: Controller, files: Files, tmp_path: Path, what: str
) -> None:
    write_mmdb(controller.home / UPDATED, OLD)
    before = (controller.home / UPDATED).read_bytes()
    eventually(lambda: controller.system.harm("geo_locator", Harm.RAISE) and where(controller) == "Mountain View", every=0.2)
    good = packed(tmp_path, NEW)
    content = {
        "noise": gzip.compress(b"no database"),
        "country": packed(tmp_path, NEW, "DBIP-Country-Lite"),
        "empty": packed(tmp_path, {"8.8.8.0/24": {"country": {"iso_code": "US"}}}),
        "cut": gzip.compress(gzip.decompress(good)[:-200]),
        "large": gzip.compress(bytes(3_000_000)),
    }.get(what, good)
    url = files.fail("/x", 500) if what == "status" else files.give("/x", content)
    sha256 = "0" * 64 if what == "digest" else hashlib.sha256(content).hexdigest()
    with pytest.raises(RemoteError) as caught:
        controller.client.post("/api/geoip/update", {"url": url, "sha256": sha256})
    assert caught.value.status == 502
    assert (controller.home / UPDATED).read_bytes() == before and where(controller) == "Mountain View"
    assert not list(controller.home.glob(".*.new")), "nothing is left behind"
    assert set(records(controller)) == {("geoip.update", "error")}


def test_bad_arguments_are_named(controller: Controller) -> None:
    for body, wanted in (
        ({"url": "ftp://x/y"}, "url"),
        ({"url": "http://x/y"}, "not encrypted"),
        ({"url": "https://x/y", "sha256": "abc"}, "sha256"),
    ):
        with pytest.raises(RemoteError, match=wanted) as caught:
            controller.client.post("/api/geoip/update", body)
        assert caught.value.status == 400


def test_a_licence_key_in_a_query_is_used_and_kept_nowhere(controller: Controller, files: Files, tmp_path: Path) -> None:
    content = packed(tmp_path, NEW, "GeoLite2-City")
    url = files.give("/geoip", content) + "?license_key=verysecret"
    controller.client.post("/api/geoip/update", {"url": url, "sha256": hashlib.sha256(content).hexdigest()})
    assert files.asked == ["/geoip?license_key=verysecret"]
    told = [controller.client.get(path) for path in ("/api/operations", "/api/audit", "/api/events/recent?limit=1000")]
    assert "verysecret" not in json.dumps(told)
    controller.store.sync()
    stored = b"".join(path.read_bytes() for path in controller.home.iterdir() if path.is_file())
    assert b"verysecret" not in stored


def test_one_that_hangs_holds_nobody_up_and_can_be_cancelled(controller: Controller, files: Files) -> None:
    body = {"url": files.stall("/x"), "sha256": "0" * 64}
    operation = controller.client.begin("/api/geoip/update", body)["id"]
    eventually(lambda: files.asked)
    assert not controller.client.get("/api/geoip")["available"], "the locator answers meanwhile"
    with pytest.raises(RemoteError) as caught:
        controller.client.begin("/api/geoip/update", {})
    assert caught.value.status == 409, "one at a time"
    controller.client.post(f"/api/operations/{operation}/cancel")
    over = eventually(
        lambda: (o := controller.client.get(f"/api/operations/{operation}"))["state"] == "cancelled" and o, timeout=20
    )
    assert over["direction"] == "back"
    assert not list(controller.home.glob(".*.new"))


def test_the_command_shows_what_it_did_and_what_goes_before(controller: Controller, files: Files, tmp_path: Path) -> None:
    this, _ = months(controller.system.clock.now())
    files.give(f"/free/dbip-city-lite-{this}.mmdb.gz", packed(tmp_path, NEW))
    write_mmdb(controller.home / "GeoLite2-City.mmdb", OLD, "GeoLite2-City")
    config = ["--config", str(tmp_path / "cox.yaml")]
    done = CliRunner().invoke(cli, ["geoip", "update", *config])
    assert done.exit_code == 0, done.output
    assert "DBIP-City-Lite" in done.output and "GeoLite2-City.mmdb" in done.output
    shown = CliRunner().invoke(cli, ["geoip", "show", *config])
    assert shown.exit_code == 0 and "MaxMind" in shown.output
    check_database(controller.home / UPDATED)
    refused = CliRunner().invoke(cli, ["geoip", "update", "--url", "http://x/y", *config])
    assert refused.exit_code == 2


# -- into a file, without a daemon


@pytest.fixture
def alone(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``cox geoip update --out FILE …`` where no daemon runs and no configuration is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("coxswain.geoip_update.PUBLISHED", files.url + "/{month}.gz")
    return lambda *more: CliRunner().invoke(cli, ["geoip", "update", "--out", "cities.mmdb", *more])


def test_the_published_one_comes_into_a_file_of_ones_own(alone: Callable[..., Any], files: Files, tmp_path: Path) -> None:
    this, before = months(time.time())
    files.give(f"/{before}.gz", packed(tmp_path, NEW))
    done = alone()
    assert done.exit_code == 0, done.output
    assert files.asked == [f"/{this}.gz", f"/{before}.gz"]
    assert "DB-IP" in done.output and "geoip_db" in done.output
    assert check_database(tmp_path / "cities.mmdb") == "DBIP-City-Lite"
    assert (tmp_path / "cities.mmdb").stat().st_mode & 0o777 == 0o644


def test_a_url_comes_into_a_file_and_a_link_stays_a_link(alone: Callable[..., Any], files: Files, tmp_path: Path) -> None:
    content = packed(tmp_path, NEW, "GeoLite2-City")
    write_mmdb(tmp_path / "real.mmdb", OLD)
    (tmp_path / "real.mmdb").chmod(0o640)
    (tmp_path / "cities.mmdb").symlink_to("real.mmdb")
    digest = hashlib.sha256(content).hexdigest()
    done = alone("--url", files.give("/x", content) + "?license_key=verysecret", "--sha256", digest, "--json")
    assert done.exit_code == 0 and "verysecret" not in done.output
    assert json.loads(done.stdout)["sha256"] == digest and json.loads(done.stdout)["source"] == "GeoLite2-City"
    assert (tmp_path / "cities.mmdb").is_symlink() and check_database(tmp_path / "real.mmdb") == "GeoLite2-City"
    assert (tmp_path / "real.mmdb").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("what", ["noise", "digest", "plain http", "directory", "nowhere"])
def test_whatever_is_wrong_the_file_of_ones_own_stays(
    alone: Callable[..., Any], files: Files, tmp_path: Path, what: str
) -> None:
    write_mmdb(tmp_path / "cities.mmdb", OLD)
    before = (tmp_path / "cities.mmdb").read_bytes()
    content = b"no database" if what == "noise" else packed(tmp_path, NEW)
    digest = "0" * 64 if what == "digest" else hashlib.sha256(content).hexdigest()
    more = ["--url", files.give("/x", content), *(("--sha256", digest) if what != "plain http" else ())]
    more += {"directory": ["--out", "."], "nowhere": ["--out", "no/such/place.mmdb"]}.get(what, [])
    done = alone(*more)
    assert done.exit_code not in (0, 3), done.output
    assert (tmp_path / "cities.mmdb").read_bytes() == before and not list(tmp_path.glob(".*.new"))
