"""From an address to a node whose link is live, and back: real sshd, real agent, real link."""

from __future__ import annotations

import os
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cryptography import x509

from coxswain.cli.client import RemoteError
from tests.machines import PASSWORD, relay_file
from tests.onboarding.conftest import Rig
from tests.support import eventually


def steps(operation):
    return {step["name"]: step["state"] for step in operation["steps"]}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def serial(machine):
    return x509.load_pem_x509_certificates(machine.path("/etc/node/node.crt").read_bytes())[0].serial_number


def test_from_an_address_to_a_live_node(rig):
    machine = rig.machine()
    machine.authorized_keys.write_text("ssh-ed25519 AAAAsomebody else\n")
    server = rig.add_server(machine, name="one", region="fra")
    assert (server["status"], server["host_key"], server["region"]) == ("active", machine.fingerprint, "fra")
    assert server["facts"]["arch"] and server["facts"]["systemd"] == "252"
    ours = rig.client.get("/api/ssh-key")["public_key"]
    assert machine.authorized_keys.read_text().splitlines() == ["ssh-ed25519 AAAAsomebody else", ours]
    assert mode(machine.authorized_keys) == 0o600 and mode(machine.home / ".ssh") == 0o700

    node = rig.deploy(server, rig.agent(version="0.3.2"))
    assert (node["status"], node["link_state"], node["in_sync"]) == ("active", "live", True)
    assert (node["region"], node["agent_version"], node["server_id"]) == ("fra", "0.3.2", server["id"])
    assert node["version_display"] == "v0.3.2" and node["ssh_host"] == machine.address
    assert node["name"].startswith("node-fra-")

    assert mode(machine.path("/etc/node/node.key")) == 0o600
    chain = x509.load_pem_x509_certificates(machine.path("/etc/node/node.crt").read_bytes())
    assert len(chain) == 2 and "Fleet" in chain[1].subject.rfc4514_string()
    anchors = x509.load_pem_x509_certificates(machine.path("/etc/node/ca.crt").read_bytes())
    assert ["Control" in a.subject.rfc4514_string() for a in anchors] == [True], "nothing wider drives a node"
    unit = machine.path("/etc/systemd/system/node.service").read_text()
    assert "NoNewPrivileges=yes" in unit and "ProtectSystem=strict" in unit
    assert '"Forwarding": true' in machine.path("/etc/node/netpolicy.json").read_text(), "policy is in force from the start"
    assert machine.files("/usr/local/bin") == ["node"], "nothing is left lying about"

    operation = rig.last("node.add")
    assert set(steps(operation).values()) == {"done"}
    assert ("node.add", "ok") in rig.audited(node["id"])
    assert ("server.add", "ok") in rig.audited(server["id"])
    assert PASSWORD not in str(rig.client.get("/api/operations")) + str(rig.client.get("/api/audit?limit=1000"))


def test_onboarding_again_changes_nothing_but_the_certificate(rig):
    machine, agent = rig.machine(), rig.agent()
    first = rig.node_on(machine, agent)
    before, started = serial(machine), machine.log("node.service").count("serving on")
    again = rig.node_on(machine, agent)
    assert (again["id"], again["name"], again["status"]) == (first["id"], first["name"], "active")
    assert serial(machine) != before
    assert machine.log("node.service").count("serving on") == started + 1, "a new certificate needs a restart"
    assert len(rig.client.get("/api/servers")) == len(rig.client.get("/api/nodes")) == 1
    assert machine.authorized_keys.read_text().count("cox@pharosvpn") == 1
    refused = rig.fails(f"/api/servers/{rig.client.get('/api/servers')[0]['id']}/deploy", role="node", name="other",
                        binary_path=agent)  # fmt: skip
    assert refused.status == 409 and first["name"] in str(refused)


def test_a_host_whose_login_shell_greets_and_keeps_files_to_itself(rig):
    """As ``.bashrc`` may, which is read for commands over SSH, too."""
    greeting = "echo Welcome to example.net; echo user=nobody; echo setlocale: failed >&2; printf 'no end of line'"
    machine = rig.machine(rc=f"{greeting}; umask 077")
    agent, server = rig.agent(), rig.add_server(machine)
    assert server["facts"]["user"] == "root"
    node = rig.deploy(server, agent)
    assert (node["status"], node["link_state"]) == ("active", "live")
    assert machine.owner("/etc/node/node.key") == "cox-node 600"
    rig.client.post(f"/api/nodes/{node['id']}/renew")
    rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": rig.agent("new", version="0.3.2")})
    again = rig.node_on(machine, agent)
    assert (again["id"], again["status"]) == (node["id"], "active")
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert machine.files("/usr/local/bin") == machine.files("/etc/systemd/system") == []


def test_an_unconfirmed_host_key_is_where_it_ends(rig):
    machine = rig.machine()
    refused = rig.fails("/api/servers", ssh_host=machine.address, password=PASSWORD)
    assert refused.status == 403 and machine.fingerprint in str(refused) and "--host-key" in refused.remedy
    wrong = "SHA256:" + "A" * 43
    refused = rig.fails("/api/servers", ssh_host=machine.address, password=PASSWORD, host_key=wrong)
    assert refused.status == 403 and machine.fingerprint in str(refused)
    told = machine.log("sshd")
    assert "Accepted" not in told and "Failed" not in told, "the password was not even tried"
    assert rig.client.get("/api/servers") == []
    assert rig.add_server(machine, host_key="", accept_new_host_key=True)["status"] == "active"


def test_a_machine_that_is_known_by_another_address_is_told(rig):
    """It moved, or has two addresses, or is a clone; who is told can tell."""
    first, second, stranger = rig.machine(), rig.machine(), rig.machine()
    rig.add_server(first, name="berlin")
    second.stop_sshd()
    for name in ("host_ed25519", "host_ed25519.pub"):
        (second.home / name).write_bytes((first.home / name).read_bytes())
    second.start()
    rig.add_server(second, name="again")
    assert f"berlin at {first.address} has the same key" in rig.last("server.add")["steps"][0]["output"]
    for machine in (stranger, first):
        rig.add_server(machine)
        assert "has the same key" not in rig.last("server.add")["steps"][0]["output"]


def test_a_machine_that_moved_is_logged_in_to_at_its_new_address_and_at_no_other_machines(rig):
    machine, known, stranger = rig.machine(), rig.machine(), rig.machine()
    node = rig.node_on(machine, rig.agent(), name="moved")
    taken = rig.add_server(known)
    (server,) = (s for s in rig.client.get("/api/servers") if s["ssh_host"] == machine.address)

    def edit(**given):
        (now,) = (s for s in rig.client.get("/api/servers") if s["id"] == server["id"])
        return rig.client.call("PATCH", f"/api/servers/{server['id']}", {"version": now["version"]} | given)

    machine.stop_sshd()
    machine.address = "127.0.2.199"
    machine.start()
    with pytest.raises(RemoteError) as refused:
        edit(ssh_host=known.address)
    assert refused.value.status == 409 and taken["name"] in str(refused.value)
    edit(ssh_host=stranger.address)
    assert rig.fails(f"/api/nodes/{node['id']}/renew").status == 403
    assert "Accepted" not in stranger.log("sshd")
    eventually(lambda: any(s["offered_host_key"] for s in rig.client.get("/api/servers")))
    moved = edit(ssh_host=machine.address, name="frankfurt")
    assert (moved["name"], moved["host_key"], moved["offered_host_key"]) == ("frankfurt", machine.fingerprint, "")
    before = serial(machine)
    rig.client.post(f"/api/nodes/{node['id']}/renew")
    assert serial(machine) != before
    assert ("server.update", "ok") in rig.audited(server["id"])
    with pytest.raises(RemoteError, match="version"):
        rig.client.call("PATCH", f"/api/servers/{server['id']}", {"version": moved["version"] - 1, "region": "fra"})


def test_a_changed_host_key_is_refused_until_the_operator_says_otherwise(rig):
    machine, agent = rig.machine(), rig.agent()
    server = rig.add_server(machine)
    old = machine.fingerprint
    machine.new_host_key()
    new = machine.fingerprint
    for _ in range(2):
        refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=agent)
        assert refused.status == 403 and old in str(refused) and new in str(refused) and "trust" in refused.remedy
    refused = rig.fails("/api/servers", ssh_host=machine.address, password=PASSWORD, accept_new_host_key=True)
    assert refused.status == 403, "not even when any new key would do: this one is known"
    assert ("server.host_key_changed", "error") in rig.audited(server["id"])
    assert "Accepted" not in machine.log("sshd").rpartition("Server listening")[2]
    shown = eventually(lambda: rig.client.get("/api/servers")[0]["offered_host_key"])
    assert shown == new
    refused = rig.fails(f"/api/servers/{server['id']}/trust", host_key="SHA256:" + "A" * 43)
    assert refused.status == 409 and old in str(refused) and new in str(refused)
    trusted = rig.client.post(f"/api/servers/{server['id']}/trust", {"host_key": new})
    assert (trusted["host_key"], trusted["offered_host_key"]) == (new, "")
    assert rig.deploy(server, agent)["status"] == "active"


def test_a_key_that_was_not_the_hosts_is_turned_down_and_the_pinned_one_counts_again(rig):
    machine, agent = rig.machine(), rig.agent()
    server = rig.add_server(machine)
    pinned = machine.fingerprint
    with machine.another_in_its_place():
        assert rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=agent).status == 403
        strange = machine.fingerprint
    assert rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=agent).status == 403, "not decided yet"
    kept = rig.client.post(f"/api/servers/{server['id']}/trust", {"host_key": pinned})
    assert (kept["host_key"], kept["offered_host_key"]) == (pinned, "")
    assert rig.deploy(server, agent)["status"] == "active"
    entry = next(e for e in rig.client.get("/api/audit?limit=100") if e["action"] == "server.trust")
    assert entry["detail"]["shown"] == strange and entry["detail"]["now"] == pinned
    with machine.another_in_its_place():
        assert rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=agent).status == 403, "told again"


def test_a_host_that_is_another_one_since_it_was_recognised(rig):
    machine = rig.machine()
    rig.fails("/api/servers", ssh_host=machine.address, accept_new_host_key=True)  # the key is not on it yet
    failed = rig.last("server.add")
    machine.new_host_key()
    rig.client.post(f"/api/operations/{failed['id']}/retry")
    over = rig.over(failed)
    assert over["state"] == "failed" and "has changed" in over["error"]
    assert over["remedy"].endswith(f"begin anew: cox servers add {machine.address}"), "it is in no inventory yet"
    assert "Accepted" not in machine.log("sshd")
    assert rig.add_server(machine)["host_key"] == machine.fingerprint
    with machine.another_in_its_place():
        again = rig.begin("/api/servers", ssh_host=machine.address, password=PASSWORD)
        assert rig.over(again)["state"] == "failed"
    assert rig.client.get("/api/servers")[0]["offered_host_key"]


def test_the_wrong_password_and_no_key(rig):
    machine = rig.machine()
    refused = rig.fails("/api/servers", ssh_host=machine.address, password="no", host_key=machine.fingerprint)
    assert refused.status == 502 and "login with the password failed" in str(refused)
    refused = rig.fails("/api/servers", ssh_host=machine.address, host_key=machine.fingerprint)
    assert refused.status == 502 and "login with the controller's key failed" in str(refused) and "ssh-key" in refused.remedy
    machine.authorized_keys.write_text(rig.client.get("/api/ssh-key")["public_key"] + "\n")
    assert rig.client.post("/api/servers", {"ssh_host": machine.address, "host_key": machine.fingerprint})["id"]


def test_a_user_who_may_not_become_root(rig):
    machine = rig.machine()
    keys = machine.authorized_keys
    keys.write_text(rig.client.get("/api/ssh-key")["public_key"] + "\n")
    keys.chmod(0o644)
    (machine.home).chmod(0o755)
    refused = rig.fails("/api/servers", ssh_host=machine.address, ssh_user="deploy", host_key=machine.fingerprint)
    assert refused.status == 502 and "deploy may not become root" in str(refused) and "sudoers" in refused.remedy


def test_an_addition_that_got_no_key_into_the_host_can_be_cancelled(rig):
    """As where its home is on a disk that is full, or may not be written to. That we are not let in may have other reasons,
    an sshd that takes no keys for one: nobody is told that ours is not there.
    """
    machine = rig.machine()
    machine.authorized_keys.parent.rmdir()
    machine.authorized_keys.parent.write_text("in its way")
    body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint}
    failed = rig.over(rig.begin("/api/servers", **body))
    assert failed["state"] == "failed" and "installing the controller's key failed" in failed["error"]
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    over = rig.over(failed)
    assert over["state"] == "cancelled", over
    assert "so its authorized_keys is left as it is; if the controller's key is there" in over["steps"][1]["output"]


def test_the_wrong_architecture_is_refused_before_anything_is_installed(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    wrong = rig.home / "arm"
    wrong.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(4_000))
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=str(wrong))
    assert refused.status == 502 and "for aarch64, and the host is x86_64" in str(refused)
    assert machine.files("/usr/local/bin") == []
    assert steps(rig.last("node.add"))["agent"] == "failed"
    page = rig.home / "page"
    page.write_text("<html>404</html>")
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=str(page))
    assert "a web page" in str(refused)
    (node,) = rig.client.get("/api/nodes")
    assert node["status"] == "error"
    assert rig.deploy(server, rig.agent())["id"] == node["id"], "and the host can be retried"


def test_a_host_without_a_default_route_is_told_of_in_the_first_step(rig):
    """Agents of the contract apply no policy that masquerades there (7.8), and a new node's does. A route may still come."""
    machine, agent = rig.machine(), rig.agent()
    server, route = rig.add_server(machine), machine.scratch / "default-route"

    def told():
        first = rig.last("node.add")["steps"][0]
        return "no default route" in first["output"]

    known = route.read_text()
    route.write_text("unreachable default metric 4278198272 \n")
    node = rig.deploy(server, agent)
    assert told() and rig.last("node.add")["data"]["facts"]["uplink"] == ""
    rig.client.call("PATCH", f"/api/nodes/{node['id']}", {"version": node["version"], "masquerade": False})
    assert rig.deploy(server, agent)["id"] == node["id"] and not told(), "it needs none"
    route.write_text("default proto static metric 20 \n\tnexthop via 198.51.100.1 dev eth0 weight 1 \n")
    version = rig.client.get(f"/api/nodes/{node['id']}")["version"]
    rig.client.call("PATCH", f"/api/nodes/{node['id']}", {"version": version, "masquerade": True})
    assert rig.deploy(server, agent)["id"] == node["id"] and not told()
    assert rig.last("node.add")["data"]["facts"]["uplink"] == "eth0"
    route.write_text(known)


def test_a_host_whose_clock_is_years_off_is_told_of_in_the_first_step(rig, monkeypatch):
    """By it no certificate is valid: the agent listens, the link never comes, and neither of them says why."""
    monkeypatch.setattr("coxswain.onboarding.node._LIVE_S", 3.0)
    machine = rig.machine()
    server = rig.add_server(machine)
    date = machine.scratch / "bin/date"
    date.write_text('#!/bin/sh\nexec /usr/bin/date -d "1000 days ago" "$@"\n')
    date.chmod(0o755)
    assert rig.deploy(server, rig.agent())["status"] == "active", "it may work all the same"
    assert "! the host's clock is 1000 days behind" in rig.last("node.add")["steps"][0]["output"]
    mute = rig.home / "mute"
    mute.write_text(f'#!/bin/sh\n[ "$1" != run ] || exec sleep 600\nexec {sys.executable} {rig.agent()} "$@"\n')
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=str(mute))
    assert "the link to the agent: not within 3 s" in str(refused) and "1000 days behind" in str(refused)
    date.unlink()
    assert rig.deploy(server, rig.agent())["status"] == "active"
    assert "clock" not in rig.last("node.add")["steps"][0]["output"]


def test_node_js_in_the_agents_place_is_left_alone(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    theirs = machine.path("/usr/local/bin/node")
    theirs.write_text("#!/bin/sh\necho v22.11.0\n")
    theirs.chmod(0o755)
    error = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent())
    assert error.status == 409
    assert "is Node.js v22.11.0, not an agent" in str(error)
    assert machine.files("/usr/local/bin") == ["node"]
    assert theirs.read_text() == "#!/bin/sh\necho v22.11.0\n"


def test_an_agent_that_starts_and_dies_says_why(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    dying = rig.agent("dying", dies="config: no such thing as a listen_addr")
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=dying)
    assert refused.status == 502
    assert "node.service was started and died" in str(refused) and "no such thing as a listen_addr" in str(refused)
    assert rig.client.get("/api/nodes")[0]["status"] == "error"
    assert rig.deploy(server, rig.agent())["status"] == "active"


def test_a_full_disk_on_the_host(rig, monkeypatch):
    monkeypatch.setattr("coxswain.onboarding.facts.MIN_FREE_MB", 1)
    machine = rig.machine(small_mb=3)
    server = rig.add_server(machine)
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("big", pad=8_000_000))
    assert (
        refused.status == 502
        and "No space left on device" in str(refused)
        and "writing /usr/local/bin/node.new" in str(refused)
    )
    operation = rig.last("node.add")
    assert steps(operation)["agent"] == "failed" and steps(operation)["certificate"] == "pending"
    assert rig.deploy(server, rig.agent("small"))["status"] == "active"
    monkeypatch.undo()
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent())
    assert "MB left at /usr/local/bin" in str(refused), "a host that is nearly full is told of before it is touched"


def test_a_host_that_is_nearly_full_is_served_and_given_back_all_the_same(rig, monkeypatch):
    """Only what is about to put a program there needs the room for it. The certificate above all has to be renewed."""
    machine, other = rig.machine(), rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent(version="0.3.1"))
    newer = rig.agent("newer", version="0.3.2")
    upgraded = rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": newer})
    assert upgraded["agent_version"] == "0.3.2"
    server = rig.add_server(other)
    other.hold("systemctl restart node")
    begun = rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("other"))
    eventually(other.held, timeout=30)
    monkeypatch.setattr("coxswain.onboarding.facts.MIN_FREE_MB", 10**9)
    rig.client.post(f"/api/operations/{begun['id']}/cancel")
    other.go_on()
    assert rig.over(begun)["state"] == "cancelled"
    assert other.files("/usr/local/bin") == [] == other.files("/etc/systemd/system")
    for verb in ("renew", "stop", "start", "guard", "rollback"):
        operation = rig.over(rig.begin(f"/api/nodes/{node['id']}/{verb}"))
        assert operation["state"] == "done", operation
    refused = rig.fails(f"/api/nodes/{node['id']}/update-agent", binary_path=newer)
    assert "MB left at /usr/local/bin" in str(refused) and "retry" in refused.remedy
    rig.controller.until(node["name"], link_state="live", agent_version="0.3.1")
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert machine.files("/usr/local/bin") == [] and rig.client.get("/api/nodes") == []


def test_what_was_missing_on_a_host_is_there_for_a_retry(rig):
    """What the first step saw of the host is not what it is by then."""
    machine = rig.machine()
    server = rig.add_server(machine)
    python = machine.scratch / "bin/python3"
    python.write_text("#!/bin/sh\nexit 127\n")
    python.chmod(0o755)
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent())
    assert "needs Python 3, and the host has none" in str(refused) and "and retry" in refused.remedy
    python.unlink()
    operation = rig.last("node.add")
    operation = rig.over(rig.client.post(f"/api/operations/{operation['id']}/retry"))
    assert operation["state"] == "done", operation["error"]


def test_a_cancelled_onboarding_leaves_the_host_as_it_was(rig):
    machine = rig.machine(faults=True)
    server = rig.add_server(machine)
    machine.hold("systemctl is-active|systemctl restart node")
    operation = rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent())
    eventually(machine.held, timeout=30)
    rig.client.post(f"/api/operations/{operation['id']}/cancel")
    machine.go_on()
    over = rig.over(operation)
    assert over["state"] == "cancelled"
    assert rig.client.get("/api/nodes") == []
    assert machine.files("/usr/local/bin") == [] and machine.files("/etc/systemd/system") == []
    assert "node.key" not in machine.files("/etc/node") and "node.crt" not in machine.files("/etc/node")


def test_what_is_being_set_up_is_not_forgotten_meanwhile(rig):
    """The onboarding would fail in its middle, and the agent that it had started by then would go on out of sight."""
    machine = rig.machine(faults=True)
    server = rig.add_server(machine)
    machine.path("/etc/relay/address").write_text(machine.address)
    for role, program in (("relay", str(relay_file(rig.home / "relay"))), ("node", rig.agent())):
        machine.hold(f"systemctl restart {role}")
        more = {"no_ingress": True, "egress": True} if role == "relay" else {}
        operation = rig.begin(f"/api/servers/{server['id']}/deploy", role=role, binary_path=program, **more)
        eventually(machine.held, timeout=30)
        (there,) = rig.client.get(f"/api/{role}s")
        assert role == "relay" or "it is being onboarded" in there["link_reason"], "nobody disabled it"
        for place in (f"{role}s/{there['id']}", f"servers/{server['id']}"):
            with pytest.raises(RemoteError, match=f"{operation['id']} .{role}.add. works on it just now") as caught:
                rig.client.call("DELETE", f"/api/{place}")
            assert caught.value.status == 409 and "cox operations cancel" in caught.value.remedy
        machine.go_on()
        assert rig.over(operation)["state"] == "done"
        rig.client.call("DELETE", f"/api/{role}s/{there['id']}")
        assert rig.client.get(f"/api/{role}s") == []


def test_a_cancelled_onboarding_of_a_node_that_is_there_gives_it_back_as_it_was(rig):
    machine = rig.machine(faults=True)
    server = rig.add_server(machine)
    node = rig.deploy(server, rig.agent(version="0.3.1"))
    machine.hold("systemctl restart")
    body = {"role": "node", "binary_path": rig.agent("new", version="0.3.2")}
    operation = rig.begin(f"/api/servers/{server['id']}/deploy", **body)
    eventually(machine.held, timeout=30)
    rig.client.post(f"/api/operations/{operation['id']}/cancel")
    machine.go_on()
    over = rig.over(operation)
    assert over["state"] == "cancelled", over
    found = rig.controller.until(node["name"], link_state="live", agent_version="0.3.1", in_sync=True)
    assert (found["id"], found["status"]) == (node["id"], "active")


def test_an_onboarding_that_failed_takes_nothing_of_a_later_one_along(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("dying", dies="broken"))
    failed = rig.last("node.add")
    node = rig.deploy(server, rig.agent(version="0.3.1"))
    later = rig.last("node.add")
    refused = rig.fails(f"/api/operations/{failed['id']}/retry")
    assert refused.status == 409 and later["id"] in str(refused)
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    over = rig.over(failed)
    assert over["state"] == "cancelled" and "nothing is taken back" in over["notes"][-1]
    assert (rig.controller.node(node["id"])["status"], rig.controller.node(node["id"])["link_state"]) == ("active", "live")
    assert machine.files("/etc/systemd/system") == ["node.service"] and "node.crt" in machine.files("/etc/node")


def test_what_failed_on_a_machine_that_is_gone_can_be_closed(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("dying", dies="broken"))
    failed = rig.last("node.add")
    machine.stop()
    rig.client.call("DELETE", f"/api/nodes/{failed['target_id']}")
    rig.client.call("DELETE", f"/api/servers/{server['id']}")
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    over = rig.over(failed)
    assert over["state"] == "cancelled", over
    assert "on it nothing is taken back" in str(over["steps"])


def test_what_failed_of_a_node_that_was_there_and_is_gone_can_be_closed(rig):
    """It was to be given back as it was; by then somebody took it out of the inventory."""
    machine = rig.machine()
    server = rig.add_server(machine)
    node = rig.deploy(server, rig.agent())
    rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("dying", dies="broken"))
    failed = rig.last("node.add")
    rig.client.call("DELETE", f"/api/nodes/{node['id']}")
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    over = rig.over(failed)
    assert over["state"] == "cancelled", over


def test_an_onboarding_of_a_node_that_serves_does_not_take_it_down_before_it_has_to_and_brings_it_back(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    node = rig.deploy(server, rig.agent(version="0.3.1"))
    (rig.home / "text").write_text("no program\n")
    rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=str(rig.home / "text"))
    found = rig.controller.node(node["id"])
    assert (found["status"], found["enabled"], found["link_state"]) == ("active", True, "live"), "nothing of it was touched"

    rig.fails(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("dying", dies="broken"))
    found = rig.controller.until(node["id"], status="error", link_state="disabled")
    assert "its onboarding failed" in found["link_reason"]
    failed = rig.last("node.add")
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    assert rig.over(failed)["state"] == "cancelled"
    rig.controller.until(node["id"], link_state="live", status="active", agent_version="0.3.1", in_sync=True)


def test_stop_start_and_renewal(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent())
    path = f"/api/nodes/{node['id']}"
    stopped = rig.client.post(f"{path}/stop")
    assert (stopped["status"], stopped["enabled"]) == ("stopped", False)
    started = rig.client.post(f"{path}/start")
    assert (started["status"], started["link_state"]) == ("active", "live")
    before = serial(machine)
    renewed = rig.client.post(f"{path}/renew")
    assert renewed["link_state"] == "live" and serial(machine) != before


def test_removal_leaves_nothing_behind(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent())
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert rig.client.get("/api/nodes") == []
    assert machine.files("/usr/local/bin") == [] and machine.files("/etc/systemd/system") == []
    assert not machine.path("/etc/node").exists() or machine.files("/etc/node") == []
    (server,) = rig.client.get("/api/servers")
    rig.client.call("DELETE", f"/api/servers/{server['id']}")
    assert rig.client.get("/api/servers") == []


def test_what_is_used_is_not_taken_off_its_machine(rig):
    """It was: and only then, with the agent gone and everybody cut off, was the removal refused."""
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent())
    user = rig.client.post("/api/users", {"name": "Ann"})
    device = rig.client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})
    rig.client.post("/api/profiles", {"name": "home", "device_id": device["id"], "node_id": node["id"]})
    refused = rig.fails(f"/api/nodes/{node['id']}/remove")
    assert refused.status == 409 and "1 profile leads" in str(refused)
    assert machine.files("/usr/local/bin") == ["node"]
    assert rig.client.get(f"/api/nodes/{node['id']}")["link_state"] == "live"
    rig.client.call("DELETE", f"/api/users/{user['id']}")
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert machine.files("/usr/local/bin") == []


@pytest.mark.parametrize(
    ("at", "forwarding"),
    [("systemctl disable", True), ("systemctl disable", False), ("rm -f /usr/local/bin/node", True)],
)
def test_a_removal_that_is_cancelled_is_taken_back(rig, at, forwarding):
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent(), name="r0")
    policy = dict.fromkeys(("forwarding", "masquerade", "isolation"), forwarding)
    body = {"endpoint_ips": ["198.51.100.1"], "endpoint_ports": "20000-29999"} | policy
    body["version"] = rig.controller.node("r0")["version"]
    rig.client.call("PATCH", "/api/nodes/r0", body)
    user = rig.client.post("/api/users", {"name": "Ann"})
    device = rig.client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})
    rig.client.post(f"/api/devices/{device['id']}/provision")
    rig.controller.until("r0", peers_configured=1, in_sync=True)
    machine.hold(at)
    removal = rig.begin(f"/api/nodes/{node['id']}/remove")
    eventually(machine.held, timeout=30)
    rig.client.post(f"/api/operations/{removal['id']}/cancel")
    machine.go_on()
    over = rig.over(removal)
    assert over["state"] == "cancelled", over
    found = rig.controller.node("r0")
    assert {name: found[name] for name in policy} == policy
    assert found["endpoint_ports"] == "20000-29999"
    if at == "systemctl disable":
        rig.controller.until("r0", link_state="live", status="active", in_sync=True, peers_configured=1)
    else:
        assert "the agent is gone from its host" in str(over["steps"])


def test_what_another_controller_has_on_the_host_by_now_is_not_removed_from_it(rig):
    """As an old controller would whose hosts a new one has taken over: the other one's keys and clients would be gone."""
    machine, hop = rig.machine(), rig.machine()
    hop.path("/etc/relay/address").write_text(hop.address)
    program = str(relay_file(rig.home / "relay"))
    node, relay = rig.node_on(machine, rig.agent()), rig.deploy(rig.add_server(hop), program, role="relay")
    with tempfile.TemporaryDirectory(prefix="cox-") as home:
        other = Rig(Path(home))
        try:
            theirs = other.node_on(machine, rig.agent())
            assert "where that is another controller's node, it is taken from that one" in str(
                other.last("node.add")["steps"]
            )
            other.deploy(other.add_server(hop), program, role="relay")
            rig.controller.until(node["name"], link_state="backing_off")
            for thing, there in ((f"nodes/{node['id']}", node), (f"relays/{relay['id']}", relay)):
                refused = rig.fails(f"/api/{thing}/remove")
                assert refused.status == 409 and "another controller's by now" in str(refused)
                assert f"{there['name']} --forget" in refused.remedy
            assert {"node.key", "node.crt"} < set(machine.files("/etc/node")) and "relay.key" in hop.files("/etc/relay")
            other.controller.until(theirs["name"], link_state="live", status="active")
            other.client.post(f"/api/nodes/{theirs['id']}/remove")
            assert machine.files("/usr/local/bin") == [] and other.client.get("/api/nodes") == []
        finally:
            other.close()


def test_a_removal_that_an_earlier_release_began_says_what_it_leaves_switched_off(rig):
    """That one noted nothing in its journal of what it switched off."""
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent(), name="r0")
    machine.cut_at("systemctl disable")
    failed = rig.over(rig.begin(f"/api/nodes/{node['id']}/remove"))
    assert failed["state"] == "failed", failed
    machine.go_on()
    with rig.controller.store.write() as tx:
        tx.execute("UPDATE operation_steps SET data = '{}' WHERE operation_id = ? AND name = 'drain'", (failed["id"],))
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    over = rig.over(failed)
    assert over["state"] == "cancelled", over
    assert not rig.controller.node("r0")["forwarding"]
    assert "r0 forwards nothing" in over["steps"][0]["output"] and "cox nodes edit r0 --forwarding" in str(over["steps"])


def test_nothing_new_leads_over_a_node_that_is_being_removed(rig):
    machines = [rig.machine(faults=True), rig.machine()]
    first, second = (rig.node_on(machine, rig.agent(f"a{i}"), name=f"r{i}") for i, machine in enumerate(machines))
    for name, address in (("r0", "198.51.100.1"), ("r1", "198.51.100.2")):
        rig.client.call(
            "PATCH", f"/api/nodes/{name}", {"version": rig.controller.node(name)["version"], "endpoint_ips": [address]}
        )
    user = rig.client.post("/api/users", {"name": "Ann"})
    device = rig.client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})
    machines[0].hold("systemctl disable")
    removal = rig.begin(f"/api/nodes/{first['id']}/remove")
    eventually(machines[0].held, timeout=30)
    says = f"node r0: is being removed .operation {removal['id']}"
    with pytest.raises(RemoteError, match=says):
        rig.client.post("/api/profiles", {"name": "home", "device_id": device["id"], "node_id": first["id"]})
    for hops in (["r1", "r0"], ["r0", "r1"]):
        assert rig.fails("/api/paths", name="late", node_ids=hops).status == 409
    machines[0].go_on()
    assert rig.over(removal)["state"] == "done"
    assert rig.client.post("/api/profiles", {"name": "home", "device_id": device["id"], "node_id": second["id"]})["id"]


def test_a_node_whose_host_lets_nobody_in_goes_on_as_it_is(rig):
    """Its agent may serve all the same; what is taken off could not be followed by its end."""
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent(), name="r0")
    machine.authorized_keys.rename(machine.home / "kept")
    for action in ("remove", "stop"):
        begun = time.monotonic()
        refused = rig.fails(f"/api/nodes/{node['id']}/{action}")
        assert refused.status == 502 and time.monotonic() - begun < 20, "and says so at once"
        found = rig.controller.until("r0", link_state="live", in_sync=True)
        assert (found["forwarding"], found["enabled"], found["config_revision"]) == (True, True, node["config_revision"])
    first, version = rig.last("node.remove"), found["version"]
    rig.client.call("PATCH", f"/api/nodes/{node['id']}", {"version": version, "forwarding": False, "masquerade": False})
    assert rig.fails(f"/api/nodes/{node['id']}/remove").status == 502
    over = rig.over(rig.client.post(f"/api/operations/{rig.last('node.remove')['id']}/cancel"))
    assert over["state"] == "cancelled" and "forwards nothing" not in str(over["steps"]), "it switched nothing off"
    (machine.home / "kept").rename(machine.authorized_keys)
    over = rig.client.post(f"/api/operations/{first['id']}/retry")
    assert rig.over(over)["state"] == "done" and machine.files("/usr/local/bin") == []


def test_a_node_whose_agent_is_gone_is_removed_without_waiting_for_it(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent(), name="r0")
    machine.path("/usr/local/bin/node").unlink()
    os.kill(int(machine.status("node.service")["Pid"]), signal.SIGKILL)
    eventually(lambda: rig.controller.node("r0")["link_state"] != "live", timeout=30)
    begun = time.monotonic()
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert time.monotonic() - begun < 20 and machine.files("/etc/systemd/system") == []
    assert "its agent does not run" in rig.last("node.remove")["steps"][0]["output"]


def test_what_to_do_about_a_host_that_is_gone_is_said(rig):
    machine = rig.machine()
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    server = rig.add_server(machine)
    node = rig.deploy(server, rig.agent(), name="r0")
    body = {"role": "relay", "name": "hop", "egress": True, "no_ingress": True}
    relay = rig.client.post(
        f"/api/servers/{server['id']}/deploy", body | {"binary_path": str(relay_file(rig.home / "relay"))}
    )
    machine.stop()
    for path, command in (
        (f"nodes/{node['id']}", "cox nodes remove r0"),
        (f"relays/{relay['id']}", "cox relays remove hop"),
    ):
        refused = rig.fails(f"/api/{path}/remove")
        assert (refused.status, refused.remedy) == (502, f"If the host is gone: {command} --forget")
    refused = rig.fails(f"/api/nodes/{node['id']}/update-agent", binary_path=rig.agent("newer", version="9.9.9"))
    assert f"If it has moved: cox servers edit {server['name']} --host ADDRESS" in refused.remedy
    assert rig.controller.node("r0")["forwarding"]


def test_a_dead_host_is_forgotten(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent())
    machine.stop()
    operation = rig.begin(f"/api/nodes/{node['id']}/stop")
    over = rig.over(operation)
    assert (over["state"], over["remedy"]) == ("failed", f"To close its link only: cox nodes disable {node['name']}")
    (server,) = rig.client.get("/api/servers")
    with pytest.raises(Exception, match="runs on it"):
        rig.client.call("DELETE", f"/api/servers/{server['id']}?empty=true")
    rig.client.call("DELETE", f"/api/nodes/{node['id']}")
    rig.client.call("DELETE", f"/api/servers/{server['id']}")
    assert rig.client.get("/api/nodes") == rig.client.get("/api/servers") == []
