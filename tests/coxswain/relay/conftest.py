"""What tests of relays share."""

from __future__ import annotations

import pytest

from tests.relays import Pki


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.make()
