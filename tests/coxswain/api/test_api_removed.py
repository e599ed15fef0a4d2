"""What was removed keeps its name in history: sessions, totals, alerts, exports; and is found by it."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from actors.main import cli
from coxswain.cli.client import RemoteError
from coxswain.model import Protocol
from coxswain.sessions import Boundary, Changes, OpenSession
from coxswain.store import session_records as records
from coxswain.store import session_totals as totals
from coxswain.store import sessions as rows
from tests.fleet import Controller
from tests.support import eventually

Cox = Callable[..., str]


@dataclass(frozen=True)
class Past:
    """Ids of somebody who was connected, and of what was removed since: a device, a user with another one, a node."""

    user: str
    device: str
    other_user: str
    other_device: str
    node: str


@pytest.fixture
def cox(controller: Controller) -> Cox:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--config", str(controller.home.parent / "cox.yaml")])
        assert done.exit_code == code, done.output
        return done.output

    return run


@pytest.fixture(scope="module")
def past(controller: Controller) -> Past:
    client = controller.client
    user, other = (client.post("/api/users", {"name": name})["id"] for name in ("Ada", "Grace"))
    device, other_device = (
        client.post(f"/api/users/{owner}/devices", {"name": name})["id"]
        for owner, name in ((user, "phone"), (other, "tablet"))
    )
    node = client.post("/api/nodes", {"name": "ams", "control_addr": "192.0.2.1"})["id"]
    now = time.time() - 60
    changes, told = Changes(), []
    for number, (of_device, of_user) in enumerate(((device, user), (other_device, other)), 1):
        session = OpenSession(number, (node, Protocol.AMNEZIAWG, f"key{number}"), now, now)
        session.device_id, session.user_id, session.endpoint = of_device, of_user, "198.51.100.7:4000"
        session.closed_at, session.reason = now + 1, "idle"
        changes.dirty[number] = session
        changes.opened.append(session)
        told.append(Boundary(session, now, now, None, session.endpoint, 0, 0, seq=number))
    with controller.store.write() as tx:
        rows.save(tx, changes.dirty.values())
        records.add(tx, told)
        totals.add(tx, changes, now=now)
        tx.execute(
            "INSERT INTO alerts (id, at, kind, severity, status, dedup_key, evidence, device_id, user_id, created_at, "
            "updated_at) VALUES ('alr_a2c4e6g2a2c4e6g2', 1, 'dormant_then_active', 'info', 'open', 'd', 1, ?, ?, 1, 1)",
            (device, user),
        )
    client.call("DELETE", f"/api/devices/{device}")
    client.call("DELETE", f"/api/users/{other}")
    client.call("DELETE", f"/api/nodes/{node}")
    return Past(user, device, other, other_device, node)


def test_sessions_have_the_names_of_what_is_gone(controller: Controller, past: Past) -> None:
    second, first = controller.client.get("/api/sessions/history")
    assert (first["device_id"], first["user_id"], first["node_id"]) == (past.device, past.user, past.node)
    assert (first["device_name"], first["user_name"], first["node_name"]) == ("phone", "Ada", "ams")
    assert first["removed"] == ["node", "device"], "its user is there"
    assert (second["device_name"], second["user_name"], second["removed"]) == ("tablet", "Grace", ["node", "device", "user"])
    assert controller.client.get("/api/sessions/history/1") == first
    record = controller.client.get("/api/sessions")[-1]
    assert (record["device_name"], record["user_name"], record["removed"]) == ("phone", "Ada", ["node", "device"])
    [total] = controller.client.get("/api/sessions/totals?by=node")
    assert (total["id"], total["name"], total["removed"]) == (past.node, "ams", True)
    named = {t["id"]: (t["name"], t["removed"]) for t in controller.client.get("/api/sessions/totals")}
    assert named == {past.user: ("Ada", False), past.other_user: ("Grace", True)}


def test_alerts_have_them_too(controller: Controller, past: Past) -> None:
    [alert] = controller.client.get(f"/api/alerts?device={past.device}")["alerts"]
    assert (alert["device_name"], alert["user_name"], alert["removed"]) == ("phone", "Ada", ["device"])
    assert "node_name" not in alert
    done = controller.client.post(f"/api/alerts/{alert['id']}/ack")
    assert (done["status"], done["device_name"]) == ("acknowledged", "phone")


@pytest.mark.parametrize("path", ["/api/sessions", "/api/sessions/history", "/api/sessions/active", "/api/sessions/totals"])
def test_filters_take_names_also_of_what_was_removed(controller: Controller, past: Past, path: str) -> None:
    def get(query: str) -> Any:
        return controller.client.get(f"{path}?{query}")

    assert get("user=Ada") == get(f"user={past.user}")
    assert get("device=tablet&user=Grace") == get(f"device={past.other_device}") == get("device=tablet")
    assert get("node=ams") == get(f"node={past.node}") == get("")
    assert get("device=dev_nobody") == [], "a text like an id needs nobody to know it"
    for query in ("device=fridge", "user=Nobody", "node=far", "device=tablet&user=Ada"):
        with pytest.raises(RemoteError, match="and none that was removed") as caught:
            get(query)
        assert caught.value.status == 404
    if not path.endswith("active"):
        assert len(get("user=Ada")) == 1


def test_a_name_of_several_is_refused_by_name(controller: Controller, past: Past, cox: Cox) -> None:
    client = controller.client
    twins = [client.post("/api/users", {"name": "Twin"})["id"] for _ in range(2)]
    with pytest.raises(RemoteError) as caught:
        client.get("/api/sessions/history?user=Twin")
    assert caught.value.status == 400 and all(twin in str(caught.value) for twin in twins)
    out = cox("sessions", "--user", "Twin", code=2)
    assert "2 users have the name 'Twin'" in out and "Give the id of the one that is meant." in out
    assert client.get(f"/api/sessions/history?user={twins[0]}") == []


def test_tables_and_exports_have_names(past: Past, cox: Cox) -> None:
    out = cox("sessions", "--user", "Ada")
    assert "phone (removed)" in out and "ams (removed)" in out and "Ada (removed)" not in out and past.device not in out
    out = cox("sessions", "show", "1")
    assert f"phone (removed) {past.device}" in out and f"Ada {past.user}" in out
    assert "tablet (removed)" in cox("sessions", "events", "--device", "tablet")
    assert "Grace (removed)" in cox("sessions", "totals") and "ams (removed)" in cox("sessions", "totals", "--by", "node")
    second, first = csv.DictReader(io.StringIO(cox("sessions", "export"), newline=""))
    assert (first["device"], first["user"], first["node"], first["removed"]) == ("phone", "Ada", "ams", "node device")
    assert (second["user"], second["removed"]) == ("Grace", "node device user")
    assert json.loads(cox("sessions", "export", "--json", "--device", "phone"))["device_name"] == "phone"
    assert "phone (removed)" in cox("alerts", "--all")
    assert f"phone (removed) {past.device}" in cox("alerts", "show", "alr_a2c4e6g2a2c4e6g2")


def test_what_was_removed_is_listed_with_when_and_by_whom(controller: Controller, past: Past, cox: Cox) -> None:
    found = {each["id"]: each for each in controller.client.get("/api/removed")}
    tablet = found[past.other_device]
    assert (tablet["kind"], tablet["name"], tablet["user_id"], tablet["user_name"]) == (
        *("device", "tablet", past.other_user, "Grace"),
    )
    [record] = controller.client.get(f"/api/audit?action=user.rm&target_id={past.other_user}")
    assert tablet["removed_by"] == record["actor"] and tablet["removed_at"][:10] == record["at"][:10]
    assert found[past.node]["user_id"] is None
    some = controller.client.get(f"/api/removed?ids={past.device},{past.user},nod_x")
    assert [each["id"] for each in some] == [past.device]
    assert [each["id"] for each in controller.client.get("/api/removed?kind=node&q=AM")] == [past.node]
    for query, name in (("kind=relay", "kind"), ("ids=" + "x," * 30, "ids"), ("after=dev_none", "after")):
        with pytest.raises(RemoteError, match=f"^{name}"):
            controller.client.get(f"/api/removed?{query}")
    assert "tablet" in cox("removed", "--kind", "device") and "There are none." in cox("removed", "--find", "nothing")


def test_who_follows_an_old_link_is_told_what_it_was(controller: Controller, past: Past) -> None:
    for path, name in ((f"/api/devices/{past.device}", "phone"), (f"/api/users/{past.other_user}", "Grace")):
        with pytest.raises(RemoteError, match=rf"with the id .*: it was '{name}', which was removed at 20\d\d-") as caught:
            controller.client.get(path)
        assert caught.value.status == 404


def test_who_is_to_be_forgotten_is(controller: Controller, cox: Cox) -> None:
    client = controller.client
    user = client.post("/api/users", {"name": "Forget Me"})["id"]
    device = client.post(f"/api/users/{user}/devices", {"name": "secret name"})["id"]
    client.call("DELETE", f"/api/users/{user}")
    assert {user, device} <= {each["id"] for each in client.get("/api/removed")}
    assert "2 names forgotten" in cox("removed", "forget", user, "--yes")
    assert not {user, device} & {each["id"] for each in client.get("/api/removed")}
    [record] = client.get(f"/api/audit?action=removed.forget&target_id={user}")
    assert (record["target_type"], record["detail"]) == ("removed", {"names": 2})
    assert "is forgotten already" in cox("removed", "forget", user, "--yes", code=4)
    assert "no user" in cox("sessions", "--user", "Forget Me", code=4)


def test_names_can_be_done_without_while_the_archive_is_started_anew(controller: Controller, past: Past) -> None:
    def alert() -> dict[str, Any]:
        [found] = controller.client.get(f"/api/alerts?device={past.device}")["alerts"]
        return dict(found)

    controller.client.post("/api/chaos", {"actor": "session_archive", "how": "hang", "seconds": 4})
    eventually(lambda: "device_name" not in alert(), timeout=30, every=0)
    assert alert()["device_id"] == past.device
    eventually(lambda: alert().get("device_name") == "phone", timeout=30)
