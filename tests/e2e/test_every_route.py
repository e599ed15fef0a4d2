"""Every route is carried out on a running controller, and each that may change something leaves its audit record.

A route without a row fails, and so does a row whose record is not what it says. Refusals of each route are beside this, in
``tests/coxswain/api/test_api_credentials.py``.
"""

from __future__ import annotations

import datetime as dt
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coxswain.api.openapi import takes_version
from coxswain.api.route import Scope
from coxswain.api.table import ROUTES
from coxswain.cli.client import RemoteError
from tests.every_action import World, csr, one_time_code, served_database, world
from tests.live import ServerSent
from tests.machines import PASSWORD
from tests.support import eventually

LOGIN = "correct horse battery"


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="cox-") as directory, world(Path(directory), 21_400) as made:
        yield made


Act = Callable[[World], object]


def post(path: str, /, **body: Any) -> Act:
    return lambda w: w.client.post(path.format(**w.ids), body)


def add(key: str, path: str, /, **body: Any) -> Act:
    """Keeps the id of what is made under ``key``."""
    return lambda w: w.keep(key, w.client.post(path.format(**w.ids), body))


def patch(path: str, /, **body: Any) -> Act:
    def act(w: World) -> object:
        place = path.format(**w.ids)
        return w.client.call("PATCH", place, {"version": w.version(place), **body})

    return act


def delete(path: str) -> Act:
    return lambda w: w.client.call("DELETE", path.format(**w.ids))


# -- steps that take more than a request


def _log_in(w: World) -> None:
    w.client.post("/api/admins/admin/password", {"new_password": LOGIN})
    for who in ("first", "second"):
        w.webs[who] = w.web()
        assert w.webs[who].log_in("admin", LOGIN).status == 200


def _change_own_password(w: World) -> None:
    answer = w.webs["first"].post("/api/auth/password", {"your_password": LOGIN, "new_password": LOGIN + "!"})
    assert answer.status == 204, answer.body


def _end_a_session(w: World) -> None:
    other = w.web()
    assert other.log_in("admin", LOGIN + "!").status == 200
    sessions = other.get("/api/auth/sessions").json
    (mine,) = [session["id"] for session in sessions if session["current"]]
    assert w.webs["first"].call("DELETE", f"/api/auth/sessions/{mine}").status == 204


def _log_out(w: World) -> None:
    assert w.webs["first"].post("/api/auth/logout").status == 204


def _begin_totp(w: World) -> None:
    w.ids["secret"] = w.client.post("/api/admins/ann/totp")["secret"]


def _confirm_totp(w: World) -> None:
    code = one_time_code(w.ids["secret"], time.time())
    assert w.client.post("/api/admins/ann/totp/confirm", {"code": code})["recovery_codes"]


def _enroll(w: World) -> None:
    w.client.post("/api/nodes/extra/enroll", {"csr": csr()})


def _bind(w: World) -> None:
    w.ids["roamer"] = w.device_on(0)
    w.client.post(f"/api/devices/{w.ids['roamer']}/bind", {"path_id": "way"})


def _add_profile(w: World) -> None:
    body = {"device_id": w.ids["device"], "name": "home", "node_id": "n1"}
    w.keep("profile", w.client.post("/api/profiles", body))


def _invite(w: World) -> None:
    body = {"relay": "relay.example:443", "device_id": w.ids["device"]}
    w.ids["invite"] = w.client.post(f"/api/users/{w.ids['user']}/invite", body)["ticket_id"]


def _peers(w: World) -> None:
    w.device_on(1)


def _host_key(w: World) -> None:
    w.ids["host"] = w.machine().address
    w.ids["fingerprint"] = w.client.post("/api/servers/host-key", {"ssh_host": w.ids["host"]})["host_key"]


def _add_server(w: World) -> None:
    body = {"ssh_host": w.ids["host"], "password": PASSWORD, "host_key": w.ids["fingerprint"]}
    w.keep("server", w.client.post("/api/servers", body))


def _trust(w: World) -> None:
    """The machine was set up anew, and an operation met a key that is not the pinned one."""
    if w.ids["fingerprint"] == w.machines[-1].fingerprint:
        w.machines[-1].new_host_key()
        with pytest.raises(RemoteError, match="has changed"):
            _deploy(w)
    w.client.post(f"/api/servers/{w.ids['server']}/trust", {"host_key": w.machines[-1].fingerprint})


def _edit_server(w: World) -> None:
    (server,) = (s for s in w.client.get("/api/servers") if s["id"] == w.ids["server"])
    w.client.call("PATCH", f"/api/servers/{server['id']}", {"version": server["version"], "region": "fra"})


def _deploy(w: World) -> None:
    body = {"role": "node", "name": "deployed", "binary_path": w.agent("0.3.1")}
    w.keep("deployed", w.client.post(f"/api/servers/{w.ids['server']}/deploy", body))


def _update(w: World) -> None:
    w.client.post("/api/nodes/deployed/update-agent", {"binary_path": w.agent("0.3.2")})


def _roll_out(w: World) -> None:
    w.client.post("/api/rollouts", {"nodes": ["deployed"], "binary_path": w.agent("0.3.3")})


def _relay(w: World) -> None:
    body = {"role": "relay", "egress": True, "binary_path": w.relay()}
    w.keep("relay", w.client.post(f"/api/servers/{w.ids['server']}/deploy", body))


def _update_relay(w: World) -> None:
    w.client.post(f"/api/relays/{w.ids['relay']}/update-agent", {"binary_path": w.relay("0.5.0")})


def _remove_relay(w: World) -> None:
    w.client.post(f"/api/relays/{w.ids['relay']}/remove")
    _relay(w)  # for the next step


def _retry(w: World) -> None:
    failed = w.failed_operation()
    w.client.post(f"/api/operations/{failed}/retry")
    w.over(failed)


def _cancel(w: World) -> None:
    stuck = w.begin_path()
    try:
        w.client.post(f"/api/operations/{stuck}/cancel")
        w.over(stuck)
    finally:
        w.let_go()


def _accept(w: World) -> None:
    """Only a log that does not extend its checkpoints can be accepted; that is in tests/actors/test_audit_checkpoints.py."""
    web = w.web()  # from an address of its own: after ten refusals from one, they are only counted
    web.token = w.client.post("/api/tokens", {"name": "auditor", "scope": "admin"})["secret"]
    assert web.post("/api/audit/accept", {"reason": "because"}).status == 409


def _geoip(w: World) -> None:
    with served_database(w.home) as body:
        w.client.post("/api/geoip/update", body)


def _alerted(w: World) -> str:
    """The id of an alert that is open: a node was killed, if none is down yet."""
    w.fleet.nodes.do("kill", node=2)
    query = f"/api/alerts?kind=fleet_health&unresolved=true&node={w.fleet.ids[2]}"
    (alert,) = eventually(lambda: w.client.get(query)["alerts"], timeout=30)
    return str(alert["id"])


def _snooze(w: World) -> None:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    w.client.post(f"/api/alerts/{_alerted(w)}/snooze", {"until": until.isoformat()})


def _ack(w: World) -> None:
    w.client.post(f"/api/alerts/{_alerted(w)}/ack")


def _resolve(w: World) -> None:
    w.client.post(f"/api/alerts/{_alerted(w)}/resolve")
    w.fleet.nodes.do("start", node=2)
    w.fleet.controller.until("n2", link_state="live")


STORY: dict[str, Act] = {
    "POST /api/auth/login": _log_in,
    "POST /api/admins": add("ann", "/api/admins", email="ann", password=LOGIN),
    "PATCH /api/admins/{key}": patch("/api/admins/ann", name="Ann"),
    "POST /api/admins/{key}/password": post("/api/admins/ann/password", new_password="another " + LOGIN),
    "POST /api/admins/{key}/totp": _begin_totp,
    "POST /api/admins/{key}/totp/confirm": _confirm_totp,
    "POST /api/admins/{key}/totp/remove": post("/api/admins/ann/totp/remove"),
    "DELETE /api/admins/{key}": delete("/api/admins/ann"),
    "POST /api/auth/password": _change_own_password,
    "DELETE /api/auth/sessions/{id}": _end_a_session,
    "POST /api/auth/logout": _log_out,
    "POST /api/tokens": add("token", "/api/tokens", name="ci", scope="monitor"),
    "DELETE /api/tokens/{id}": delete("/api/tokens/{token}"),
    "POST /api/nodes": add("extra", "/api/nodes", name="extra", control_addr="192.0.2.1"),
    "PATCH /api/nodes/{key}": patch("/api/nodes/extra", region="fra"),
    "POST /api/nodes/{key}/disable": post("/api/nodes/extra/disable"),
    "POST /api/nodes/{key}/enable": post("/api/nodes/extra/enable"),
    "POST /api/nodes/{key}/enroll": _enroll,
    "POST /api/nodes/{key}/revoke": post("/api/nodes/extra/revoke", reason="lost"),
    "DELETE /api/nodes/{key}": delete("/api/nodes/extra"),
    "POST /api/nodes/{key}/push": post("/api/nodes/n0/push"),
    "POST /api/nodes/{key}/push-policy": post("/api/nodes/n0/push-policy"),
    "POST /api/nodes/{key}/look": post("/api/nodes/n0/look"),
    "POST /api/users": add("user", "/api/users", name="Bob", email="bob@example.org"),
    "PATCH /api/users/{key}": patch("/api/users/bob@example.org", phone="+49 30 1"),
    "POST /api/users/{key}/suspend": post("/api/users/{user}/suspend"),
    "POST /api/users/{key}/resume": post("/api/users/{user}/resume"),
    "POST /api/users/{key}/devices": add("device", "/api/users/{user}/devices", name="phone"),
    "PATCH /api/devices/{key}": patch("/api/devices/{device}", name="telephone"),
    "POST /api/devices/{key}/provision": post("/api/devices/{device}/provision"),
    "POST /api/profiles": _add_profile,
    "PATCH /api/profiles/{key}": patch("/api/profiles/{profile}", name="away"),
    "POST /api/devices/{key}/export": post("/api/devices/{device}/export"),
    "DELETE /api/profiles/{key}": delete("/api/profiles/{profile}"),
    "POST /api/users/{key}/invite": _invite,
    "DELETE /api/invites/{key}": delete("/api/invites/{invite}"),
    "POST /api/users/{key}/devices/issue": post("/api/users/{user}/devices/issue", name="box", relay="relay.example:443"),
    "POST /api/devices/{key}/suspend": post("/api/devices/{device}/suspend"),
    "POST /api/devices/{key}/resume": post("/api/devices/{device}/resume"),
    "POST /api/devices/{key}/revoke": post("/api/devices/{device}/revoke"),
    "DELETE /api/devices/{key}": delete("/api/devices/{device}"),
    "DELETE /api/users/{key}": delete("/api/users/{user}"),
    "DELETE /api/removed/{id}": delete("/api/removed/{user}"),
    "POST /api/peers": _peers,
    "POST /api/paths": add("path", "/api/paths", name="way", node_ids=["n0", "n1"], fallback_ids=["n2"]),
    "PATCH /api/paths/{key}": patch("/api/paths/way", color="#4fd1c4"),
    "POST /api/paths/{key}/provision": post("/api/paths/way/provision"),
    "POST /api/paths/{key}/exit": post("/api/paths/way/exit", node="n2"),
    "POST /api/devices/{key}/bind": _bind,
    "DELETE /api/devices/{key}/bind": delete("/api/devices/{roamer}/bind"),
    "DELETE /api/paths/{key}": delete("/api/paths/way"),
    "POST /api/operations/{id}/retry": _retry,
    "POST /api/operations/{id}/cancel": _cancel,
    "POST /api/servers/self": post("/api/servers/self", host="127.0.4.1"),
    "POST /api/servers/host-key": _host_key,
    "POST /api/servers": _add_server,
    "POST /api/servers/{id}/trust": _trust,
    "POST /api/servers/{id}/deploy": _deploy,
    "POST /api/nodes/{key}/update-agent": _update,
    "POST /api/nodes/{key}/rollback": post("/api/nodes/deployed/rollback"),
    "POST /api/rollouts": _roll_out,
    "POST /api/nodes/{key}/renew": post("/api/nodes/deployed/renew"),
    "POST /api/nodes/{key}/guard": post("/api/nodes/deployed/guard"),
    "POST /api/nodes/{key}/stop": post("/api/nodes/deployed/stop"),
    "POST /api/nodes/{key}/start": post("/api/nodes/deployed/start"),
    "POST /api/nodes/{key}/remove": post("/api/nodes/deployed/remove"),
    "POST /api/relays/{id}/egress": lambda w: (_relay(w), w.client.post(f"/api/relays/{w.ids['relay']}/egress", {"hop": 2})),
    "POST /api/control-paths": add("control_path", "/api/control-paths", name="straight", hops=[]),
    "PATCH /api/control-paths/{id}": patch("/api/control-paths/straight", name="straight"),
    "POST /api/control-paths/{id}/activate": post("/api/control-paths/straight/activate", allow_direct=True),
    "POST /api/control-paths/deactivate": post("/api/control-paths/deactivate", allow_direct=True),
    "DELETE /api/control-paths/{id}": delete("/api/control-paths/{control_path}"),
    "POST /api/relays/{id}/update-agent": _update_relay,
    "POST /api/relays/{id}/renew": post("/api/relays/{relay}/renew"),
    "POST /api/relays/{id}/remove": _remove_relay,
    "DELETE /api/relays/{id}": delete("/api/relays/{relay}"),
    "PATCH /api/servers/{id}": _edit_server,
    "DELETE /api/servers/{id}": delete("/api/servers/{server}"),
    "POST /api/geoip/update": _geoip,
    "POST /api/alerts/{id}/snooze": _snooze,
    "POST /api/alerts/{id}/ack": _ack,
    "POST /api/alerts/{id}/resolve": _resolve,
    "POST /api/config/reload": post("/api/config/reload"),
    "POST /api/audit/accept": _accept,
    "POST /api/chaos": post("/api/chaos", actor="session_archive", how="raise"),
}
"""What may change something, in an order in which it can."""

WITHOUT_A_VERSION = {
    "DELETE /api/auth/sessions/{id}": "a login never changes, it only ends",
    "POST /api/nodes/{key}/push": "changes no record",
    "POST /api/nodes/{key}/push-policy": "changes no record",
    "POST /api/nodes/{key}/look": "changes no record",
    "POST /api/users/{key}/devices": "makes a record of its own",
    "POST /api/devices/{key}/export": "changes no record",
    "POST /api/users/{key}/invite": "makes a record of its own",
    "POST /api/users/{key}/devices/issue": "makes a record of its own",
    "DELETE /api/invites/{key}": "an invite never changes, it only ends",
    "DELETE /api/removed/{id}": "a name that is kept never changes, it is only forgotten",
}
"""Routes about one thing that may change something, and why nobody can overwrite another's change with them."""

OTHER_NAMES = {
    "POST /api/servers/{id}/deploy": "node.add",  # it says what came of it: a node or a relay (management-plane.md 3.2)
}
REFUSED = {"POST /api/audit/accept"}

CHANGES_NOTHING = {"POST /api/network-policy/preview", "POST /api/paths/plan", "POST /api/devices/{key}/bind/plan"}
"""They say what would be."""


def name_of(route: Any) -> str:
    return f"{route.method} {route.path}"


def test_every_route_that_may_change_something_has_a_row() -> None:
    unsafe = {name_of(route) for route in ROUTES if route.unsafe}
    assert unsafe - CHANGES_NOTHING == set(STORY), "add what is missing to STORY, in a place where it can be done"
    for route in ROUTES:
        if name_of(route) in CHANGES_NOTHING:
            assert route.scope is Scope.READONLY, f"{name_of(route)}: what changes nothing needs no more"


def test_every_change_of_a_record_takes_the_version_that_its_author_saw() -> None:
    without = {name_of(r) for r in ROUTES if r.unsafe and "{" in r.path and not takes_version(r)}
    assert without - CHANGES_NOTHING == set(WITHOUT_A_VERSION)


class _Stale(Exception):
    """A request was refused as stale, as it had to be."""


def _refused_when_stale(there: World, name: str, action: str, act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carries ``act`` out up to its request of route ``name``, which is sent with a version that nobody ever saw."""
    method, _, path = name.partition(" ")
    pattern = re.compile(re.sub(r"\{\w+\}", "[^/?]+", path) + r"(\?.*)?")
    real = type(there.client).call

    def call(self: Any, verb: str, place: str, body: Any = None, *more: Any) -> Any:
        if verb != method or not pattern.fullmatch(place):
            return real(self, verb, place, body, *more)
        head = self.get("/api/audit/head")["size"]
        if verb == "DELETE":
            place += ("&" if "?" in place else "?") + "version=987654"
        else:
            body = {**(body or {}), "version": 987_654}
        with pytest.raises(RemoteError) as caught:
            real(self, verb, place, body, *more)
        assert caught.value.status == 409, f"{name}: {caught.value}"
        assert isinstance(caught.value.current, int), f"{name}: the present version is in the answer"
        done = [e["action"] for e in there.recorded_since(head) if e["result"] == "ok"]
        assert action not in done, f"{name}: was refused, and did it"
        raise _Stale

    with monkeypatch.context() as patch:
        patch.setattr(type(there.client), "call", call)
        with pytest.raises(_Stale):
            act(there)


@pytest.mark.timeout(400)  # a hundred steps
def test_each_leaves_its_record(there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is refused first, where its author saw another version than there is."""
    actions = {name_of(route): route.audit for route in ROUTES}
    versioned = {name_of(route) for route in ROUTES if takes_version(route) and "{" in route.path}
    for name, act in STORY.items():
        if name in versioned:
            _refused_when_stale(there, name, OTHER_NAMES.get(name, actions[name]), act, monkeypatch)
        size = there.size()
        act(there)
        wanted = OTHER_NAMES.get(name, actions[name])
        found = [(e["action"], e["result"]) for e in there.recorded_since(size)]
        assert (wanted, "error" if name in REFUSED else "ok") in found, f"{name} left no record {wanted!r}, but {found}"


_LATE = "auth.refused_many"
"""Sums up refusals of the minute before, whenever that is over; no reading leaves it."""


def test_no_reading_leaves_one_or_changes_anything(there: World) -> None:
    """But for the walk through the log, which says in it what it found."""
    w = there
    device, secret = w.device_on(0), w.client.post("/api/tokens", {"name": "reader", "scope": "admin"})["secret"]
    operation, server = w.failed_operation(), w.client.post("/api/servers/self", {"host": "127.0.4.1"})["id"]
    user = w.client.post("/api/users", {"name": "Reader"})["id"]
    profile = w.client.post("/api/profiles", {"device_id": device, "name": "read", "node_id": "n0"})["id"]
    w.client.post("/api/paths", {"name": "read", "node_ids": ["n0", "n1"]})
    keys = {
        "/api/nodes/": "n0", "/api/users/": user, "/api/devices/": device, "/api/profiles/": profile, "/api/paths/": "read",
        "/api/admins/": "admin", "/api/operations/": operation, "/api/audit/proof/": "1", "/static/": "robots.txt",
        "/api/sessions/history/": "nope", "/api/relays/": "nope", "/api/alerts/": "nope", "/api/control-paths/": "nope",
        "/api/servers/": server,
    }  # fmt: skip
    nothing_there = {
        "GET /api/sessions/history/{key}", "GET /api/relays/{id}", "GET /api/alerts/{id}", "GET /api/control-paths/{id}"
    }  # fmt: skip
    bodies: dict[str, Any] = {
        "POST /api/network-policy/preview": {"forwarding": True},
        "POST /api/paths/plan": {"node_ids": ["n1", "n2"]},
        "POST /api/devices/{key}/bind/plan": {"path_id": "read"},
    }
    reader = w.web()
    reader.token = secret
    for route in ROUTES:
        name = name_of(route)
        if route.unsafe and name not in CHANGES_NOTHING:
            continue
        key = next((key for start, key in keys.items() if route.path.startswith(start)), "")
        path = re.sub(r"\{\w+(:\w+)?\}", key, route.path)
        size = w.size()
        if name == "GET /ws/events":
            assert reader.get(path).status == 400, "no upgrade, no stream"
        elif route.media_type == "text/event-stream":
            with ServerSent(str(w.fleet.controller.home / "control.sock")) as stream:
                assert stream.status == 200
        else:
            answer = reader.call(route.method, path, bodies.get(name))
            assert answer.status == (404 if name in nothing_there else 200), (name, answer.body)
        by_us = [e["action"] for e in w.recorded_since(size) if e["actor_kind"] != "system" and e["action"] != _LATE]
        assert by_us == [], f"{name} is a reading, and left a record"
