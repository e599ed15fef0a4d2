"""How to reach users is for admins: a token that only watches sees that there is an address, and not which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.api.route import Scope
from coxswain.api.table import ROUTES
from coxswain.declare.present import read_present
from coxswain.errors import Refused
from coxswain.model import MASKED
from tests.coxswain.api.conftest import PASSWORD, token
from tests.fleet import Controller
from tests.web import Web

EMAIL, PHONE = "petra.privat@example.org", "+49307654321"


@pytest.fixture(scope="module")
def people(webbed: Controller) -> Iterator[dict[str, Any]]:
    """One user who can be reached, one who cannot."""
    petra = webbed.client.post("/api/users", {"name": "Petra", "email": EMAIL, "phone": PHONE})
    webbed.client.post(f"/api/users/{petra['id']}/devices", {"name": "phone of p"})
    bare = webbed.client.post("/api/users", {"name": "Bare"})
    yield {"petra": petra["id"], "bare": bare["id"]}
    for user in (petra, bare):
        webbed.client.call("DELETE", f"/api/users/{user['id']}")


@pytest.mark.parametrize("scope", ["readonly", "monitor"])
def test_below_admin_they_are_blotted_out_and_shapes_stay(
    webbed: Controller, web: Web, people: dict[str, Any], scope: str
) -> None:
    web.token = token(webbed, scope)
    shown = web.get(f"/api/users/{people['petra']}").json
    whole = webbed.client.get(f"/api/users/{people['petra']}")
    assert (whole["email"], whole["phone"]) == (EMAIL, PHONE)
    assert shown == whole | {"email": MASKED, "phone": MASKED}
    assert web.get(f"/api/users/{people['bare']}").json["email"] == "", "that there is none may be known"
    listed = {user["id"]: user for user in web.get("/api/users").json}
    assert listed[people["petra"]] == shown


@pytest.mark.parametrize("scope", ["readonly", "monitor"])
def test_nor_can_they_be_guessed(webbed: Controller, web: Web, people: dict[str, Any], scope: str) -> None:
    """Neither a search nor an address as a key says whether it is somebody's."""
    web.token = token(webbed, scope)
    for part in (EMAIL, "petra.priv", "7654321"):
        assert [user["id"] for user in webbed.client.get(f"/api/users?q={part}")] == [people["petra"]]
        assert web.get(f"/api/users?q={part}").json == []
    assert [user["id"] for user in web.get("/api/users?q=petra").json] == [people["petra"]], "names are not hidden"
    for path in (
        f"/api/users/{EMAIL}",
        f"/api/users/{EMAIL}/devices",
        f"/api/users/{EMAIL}/invites",
        f"/api/devices?user={EMAIL}",
        f"/api/profiles?user={EMAIL}",
    ):
        webbed.client.get(path)
        there, elsewhere = web.get(path), web.get(path.replace(EMAIL, "nobody@example.org"))
        assert there.status == elsewhere.status == 404
        assert there.error.replace(EMAIL, "") == elsewhere.error.replace("nobody@example.org", "")


def test_nor_by_a_filter_of_history(webbed: Controller, web: Web, people: dict[str, Any]) -> None:
    web.token = token(webbed, "monitor")
    for path in ("/api/sessions", "/api/sessions/history", "/api/sessions/totals"):
        assert webbed.client.get(f"{path}?user={EMAIL}") == []
        there, elsewhere = web.get(f"{path}?user={EMAIL}"), web.get(f"{path}?user=nobody@example.org")
        assert there.status == elsewhere.status == 404
        assert there.error.replace(EMAIL, "") == elsewhere.error.replace("nobody@example.org", "")


@pytest.mark.parametrize("scope", ["readonly", "monitor"])
def test_who_removed_somebody_is_for_admins_like_the_log_of_it(webbed: Controller, web: Web, scope: str) -> None:
    gone = webbed.client.post("/api/users", {"name": "Gone"})["id"]
    webbed.client.call("DELETE", f"/api/users/{gone}")
    [whole] = webbed.client.get(f"/api/removed?ids={gone}")
    web.token = token(webbed, scope)
    assert web.get(f"/api/removed?ids={gone}").json == [whole | {"removed_by": MASKED}]
    assert whole["removed_by"] not in {"", MASKED}
    assert gone in {each["id"] for each in webbed.client.get(f"/api/removed?q={whole['removed_by']}")}
    assert web.get(f"/api/removed?q={whole['removed_by']}").json == []


@pytest.mark.parametrize("scope", ["readonly", "monitor"])
def test_no_route_that_they_may_read_tells(webbed: Controller, web: Web, people: dict[str, Any], scope: str) -> None:
    web.token = token(webbed, scope)
    user = people["petra"]
    (device,) = webbed.client.get(f"/api/users/{user}/devices")
    read = 0
    for route in ROUTES:
        if route.method != "GET" or route.scope > Scope[scope.upper()] or route.path in ("/ws/events", "/api/events"):
            continue
        key = {"users": user, "devices": device["id"]}.get(
            route.path.split("/")[2] if route.path.count("/") > 2 else "", "x"
        )
        answer = web.get(route.path.replace("{key}", key).replace("{id}", "1").replace("{name}", "x").replace("{path}", "x"))
        assert EMAIL.encode() not in answer.body and PHONE.encode() not in answer.body, route.path
        read += answer.status == 200
    assert read > 20


def test_an_admins_token_and_session_see_them(webbed: Controller, web: Web, people: dict[str, Any]) -> None:
    web.token = token(webbed, "admin")
    assert web.get(f"/api/users/{EMAIL}").json["phone"] == PHONE
    web.token = ""
    assert web.log_in("admin", PASSWORD).status == 200
    assert web.get(f"/api/users/{people['petra']}").json["email"] == EMAIL


def test_a_fleet_is_not_written_down_with_blots_in_it(webbed: Controller, web: Web, people: dict[str, Any]) -> None:
    """What ``cox export`` writes, ``cox apply`` makes true."""
    web.token = token(webbed, "readonly")
    with pytest.raises(Refused, match="may not see") as caught:
        read_present(lambda path: web.get(path).json)
    assert "admin" in caught.value.remedy
