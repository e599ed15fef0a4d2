"""Invites over the API, on both backends: made, shown without their secret, revoked, refused where they lead nowhere."""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.accounts.invites import hash_token, parse_link
from coxswain.cli.client import RemoteError
from tests.fleet import PERSONAL, Controller, lone_controller

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def running(request: pytest.FixtureRequest) -> Iterator[Controller]:
    database = request.getfixturevalue("postgres_server").create_database() if request.param == "postgres" else ""
    with lone_controller(
        config=f"{PERSONAL}relay:\n  public_endpoint: relay.example:8443\n", database=database
    ) as controller:
        yield controller


@pytest.fixture
def user(running: Controller) -> dict[str, Any]:
    body = {"name": "Ann", "email": f"ann{next(_NUMBERS)}@example.org"}
    made: dict[str, Any] = running.client.post("/api/users", body)
    return made


def invite(running: Controller, user: dict[str, Any], **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = running.client.post(f"/api/users/{user['id']}/invite", body)
    return made


def invites(running: Controller, user: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.client.get(f"/api/users/{user['email']}/invites")
    return found


def refused(running: Controller, method: str, path: str, body: Any = None) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        running.client.call(method, path, body)
    return caught.value


def test_an_invite_is_a_link_that_clients_read_and_a_picture_of_it(running: Controller, user: dict[str, Any]) -> None:
    made = invite(running, user)
    link = parse_link(made["url"])
    assert link.relay == "relay.example:8443"
    root = next(a for a in running.client.get("/api/ca")["authorities"] if a["role"] == "root")
    assert link.ca == root["fingerprint"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["expires_at"])
    ttl = dt.datetime.fromisoformat(made["expires_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=59) < ttl <= dt.timedelta(hours=1), "an hour, if nothing else is asked for"
    png = base64.b64decode(made["qr_png_base64"])
    assert struct.unpack(">II", png[16:24]) == (512, 512)
    start = png.index(b"IDAT")
    size = struct.unpack(">I", png[start - 4 : start])[0]
    assert len(zlib.decompress(png[start + 4 : start + 4 + size])) == 512 * (1 + 512 // 8)


def test_it_is_listed_without_its_secret_which_is_stored_nowhere(running: Controller, user: dict[str, Any]) -> None:
    made = invite(running, user, ttl_seconds=600)
    token = parse_link(made["url"]).token
    (listed,) = invites(running, user)
    assert listed["id"] == made["ticket_id"]
    assert listed["used_at"] is listed["revoked_at"] is listed["used_by_device_id"] is listed["device_id"] is None
    assert token not in str(listed)
    with running.store.read() as tx:
        (row,) = tx.execute("SELECT * FROM enrollment_tickets WHERE id = ?", (made["ticket_id"],))
        assert hash_token(token) in row
        assert token not in str(row)
        assert token not in str(tx.execute("SELECT * FROM audit_log"))


def test_its_record_says_for_whom_and_for_how_long(running: Controller, user: dict[str, Any]) -> None:
    made = invite(running, user, ttl_seconds=120, relay="[2001:db8::1]:443")
    record = running.client.get("/api/audit?limit=1")[0]
    assert (record["action"], record["target_type"], record["target_id"]) == ("enroll.invite", "ticket", made["ticket_id"])
    assert record["detail"]["user_id"] == user["id"]
    assert parse_link(made["url"]).relay == "[2001:db8::1]:443"


def test_pages_of_them_newest_first(running: Controller, user: dict[str, Any]) -> None:
    made = [invite(running, user)["ticket_id"] for _ in range(5)]
    path = f"/api/users/{user['id']}/invites?limit=2"
    found: list[str] = []
    after = ""
    while True:
        page = running.client.get(path + after)
        found += [ticket["id"] for ticket in page]
        if len(page) < 2:
            break
        after = f"&after={page[-1]['id']}"
    assert found == made[::-1]


def test_a_revoked_one_stays_so(running: Controller, user: dict[str, Any]) -> None:
    made = invite(running, user)
    running.client.call("DELETE", f"/api/invites/{made['ticket_id']}")
    (listed,) = invites(running, user)
    assert listed["revoked_at"] is not None
    assert refused(running, "DELETE", f"/api/invites/{made['ticket_id']}").status == 409
    assert refused(running, "DELETE", "/api/invites/tkt_nope").status == 404


def test_who_cannot_be_invited(running: Controller, user: dict[str, Any]) -> None:
    assert refused(running, "POST", "/api/users/usr_nope/invite").status == 404
    assert "is an admin" in str(refused(running, "POST", "/api/users/usr_admin/invite"))
    running.client.post(f"/api/users/{user['id']}/suspend")
    assert refused(running, "POST", f"/api/users/{user['id']}/invite").status == 409
    running.client.post(f"/api/users/{user['id']}/resume")
    invite(running, user)


def test_an_invite_may_name_a_device_of_the_user(running: Controller, user: dict[str, Any]) -> None:
    device = running.client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})
    other = running.client.post("/api/users", {"name": "Bob"})
    invite(running, user, device_id=device["id"])
    assert invites(running, user)[0]["device_id"] == device["id"]
    body = {"device_id": device["id"]}
    assert refused(running, "POST", f"/api/users/{other['id']}/invite", body).status == 404
    running.client.post(f"/api/devices/{device['id']}/suspend")
    suspended = refused(running, "POST", f"/api/users/{user['id']}/invite", body)
    assert (suspended.status, f"cox devices resume {device['id']}" in suspended.remedy) == (409, True)
    running.client.post(f"/api/devices/{device['id']}/revoke")
    revoked = refused(running, "POST", f"/api/users/{user['id']}/invite", body)
    assert (revoked.status, revoked.remedy) == (409, "Invite a new device in its place."), "it never comes back"
    assert invites(running, user)[0]["revoked_at"] is not None, "a link to a revoked device leads nowhere"


@pytest.mark.parametrize("body", [{"ttl_seconds": 59}, {"ttl_seconds": 604_801}, {"relay": "no port"}, {"more": 1}])
def test_what_is_asked_for_has_to_make_sense(running: Controller, user: dict[str, Any], body: dict[str, Any]) -> None:
    assert refused(running, "POST", f"/api/users/{user['id']}/invite", body).status == 400
    assert invites(running, user) == []


def test_without_a_relay_there_is_no_invite(controller: Controller) -> None:
    made = controller.client.post("/api/users", {"name": "Ann"})
    error = refused(controller, "POST", f"/api/users/{made['id']}/invite")
    assert error.status == 409
    assert "relay.public_endpoint" in str(error)
    assert invite(controller, made, relay="relay.example:443")["url"]


def test_a_user_who_goes_takes_the_invites_along(running: Controller, user: dict[str, Any]) -> None:
    made = invite(running, user)
    running.client.call("DELETE", f"/api/users/{user['id']}")
    assert refused(running, "DELETE", f"/api/invites/{made['ticket_id']}").status == 404
