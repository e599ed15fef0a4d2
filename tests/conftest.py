"""Fixtures that tests of several folders share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from coxswain import geoip_update
from coxswain.api import dispatch
from coxswain.store import Store, open_store
from tests.postgres import PostgresServer

settings.register_profile("coxswain", deadline=None)  # a busy machine is no bug
settings.load_profile("coxswain")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells tools/test what failed, so that it can be tried once more."""
    wanted = os.environ.get("COXSWAIN_FAILED")
    if wanted:
        failed = {report.nodeid for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, ())}
        Path(wanted).write_text("".join(f"{name}\n" for name in sorted(failed)), encoding="utf-8")


@pytest.fixture(autouse=True)
def _every_action_is_audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails whichever test made the API answer a change that is in no audit record."""
    missing: list[str] = []
    monkeypatch.setattr(dispatch, "unaudited", lambda route: missing.append(f"{route.method} {route.path}"))
    yield
    assert not missing, f"done, and in no audit record: {missing}"


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_fetched_from_the_internet() -> Iterator[None]:
    """Where nobody gives an address, nobody is reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geoip_update, "PUBLISHED", "http://127.0.0.1:1/{month}")
        yield


@pytest.fixture(autouse=True)
def usual_umask() -> None:
    """Programs that tests run in this process set their own."""
    os.umask(0o022)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server that all tests of this process share. Whoever stops it starts it again."""
    yield from _postgres()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop, crash and restart."""
    yield from _postgres()


def _postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def fresh_where(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Where a fresh store is: a new file or a new database at each call, once for each backend."""
    if request.param == "sqlite":
        numbers = iter(range(1, 1000))
        return lambda: str(tmp_path / f"app{next(numbers)}.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database


@pytest.fixture
def store(fresh_where: Callable[[], str]) -> Iterator[Store]:
    """A fresh, migrated store, once for each backend."""
    opened = open_store(fresh_where())
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
def dsns(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Of an old machine and of a new one; empty: SQLite."""
    if request.param == "sqlite":
        return "", ""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(), server.create_database()
