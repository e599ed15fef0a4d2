"""What an attacker can send to loopback: from a web page, from a process, in floods. It is refused, and life goes on."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coxswain.api.route import MAX_BODY_BYTES
from coxswain.api.table import ROUTES
from tests.coxswain.api.conftest import PASSWORD, token
from tests.fleet import Controller
from tests.support import eventually
from tests.web import Web, new_address, raw


def newest(controller: Controller) -> dict[str, Any]:
    found: dict[str, Any] = controller.client.get("/api/audit?limit=1")[0]
    return found


# -- DNS rebinding


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8443",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example#localhost",
        "localhost@evil.example",
        "192.0.2.1",
        "[2001:db8::1]:8443",
        "0.0.0.0",
        "",
        "localhost:99999999",
        "a" * 300,
        "\xff",
    ],
)
def test_a_foreign_host_is_refused_whatever_credential_it_brings(webbed: Controller, host: str) -> None:
    web = Web(webbed.listen, token=token(webbed, "admin"))
    assert web.call("GET", "/api/nodes", headers={"Host": host}).status in (400, 403)
    assert web.call("GET", "/static/robots.txt", headers={"Host": host}).status in (400, 403)
    assert web.call("GET", "/no/such/place", headers={"Host": host}).status in (400, 403)
    assert web.call("GET", "/healthz", headers={"Host": host}).status in (400, 403)


def test_every_loopback_name_and_port_is_ours(webbed: Controller) -> None:
    """An operator forwards any port: ssh -L 9000:127.0.0.1:8443."""
    web = Web(webbed.listen, token=token(webbed, "readonly"))
    for host in ("localhost", "localhost:9000", "127.0.0.1:1", "127.9.9.9", "[::1]:8443", "cox.localhost", "LOCALHOST."):
        assert web.call("GET", "/api/nodes", headers={"Host": host}).status == 200, host


def test_a_refused_host_is_in_the_log(webbed: Controller) -> None:
    web = Web(webbed.listen)
    web.call("GET", "/api/nodes", headers={"Host": "evil.example"})
    record = newest(webbed)
    assert (record["action"], record["source_ip"]) == ("auth.refused", web.address)
    assert "evil.example" in record["error"]


def test_a_browser_that_only_opens_the_dashboard_is_no_refusal(webbed: Controller) -> None:
    """It is shown the login. Whoever brings a credential that is not good, or asks as a script does, is recorded."""
    page = {"Accept": "text/html,*/*"}
    size = webbed.client.get("/api/audit/head")["size"]
    for path in ("/", "/users", "/audit?action=x"):
        answer = Web(webbed.listen).call("GET", path, headers=page)
        assert (answer.status, answer.headers["location"].partition("?")[0]) == (303, "/login")
    assert webbed.client.get("/api/audit/head")["size"] == size
    for more in ({"Cookie": "cox_session=" + "A" * 43}, {"Authorization": "Bearer cox_adm_" + "A" * 43}, {"Accept": "*/*"}):
        web = Web(webbed.listen)
        web.call("GET", "/users", headers=page | more)
        record = newest(webbed)
        assert (record["action"], record["source_ip"]) == ("auth.refused", web.address), more
    foreign = Web(webbed.listen)
    assert foreign.call("GET", "/", headers=page | {"Host": "evil.example"}).status == 403
    assert newest(webbed)["source_ip"] == foreign.address, "that is an attack"


# -- requests from other sites' pages


@pytest.fixture
def logged_in(webbed: Controller) -> Web:
    web = Web(webbed.listen)
    assert web.log_in("admin", PASSWORD).status == 200
    return web


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://{listen}", "http://localhost:1", "http://{listen}.x", ""]
)
def test_a_page_of_another_origin_changes_nothing(webbed: Controller, logged_in: Web, origin: str) -> None:
    origin = origin.replace("{listen}", webbed.listen)
    before = webbed.client.get("/api/audit/head")["size"]
    answer = logged_in.call("POST", "/api/tokens", {"name": "stolen", "scope": "admin"}, headers={"Origin": origin})
    assert answer.status == 403 and "Origin" in answer.error
    assert all(t["name"] != "stolen" for t in webbed.client.get("/api/tokens"))
    assert webbed.client.get("/api/audit/head")["size"] == before + 1
    assert newest(webbed)["action"] == "token.create" and newest(webbed)["result"] == "error"


def test_a_form_of_another_site_is_refused_twice_over(webbed: Controller, logged_in: Web) -> None:
    form = b'{"name": "stolen", "scope": "admin", "x": "='
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""):
        headers: dict[str, str] = {"Content-Type": kind, "Origin": "http://evil.example"}
        assert logged_in.call("POST", "/api/tokens", form, headers=headers).status == 403
        own = {"Content-Type": kind, "Origin": f"http://{webbed.listen}"}
        assert logged_in.call("POST", "/api/tokens", form, headers=own).status == 415, "not even from our own page"


def test_a_cookie_from_another_site_changes_nothing(webbed: Controller, logged_in: Web) -> None:
    """Every browser says where it comes from. Of one that did not, a form would still be no JSON, and SameSite=Strict keeps
    the cookie from being sent at all.
    """
    bare = Web(webbed.listen)
    for site in ("cross-site", "same-site", "none"):
        foreign = {"Cookie": logged_in.cookie, "Sec-Fetch-Site": site}
        assert bare.call("POST", "/api/auth/logout", b"", headers=foreign).status == 403
    form = b'{"name": "stolen", "scope": "admin"}'
    assert bare.call("POST", "/api/tokens", form, headers={"Cookie": logged_in.cookie}).status == 415
    same = {"Cookie": logged_in.cookie, "Sec-Fetch-Site": "same-origin"}
    assert bare.call("POST", "/api/auth/logout", b"", headers=same).status == 204


def test_no_answer_invites_other_origins(webbed: Controller, logged_in: Web) -> None:
    for method in ("GET", "OPTIONS"):
        answer = logged_in.call(method, "/api/nodes", headers={"Origin": "http://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        if method == "OPTIONS":
            assert answer.status == 405


def test_every_answer_carries_the_security_headers(webbed: Controller, logged_in: Web) -> None:
    for path in ("/healthz", "/api/nodes", "/api/nope", "/static/robots.txt", "/static/nope", "/metrics"):
        headers = logged_in.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "server" not in headers


def test_the_cookie_is_for_us_alone(webbed: Controller) -> None:
    web = Web(webbed.listen)
    cookie = web.log_in("admin", PASSWORD).headers["set-cookie"]
    assert cookie.startswith("cox_session=")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"))
    assert "Secure" not in cookie and "Domain" not in cookie
    forged = {"X-Forwarded-Proto": "https", "Origin": f"https://{webbed.listen}"}
    answer = web.call("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD}, headers=forged)
    assert answer.status == 403, "without a TLS proxy in the configuration, nobody believes in one"
    two = Web(webbed.listen, cookie=f"{web.cookie}; cox_session=other")
    assert two.get("/api/auth/me").status == 401, "which of two was meant is not guessed"
    other = Web(webbed.listen, cookie=f'x="unbalanced; {web.cookie}; ""=;;')
    assert other.get("/api/auth/me").status == 200, "what others of this host have set does not matter"


# -- bodies


def test_a_body_of_more_than_a_mebibyte_is_refused(webbed: Controller) -> None:
    web = Web(webbed.listen, token=token(webbed, "admin"))
    head = f"POST /api/tokens HTTP/1.1\r\nHost: {webbed.listen}\r\nAuthorization: Bearer {web.token}\r\n"
    said = raw(webbed.listen, f"{head}Content-Length: 99999999999\r\n\r\n".encode())
    assert b" 413 " in said.split(b"\r\n")[0], "before it is read"
    big = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    sent = f"{head}Content-Type: application/json\r\nContent-Length: {len(big)}\r\n\r\n".encode() + big
    assert b" 413 " in raw(webbed.listen, sent).split(b"\r\n")[0]
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    chunked = (
        f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunk * 20 + b"0\r\n\r\n"
    )
    assert b" 413 " in raw(webbed.listen, chunked).split(b"\r\n")[0]


def test_slow_clients_hold_nobody_up_and_are_cut_off(webbed: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, port = webbed.listen.rpartition(":")
    slow = []
    try:
        for n in range(200):
            one = socket.create_connection((host, int(port)), 10, source_address=(new_address(), 0))
            one.sendall(f"POST /api/tokens HTTP/1.1\r\nHost: {webbed.listen}\r\nContent-Length: 1000\r\n\r\n{n}".encode())
            slow.append(one)
        web = Web(webbed.listen, token=token(webbed, "readonly"), timeout=10.0)
        for _ in range(20):
            assert web.get("/api/nodes").status == 200
        from actors import http_server  # noqa: PLC0415

        real = time.monotonic
        monkeypatch.setattr(http_server.time, "monotonic", lambda: real() + 25.0)  # their time is over
        stop = time.monotonic() + 20
        while slow and time.monotonic() < stop:
            slow = [one for one in slow if not _ended(one)]
        assert not slow, f"{len(slow)} are still there"
    finally:
        for one in slow:
            one.close()


def _ended(one: socket.socket) -> bool:
    one.settimeout(0.05)
    try:
        ended = one.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        ended = True
    one.close()
    return ended


# -- smuggling


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        " Content-Length: 5",
        "X: 1\n\nGET /api/tokens HTTP/1.1",
        "X: a\rb",
        "X\x00: 1",
    ],
)
def test_a_request_that_two_servers_could_read_in_two_ways_is_read_once(webbed: Controller, head: str) -> None:
    """Whatever follows the one request is never taken for another one whose answer somebody else would get."""
    smuggled = f"GET /api/version HTTP/1.1\r\nHost: {webbed.listen}\r\n\r\n"
    sent = f"POST /api/auth/login HTTP/1.1\r\nHost: {webbed.listen}\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}"
    said = raw(webbed.listen, sent.encode("latin-1"), timeout=2.0)
    assert said.count(b'"version"') == 0, said
    assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 501")), said[:200]


def test_a_header_with_underscores_is_nobodys(webbed: Controller) -> None:
    secret = token(webbed, "admin")
    sent = (
        f"GET /api/nodes HTTP/1.1\r\nHost: {webbed.listen}\r\nAuthorization_: x\r\nX_Authorization: Bearer {secret}\r\n\r\n"
    )
    assert b" 401 " in raw(webbed.listen, sent.encode(), timeout=2.0).split(b"\r\n")[0]
    evil = (
        f"GET /api/nodes HTTP/1.1\r\nHost: {webbed.listen}\r\nAuthorization: Bearer {secret}\r\nHost: evil.example\r\n\r\n"
    )
    assert b" 200 " not in raw(webbed.listen, evil.encode(), timeout=2.0).split(b"\r\n")[0], "two hosts"


def test_heads_without_end_are_cut_off(webbed: Controller) -> None:
    said = raw(webbed.listen, b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000)
    assert b" 431 " in said or b" 400 " in said
    assert b" 4" in raw(webbed.listen, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")


# -- SQL


SQL = (
    "' OR '1'='1",
    "'; DROP TABLE users; --",
    '" OR ""="',
    "\\' OR 1=1 --",
    "1) OR (1=1",
    "%",
    "_",
    "x\u2019 OR 1",
    "NULL",
    "\uff07",
)


@pytest.mark.parametrize("route", [r for r in ROUTES if r.query and r.method == "GET"], ids=lambda r: r.path)
def test_sql_in_a_filter_finds_nothing_and_breaks_nothing(webbed: Controller, route: Any) -> None:
    from urllib.parse import urlencode  # noqa: PLC0415

    web = Web(webbed.listen, token=token(webbed, "admin"))
    restarts = webbed.client.get("/api/status")["restarts"]
    path = route.path.replace("{key}", "nope").replace("{id}", "nope")
    for param in route.query:
        for sql in SQL:
            answer = web.get(f"{path}?{urlencode({param.name: sql})}")
            assert answer.status in (200, 400, 404), (param.name, sql, answer.body)
            if answer.status == 200 and param.name not in ("after", "limit"):
                assert answer.json in ([], {}) or isinstance(answer.json, dict), (param.name, sql)
    assert webbed.client.get("/api/status")["restarts"] == restarts
    assert webbed.client.get("/api/admins"), "the tables are still there"


@pytest.mark.parametrize("sql", SQL)
def test_sql_in_a_path_or_a_login_is_a_name_that_is_not_known(webbed: Controller, sql: str) -> None:
    from urllib.parse import quote  # noqa: PLC0415

    web = Web(webbed.listen, token=token(webbed, "admin"))
    for place in ("nodes", "admins"):
        assert web.get(f"/api/{place}/{quote(sql, safe='')}").status == 404
    assert web.call("DELETE", f"/api/tokens/{quote(sql, safe='')}").status == 404
    assert Web(webbed.listen).post("/api/auth/login", {"username": sql, "password": sql}).status == 401


# -- static files


@pytest.mark.parametrize(
    "path",
    [
        "../setup.cfg", "..%2f..%2fsetup.cfg", "%2e%2e/%2e%2e/setup.cfg", "....//....//setup.cfg", "..\\..\\setup.cfg",
        "%5c..%5c..%5csetup.cfg", "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "robots.txt%00.js",
        "robots.txt/..", "./robots.txt", "x/../robots.txt", "..%c0%af..%c0%afetc/passwd", "%252e%252e/setup.cfg", "", ".",
        "..", "~", "file:///etc/passwd", "robots.txt%3f../../x=1",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_static_files(webbed: Controller, path: str) -> None:
    answer = Web(webbed.listen).call("GET", f"/static/{path}")
    assert answer.status in (400, 404), answer.body
    assert b"metadata" not in answer.body and b"root:" not in answer.body


def test_a_static_file_is_served_and_then_known(webbed: Controller) -> None:
    answer = Web(webbed.listen).get("/static/robots.txt")
    assert (answer.status, answer.body) == (200, b"User-agent: *\nDisallow: /\n")
    again = Web(webbed.listen).call("GET", "/static/robots.txt", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


# -- floods


def test_a_thousand_logins_a_second_hurt_nobody(webbed: Controller) -> None:
    """They are turned away before anything is hashed, queries go on meanwhile, and the log does not fill."""
    records = webbed.client.get("/api/audit/head")["size"]
    addresses = [new_address() for _ in range(4)]
    reader = Web(webbed.listen, token=token(webbed, "readonly"))
    stop, answered, slowest, pauses = threading.Event(), Counter[int](), [], list[int]()

    def query() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            assert reader.get("/api/nodes").status == 200
            slowest.append(time.perf_counter() - began)

    def attack(n: int) -> None:
        web = Web(webbed.listen, address=addresses[n % 4])
        for k in range(125):
            answer = web.post("/api/auth/login", {"username": f"admin{k % 3}", "password": "guess"})
            answered[answer.status] += 1
            if answer.status == 429:
                pauses.append(int(answer.headers["retry-after"]))

    reading = threading.Thread(target=query)
    reading.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(attack, range(8)))
    finally:
        stop.set()
        reading.join()
    assert answered[429] > 900, answered
    assert set(answered) == {401, 429}
    assert webbed.client.get("/api/audit/head")["size"] - records < 100
    assert sorted(slowest)[len(slowest) // 2] < 0.5, "half of the queries meanwhile were answered in half a second"
    assert min(pauses) >= 1

    def there() -> bool:
        answer = Web(webbed.listen).log_in("admin", PASSWORD)
        return answer.status == 200

    eventually(there, timeout=40, every=0.5)
