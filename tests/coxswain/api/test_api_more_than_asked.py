"""What existing callers send beside what a route reads goes unheeded, and is told; what looks meant is refused."""

from __future__ import annotations

from typing import Any

import pytest

from coxswain.api.query import IGNORED, beside, meaningful, names
from coxswain.api.table import ROUTES
from coxswain.errors import InvalidInput
from tests.coxswain.api.conftest import token
from tests.fleet import Controller
from tests.web import Web, raw

HEADER = IGNORED.lower()
ELSEWHERE = meaningful(ROUTES)
BY_NAME = {f"{route.method} {route.path}": route for route in ROUTES}


@pytest.fixture
def admin(webbed: Controller) -> Web:
    return Web(webbed.listen, token=token(webbed, "admin"))


# -- the query string


@pytest.mark.parametrize(
    "name",
    ["_", "pretty", "cb", "t", "ts", "v", "nocache", "cacheBust", "callback", "format", "fields", "page", "per_page",
     "offset", "sort", "order", "include", "expand", "lang", "nonce", "request_id", "utm_source", "dashboard", "1700000000"],
)  # fmt: skip
def test_what_means_nothing_goes_unheeded_on_every_route(name: str) -> None:
    for route in ROUTES:
        assert beside(route, [name], ELSEWHERE) == [name], f"{route.method} {route.path}"


def test_a_near_miss_of_what_a_route_takes_is_refused_on_every_route() -> None:
    for route in ROUTES:
        for param in route.query:
            if len(param.name) < 4:
                continue
            for wrong in (param.name[:-2] + param.name[:-3:-1], param.name + "s", param.name.upper()):
                if wrong not in {other.name for other in route.query}:
                    with pytest.raises(InvalidInput, match="unknown parameter; did you mean "):
                        beside(route, [wrong], ELSEWHERE)


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("GET /api/nodes", "status"),
        ("GET /api/relays", "node"),
        ("GET /api/audit", "user"),
        ("POST /api/nodes/{key}/push", "version"),
        ("DELETE /api/relays/{id}", "empty"),
        ("GET /api/nodes", "token"),
        ("GET /healthz", "access_token"),
    ],
)
def test_what_another_route_reads_and_credentials_are_refused(route: str, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"'{name}': unknown parameter"):
        beside(BY_NAME[route], [name], ELSEWHERE)


def test_so_many_that_comparing_them_takes_long_are_refused() -> None:
    assert beside(BY_NAME["GET /api/nodes"], [f"x{n}" for n in range(20)], ELSEWHERE)
    with pytest.raises(InvalidInput, match="21 unknown parameters are too many"):
        beside(BY_NAME["GET /api/nodes"], [f"x{n}" for n in range(21)], ELSEWHERE)


def test_the_header_holds_nothing_but_plain_words() -> None:
    assert names(["a\r\nSet-Cookie: x", "é", "\ud800", "y" * 100]) == "a%0D%0ASet-Cookie%3A%20x, %C3%A9, %3F, " + "y" * 40
    assert names(list("abcdefghij")) == "a, b, c, d, e, f, g, h, ..."


def test_the_answer_is_the_same_and_tells_what_went_unheeded(admin: Web) -> None:
    plain = admin.get("/api/nodes")
    answer = admin.get("/api/nodes?_=1700000000&pretty=1&x%0D%0Ay=z")
    assert (answer.status, answer.json) == (200, plain.json)
    assert answer.headers[HEADER] == "_, pretty, x%0D%0Ay" and HEADER not in plain.headers
    made = admin.post("/api/tokens?_=1", {"name": "beside"})
    assert made.status == 201 and made.headers[HEADER] == "_"
    assert admin.call("DELETE", f"/api/tokens/{made.json['id']}?pretty").headers[HEADER] == "pretty"


def test_the_next_page_is_asked_for_without_it(admin: Web) -> None:
    made = [admin.post("/api/control-paths", {"name": f"beside {n}", "hops": []}).json["id"] for n in range(2)]
    link = admin.get("/api/control-paths?_=1&_=2&limit=1").headers["link"]
    assert "limit=1" in link and "after=" in link and "_=" not in link
    for way in made:
        assert admin.call("DELETE", f"/api/control-paths/{way}").status == 204


def test_filters_that_were_not_filled_in_choose_nothing(admin: Web) -> None:
    """A form sends them all (management-plane.md 3.2)."""
    for place in (
        "/api/audit?actor=&action=&target_id=&since=&until=&limit=",
        "/api/sessions?device=&user=&node=&source_ip=&since=&until=&limit=",
        "/api/alerts?status=&kind=&device=&severity=&since=&limit=",
        "/api/profiles?device=&user=",
        "/api/nodes?q=&after=&limit=&region=",
    ):
        answer = admin.get(place)
        assert (answer.status, answer.json) == (200, admin.get(place.partition("?")[0]).json), place


def test_a_guard_that_is_empty_guards(admin: Web) -> None:
    """A script whose variable was never set."""
    way = admin.post("/api/control-paths", {"name": "guarded", "hops": []}).json["id"]
    assert admin.call("DELETE", f"/api/control-paths/{way}?version=").status == 400
    assert admin.call("DELETE", f"/api/control-paths/{way}").status == 204


# -- bodies of routes that take none


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"id": "x"}', b"a=b&c=d", b"\xff\xfe"])
def test_a_body_where_none_is_read_goes_unheeded(admin: Web, body: bytes) -> None:
    way = admin.post("/api/control-paths", {"name": "with a body", "hops": []}).json["id"]
    assert admin.call("DELETE", f"/api/control-paths/{way}", body).status == 204
    assert admin.call("POST", "/api/nodes/nod_nobody/push", body).status == 404


def test_a_guard_in_the_wrong_place_is_refused(admin: Web) -> None:
    way = admin.post("/api/control-paths", {"name": "guarded in the body", "hops": []}).json["id"]
    answer = admin.call("DELETE", f"/api/control-paths/{way}", {"version": 99})
    assert answer.status == 400 and "version: belongs into the query string" in answer.error
    assert admin.call("DELETE", f"/api/control-paths/{way}").status == 204


@pytest.mark.parametrize(
    "body",
    [b'{"Version":99}', b'{"VERSION" : 99}', b'{"version":99,"version":98}', b'{"node":1,"version":99', b"version=99",
     b'\xef\xbb\xbf{"version":99}', b"a=b&version=99"],
)  # fmt: skip
def test_however_it_is_written(admin: Web, body: bytes) -> None:
    answer = admin.call("DELETE", "/api/control-paths/cpt_nobody", body)
    assert answer.status == 400 and "version: belongs into the query string" in answer.error


@pytest.mark.parametrize("name", ["expected_version", "If_Match", "dry_run", "dryrun", "etag", "rev", "versions2"])
def test_what_looks_like_a_guard_is_refused_where_something_is_changed(name: str) -> None:
    for route in ROUTES:
        if "version" in {param.name for param in route.query}:
            with pytest.raises(InvalidInput, match="unknown parameter"):
                beside(route, [name], ELSEWHERE)


def test_no_ids_are_not_all_of_them(admin: Web) -> None:
    assert admin.get("/api/removed?ids=").json == []


def test_a_body_that_is_not_read_is_not_any_larger(admin: Web) -> None:
    head = f"POST /api/nodes/nod_nobody/push HTTP/1.1\r\nHost: {admin.listen}\r\nAuthorization: Bearer {admin.token}\r\n"
    answer = raw(admin.listen, f"{head}Content-Length: {1024 * 1024 + 1}\r\n\r\n".encode())
    assert b" 413 " in answer.split(b"\r\n")[0]


# -- methods


@pytest.mark.parametrize("place", ["/healthz", "/readyz", "/api/nodes", "/api/nodes/?limit=1", "/api/self", "/login"])
def test_head_is_get_without_the_body(admin: Web, place: str) -> None:
    answer, whole = admin.call("HEAD", place), admin.get(place)
    assert (answer.status, answer.body) == (whole.status, b"")
    assert answer.headers.get("content-type") == whole.headers.get("content-type")


def test_head_asks_who_it_is_as_well(webbed: Controller) -> None:
    assert Web(webbed.listen).call("HEAD", "/api/nodes").status == 401
    assert Web(webbed.listen, token=token(webbed, "readonly")).call("HEAD", "/api/audit").status == 403


def test_a_stream_has_no_head_and_the_others_say_what_they_take(admin: Web) -> None:
    for place in ("/api/events", "/ws/events"):
        assert admin.call("HEAD", place).status == 405, place
    allowed: Any = admin.call("OPTIONS", "/api/nodes")
    assert allowed.status == 405 and {"GET", "HEAD", "POST"} <= set(allowed.headers["allow"].split(", "))


@pytest.mark.parametrize("accept", ["*/*", "application/xml", "text/plain;q=0.5", "nonsense"])
def test_whatever_a_caller_says_it_takes_it_gets_json(admin: Web, accept: str) -> None:
    assert admin.get("/api/nodes", Accept=accept).headers["content-type"] == "application/json"


# -- times on the page of the audit log


@pytest.mark.parametrize("since", ["2h", "1h30m", "2026-01-31", "2026-01-31T00:00:00Z"])
def test_the_audit_page_takes_times_as_people_write_them(admin: Web, since: str) -> None:
    answer = admin.get(f"/audit?action=&since={since}&until=")
    assert answer.status == 200 and b"token.create" in answer.body and f'value="{since}"'.encode() in answer.body


def test_the_audit_page_filters_by_time(admin: Web) -> None:
    assert b"No records" in admin.get("/audit?since=9999-01-01").body
    assert b"No records" not in admin.get("/audit?until=9999-01-01").body


@pytest.mark.parametrize("place", ["/audit", "/ui/fragments/audit"])
def test_a_time_that_is_none_is_told_beside_the_form(admin: Web, place: str) -> None:
    answer = admin.get(f"{place}?since=yesterday")
    assert answer.status == 200 and b"is neither like 30m, 24h" in answer.body and b"token.create" not in answer.body
    assert admin.get("/api/audit?since=2h").status == 400, "of the API, RFC 3339 alone is the contract"
