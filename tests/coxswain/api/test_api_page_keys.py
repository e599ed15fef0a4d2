"""Pages about one thing, asked for under a name that the API uses for something else."""

from __future__ import annotations

import re

import pytest

from coxswain.api.table import ROUTES
from coxswain.web.table import PAGES
from tests.coxswain.api.conftest import token
from tests.fleet import Controller
from tests.web import Web

WORDS = sorted({part for route in ROUTES for part in route.path.split("/") if re.fullmatch(r"[a-z-]+", part)})
ABOUT_ONE = sorted(route.path for route in PAGES if re.search(r"{\w+}", route.path))


@pytest.mark.parametrize("path", ABOUT_ONE)
def test_a_word_of_the_api_is_no_id(webbed: Controller, web: Web, path: str) -> None:
    web.token = token(webbed, "admin")
    for word in WORDS:
        address = re.sub(r"{\w+}", word, path)
        assert web.get(address).status < 500, address
