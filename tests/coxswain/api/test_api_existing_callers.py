"""Scripts that were written for the existing controller, as they are: what they send is taken, and what they read is there
(management-plane.md 3, fleet-model.md 2).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.messages.audit import Caller
from coxswain.messages.fleet import AddNode
from coxswain.messages.servers import AddRelay, PutServer
from coxswain.servers import Relay
from tests.coxswain.api.conftest import PASSWORD, token
from tests.fleet import Controller
from tests.web import Answer, Web

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFfO0ZtHt4P2SJUA157w8YSDWtv2g0faqFpBtbTDCuIV"


@pytest.fixture
def admin(webbed: Controller) -> Web:
    return Web(webbed.listen, token=token(webbed, "admin"))


@pytest.fixture
def reader(webbed: Controller) -> Web:
    return Web(webbed.listen, token=token(webbed, "readonly"))


def made(answer: Answer, status: int = 201) -> Any:
    assert answer.status == status, answer.body
    return answer.json


# -- how they send it


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
def test_what_a_script_calls_its_body_does_not_matter(webbed: Controller, admin: Web, kind: str | None) -> None:
    """``curl -d`` calls it a form, and many a library nothing at all."""
    sent = {"Content-Type": kind} if kind else {}
    assert admin.call("POST", "/api/tokens", b'{"name": "by a script", "scope": "readonly"}', headers=sent).status == 201
    login = json.dumps({"username": "admin", "password": PASSWORD}).encode()
    assert Web(webbed.listen).call("POST", "/api/auth/login", login, headers=sent).status == 200


def test_a_script_that_logged_in_changes_things_with_its_cookie(webbed: Controller) -> None:
    """``curl -c jar``, then ``curl -b jar``. It has no page, so it names none."""
    script = Web(webbed.listen)
    cookie = script.log_in("admin", PASSWORD) and script.cookie
    script.cookie = ""
    assert script.call("POST", "/api/tokens", {"name": "with a cookie"}, headers={"Cookie": cookie}).status == 201
    assert script.call("POST", "/api/auth/logout", headers={"Cookie": cookie}).status == 204


def test_more_than_a_page_holds_is_asked_for(admin: Web) -> None:
    """Only what is negative or no number is refused; the most is a thousand."""
    for place in ("/api/audit", "/api/sessions", "/api/alerts"):
        assert admin.get(f"{place}?limit=5000").status == 200, place
        assert admin.get(f"{place}?limit=-1").status == 400, place
        assert admin.get(f"{place}?limit=many").status == 400, place


# -- names are free text


@pytest.mark.parametrize("name", ["Frankfurt 1", "EU → US (fast)", "日本", "a, b; c", "-dash", "x" * 100])
def test_things_are_called_what_people_call_them(webbed: Controller, admin: Web, name: str) -> None:
    node = made(admin.post("/api/nodes", {"name": name, "control_addr": "192.0.2.77"}))
    place = f"/api/nodes/{node['id']}"
    try:
        assert node["name"] == admin.get(place).json["name"] == name
        page = admin.get(f"/nodes/{node['id']}")
        assert page.status == 200
        wanted = webbed.client.get("/api/nodes?limit=1")  # the cursor is a name
        assert len(wanted) == 1
        seen, after = [], "/api/nodes?limit=1"
        while after:
            answer = admin.get(after)
            seen += [item["name"] for item in answer.json]
            after = answer.headers.get("link", "")[1:].partition(">")[0]
        assert name in seen and len(seen) == len(set(seen)) == len(admin.get("/api/nodes").json)
        way = made(admin.post("/api/control-paths", {"name": name, "hops": []}))
        assert admin.call("DELETE", f"/api/control-paths/{way['id']}").status == 204
    finally:
        assert admin.call("DELETE", place).status == 204


def test_a_name_is_trimmed_and_is_something(admin: Web) -> None:
    node = made(admin.post("/api/nodes", {"name": " spaced ", "control_addr": "192.0.2.78"}))
    try:
        assert node["name"] == "spaced"
        for name in ("", "  ", "a\nb", "x" * 101):
            body = {"version": node["version"], "name": name}
            assert admin.call("PATCH", f"/api/nodes/{node['id']}", body).status == 400, name
        assert admin.post("/api/nodes", {"name": "spaced", "control_addr": "192.0.2.79"}).status == 409
    finally:
        admin.call("DELETE", f"/api/nodes/{node['id']}")


# -- what they read


def test_lists_come_in_one_piece(webbed: Controller, admin: Web) -> None:
    """Who does not look for a next page misses nothing."""
    made_ids = [made(admin.post("/api/control-paths", {"name": f"way {n}", "hops": []}))["id"] for n in range(101)]
    try:
        answer = admin.get("/api/control-paths")
        assert {way["id"] for way in answer.json} >= set(made_ids) and "link" not in answer.headers
    finally:
        for way in made_ids:
            admin.call("DELETE", f"/api/control-paths/{way}")
    for place in ("tokens", "admins", "servers", "relays", "users", "profiles", "nodes", "paths", "node-links"):
        (limit,) = (p for p in webbed.client.get("/api/openapi.json")["paths"][f"/api/{place}"]["get"]["parameters"]
                    if p["name"] == "limit")  # fmt: skip
        assert "absent: all" in limit["description"], place


def test_a_changed_node_is_answered_whole(admin: Web) -> None:
    node = made(admin.post("/api/nodes", {"name": "whole", "control_addr": "192.0.2.80"}))
    place = f"/api/nodes/{node['id']}"
    try:
        body = {"version": node["version"], "name": "whole", "region": "fra1", "forwarding": True, "masquerade": True,
                "isolation": False, "endpoint_ips": ["192.0.2.80"]}  # fmt: skip
        answer = admin.call("PATCH", place, body)
        contract = {"id", "name", "region", "status", "public_ip", "ssh_host", "control_addr", "agent_version",
                    "version_display", "available_version", "update_available", "endpoint_ips", "forwarding", "masquerade",
                    "isolation", "server_id", "version", "created_at", "updated_at"}  # fmt: skip
        assert contract <= made(answer, 200).keys()
        assert answer.json.keys() == admin.get(place).json.keys()
    finally:
        admin.call("DELETE", place)


def test_profiles_of_a_device_are_those_whoever_the_user(webbed: Controller, admin: Web, reader: Web) -> None:
    user = made(admin.post("/api/users", {"name": "profiled"}))
    device = made(admin.post(f"/api/users/{user['id']}/devices", {"name": "d", "platform": "linux"}))
    assert reader.get(f"/api/profiles?device={device['id']}&user=usr_nobody").json == []
    assert made(reader.get("/api/profiles?user=usr_nobody"), 200) == []
    admin.call("DELETE", f"/api/users/{user['id']}")


def test_a_user_who_is_gone_has_no_devices(admin: Web) -> None:
    """accounts-profiles.md 8: an empty list, as for a user without any. An address that nobody has is an error."""
    user = made(admin.call("POST", "/api/users", {"name": "Ann", "email": "gone@example.org"}))
    devices = f"/api/users/{user['id']}/devices"
    assert made(admin.call("GET", devices), 200) == []
    assert admin.call("DELETE", f"/api/users/{user['id']}").status == 204
    assert made(admin.call("GET", devices), 200) == []
    assert admin.call("GET", "/api/users/gone@example.org/devices").status == 404


def test_what_a_body_names_and_is_not_there_is_a_bad_body(admin: Web) -> None:
    user = made(admin.post("/api/users", {"name": "bodied"}))
    device = made(admin.post(f"/api/users/{user['id']}/devices", {"name": "d", "platform": "linux"}))
    wrong = [
        ("/api/paths", {"name": "p", "color": "", "node_ids": ["nod_no", "nod_where"]}),
        (f"/api/devices/{device['id']}/bind", {"path_id": "pth_nowhere"}),
        ("/api/profiles", {"user_id": user["id"], "device_id": "dev_no", "name": "p", "node_id": "nod_no",
                           "path_id": "", "entry_ips": [], "protocol": "amneziawg"}),
    ]  # fmt: skip
    for place, body in wrong:
        assert admin.post(place, body).status == 400, place
    assert admin.post("/api/devices/dev_no/bind", {"path_id": "pth_nowhere"}).status == 404
    admin.call("DELETE", f"/api/users/{user['id']}")


def test_a_relay_on_no_machine_is_not_upgraded(webbed: Controller, admin: Web) -> None:
    """A 502, also for the one inside the daemon (management-plane.md 3.2)."""
    relay = webbed.system.ask("servers", AddRelay(Caller("tests", "system"), Relay("", "adrift")), deadline=30).value
    for key in (relay.id, "embedded"):
        answer = admin.post(f"/api/relays/{key}/update-agent", {})
        assert answer.status == 502 and "machine" in answer.error, key
    assert admin.post("/api/relays/rly_aaaaaaaaaaaaaaaa/update-agent", {}).status == 404
    webbed.client.call("DELETE", f"/api/relays/{relay.id}")


def test_nothing_to_install_is_no_fault_of_the_request(webbed: Controller, admin: Web, machine: tuple[str, str]) -> None:
    """A 502 (management-plane.md 3.6): the configuration names no program. What is wrong in the body stays a 400."""
    server, node = machine
    bare = {"name": "", "region": "", "egress": False, "onion": False, "egress_port": 0, "onion_port": 0, "route": []}
    for role in ("node", "relay"):
        answer = admin.post(f"/api/servers/{server}/deploy", bare | {"role": role})
        assert answer.status == 502 and "no program to install" in answer.error, role
        assert answer.json["exit_code"] == 2
    assert admin.post(f"/api/nodes/{node}/update-agent", {}).status == 502
    assert admin.post(f"/api/servers/{server}/deploy", bare | {"role": "buoy"}).status == 400
    assert admin.post(f"/api/servers/{server}/deploy", bare | {"role": "node", "url": "https://x.example"}).status == 400


# -- a machine goes with what is on it


@pytest.fixture
def machine(webbed: Controller) -> Iterator[tuple[str, str]]:
    """A machine with a node and a relay on it, as an onboarding leaves them; the ids of machine and node."""
    me, ask = Caller("tests", "system"), webbed.system.ask
    server = ask("servers", PutServer(me, "192.0.2.90", 22, "root", HOST_KEY, name="m 90"), deadline=30).value
    node = ask("fleet", AddNode(me, "on m 90", "192.0.2.90", server_id=server.id), deadline=30).value
    ask("servers", AddRelay(me, Relay("", "relay on m 90", server_id=server.id)), deadline=30)
    yield server.id, node.id
    for place, known in (("nodes", node.id), ("servers", server.id)):
        if any(item["id"] == known for item in webbed.client.get(f"/api/{place}")):
            webbed.client.call("DELETE", f"/api/{place}/{known}")


def key(letter: str, kind: int) -> str:
    return base64.b64encode(letter.encode() * 32).decode() if kind == 1 else f"{letter * 8}-aaaa-4aaa-8aaa-{letter * 12}"


@pytest.fixture
def clients(webbed: Controller, machine: tuple[str, str]) -> Iterator[str]:
    """The machine's node serves two devices, one of them over two protocols; nothing else leads there."""
    node, user = machine[1], "usr_cccccccccccccccc"
    peers = [("a", 1), ("a", 2), ("b", 1)]
    body = {
        "users": [{"id": user, "name": "clients"}],
        "devices": [{"id": f"dev_{letter * 16}", "user_id": user, "name": letter} for letter in "ab"],
        "add": [
            {"id": f"peer_{letter * 15}{kind}", "node_id": node, "device_id": f"dev_{letter * 16}",
             "public_key": key(letter, kind), "protocol": ("amneziawg", "xray-reality")[kind - 1],
             "allowed_ips": [f"10.99.0.{ord(letter)}/32"]}
            for letter, kind in peers
        ],
    }  # fmt: skip
    webbed.client.post("/api/peers", body)
    yield node
    webbed.client.call("DELETE", f"/api/users/{user}?wait=0")


def test_a_node_with_clients_stays(webbed: Controller, admin: Web, machine: tuple[str, str], clients: str) -> None:
    """A 409 with their number (fleet-model.md 2.5); who says which record he saw, or that he means it, knows of them."""
    for place in (f"/api/nodes/{clients}", f"/api/nodes/{clients}?clients=false&version=1", f"/api/servers/{machine[0]}"):
        answer = admin.call("DELETE", place)
        assert answer.status == 409 and "2 clients" in answer.error, place
    assert [relay for relay in admin.get("/api/relays").json if relay["server_id"] == machine[0]], "nothing went before"
    assert {record["result"] for record in webbed.client.get(f"/api/audit?target_id={clients}&action=node.rm")} == {"error"}
    assert admin.call("DELETE", f"/api/nodes/{clients}?clients=true").status == 204


def test_who_saw_the_node_removes_it_with_its_clients(webbed: Controller, admin: Web, clients: str) -> None:
    """As the dashboard and ``cox`` do, which ask before."""
    version = webbed.node(clients)["version"]
    assert admin.call("DELETE", f"/api/nodes/{clients}?version={version}").status == 204


def test_a_removed_machine_takes_its_records_with_it(webbed: Controller, admin: Web, machine: tuple[str, str]) -> None:
    server, node = machine
    size = webbed.client.get("/api/audit/head")["size"]
    assert admin.call("DELETE", f"/api/servers/{server}").status == 204
    for place in ("servers", "nodes", "relays"):
        assert not [item for item in admin.get(f"/api/{place}").json if server in (item["id"], item.get("server_id"))]
    actions = [record["action"] for record in webbed.client.get(f"/api/audit?above={size}")]
    assert sorted(actions) == ["node.rm", "relay.rm", "server.rm"]
    assert admin.get(f"/api/nodes/{node}").status == 404


def test_what_clients_use_keeps_its_machine(webbed: Controller, admin: Web, machine: tuple[str, str]) -> None:
    server, node = machine
    user = made(admin.post("/api/users", {"name": "there"}))
    device = made(admin.post(f"/api/users/{user['id']}/devices", {"name": "d", "platform": "linux"}))
    profile = {"user_id": user["id"], "device_id": device["id"], "name": "p", "node_id": node, "path_id": "",
               "entry_ips": [], "protocol": "amneziawg"}  # fmt: skip
    made(admin.post("/api/profiles?wait=0", profile))
    answer = admin.call("DELETE", f"/api/servers/{server}")
    assert answer.status == 409 and "1 profile" in answer.error
    assert [relay for relay in admin.get("/api/relays").json if relay["server_id"] == server], "nothing went before"
    admin.call("DELETE", f"/api/users/{user['id']}")
    assert admin.call("DELETE", f"/api/servers/{server}?empty=true").status == 409
    assert admin.call("DELETE", f"/api/servers/{server}?version=99").status == 409
    assert admin.get(f"/api/nodes/{node}").status == 200
    assert admin.call("DELETE", f"/api/servers/{server}").status == 204


def test_the_controllers_own_machine_stays(webbed: Controller, admin: Web) -> None:
    own = webbed.client.post("/api/servers/self", {"host": "192.0.2.91"})
    assert admin.call("DELETE", f"/api/servers/{own['id']}").status == 409
