"""Fixtures for tests with real agents in network namespaces."""

import subprocess

import pytest

from tests.agents import Hub, Pki, World
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
