"""Every route with every kind of credential: the exact status of each. A route without a row here fails."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import pytest

from coxswain.api.openapi import statuses
from coxswain.api.route import Route, Scope
from coxswain.api.table import ROUTES
from coxswain.cli.client import RemoteError
from tests.coxswain.api.conftest import PASSWORD, token
from tests.fleet import Controller
from tests.live import ServerSent
from tests.web import Web, new_address

ENDLESS = "text/event-stream"
NONE, READONLY, MONITOR, ADMIN = "none", "readonly", "monitor", "admin"


@dataclass(frozen=True)
class Row:
    """What a route needs, and what it answers to a bare request (``nope`` for each part of the path, ``{}`` for a body) of
    somebody who may. ``by``: other answers, by kind of credential.
    """

    needs: str
    answer: int
    by: dict[str, int] | None = None


BAD_BEARER = dict.fromkeys(("malformed", "unknown", "expired", "revoked"), 401)

TABLE: dict[str, Row] = {
    "GET /healthz": Row(NONE, 200),
    "GET /readyz": Row(NONE, 200, BAD_BEARER),
    "GET /metrics": Row(MONITOR, 200),
    "GET /api/version": Row(READONLY, 200),
    "GET /api/openapi.json": Row(READONLY, 200),
    "GET /api/status": Row(READONLY, 200),
    "GET /api/tree": Row(READONLY, 200),
    "GET /api/tree/links": Row(READONLY, 200),
    "POST /api/chaos": Row(ADMIN, 400),
    "POST /api/auth/login": Row(NONE, 400),
    "POST /api/auth/logout": Row(READONLY, 409, {"session": 204}),
    "GET /api/auth/me": Row(READONLY, 200),
    "POST /api/auth/password": Row(ADMIN, 409, {"session": 400}),
    "GET /api/auth/sessions": Row(ADMIN, 200),
    "DELETE /api/auth/sessions/{id}": Row(ADMIN, 404),
    "GET /api/admins": Row(ADMIN, 200),
    "POST /api/admins": Row(ADMIN, 400),
    "GET /api/admins/{key}": Row(ADMIN, 404),
    "PATCH /api/admins/{key}": Row(ADMIN, 400),
    "DELETE /api/admins/{key}": Row(ADMIN, 404),
    "POST /api/admins/{key}/password": Row(ADMIN, 404),
    "POST /api/admins/{key}/totp": Row(ADMIN, 404),
    "POST /api/admins/{key}/totp/confirm": Row(ADMIN, 404),
    "POST /api/admins/{key}/totp/remove": Row(ADMIN, 404),
    "GET /api/tokens": Row(ADMIN, 200),
    "POST /api/tokens": Row(ADMIN, 400),
    "DELETE /api/tokens/{id}": Row(ADMIN, 404),
    "GET /api/nodes": Row(READONLY, 200),
    "POST /api/nodes": Row(ADMIN, 400),
    "GET /api/nodes/{key}": Row(READONLY, 404),
    "PATCH /api/nodes/{key}": Row(ADMIN, 400),
    "DELETE /api/nodes/{key}": Row(ADMIN, 404),
    "POST /api/nodes/{key}/enable": Row(ADMIN, 404),
    "POST /api/nodes/{key}/disable": Row(ADMIN, 404),
    "POST /api/nodes/{key}/enroll": Row(ADMIN, 400),
    "POST /api/nodes/{key}/revoke": Row(ADMIN, 404),
    "POST /api/nodes/{key}/push": Row(ADMIN, 404),
    "POST /api/nodes/{key}/look": Row(ADMIN, 404),
    "GET /api/nodes/{key}/plan": Row(READONLY, 404),
    "GET /api/nodes/{key}/status": Row(READONLY, 404),
    "POST /api/network-policy/preview": Row(READONLY, 200),
    "POST /api/peers": Row(ADMIN, 200),
    "GET /api/sessions": Row(MONITOR, 200),
    "GET /ws/events": Row(MONITOR, 400),
    "GET /api/events": Row(MONITOR, 200),
    "GET /api/events/recent": Row(MONITOR, 200),
    "GET /api/ca": Row(READONLY, 200),
    "GET /api/audit": Row(ADMIN, 200),
    "GET /api/audit/head": Row(READONLY, 200),
    "GET /api/config": Row(ADMIN, 200),
    "POST /api/config/reload": Row(ADMIN, 400),
    "GET /api/alerts": Row(MONITOR, 200),
    "GET /api/alerts/{id}": Row(MONITOR, 404),
    "GET /api/alerts/series": Row(MONITOR, 200),
    "GET /api/alerts/summary": Row(MONITOR, 200),
    "POST /api/alerts/{id}/ack": Row(ADMIN, 404),
    "POST /api/alerts/{id}/resolve": Row(ADMIN, 404),
    "POST /api/alerts/{id}/snooze": Row(ADMIN, 400),
    "GET /api/analytics/status": Row(MONITOR, 200),
    "GET /api/operations": Row(READONLY, 200),
    "GET /api/operations/{id}": Row(READONLY, 404),
    "POST /api/operations/{id}/retry": Row(ADMIN, 404),
    "POST /api/operations/{id}/cancel": Row(ADMIN, 404),
    "GET /api/users": Row(READONLY, 200),
    "POST /api/users": Row(ADMIN, 400),
    "GET /api/users/{key}": Row(READONLY, 404),
    "PATCH /api/users/{key}": Row(ADMIN, 404),
    "DELETE /api/users/{key}": Row(ADMIN, 404),
    "POST /api/users/{key}/suspend": Row(ADMIN, 404),
    "POST /api/users/{key}/resume": Row(ADMIN, 404),
    "GET /api/devices": Row(READONLY, 200),
    "GET /api/users/{key}/devices": Row(READONLY, 404),
    "POST /api/users/{key}/devices": Row(ADMIN, 404),
    "GET /api/devices/{key}": Row(READONLY, 404),
    "PATCH /api/devices/{key}": Row(ADMIN, 400),
    "DELETE /api/devices/{key}": Row(ADMIN, 404),
    "POST /api/devices/{key}/suspend": Row(ADMIN, 404),
    "POST /api/devices/{key}/resume": Row(ADMIN, 404),
    "POST /api/devices/{key}/revoke": Row(ADMIN, 404),
    "POST /api/devices/{key}/provision": Row(ADMIN, 404),
    "POST /api/devices/{key}/export": Row(ADMIN, 404),
    "POST /api/users/{key}/invite": Row(ADMIN, 404),
    "POST /api/users/{key}/devices/issue": Row(ADMIN, 400),
    "GET /api/users/{key}/invites": Row(READONLY, 404),
    "DELETE /api/invites/{key}": Row(ADMIN, 404),
    "GET /api/profiles": Row(READONLY, 200),
    "POST /api/profiles": Row(ADMIN, 400),
    "GET /api/profiles/{key}": Row(READONLY, 404),
    "PATCH /api/profiles/{key}": Row(ADMIN, 400),
    "DELETE /api/profiles/{key}": Row(ADMIN, 404),
    "GET /api/sessions/active": Row(MONITOR, 200),
    "GET /api/sessions/history": Row(MONITOR, 200),
    "GET /api/sessions/history/{key}": Row(MONITOR, 404),
    "GET /api/sessions/totals": Row(MONITOR, 200),
    "GET /api/removed": Row(READONLY, 200),
    "DELETE /api/removed/{id}": Row(ADMIN, 404),
    "GET /api/geoip": Row(READONLY, 200),
    "POST /api/geoip/update": Row(ADMIN, 502),
    "GET /api/map": Row(READONLY, 200),
    "GET /api/metrics/series": Row(MONITOR, 200),
    "GET /api/audit/verify": Row(MONITOR, 200),
    "GET /api/audit/proof/inclusion/{seq}": Row(ADMIN, 400),
    "GET /api/audit/proof/consistency/{old}": Row(READONLY, 400),
    "GET /api/audit/export": Row(ADMIN, 200),
    "POST /api/audit/accept": Row(ADMIN, 400),
    "GET /api/paths": Row(READONLY, 200),
    "POST /api/paths": Row(ADMIN, 400),
    "POST /api/paths/plan": Row(READONLY, 400),
    "GET /api/paths/{key}": Row(READONLY, 404),
    "PATCH /api/paths/{key}": Row(ADMIN, 404),
    "DELETE /api/paths/{key}": Row(ADMIN, 404),
    "POST /api/paths/{key}/provision": Row(ADMIN, 404),
    "POST /api/paths/{key}/exit": Row(ADMIN, 404),
    "GET /api/node-links": Row(READONLY, 200),
    "GET /api/bindings": Row(READONLY, 200),
    "GET /api/devices/{key}/bind": Row(READONLY, 404),
    "POST /api/devices/{key}/bind": Row(ADMIN, 400),
    "DELETE /api/devices/{key}/bind": Row(ADMIN, 404),
    "POST /api/devices/{key}/bind/plan": Row(READONLY, 404),
    "POST /api/nodes/{key}/push-policy": Row(ADMIN, 404),
    "GET /api/self": Row(READONLY, 200),
    "GET /api/servers": Row(READONLY, 200),
    "POST /api/servers": Row(ADMIN, 400),
    "POST /api/servers/host-key": Row(ADMIN, 400),
    "POST /api/servers/self": Row(ADMIN, 200),
    "GET /api/servers/{id}": Row(READONLY, 404),
    "PATCH /api/servers/{id}": Row(ADMIN, 404),
    "DELETE /api/servers/{id}": Row(ADMIN, 404),
    "POST /api/servers/{id}/trust": Row(ADMIN, 404),
    "POST /api/servers/{id}/deploy": Row(ADMIN, 404),
    "GET /api/ssh-key": Row(READONLY, 200),
    "GET /api/relays": Row(READONLY, 200),
    "GET /api/relays/{id}": Row(READONLY, 404),
    "DELETE /api/relays/{id}": Row(ADMIN, 404),
    "POST /api/relays/{id}/remove": Row(ADMIN, 404),
    "POST /api/relays/{id}/update-agent": Row(ADMIN, 404),
    "POST /api/relays/{id}/renew": Row(ADMIN, 404),
    "POST /api/relays/{id}/egress": Row(ADMIN, 404),
    "GET /api/control-paths": Row(READONLY, 200),
    "POST /api/control-paths": Row(ADMIN, 400),
    "GET /api/control-paths/{id}": Row(READONLY, 404),
    "PATCH /api/control-paths/{id}": Row(ADMIN, 404),
    "POST /api/control-paths/deactivate": Row(ADMIN, 409),
    "POST /api/control-paths/{id}/activate": Row(ADMIN, 404),
    "DELETE /api/control-paths/{id}": Row(ADMIN, 404),
    "POST /api/nodes/{key}/update-agent": Row(ADMIN, 404),
    "POST /api/nodes/{key}/rollback": Row(ADMIN, 404),
    "POST /api/nodes/{key}/renew": Row(ADMIN, 404),
    "POST /api/nodes/{key}/guard": Row(ADMIN, 404),
    "POST /api/nodes/{key}/start": Row(ADMIN, 404),
    "POST /api/nodes/{key}/stop": Row(ADMIN, 404),
    "POST /api/nodes/{key}/remove": Row(ADMIN, 404),
    "POST /api/rollouts": Row(ADMIN, 502),
    "GET /static/{path:path}": Row(NONE, 404),
}

_NUMBERS = {True: itertools.count(), False: itertools.count()}

LEVELS = {"readonly": 0, "monitor": 1, "admin": 2, "session": 2, "control": 2}
KINDS = ("nothing", "malformed", "unknown", "expired", "revoked", "ended session", *LEVELS)


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    there = {name_of(route) for route in ROUTES}
    assert there <= set(TABLE), f"add rows to TABLE for {sorted(there - set(TABLE))}"
    assert there >= set(TABLE), f"these rows have no route: {sorted(set(TABLE) - there)}"
    for route in ROUTES:
        assert TABLE[name_of(route)].needs == route.scope.word, name_of(route)


@pytest.fixture(scope="module")
def credentials(webbed: Controller) -> dict[str, dict[str, str]]:
    """The arguments of a ``Web`` by kind of credential."""
    revoked = webbed.client.post("/api/tokens", {"name": "revoked", "scope": "admin"})
    webbed.client.call("DELETE", f"/api/tokens/{revoked['id']}")
    ended = Web(webbed.listen)
    assert ended.log_in("admin", PASSWORD).status == 200
    old = ended.cookie
    assert ended.post("/api/auth/logout").status == 204
    return {
        "nothing": {},
        "malformed": {"token": "cox_adm_with spaces"},
        "unknown": {"token": "cox_adm_" + "A" * 43},
        "expired": {"token": token(webbed, "admin", "1us")},
        "revoked": {"token": revoked["secret"]},
        "ended session": {"cookie": old},
        "readonly": {"token": token(webbed, "readonly")},
        "monitor": {"token": token(webbed, "monitor")},
        "admin": {"token": token(webbed, "admin")},
    }


def expected(route: Route, kind: str) -> int:
    row = TABLE[name_of(route)]
    if row.by and kind in row.by:
        return row.by[kind]
    if row.needs == NONE:
        return row.answer
    if kind not in LEVELS:
        return 401
    return row.answer if LEVELS[kind] >= route.scope else 403


def path_of(route: Route) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "nope", route.path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_each_credential_gets_the_answer_that_it_should(
    webbed: Controller, credentials: dict[str, dict[str, str]], route: Route, kind: str
) -> None:
    body: Any = {} if route.unsafe and route.method != "DELETE" else None
    wanted = expected(route, kind)
    if kind == "control":
        try:
            if route.media_type == ENDLESS:
                with ServerSent(str(webbed.home / "control.sock")) as stream:
                    status = stream.status
            else:
                webbed.client.call(route.method, path_of(route), body)
                status = route.status
        except RemoteError as error:
            status = error.status
        assert status == wanted
        return
    # Ten refusals of an address and 200 addresses have records of their own within a minute; beyond them they are counted.
    refused = wanted in {401, 403, 409}
    group = next(_NUMBERS[refused]) // 10
    address = f"127.{100 + refused}.{group // 250}.{group % 250 + 1}"
    web = Web(webbed.listen, address=address, **credentials.get(kind, {}))
    if kind == "session":
        assert web.log_in("admin", PASSWORD).status == 200
    answer = web.call(route.method, path_of(route), body, head_only=route.media_type == ENDLESS and wanted == 200)
    assert answer.status == wanted, answer.body
    assert answer.status in statuses(route), "documented"
    if refused:
        record = webbed.client.get("/api/audit?limit=1")[0]
        assert record["source_ip"] == web.address, f"{name_of(route)} left no record of its refusal"
        assert (record["result"], record["action"]) == ("error", route.refused or route.audit or "auth.refused")
        assert record["detail"] == {"route": name_of(route), "status": answer.status}
        assert (record["actor"] == "<anonymous>") == (answer.status == 401)


def test_a_bearer_that_is_not_good_is_never_passed_over_for_a_cookie(webbed: Controller) -> None:
    web = Web(webbed.listen)
    assert web.log_in("admin", PASSWORD).status == 200
    assert web.get("/api/auth/me").json["kind"] == "session"
    for bad in ("Bearer cox_adm_" + "A" * 43, "Bearer nonsense", "Bearer ", "Basic YWRtaW46eA==", "cox_adm_x", ""):
        assert web.get("/api/auth/me", Authorization=bad).status == 401, bad


GOOD = "cox_adm_" + "B" * 43
SHAPES = [
    "", " ", "Bearer", "Bearer ", "bearer", "Bearer\t", "Bearer cox_", "Bearer cox_adm", "Bearer cox_adm_",
    f"Bearer {GOOD}x", f"Bearer {GOOD[:-1]}", f"Bearer {GOOD} ", f"Bearer {GOOD} {GOOD}", f"Bearer,{GOOD}",
    f"Bearer {GOOD.upper()}", f"Bearer xoc_{GOOD[4:]}", f"Bearer {'A' * 4000}", "Bearer cox_adm_../../etc/passwd",
    "Bearer cox_adm_' OR 1=1 --", "Bearer cox_adm_%00", f"Token {GOOD}", f"Basic {GOOD}", f"Digest {GOOD}",
    "Bearer " + "cox_adm_" * 100, "Bearer cox_adm_\xff\xfe", GOOD, f"{GOOD} Bearer", f'Bearer "{GOOD}"',
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_of_each_wrong_shape_is_a_401(webbed: Controller, shape: str) -> None:
    answer = Web(webbed.listen).call("GET", "/api/nodes", headers={"Authorization": shape})
    assert answer.status == 401
    assert "exit_code" in answer.json


def test_scopes_are_those_of_the_store_whatever_the_secret_says(webbed: Controller) -> None:
    secret = token(webbed, "readonly")
    assert secret.startswith("cox_ro_")
    forged = Web(webbed.listen, token=secret.replace("cox_ro_", "cox_adm_"))
    assert forged.get("/api/tokens").status == 401
    assert Scope.READONLY < Scope.MONITOR < Scope.ADMIN


def test_addresses_of_tests_are_their_own() -> None:
    assert len({new_address() for _ in range(100)}) == 100
