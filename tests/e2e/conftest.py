"""Fixtures for tests with real agents in network namespaces, and with fleets that have paths."""

import subprocess

import pytest

from tests.agents import Hub, Pki, World
from tests.cascade import cascade_fleet
from tests.fleet import Daemon
from tests.netns import Lab


@pytest.fixture(scope="module")
def pki():
    return Pki()


@pytest.fixture
def world(tmp_path, pki):
    yield from _made(World, tmp_path, pki)


@pytest.fixture
def hub(tmp_path, pki):
    yield from _made(Hub, tmp_path, pki)


def _made(kind, tmp_path, pki):
    with Lab(tmp_path) as lab:
        made = kind(lab, tmp_path, pki)
        try:
            yield made
        finally:
            made.close()
    left = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert "awg0" not in left
    assert "wg0" not in left


@pytest.fixture(params=["sqlite", "postgres"])
def daemon(request, tmp_path):
    """A controller in a process of its own, once on each store."""
    dsn = request.getfixturevalue("postgres_server").create_database() if request.param == "postgres" else ""
    made = Daemon(tmp_path, dsn=dsn)
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def shared_cascade(request, tmp_path_factory):
    """Of a module that says how many ``NODES`` it wants, and from which ``BASE_PORT`` on."""
    home = tmp_path_factory.mktemp("cascade")
    with cascade_fleet(home, request.module.NODES, request.module.BASE_PORT) as running:
        yield running


@pytest.fixture
def cascade(request, shared_cascade):
    """Everything is well before each test; afterwards there are neither bindings nor paths, and nodes have nothing."""
    shared_cascade.fleet.controller.all_in_sync(request.module.NODES)
    yield shared_cascade
    shared_cascade.tidy_up()
