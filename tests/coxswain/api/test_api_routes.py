"""The API of a real controller, over its real socket."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from coxswain import __version__
from coxswain.cli.client import RemoteError
from coxswain.errors import StaleVersion, door_of
from tests.fleet import Controller, peers_body
from tests.support import an_addr

ME = pwd.getpwuid(os.getuid()).pw_name


def add(controller: Controller, name: str, **more: Any) -> dict[str, Any]:
    body = {"name": name, "control_addr": an_addr(), **more}
    node: dict[str, Any] = controller.client.post("/api/nodes", body)
    return node


def refused(controller: Controller, method: str, path: str, body: Any = None) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        controller.client.call(method, path, body)
    return caught.value


def newest_record(controller: Controller) -> dict[str, Any]:
    found: dict[str, Any] = controller.client.get("/api/audit?limit=1")[0]
    return found


def csr(*names: str) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil.example")])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_what_a_daemon_says_of_itself(controller: Controller) -> None:
    assert controller.client.get("/api/version") == {"version": __version__}
    assert controller.client.get("/healthz") is None
    ready = controller.client.get("/readyz")
    assert (ready["ready"], ready["down"], set(ready["parts"].values())) == (True, [], {"running"})
    assert {"access", "audit_writer", "fleet", "control_socket"} <= set(ready["parts"])
    status = controller.client.get("/api/status")
    assert status["pid"] == os.getpid()
    assert status["version"] == __version__
    assert status["down"] == []
    assert status["store"] == "sqlite"
    counts = {"nodes", "in_sync", "troubled", "coming_up", "by_link_state", "by_status", "users", "devices", "peers"}
    assert set(status["fleet"]) == counts
    assert status["sessions"]["active"] == 0
    direct = {"route": "direct", "hops": [], "reason": "", "connections": 0, "relay_sessions": 0}
    assert status["control_path"] == direct
    assert status["uptime_seconds"] >= 0
    tree = controller.client.get("/api/tree")
    assert [c["id"] for c in tree["children"]][-1] == "control_socket"


def test_a_node_from_its_first_day_to_its_last(controller: Controller) -> None:
    made = add(controller, "life", control_addr="192.0.2.200", region="fra", policy={"isolation": True})
    assert made["control_addr"] == "192.0.2.200:8444"
    assert (made["forwarding"], made["isolation"], made["version"], made["enrolled"]) == (True, True, 1, False)
    by_name, by_id = controller.client.get("/api/nodes/life"), controller.client.get(f"/api/nodes/{made['id']}")
    assert by_name["id"] == by_id["id"] == made["id"]
    assert made["created_at"].endswith("Z")
    changed = controller.client.call(
        "PATCH", "/api/nodes/life", {"version": 1, "region": "ams", "endpoint_ips": ["192.0.2.9"]}
    )
    assert (changed["region"], changed["version"], changed["endpoint_ips"]) == ("ams", 2, ["192.0.2.9"])
    assert controller.client.post("/api/nodes/life/disable")["enabled"] is False
    assert controller.node("life")["link_state"] == "disabled"
    assert controller.client.post("/api/nodes/life/enable")["enabled"] is True
    assert controller.client.call("DELETE", "/api/nodes/life") is None
    assert refused(controller, "GET", "/api/nodes/life").status == 404


def test_a_node_has_addresses_that_clients_can_dial(controller: Controller) -> None:
    body = {"name": "undialled", "control_addr": an_addr(), "public_ip": "255.255.255.255"}
    error = refused(controller, "POST", "/api/nodes", body)
    assert (error.status, error.exit_code) == (400, 2) and "public_ip: 255.255.255.255 is" in str(error) and error.remedy
    assert refused(controller, "GET", "/api/nodes/undialled").status == 404
    node = add(controller, "dialled", public_ip="127.0.0.1")
    error = refused(
        controller, "PATCH", "/api/nodes/dialled", {"version": node["version"], "endpoint_ips": ["10.0.0.1", "::"]}
    )
    assert error.status == 400 and "endpoint_ips: :: is" in str(error)
    assert controller.node("dialled")["endpoint_ips"] == []


def test_every_change_is_in_the_audit_log_before_it_is_answered(controller: Controller) -> None:
    def record(action: str) -> None:
        newest = newest_record(controller)
        assert (newest["action"], newest["actor"], newest["actor_kind"], newest["source_ip"]) == (action, ME, "cli", "")
        assert newest["target_id"] == node["id"]

    node = add(controller, "audited")
    record("node.add")
    controller.client.call("PATCH", "/api/nodes/audited", {"version": 1, "region": "x"})
    record("node.update")
    controller.client.post("/api/nodes/audited/disable")
    record("node.disable")
    controller.client.post("/api/nodes/audited/enable")
    record("node.enable")
    controller.client.post("/api/nodes/audited/enroll", {"csr": csr()})
    record("node.enroll")
    controller.client.post("/api/nodes/audited/revoke", {"reason": "stolen"})
    record("node.revoke")
    size = controller.client.get("/api/audit/head")["size"]
    controller.client.post("/api/peers", peers_body([node["id"]], 1, first=500))
    assert controller.client.get("/api/audit/head")["size"] == size + 1
    key = controller.client.get("/api/nodes/audited")["id"]
    gone = [{"node_id": key, "public_key": "A" * 43 + "="}]
    controller.client.post("/api/peers", {"remove": gone})
    removed = controller.client.get("/api/audit?action=peers.remove&limit=1")[0]
    assert (removed["target_id"], removed["detail"]) == (key, {"peers": [[1, "A" * 43 + "="]]}), "a restore goes by it"
    size += 2
    controller.client.call("DELETE", "/api/nodes/audited?clients=true")
    record("node.rm")
    assert newest_record(controller)["seq"] == size + 2


def test_an_address_is_one_nodes_for_whoever_wants_it_so(controller: Controller) -> None:
    """Two links to one agent would undo each other's changes. Names are compared as names."""
    first = add(controller, "one-agent", control_addr="Agent.example")
    six = add(controller, "v6-agent", control_addr="2001:db8:0::7")
    for addr in ("agent.example:8444", "AGENT.example"):
        error = refused(controller, "POST", "/api/nodes", {"name": "twin", "control_addr": addr, "unique": True})
        assert error.status == 409 and "is that of node one-agent already" in str(error)
    twin = {"name": "twin", "control_addr": "[2001:db8::7]", "unique": True}
    assert "node v6-agent" in str(refused(controller, "POST", "/api/nodes", twin))
    other = add(controller, "another-agent", control_addr="agent.example:8445")
    body = {"version": 1, "control_addr": "agent.example", "unique": True}
    error = refused(controller, "PATCH", f"/api/nodes/{other['id']}", body)
    assert error.status == 409 and "control_addr: agent.example:8444 is that of node one-agent already" in str(error)
    assert controller.node("another-agent")["version"] == 1
    same = controller.client.call("PATCH", f"/api/nodes/{first['id']}", body)
    assert same["control_addr"] == "agent.example:8444"
    controller.client.call("PATCH", f"/api/nodes/{six['id']}", {"version": 1, "control_addr": "agent.example:8446"})
    controller.client.call("PATCH", f"/api/nodes/{other['id']}", {"version": 1, "control_addr": "2001:db8::7"})
    controller.client.call("DELETE", f"/api/nodes/{other['id']}")
    add(controller, "its-heir", control_addr="[2001:db8::7]:8444", unique=True)
    add(controller, "its-twin", control_addr="[2001:db8::7]")  # callers from before know no such key


def test_a_stale_version_changes_nothing_and_says_which_is_now(controller: Controller) -> None:
    add(controller, "stale")
    controller.client.call("PATCH", "/api/nodes/stale", {"version": 1, "region": "first"})
    size = controller.client.get("/api/audit/head")["size"]
    error = refused(controller, "PATCH", "/api/nodes/stale", {"version": 1, "region": "second"})
    assert (error.status, error.exit_code) == (409, door_of(StaleVersion("")).exit_code)
    assert error.remedy
    assert refused(controller, "DELETE", "/api/nodes/stale?version=1").status == 409
    assert controller.node("stale")["region"] == "first"
    assert controller.client.get("/api/audit/head")["size"] == size + 2, "what was refused is in the log as well"
    assert (newest_record(controller)["action"], newest_record(controller)["result"]) == ("node.rm", "error")


def test_a_csr_gives_its_key_and_nothing_else(controller: Controller) -> None:
    add(controller, "csr")
    issued = controller.client.post("/api/nodes/csr/enroll", {"csr": csr("evil.example", "other.example")})
    assert any("evil.example" in name for name in issued["ignored"])
    leaf = x509.load_pem_x509_certificate(issued["node_crt"].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "example" not in str(names)
    for bad in ("", "nonsense", "\n", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        error = refused(controller, "POST", "/api/nodes/csr/enroll", {"csr": bad})
        assert error.status == 400 and str(error).startswith("csr: "), str(error)


@pytest.mark.parametrize(
    ("method", "path", "body", "complaint"),
    [
        ("POST", "/api/nodes", {"name": "b"}, "control_addr: is missing"),
        ("POST", "/api/nodes", {"name": "b", "control_addr": "h", "prot": 1}, "prot: unknown key"),
        ("POST", "/api/nodes", {"name": " ", "control_addr": "h"}, "name: ' ' is not a name"),
        ("POST", "/api/nodes", {"name": "b", "control_addr": "h:99999"}, "control_addr: "),
        ("POST", "/api/nodes", {"name": "b", "control_addr": "h", "region": "\ud800"}, "region: "),
        ("POST", "/api/nodes", {"name": "b", "control_addr": "h", "policy": {"nat": True}}, "policy.nat: unknown key"),
        ("POST", "/api/nodes", {"name": "b", "control_addr": "h", "policy": {"forwarding": False}}, "policy.masquerade"),
        ("POST", "/api/nodes", [], "a JSON object is needed"),
        ("PATCH", "/api/nodes/bad", {"region": "x"}, "version: is missing"),
        ("PATCH", "/api/nodes/bad", {"version": 10**30}, "version: is out of range"),
        ("POST", "/api/nodes/bad/enroll", {"csr": "\ud800"}, "csr: "),
        ("POST", "/api/nodes/bad/revoke", {"serial": "\ud800"}, "serial: "),
        ("POST", "/api/nodes/bad/revoke", {"reason": "\x1b[2J"}, "reason: "),
        ("POST", "/api/nodes/bad/disable", {"force": True}, "force: unknown key"),
        ("POST", "/api/peers", {"users": [{"id": "u", "name": "\ud800"}]}, "users[0].name: "),
        ("POST", "/api/peers", {"add": [{"id": "p", "node_id": "n", "device_id": "d"}]}, "add[0].public_key: is missing"),
        ("GET", "/api/nodes?limit=-1", None, "limit: "),
        ("GET", "/api/nodes?after=%00", None, "after: "),
        ("GET", "/api/nodes/%00", None, "node: "),
        ("GET", "/api/sessions/history?active=maybe", None, "active: "),
        ("GET", "/api/sessions?device=%00", None, "device: "),
        ("GET", "/api/sessions?limit=1&limit=2", None, "limit: "),
        (
            "GET",
            "/api/sessions?limt=1",
            None,
            "'limt': unknown parameter; did you mean limit?; accepted are after, country, ",
        ),
        ("GET", "/api/events/recent?after=-1", None, "after: "),
        ("GET", "/api/audit?after=x", None, "after: "),
    ],
)
def test_bad_input_is_a_400_that_names_the_field_and_hurts_nobody(
    controller: Controller, method: str, path: str, body: Any, complaint: str
) -> None:
    if not any(n["name"] == "bad" for n in controller.client.get("/api/nodes")):
        add(controller, "bad")
    before = controller.client.get("/api/status")
    error = refused(controller, method, path, body)
    assert error.status == 400 and error.exit_code == 2
    assert complaint in str(error)
    after = controller.client.get("/api/status")
    assert (after["restarts"], after["audit"], after["fleet"]["nodes"]) == (
        before["restarts"],
        before["audit"],
        before["fleet"]["nodes"],
    )


def test_taken_names_are_conflicts(controller: Controller) -> None:
    add(controller, "taken")
    error = refused(controller, "POST", "/api/nodes", {"name": "taken", "control_addr": an_addr()})
    assert error.status == 409 and "taken" in str(error)


def test_nodes_come_in_pages_by_name(controller: Controller) -> None:
    for name in ("page-c", "page-a", "page-b"):
        add(controller, name)
    first = controller.client.get("/api/nodes?after=page-&limit=2")
    assert [n["name"] for n in first] == ["page-a", "page-b"]
    assert [n["name"] for n in controller.client.get("/api/nodes?after=page-b&limit=1")] == ["page-c"]


def test_a_plan_of_a_node_that_cannot_be_reached_is_its_failure(controller: Controller) -> None:
    add(controller, "far")
    for what in ("plan", "status"):
        error = refused(controller, "GET", f"/api/nodes/far/{what}")
        assert (error.status, error.exit_code) == (502, 8)
        assert "enroll" in str(error)


def test_events_are_numbered_and_come_after_the_ones_seen(controller: Controller) -> None:
    add(controller, "events")
    page = controller.client.get("/api/events/recent?after=0")
    numbers = [e["seq"] for e in page["events"]]
    assert numbers == sorted(set(numbers)) and page["last_seq"] == numbers[-1]
    assert all(e["type"] and e["at"].endswith("Z") and "node_id" in e for e in page["events"])
    controller.client.post("/api/nodes/events/disable")
    later = controller.client.get(f"/api/events/recent?after={page['last_seq']}")
    assert all(e["seq"] > page["last_seq"] for e in later["events"])


def test_the_ca_is_described_without_its_keys(controller: Controller) -> None:
    found = controller.client.get("/api/ca")
    assert found["key_source"] == "file"
    assert "root" in {a["role"] for a in found["authorities"]}
    assert all(len(a["fingerprint"]) == 64 for a in found["authorities"])
    assert "PRIVATE" not in str(found)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(controller: Controller) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(controller.home / "control.sock"))
        raw.sendall(b"POST /api/peers HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_harm_needs_an_actor_and_a_way(controller: Controller) -> None:
    error = refused(controller, "POST", "/api/chaos", {"actor": "fleet", "how": "politely"})
    assert error.status == 400 and "fail_start" in str(error)
    assert refused(controller, "POST", "/api/chaos", {"actor": "nobody", "how": "raise"}).status == 404


def test_the_socket_is_private(controller: Controller) -> None:
    assert (controller.home / "control.sock").stat().st_mode & 0o777 == 0o600
    assert not Path(controller.home).stat().st_mode & 0o077


def test_lists_are_searched_by_a_part_of_a_name(controller: Controller) -> None:
    for name in ("find-amber", "find-beryl"):
        add(controller, name, region="q-region")
    user = controller.client.post("/api/users", {"name": "Quentin", "email": "q.uentin@example.org"})
    device = controller.client.post(f"/api/users/{user['id']}/devices", {"name": "Quartz phone"})

    def names(path: str) -> list[str]:
        return [row["name"] for row in controller.client.get(path)]

    assert names("/api/nodes?q=AMBER") == ["find-amber"]
    assert names("/api/nodes?q=q-region&limit=1") == ["find-amber"]
    assert names("/api/nodes?q=q-region&limit=1&after=find-amber") == ["find-beryl"]
    assert (
        names("/api/users?q=quent") == names("/api/users?q=Q.UENTIN@") == names(f"/api/users?q={user['id']}") == ["Quentin"]
    )
    assert names("/api/devices?q=quartz") == names(f"/api/users/{user['id']}/devices?q=ARTZ") == ["Quartz phone"]
    assert names(f"/api/devices?q={device['id']}") == ["Quartz phone"]
    assert names("/api/users?q=%25") == names("/api/nodes?q=%25") == []
    assert "at most 100" in str(refused(controller, "GET", f"/api/users?q={'x' * 101}"))


def test_a_question_whose_answer_is_no_is_no_refusal_in_the_log(controller: Controller) -> None:
    hops = [add(controller, name)["id"] for name in ("unheard-1", "unheard-2")]
    size = controller.client.get("/api/audit/head")["size"]
    assert refused(controller, "POST", "/api/paths/plan", {"node_ids": hops}).status == 409
    assert controller.client.get("/api/audit/head")["size"] == size, "a plan attempts nothing"
    assert refused(controller, "POST", "/api/nodes", {"name": "unheard-1", "control_addr": an_addr()}).status == 409
    assert newest_record(controller)["action"] == "node.add", "a change that conflicts is an attempt"
