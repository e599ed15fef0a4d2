"""Following the links gives everything once, in the order of the whole list."""

from __future__ import annotations

import re

import pytest

from tests.coxswain.api.conftest import token
from tests.fleet import Controller
from tests.support import an_addr
from tests.web import Web


@pytest.mark.parametrize(
    ("path", "key"),
    [("/api/nodes", "name"), ("/api/tokens", "id"), ("/api/admins", "id"), ("/api/users", "id")],
)
def test_the_pages_of_a_list_are_the_list(webbed: Controller, path: str, key: str) -> None:
    for number in range(5):
        name = f"{path.rpartition('/')[2]}-{number}"
        known = {n["name"] for n in webbed.client.get("/api/nodes")}
        if path == "/api/nodes" and name not in known:
            webbed.client.post(path, {"name": name, "control_addr": an_addr()})
        elif path == "/api/tokens" or path == "/api/users":
            webbed.client.post(path, {"name": name})
        elif path == "/api/admins" and not any(a["email"] == name for a in webbed.client.get(path)):
            webbed.client.post(path, {"email": name, "password": "a long enough one"})
    web = Web(webbed.listen, token=token(webbed, "admin"))
    whole = [item[key] for item in web.get(f"{path}?limit=1000").json]
    assert len(whole) >= 5
    found, place, pages = [], f"{path}?limit=2", 0
    while place:
        answer = web.get(place)
        assert answer.status == 200 and 1 <= len(answer.json) <= 2
        found += [item[key] for item in answer.json]
        link = answer.headers.get("link")
        place = link and re.fullmatch(r'<(.*)>; rel="next"', link)[1]  # type: ignore[index]
        pages += 1
    assert found == whole and pages == (len(whole) + 1) // 2


def test_a_cursor_that_is_gone_is_said(webbed: Controller) -> None:
    web = Web(webbed.listen, token=token(webbed, "admin"))
    for path in ("/api/tokens", "/api/admins", "/api/servers", "/api/relays", "/api/control-paths", "/api/auth/sessions"):
        assert web.get(f"{path}?after=nope").status == 404, path


def test_pages_of_the_log_have_no_gaps_and_no_repeats(webbed: Controller) -> None:
    for _ in range(5):
        webbed.client.post("/api/tokens", {"name": "another record"})
    web = Web(webbed.listen, token=token(webbed, "admin"))
    first = web.get("/api/audit?limit=3")
    place = re.fullmatch(r'<(.*)>; rel="next"', first.headers["link"])[1]  # type: ignore[index]
    numbers = [record["seq"] for record in first.json + web.get(place).json]
    assert numbers == list(range(numbers[0], numbers[0] - 6, -1))
