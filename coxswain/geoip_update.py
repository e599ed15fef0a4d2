"""``geoip.update``: a fresh GeoIP database in the place of the old one (management-plane.md 11).

Fetched beside it, looked into, and only then renamed over it: whatever goes wrong, the old one stays.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coxswain.errors import CoxswainError, InvalidInput, SourceFailure
from coxswain.fetch import USUAL, Bounds, Fetched, NotThereError, check_url, fetch, shown
from coxswain.geoip import UPDATED, check_database
from coxswain.messages.geo import GeoInfo, LookAgain
from coxswain.operations import Kind, NeedsSecret, OnFailure, Recovery, Step, Work
from coxswain.replacing import made_like

__all__ = ["PUBLISHED", "download", "geoip_update", "months"]

PUBLISHED = "https://download.db-ip.com/free/dbip-city-lite-{month}.mmdb.gz"
"""DB-IP Lite, CC BY 4.0; a new one each month."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FETCH_S = 1_800.0


def months(now: float) -> tuple[str, str]:
    """This month and the one before it, in UTC: ``2026-03``, ``2026-02``. On whatever day of the month."""
    day = dt.datetime.fromtimestamp(now, dt.UTC)
    before = day.replace(day=1) - dt.timedelta(days=1)
    return f"{day:%Y-%m}", f"{before:%Y-%m}"


def geoip_update(state_dir: Path, *, published: str = "", bounds: Bounds = USUAL) -> Kind:
    """Params: ``url`` (without its query; empty: the published one of this month, or else of the last), ``sha256``. Secret:
    ``url``, whole, if it has a query: that may hold a licence key.

    ``published``: where, with ``{month}`` in it; empty: ``PUBLISHED``. Keeps ``source`` (what the database says it is),
    ``url``, ``sha256``, ``size`` and ``in_use``.
    """
    target = state_dir / UPDATED
    fresh = state_dir / f".{UPDATED}.new"

    def get(work: Work) -> None:
        given = work.params["url"]
        urls = (_whole(work),) if given else _monthly(published, work.now())
        more = {"sha256": work.params["sha256"], "bounds": bounds, "hold": work.hold, "check": work.check}
        found = _first_there(urls, lambda url: _fetch(url, fresh, work.say, **more), work.say)
        kind = _kind_of(fresh, found)
        work.say(f"{found.size:,} bytes, {kind}, SHA-256 {found.sha256}")
        work.keep(source=kind, url=shown(found.url), sha256=found.sha256, size=found.size)

    def put(work: Work) -> None:
        try:
            fresh.replace(target)
            _sync_directory(state_dir)
        except FileNotFoundError:
            if not target.exists():
                raise SourceFailure(f"{fresh.name} is gone from the state directory") from None
        except OSError as error:
            raise CoxswainError(f"{UPDATED} cannot be put in place: {error.strerror}") from None
        info: GeoInfo = work.ask("geo_locator", LookAgain())
        work.keep(in_use=info.file == str(target))
        if info.file != str(target):
            work.say(f"{info.file or 'no file'} is used, which goes before {target.name}")

    return Kind(
        name="geoip.update",
        steps=lambda _params: (
            Step("fetch", "fetch it, and look into it", get, lambda _work: fresh.unlink(missing_ok=True), _FETCH_S),
            Step("install", "put it in place", put, deadline_s=30.0),
        ),
        check=_check,
        target=lambda _params, _data: ("geoip", UPDATED),
        locks=lambda _params: ("geoip",),
        after_crash=Recovery.UNDO,
        on_failure=OnFailure.UNDO,
    )


def _check(params: Mapping[str, Any]) -> dict[str, Any]:
    url, sha256 = str(params.get("url") or ""), str(params.get("sha256") or "").lower()
    if sha256 and not _DIGEST.fullmatch(sha256):
        raise InvalidInput(f"sha256: {sha256[:80]!r} is not 64 hex digits")
    if url:
        check_url(url, sha256)
    return {"url": shown(url), "sha256": sha256, "whole": shown(url) == url}


def _whole(work: Work) -> str:
    if work.params["whole"]:
        return str(work.params["url"])
    try:
        return work.secret("url")
    except NeedsSecret:
        raise SourceFailure(
            f"the whole URL of {work.params['url']} was never stored",
            remedy="Start it anew with: cox geoip update --url URL",
        ) from None


def download(
    into: Path, url: str, sha256: str, say: Callable[[str], object], *, published: str = "", bounds: Bounds = USUAL
) -> tuple[Fetched, str]:
    """Without a daemon: a fresh database in the place of the file ``into``, which stays if anything goes wrong.

    Called by ``cox geoip update --out``. ``say`` gets a line for each attempt. Returns the type of the database as well.
    Raises ``CoxswainError``.
    """
    wanted = _check({"url": url, "sha256": sha256})["sha256"]
    into = into.resolve()
    if into.exists() and not into.is_file():
        raise InvalidInput(f"out: {into} is no file")
    fresh = into.with_name(f".{into.name}.new")
    urls = (url,) if url else _monthly(published, time.time())
    try:
        found = _first_there(urls, lambda one: _fetch(one, fresh, say, sha256=wanted, bounds=bounds), say)
        kind = _kind_of(fresh, found)
        if into.exists():
            made_like(into, fresh)
        else:
            fresh.chmod(0o644)  # the daemon may be somebody else
        fresh.replace(into)
        _sync_directory(into.parent)
    except OSError as error:
        raise CoxswainError(f"{into} cannot be put in place: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return found, kind


def _monthly(published: str, now: float) -> tuple[str, ...]:
    return tuple((published or PUBLISHED).format(month=month) for month in months(now))


def _kind_of(fresh: Path, found: Fetched) -> str:
    try:
        return check_database(fresh)
    except ValueError as error:
        raise SourceFailure(f"what {shown(found.url)} sends cannot be used: {error}; the old one stays") from None


def _first_there(urls: tuple[str, ...], get: Callable[[str], Fetched], say: Callable[[str], object]) -> Fetched:
    for url in urls[:-1]:
        try:
            return get(url)
        except NotThereError as error:
            say(str(error))
    return get(urls[-1])


def _fetch(url: str, into: Path, say: Callable[[str], object], **more: Any) -> Fetched:
    say(f"fetching {shown(url)}")
    try:
        return fetch(url, into, **more)
    except OSError as error:
        raise CoxswainError(f"{into.name} cannot be written: {error.strerror}", remedy="Is the disk full?") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
