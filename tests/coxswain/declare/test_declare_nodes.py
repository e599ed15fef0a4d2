"""Machines, nodes and their addresses in files: who waits for whom, who makes room for whom; by a real controller."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing

from click.testing import Result

from coxswain.declare.compare import compare
from coxswain.declare.items import Item
from coxswain.declare.schema import read
from coxswain.store import open_store
from tests.fleet import Controller
from tests.support import free_port

Cox = Callable[..., Result]
EMPTY = "fleet: 1\nnodes: []\nusers: []\n"


def test_a_machine_that_is_not_reached_keeps_nobody_waiting_who_does_not_need_it(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    host = f"servers:\n- {{name: nowhere, ssh_host: 127.0.0.1, ssh_port: {free_port()}, host_key: 'SHA256:{'A' * 43}'}}\n"
    profiles = "[{name: x, node: b-1}, {name: y, node: b-2}, {name: z, path: over}]"
    text = (
        (
            f"fleet: 1\nnodes:\n- {{name: b-1, control_addr: b-1}}\n- {{name: b-2, server: nowhere}}\n{host}"
            "paths: [{name: over, hops: [b-1, b-2], fallbacks: []}]\n"
            f"users:\n- name: Cem\n  devices: [{{name: phone, profiles: {profiles}}}]\n"
        )
        .replace("control_addr: b-1", "control_addr: b-1, endpoint_ips: [192.0.2.1]")
        .replace("server: nowhere}", "server: nowhere, endpoint_ips: [192.0.2.2]}")
    )
    cox("users", "add", "Bea")
    done = cox("apply", "-f", "-", "--prune", "--yes", text=text, code=7)
    out = done.stdout
    assert "> server nowhere: failed: 127.0.0.1 port " in out and "5 applied" in out
    made = out.partition("to remove\n")[2]
    for line in ("- user Bea", "+ node b-1", "+ user Cem", "+ device Cem / phone", "+ profile Cem / phone / x"):
        assert f"{line}\n" in made
    assert "not yet: add server nowhere: 127.0.0.1 port " in out and "(operation op_" in out
    assert "not yet: add node b-2: waits for server nowhere\n" in out
    assert "not yet: add path over: waits for node b-2\n" in out
    assert "not yet: add profile Cem / phone / y: waits for node b-2\n" in out
    assert "not yet: add profile Cem / phone / z: waits for path over\n" in out
    assert "5 changes wait for what is not ready yet" in done.stderr and "apply the file again" in done.stderr
    assert [p["name"] for p in controller.client.get("/api/profiles")] == ["x"]

    answer = json.loads(cox("apply", "-f", "-", "--prune", "--yes", "--json", text=text, code=7).stdout)
    assert answer["applied"] == 0 and [w["kind"] for w in answer["waiting"]] == ["server", "node", "path", *["profile"] * 2]
    assert "(operation op_" in answer["waiting"][0]["for"] and answer["waiting"][0]["failed"] is True
    assert f"    {answer['waiting'][0]['remedy']}\nnot yet: add node b-2" in out, "what to do about it"
    assert answer["waiting"][1] == {"kind": "node", "key": ["b-2"], "for": "server nowhere"}
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY + "paths: []\n")


def test_a_new_machine_is_logged_in_to_as_configured(cox: Cox, controller: Controller) -> None:
    """Where the file does not say otherwise; the plan says how, and two of one address are told by their ports."""
    config = controller.home.parent / "cox.yaml"
    config.write_text("posture: personal\nstate_dir: state\nnode: {ssh_user: deploy, ssh_port: 2222}\n")
    cox("config", "reload")
    machine = f"{{{{name: {{}}, ssh_host: 127.0.0.1, host_key: 'SHA256:{'A' * 43}'{{}}}}}}"
    file = f"fleet: 1\nservers:\n- {machine}\n- {machine}\n"
    seen = json.loads(cox("plan", "-f", "-", "--json", text=file.format("a", "", "b", ", ssh_port: 22")).stdout)["changes"]
    assert [[c["fields"][f]["after"] for f in ("ssh_user", "ssh_port")] for c in seen] == [["deploy", 2222], ["deploy", 22]]
    said = cox("plan", "-f", "-", text=file.format("a", "", "b", ", ssh_port: 2222"), code=2).stderr
    assert "stdin:4: server b: ssh_host: 127.0.0.1 port 2222 is server a's already" in said
    config.write_text(f"posture: personal\nstate_dir: state\nnode: {{ssh_user: deploy, ssh_port: {free_port()}}}\n")
    cox("config", "reload")
    cox("apply", "-f", "-", "--yes", text=file.format("a", "", "b", ", ssh_user: root"), code=2)
    cox("apply", "-f", "-", "--yes", text="\n".join(file.format("a", "", "", "").splitlines()[:3]), code=7)
    (operation,) = controller.client.get("/api/operations?kind=server.add&limit=1")
    values = controller.client.get("/api/config")["values"]
    assert [operation["params"][f] for f in ("ssh_user", "ssh_port")] == ["deploy", values["node.ssh_port"]["value"]]
    config.write_text("posture: personal\nstate_dir: state\n")
    cox("config", "reload")


def test_all_is_done_that_need_not_wait_for_nodes_to_be_enrolled(cox: Cox, controller: Controller) -> None:
    """And of the rest it is said what waits for what; with --prune nothing goes to which something leads that waits."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY + "paths: []\n")
    node = "- {{name: {0}, control_addr: {0}, public_ip: 192.0.2.1}}\n"
    file = "fleet: 1\nnodes:\n{}{}users:\n- name: Wim\n  devices:\n  - name: phone\n    profiles:\n    - {{name: x, {}}}\n{}"
    old, new = node.format("w-1"), node.format("w-2") + node.format("w-3")
    cox("apply", "-f", "-", "--yes", text=file.format(old, "", "node: w-1", ""))
    path = "paths: [{name: over, hops: [w-2, w-3]}]\n"
    text = file.format(new, path, "path: over", "    - {name: y, node: w-3}\n- name: Zoe\n")

    said = cox("plan", "-f", "-", "--prune", text=text).stdout
    nodes = "node w-2, which is not enrolled (cox nodes enroll w-2 --csr FILE), node w-3, which is not enrolled"
    assert f"    waits for {nodes} (" in said and "    waits for path over\n" in said
    done = cox("apply", "-f", "-", "--prune", "--yes", text=text, code=7)
    assert "4 applied" in done.stdout, done.stdout
    assert f"not yet: add path over: waits for {nodes} (" in done.stdout
    assert "not yet: edit profile Wim / phone / x: waits for path over\n" in done.stdout
    waits = "not yet: remove node w-1: waits for profile Wim / phone / x, which leads to it until then\n"
    assert waits in done.stdout
    assert "3 changes wait for what is not ready yet" in done.stderr and "apply the file again" in done.stderr
    found = {p["name"]: p.get("node_id", "") for p in controller.client.get("/api/profiles")}
    assert found == {"x": controller.node("w-1")["id"], "y": controller.node("w-3")["id"]}

    again = cox("apply", "-f", "-", "--prune", "--yes", "--json", text=text, code=7)
    answer = json.loads(again.stdout)
    assert answer["applied"] == 0 and [w["kind"] for w in answer["waiting"]] == ["path", "profile", "node"]
    assert answer["waiting"][1] == {"kind": "profile", "key": ["Wim", "phone", "x"], "for": "path over"}
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY + "paths: []\n")


def test_an_address_is_one_nodes_in_a_file_as_well(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)

    def nodes(**addresses: str) -> str:
        lines = [f"- {{name: {name}, control_addr: {addr}}}" for name, addr in addresses.items()]
        return "\n".join(["fleet: 1", "nodes:", *lines, ""])

    def refused(file: str, *more: str) -> str:
        return cox("plan", "-f", "-", *more, text=file, code=5).stderr

    assert "stdin:3: node a: control_addr: h:8444 is that of node b already" in refused(nodes(a="h", b="H:8444"))
    cox("apply", "-f", "-", "--yes", text=nodes(a="h-1", b="h-2", c="h-3"))
    for file, goes in ((nodes(d="h-1"), "a"), (nodes(a="h-2"), "b"), (nodes(d="H-1", b="h-2", c="h-3"), "a")):
        said = refused(file)
        assert "already" in said and f". With --prune, node {goes} is removed first" in said
    assert "--prune" not in refused(nodes(a="h-1", d="h-1")), "it stays"
    cox("apply", "-f", "-", "--yes", text=nodes(a="h-2", b="h-3", c="h-4", d="h-1"))
    found = {node["name"]: node["control_addr"] for node in controller.client.get("/api/nodes")}
    assert found == {"a": "h-2:8444", "b": "h-3:8444", "c": "h-4:8444", "d": "h-1:8444"}
    assert "nodes exchange their addresses" in refused(nodes(a="h-3", b="h-2"))

    # Who is not in the file goes before, with --prune: for one that is new, and for one that moves there.
    out = cox("apply", "-f", "-", "--prune", "--yes", text=nodes(a="h-3", e="h-2", c="h-4")).stdout
    assert "    makes room for node a\n" in out
    made = out.partition("to remove\n")[2]
    assert made.index("- node b") < made.index("~ node a") < made.index("+ node e") < made.index("- node d")
    found = {node["name"]: node["control_addr"] for node in controller.client.get("/api/nodes")}
    assert found == {"a": "h-3:8444", "c": "h-4:8444", "e": "h-2:8444"}


def test_a_node_in_whose_place_another_one_comes_has_nothing_leading_to_it(cox: Cox, controller: Controller) -> None:
    """What is led to the other one can only be that once it is there; so it is refused before anything is done."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = "fleet: 1\nnodes:\n- {{name: k, control_addr: h-2}}\n- {{name: {0}, control_addr: h-1}}\nusers:\n- name: Kim\n{1}"
    device = "  devices: [{{name: phone, profiles: [{{name: x, node: {}}}]}}]\n"
    cox("apply", "-f", "-", "--yes", text=file.format("old", device.format("old")))
    old = controller.node("old")["id"]
    for leads in ("new", "k"):
        said = cox("plan", "-f", "-", "--prune", text=file.format("new", device.format(leads)), code=5).stderr
        assert "stdin:4: node new: it takes the place of node old, to which profile Kim / phone / x leads" in said
        assert "cox nodes edit old --name new" in said
    cox("nodes", "edit", "old", "--name", "new")
    text = file.format("new", device.format("new"))
    assert "The fleet is as the file says" in cox("plan", "-f", "-", "--prune", text=text).stdout
    cox("nodes", "edit", "new", "--name", "old")
    cox("apply", "-f", "-", "--prune", "--yes", text=file.format("new", ""))  # what led to it goes with its device
    assert controller.node("new")["id"] != old and controller.client.get("/api/profiles") == []


def test_a_path_over_a_node_that_makes_room_goes_before_it(cox: Cox) -> None:
    there = {name: {"name": name, "control_addr": f"{name}:8444", "server": "", "enrolled": True, "wg_public_key": "k",
                    "enabled": True, "public_ip": "", "endpoint_ips": ["192.0.2.1"]} for name in "ab"}  # fmt: skip
    present = [Item("node", (name,), fields, id=f"nod_{name}", version=1) for name, fields in there.items()]
    for item in present:
        item.fields.update(region="", endpoint_ports="", decoy_site="", forwarding=True, masquerade=True, isolation=False)
    present.append(Item("path", ("over",), {"name": "over", "hops": ["a", "b"], "color": "", "fallbacks": []}, id="pth_1"))
    text = b"fleet: 1\nnodes: [{name: a, control_addr: a}, {name: new, control_addr: b}]\npaths: []\n"
    changes = compare(*read(text), present, prune=True)
    assert [(c.action.value, c.item.title) for c in changes] == [
        ("remove", "path over"), ("remove", "node b"), ("add", "node new")
    ]  # fmt: skip


def test_a_node_that_moves_away_goes_before_one_that_is_onboarded_at_its_address(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("apply", "-f", "-", "--yes", text="fleet: 1\nnodes: [{name: old, control_addr: 192.0.2.7}]\n")
    machine = f"{{name: m, ssh_host: 192.0.2.7, host_key: 'SHA256:{'A' * 43}'}}"
    nodes = "[{name: new, server: m}, {name: old, control_addr: 192.0.2.8}]"
    planned = cox("plan", "-f", "-", text=f"fleet: 1\nservers: [{machine}]\nnodes: {nodes}\n").stdout
    assert planned.index("node old") < planned.index("node new")


def test_nodes_with_one_address_from_before_stay_and_can_be_changed(cox: Cox, controller: Controller) -> None:
    text = "fleet: 1\nnodes: [{name: a, control_addr: h-1}, {name: b, control_addr: h-2}, {name: c, control_addr: h-3}]\n"
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("apply", "-f", "-", "--yes", text=text)
    controller.stop()
    with closing(open_store(controller.home / "app.db")) as store, store.write() as tx:
        tx.execute("UPDATE nodes SET control_addr = 'h-1:8444' WHERE name = 'b'")
    controller.start()
    exported = cox("export").stdout
    assert exported.count("control_addr: h-1:8444") == 2
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
    node = controller.node("b")
    body = {"version": node["version"], "region": "ams", "control_addr": "h-1"}
    assert controller.client.call("PATCH", "/api/nodes/b", body)["region"] == "ams", (
        "an existing caller sends all of it back"
    )
    cox("nodes", "edit", "c", "--addr", "h-1", code=5)
    cox("apply", "-f", "-", "--yes", text=text.replace("h-1", "h-4").replace("h-3", "h-1"))
    found = {node["name"]: node["control_addr"] for node in controller.client.get("/api/nodes")}
    assert found == {"a": "h-4:8444", "b": "h-2:8444", "c": "h-1:8444"}


def test_an_export_with_addresses_from_before_can_be_applied(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    text = "fleet: 1\nnodes:\n- {name: o-1, region: nl, control_addr: o, public_ip: 192.0.2.9, endpoint_ips: [192.0.2.1]}\n"
    cox("apply", "-f", "-", "--yes", text=text)
    controller.stop()
    with closing(open_store(controller.home / "app.db")) as store, store.write() as tx:
        tx.execute("UPDATE nodes SET public_ip = '0.0.0.0', endpoint_ips = '[\"::\"]' WHERE name = 'o-1'")
    controller.start()
    exported = cox("export").stdout
    assert "::" in exported and "0.0.0.0" in exported
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
    cox("apply", "-f", "-", "--yes", text=exported.replace("region: nl", "region: de"))
    node = controller.node("o-1")
    assert (node["region"], node["endpoint_ips"]) == ("de", ["::"])
    body = {"version": node["version"], "endpoint_ips": ["::", "192.0.2.1"], "name": "o-1"}
    changed = controller.client.call("PATCH", "/api/nodes/o-1", body)
    assert changed["endpoint_ips"] == ["::", "192.0.2.1"], "an existing caller sends all of it back"
