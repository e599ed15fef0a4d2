"""Control paths through the API: what is taken, what is refused, and what is left of it. What they carry is in tests/e2e."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.cli.client import RemoteError
from coxswain.messages.audit import Caller
from coxswain.messages.servers import AddRelay, EditRelay
from coxswain.servers import Relay, RelayKind
from tests.fleet import Controller
from tests.support import eventually

ME = Caller("test", "local")
_numbers = itertools.count(1)


class Relays:
    """Makes relays that nobody serves."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.client = controller.client

    def relay(self, **more: Any) -> Relay:
        number = next(_numbers)
        values = {"egress_endpoint": f"192.0.2.{number}:8456", "hostname": f"192.0.2.{number}", "status": "active"} | more
        message = AddRelay(ME, Relay(id="", name=f"hop{number}", **values))
        added: Relay = self.controller.system.ask("servers", message, deadline=10).value
        return added

    def path(self, *hops: str, name: str = "") -> dict[str, Any]:
        body = {"name": name or f"path{next(_numbers)}", "hops": list(hops)}
        made: dict[str, Any] = self.client.post("/api/control-paths", body)
        return made

    def refused(self, method: str, path: str, body: Any = None) -> RemoteError:
        with pytest.raises(RemoteError) as caught:
            self.client.call(method, path, body)
        return caught.value


@pytest.fixture
def there(webbed: Controller) -> Iterator[Relays]:
    yield Relays(webbed)
    for path in webbed.client.get("/api/control-paths"):
        webbed.client.call("DELETE", f"/api/control-paths/{path['id']}?allow_direct=true")


def test_a_path_as_it_is_shown(there: Relays) -> None:
    one, two = there.relay(region="fra"), there.relay()
    made = there.path(one.name, two.id, name="out")
    assert made["hops"] == [one.id, two.id]
    assert made["chain"][0] == {
        "id": one.id, "name": one.name, "region": "fra", "host": one.hostname, "problem": ""
    }  # fmt: skip
    assert (made["active"], made["route"], made["problem"], made["version"]) == (False, "egress", "", 1)
    assert there.client.get("/api/control-paths/out") == made == there.client.get("/api/control-paths")[0]


@pytest.mark.parametrize("case", ["unknown", "twice", "dry", "embedded", "four", "nameless"])
def test_what_is_no_path_is_400_and_makes_none(there: Relays, case: str) -> None:
    good = there.relay()
    hops = {
        "unknown": ["nobody"],
        "twice": [good.id, good.name],
        "dry": [there.relay(egress_endpoint="").id],
        "embedded": [there.relay(kind=RelayKind.EMBEDDED).id],
        "four": [there.relay().id for _ in range(4)],
        "nameless": [good.id],
    }[case]
    body = {"hops": hops} | ({} if case == "nameless" else {"name": "bad"})
    assert there.refused("POST", "/api/control-paths", body).status == 400
    assert there.client.get("/api/control-paths") == []


def test_a_name_is_taken_once(there: Relays) -> None:
    there.path(name="out")
    assert there.refused("POST", "/api/control-paths", {"name": "out"}).status == 409


def test_editing_takes_the_version_and_never_moves_what_is_in_force(there: Relays) -> None:
    one, two = there.relay(), there.relay()
    made = there.path(one.id, name="out")
    place = f"/api/control-paths/{made['id']}"
    assert there.refused("PATCH", place, {"name": "x", "version": 7}).status == 409
    changed = there.client.call("PATCH", place, {"name": "outward", "hops": [two.id, one.id], "version": 1})
    assert (changed["name"], changed["hops"], changed["version"]) == ("outward", [two.id, one.id], 2)
    there.client.post(f"{place}/activate", {"force": True})
    assert there.refused("PATCH", place, {"hops": [one.id]}).status == 409
    assert there.client.call("PATCH", place, {"name": "still"})["active"]


def test_one_is_active_and_the_record_says_instead_of_which(there: Relays) -> None:
    first, second = there.path(there.relay().id, name="first"), there.path(there.relay().id, name="second")
    for path in (first, second):
        there.client.post(f"/api/control-paths/{path['id']}/activate", {"force": True})
    found = {path["name"]: path["active"] for path in there.client.get("/api/control-paths")}
    assert found == {"first": False, "second": True}
    record = next(e for e in there.client.get("/api/audit?limit=5") if e["action"] == "control_path.activate")
    assert record["detail"] == {"name": "second", "probed": "forced", "instead_of": "first"}


def test_the_probe_names_the_hop_that_does_not_answer(there: Relays) -> None:
    dead = there.relay(egress_endpoint="127.0.0.1:9", hostname="127.0.0.1")
    made = there.path(dead.id)
    refused = there.refused("POST", f"/api/control-paths/{made['id']}/activate", {})
    assert refused.status == 502
    assert f"hop 1 of 1: relay {dead.name} does not answer: 127.0.0.1:9: connection refused" in str(refused)
    assert not there.client.get(f"/api/control-paths/{made['id']}")["active"]


def test_a_path_with_an_unfit_hop_is_refused_even_by_force(there: Relays) -> None:
    ill = there.relay(status="error")
    made = there.path(ill.id)
    assert (made["route"], made["chain"][0]["problem"]) == ("", "is error")
    refused = there.refused("POST", f"/api/control-paths/{made['id']}/activate", {"force": True})
    assert refused.status == 403 and ill.name in str(refused)


def test_directly_is_never_by_accident(there: Relays) -> None:
    straight = there.path(name="straight")
    place = f"/api/control-paths/{straight['id']}"
    assert there.refused("POST", "/api/control-paths/deactivate", {"allow_direct": True}).status == 409, "none is active"
    assert there.refused("POST", f"{place}/activate", {"force": True}).status == 409
    assert there.client.post(f"{place}/activate", {"allow_direct": True})["route"] == "direct"
    over = there.path(there.relay().id, name="over")
    there.client.post(f"/api/control-paths/{over['id']}/activate", {"force": True})
    assert there.refused("DELETE", f"/api/control-paths/{over['id']}").status == 409
    assert there.refused("POST", "/api/control-paths/deactivate", {}).status == 409
    assert there.refused("POST", "/api/control-paths/deactivate", {"allow_direct": True, "version": 1}).status == 409
    there.client.call("DELETE", f"/api/control-paths/{over['id']}?allow_direct=true&version=2")


def test_a_hop_is_neither_removed_nor_disarmed(there: Relays) -> None:
    hop = there.relay(server_id="srv_gone")
    there.path(hop.id, name="out")
    for method, path, body in (
        ("DELETE", f"/api/relays/{hop.id}", None),
        ("POST", f"/api/relays/{hop.id}/remove", None),
        ("POST", f"/api/relays/{hop.id}/egress", {"disable": True}),
    ):
        refused = there.refused(method, path, body)
        assert refused.status == 409 and "control path out" in str(refused)
    there.client.call("DELETE", "/api/control-paths/out")
    there.client.post(f"/api/relays/{hop.id}/egress", {"disable": True})
    again = there.refused("POST", f"/api/relays/{hop.id}/egress", {"hop": 1})
    assert again.status == 409 and "cox relays add --egress" in again.remedy
    there.client.call("DELETE", f"/api/relays/{hop.id}")


def test_changes_are_told_to_dashboards(there: Relays) -> None:
    before = 0
    while (page := there.client.get(f"/api/events/recent?after={before}&limit=5000"))["events"]:  # of tests before
        before = page["last_seq"]
    made = there.path(there.relay().id)
    there.client.post(f"/api/control-paths/{made['id']}/activate", {"force": True})

    def told() -> list[dict[str, Any]]:
        page = there.client.get(f"/api/events/recent?after={before}")["events"]
        return [event for event in page if event.get("kind") == "control_path.changed"]

    wanted = [(made["id"], False), (made["id"], True)]
    eventually(lambda: [(e["control_path_id"], e["active"]) for e in told()][-2:] == wanted)
    assert {event["type"] for event in told()} == {"inventory"}


def test_a_hop_that_falls_ill_shows(there: Relays) -> None:
    hop = there.relay()
    made = there.path(hop.id)
    there.controller.system.ask("servers", EditRelay(ME, hop.id, {"status": "error"}), deadline=10)
    assert hop.name in there.client.get(f"/api/control-paths/{made['id']}")["problem"]
