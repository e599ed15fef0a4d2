"""A fleet file that begins with a machine: reached over SSH, set up as a node, and given to a device."""

from __future__ import annotations

import json

from tests.machines import PASSWORD, relay_file

FILE = """\
fleet: 1
servers:
- {{name: host-1, ssh_host: {address}, region: fra, host_key: "{host_key}"}}
nodes:
- {{name: fra-1, server: host-1, region: fra, endpoint_ips: [198.51.100.7], policy: {{isolation: true}}}}
users:
- name: Ann
  devices:
  - {{name: phone, profiles: [{{name: home, node: fra-1}}]}}
"""


def test_from_a_file_to_a_node_on_a_machine(rig, cox):
    machine = rig.machine()
    (rig.home / "cox.yaml").write_text(
        f"posture: personal\nstate_dir: ./state\nnode:\n  binary_path: {rig.agent(version='0.3.1')}\n"
    )
    cox("config", "reload")
    text = FILE.format(address=machine.address, host_key=machine.fingerprint)
    failed = cox("apply", "-f", "-", "--yes", typed=text, code=8)
    assert "add server host-1" in failed and "0 changes before that stay made" in failed  # the host does not know us yet
    machine.authorized_keys.write_text(cox("ssh-key"))

    said = cox("apply", "-f", "-", "--yes", typed=text)
    assert "+ node fra-1" in said
    assert said.index("> node fra-1: under way; see: cox operations show op_") < said.rindex("+ node fra-1")
    (node,) = json.loads(cox("nodes", "list", "--json"))
    assert (node["name"], node["link_state"], node["endpoint_ips"]) == ("fra-1", "live", ["198.51.100.7"])
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=text))["changes"] == []
    exported = cox("export")
    assert f"host_key: {machine.fingerprint}" in exported
    assert "server: host-1" in exported
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=exported))["changes"] == []

    for old, new, says in (
        ("name: host-1", "name: host-2", f"{machine.address} is server host-1 already"),
        ("name: fra-1", "name: fra-2", "node fra-1 is on its server already"),
    ):
        renamed = text.replace(old, new).replace(old.replace("name", "server"), new.replace("name", "server"))
        renamed = renamed.replace(old.replace("name", "node"), new.replace("name", "node"))
        assert says in cox("plan", "-f", "-", "--prune", typed=renamed, code=5)
    said = cox("plan", "-f", "-", "--prune", typed="fleet: 1\nservers: []\n", code=5)
    assert "server host-1: is not in the file, and node fra-1 leads to it, of which it says nothing" in said
    there = f"fleet: 1\nservers: []\nnodes: [{{name: fra-1, control_addr: {machine.address}}}]\n"
    said = cox("plan", "-f", "-", "--prune", typed=there, code=5)
    assert "stdin:3: node fra-1: server: keeps host-1, which is not in the file" in said

    said = cox("apply", "-f", "-", "--yes", "--prune", typed="fleet: 1\nservers: []\nnodes: []\nusers: []\n")
    assert said.index("- user Ann") < said.index("- node fra-1") < said.index("- server host-1")
    assert json.loads(cox("servers", "list", "--json")) == []
    assert machine.files("/etc/systemd/system") == [] == machine.files("/usr/local/bin"), "the agent went with its node"


def test_what_cannot_be_is_refused_before_an_operation_is_begun(rig, cox):
    """One that failed is listed, also by ``cox doctor``, until somebody closes it."""
    first, second, third = rig.machine(), rig.machine(), rig.machine()
    rack = rig.add_server(first, name="rack-1")
    node = rig.deploy(rack, rig.agent(), name="n1")
    other = rig.add_server(second, name="rack-2")
    (second.path("/etc/relay") / "address").write_text(second.address)
    program = str(relay_file(rig.home / "relay"))
    deploy = f"/api/servers/{other['id']}/deploy"
    relay = rig.client.post(deploy, {"role": "relay", "name": "ferry", "binary_path": program})
    a_third = rig.add_server(third, name="rack-3")
    begun = len(rig.client.get("/api/operations"))

    add = ("servers", "add", "127.0.3.250", "--host-key", first.fingerprint)
    assert "a machine named 'rack-1' exists already" in cox(*add, "--name", "rack-1", code=5)
    assert "name: 'a/b' is not a name" in cox(*add, "--name", "a/b", code=2)
    assert "region: " in cox(*add, "--region", "x" * 65, code=2)
    new = {"ssh_host": "127.0.3.250", "accept_new_host_key": True}
    assert rig.fails("/api/servers", **new, name=" rack-2 ").status == 409
    assert "route: there is no relay with the id or name 'nobody'" in str(rig.fails("/api/servers", **new, route=["nobody"]))

    agent = {"role": "node", "binary_path": rig.agent()}
    at_third = f"/api/servers/{a_third['id']}/deploy"
    assert "a node named 'n1' exists already" in str(rig.fails(at_third, **agent, name="n1"))
    assert "the node n1 is on it already" in str(rig.fails(f"/api/servers/{rack['id']}/deploy", **agent, name="n2"))
    assert "the relay ferry listens there on TCP port 8444" in str(rig.fails(deploy, **agent, name="n3"))
    assert "route: relay ferry has no egress" in str(rig.fails(at_third, **agent, route=[relay["id"]]))
    said = cox("nodes", "add", "--server", "rack-3", "--name", "n1", "--binary", agent["binary_path"], code=5)
    assert "a node named 'n1' exists already" in said

    ferry = {"role": "relay", "binary_path": program}
    assert "a relay named 'ferry' exists already" in str(rig.fails(at_third, **ferry, name="ferry"))
    assert "name: 'a/b' is not a name" in str(rig.fails(at_third, **ferry, name="a/b"))
    assert "the relay ferry is on it already" in str(rig.fails(deploy, **ferry, name="barge"))
    assert "the node n1 listens there" in str(rig.fails(f"/api/servers/{rack['id']}/deploy", **ferry))

    assert len(rig.client.get("/api/operations")) == begun
    assert "None is under way, and none failed" in cox("operations", "list")
    assert [n["id"] for n in rig.client.get("/api/nodes")] == [node["id"]]


def test_a_machine_with_a_relay_on_it_is_not_pruned(rig, cox):
    """No file speaks of relays; it would have stopped there after everything else was removed."""
    machine = rig.machine()
    server = rig.add_server(machine, name="host-1")
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    program = str(relay_file(rig.home / "relay"))
    rig.client.post(f"/api/servers/{server['id']}/deploy", {"role": "relay", "name": "ferry", "binary_path": program})
    cox("users", "add", "Ann")
    said = cox("apply", "-f", "-", "--yes", "--prune", typed="fleet: 1\nservers: []\nnodes: []\nusers: []\n", code=5)
    assert "server host-1: is not in the file, and relay ferry runs on it" in said and "cox relays remove ferry" in said
    assert "Ann" in cox("users", "list")


TWO = """\
fleet: 1
servers:
- {{name: host-1, ssh_host: {0.address}, host_key: "{0.fingerprint}"}}
- {{name: host-2, ssh_host: {1.address}, host_key: "{1.fingerprint}"}}
nodes:
- {{name: fra-1, server: host-1, endpoint_ips: [198.51.100.7]}}
- {{name: ams-1, server: host-2, endpoint_ips: [198.51.100.8]}}
paths:
- {{name: over, hops: [fra-1, ams-1]}}
users:
- name: Ann
  devices:
  - {{name: phone, profiles: [{{name: away, path: over}}]}}
"""


def test_from_machines_to_a_path_in_one_go_also_after_a_failure(rig, cox):
    """Whoever is onboarded need not be waited for; and an onboarding that failed is gone on with by the next apply."""
    machines = [rig.machine(), rig.machine()]
    config = "posture: personal\nstate_dir: ./state\nnode:\n  binary_path: {}\n"
    (rig.home / "no-agent").write_text("#!/bin/sh\nexit 3\n")
    (rig.home / "cox.yaml").write_text(config.format(rig.home / "no-agent"))
    cox("config", "reload")
    for machine in machines:
        machine.authorized_keys.write_text(cox("ssh-key"))
    text = TWO.format(*machines)
    assert "waits for" not in cox("plan", "-f", "-", typed=text)
    failed = cox("apply", "-f", "-", "--yes", typed=text, code=8)
    assert "add node fra-1: " in failed and "2 changes before that stay made" in failed
    assert [node["status"] for node in json.loads(cox("nodes", "list", "--json"))] == ["error"]

    (rig.home / "cox.yaml").write_text(config.format(rig.agent(version="0.3.1")))
    cox("config", "reload")
    said = cox("plan", "-f", "-", typed=text)
    assert "~ node fra-1" in said and "onboarding: unfinished → done" in said and "waits for" not in said
    said = cox("apply", "-f", "-", "--yes", typed=text)
    assert said.index("~ node fra-1") < said.index("+ node ams-1") < said.index("+ path over") < said.index("/ away")
    assert json.loads(cox("paths", "list", "--json"))[0]["status"] == "active"
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=text)) == {"changes": [], "drift": []}


def test_machines_move_as_the_file_says(rig, cox):
    """Address, port and login; the host key that is known stays the one that counts."""
    first, second = rig.machine(), rig.machine()
    for machine, name in ((first, "host-1"), (second, "host-2")):
        rig.add_server(machine, name=name)
    node = rig.deploy(rig.client.get("/api/servers")[0], rig.agent(version="0.3.1"), name="fra-1")
    file = "fleet: 1\nservers:\n- {{name: host-1, ssh_host: {}{}}}\n- {{name: host-2, ssh_host: {}}}\n"
    as_it_is = file.format(first.address, "", second.address)
    assert json.loads(cox("plan", "-f", "-", "--json", typed=as_it_is))["changes"] == []

    moved = file.format("192.0.2.9", ", ssh_port: 2222, ssh_user: deploy, region: fra", second.address)
    said = cox("plan", "-f", "-", typed=moved)
    assert f"ssh_host: {first.address} → 192.0.2.9" in said and "ssh_port: 22 → 2222" in said
    assert f"node fra-1 on it is still reached at {first.address}: give it its new control_addr and endpoint_ips" in said
    there = moved + "nodes: [{name: fra-1, server: host-1, control_addr: 192.0.2.9, endpoint_ips: [192.0.2.9]}]\n"
    assert "is still reached" not in cox("plan", "-f", "-", typed=there)
    cox("apply", "-f", "-", "--yes", typed=moved)
    now = rig.client.get("/api/servers")[0]
    assert [now[key] for key in ("ssh_host", "ssh_port", "ssh_user", "region")] == ["192.0.2.9", 2222, "deploy", "fra"]
    assert now["host_key"] == first.fingerprint and rig.client.get("/api/nodes")[0]["id"] == node["id"]
    assert json.loads(cox("plan", "-f", "-", "--json", typed=moved))["changes"] == []
    short = file.format("192.0.2.9", "", second.address)  # what is not said stays, the port as well
    assert json.loads(cox("plan", "-f", "-", "--json", typed=short))["changes"] == []

    back = file.format(first.address, f", ssh_port: 22, host_key: '{second.fingerprint}'", second.address)
    said = cox("plan", "-f", "-", typed=back, code=5)
    assert f"server host-1: host_key: it has {first.fingerprint} and keeps it where it moves" in said
    # An address is free for another once who had it has moved, in whatever order they are in the file; exchanged it is not.
    onto = file.format("192.0.2.7", ", ssh_port: 22", "192.0.2.9, ssh_port: 2222")
    onto = "\n".join((*onto.splitlines()[:2], *reversed(onto.splitlines()[2:])))
    said = cox("apply", "-f", "-", "--yes", typed=onto)
    assert said.index("~ server host-1", said.index("to change")) < said.index("~ server host-2", said.index("to change"))
    exchanged = file.format("192.0.2.9", ", ssh_port: 2222", "192.0.2.7, ssh_port: 22")
    assert "machines exchange their addresses" in cox("plan", "-f", "-", typed=exchanged, code=5)
    held = file.format("192.0.2.9", ", ssh_port: 2222", "192.0.2.9, ssh_port: 2222").splitlines()[:3]
    assert "192.0.2.9 is server host-2 already" in cox("plan", "-f", "-", typed="\n".join(held), code=5)


def test_a_node_that_was_set_up_by_hand_gets_its_machine(rig, cox):
    """Over the command line, and by a file: then upgrades, renewals and its removal log in there."""
    machine, other = rig.machine(), rig.machine()
    server, elsewhere = rig.add_server(machine, name="host-1"), rig.add_server(other, name="host-2")
    node = rig.deploy(server, rig.agent(version="0.3.1"), name="was-1")
    rig.client.call("DELETE", f"/api/nodes/{node['id']}")  # what runs there goes on
    by_hand = rig.client.post("/api/nodes", {"name": "n1", "control_addr": machine.address})

    put = ("nodes", "edit", "n1", "--server")
    said = cox(*put, "host-2", code=5)
    assert f"n1: is reached at {machine.address}, and server host-2 is at {other.address}" in said
    assert "there is none with the id, name or address 'nowhere'" in cox(*put, "nowhere", code=4)
    assert "server: is empty" in cox(*put, "", code=2)
    said = cox("nodes", "renew", "n1", code=5)
    assert "it is on no machine that this controller can log in to" in said and "cox nodes edit n1 --server" in said
    said = cox("nodes", "add", "--server", "host-1", "--name", "another", "--binary", rig.agent("second"), code=5)
    assert "is that of node n1 already" in said and "cox nodes edit n1 --server SERVER" in said
    cox("nodes", "edit", "n1", "--server", "host-1")
    found = rig.client.get("/api/nodes/n1")
    assert (found["id"], found["server_id"], found["ssh_host"]) == (by_hand["id"], server["id"], machine.address)
    cox("nodes", "renew", "n1")
    assert rig.client.get("/api/nodes/n1")["link_state"] == "live"

    again = found | {"version": rig.client.get("/api/nodes/n1")["version"]}
    same = {key: again[key] for key in ("version", "name", "server_id")}
    assert rig.client.call("PATCH", "/api/nodes/n1", same)["server_id"] == server["id"], "as it is"
    assert "is on a machine already" in cox("nodes", "edit", "n1", "--server", "host-2", code=5)
    rig.client.post("/api/nodes", {"name": "n2", "control_addr": f"{machine.address}:9444", "public_ip": other.address})
    assert "server host-1: the node n1 is on it already" in cox("nodes", "edit", "n2", "--server", "host-1", code=5)

    file = "fleet: 1\nnodes:\n- {{name: n1, server: host-1}}\n- {{name: n2, server: {}}}\n"
    only_n2 = file.replace("- {{name: n1, server: host-1}}\n", "")
    assert "node n1 is on its server already" in cox("plan", "-f", "-", typed=only_n2.format("host-1"), code=5)
    assert "server: none → host-2" in cox("plan", "-f", "-", typed=file.format("host-2"))
    cox("apply", "-f", "-", "--yes", typed=file.format("host-2"))
    assert rig.client.get("/api/nodes/n2")["server_id"] == elsewhere["id"]
    assert json.loads(cox("plan", "-f", "-", "--json", typed=file.format("host-2")))["changes"] == []
    away = only_n2.format("'', control_addr: h")
    assert "node n2: server is 'host-2' and cannot become ''" in cox("plan", "-f", "-", typed=away, code=5)
    third = rig.machine()
    rig.add_server(third, name="host-3")
    rig.client.post("/api/nodes", {"name": "n3", "control_addr": "192.0.2.1"})
    said = cox("plan", "-f", "-", typed="fleet: 1\nnodes: [{name: n3, server: host-3}]\n", code=5)
    assert f"stdin:2: node n3: server: it is reached at 192.0.2.1, and server host-3 is at {third.address}" in said


def test_machines_have_names_of_their_own(rig, cox):
    first, second = rig.machine(), rig.machine()
    rig.add_server(first, name="rack-1")
    refused = rig.fails("/api/servers", ssh_host=second.address, password=PASSWORD, name="rack-1",
                        host_key=second.fingerprint)  # fmt: skip
    assert refused.status == 409 and "a machine named 'rack-1' exists already" in str(refused)
    assert "Accepted" not in second.log("sshd"), "nothing was sent"
    rig.add_server(second, name="rack-2")
    assert rig.fails("/api/servers", ssh_host=second.address, name="rack-1").status == 409
    assert rig.add_server(second, name="rack-3")["name"] == "rack-3"
    assert "name: rack-1" in cox("export")
