"""``cox servers``, ``nodes``, ``relays``, ``rollout`` and ``operations`` as an operator types them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

from coxswain.doctor.daemon import check_daemon
from tests.fleet import ROOT
from tests.machines import PASSWORD


def test_from_an_address_to_a_node_and_back_as_an_operator_does_it(rig, cox):
    machine = rig.machine()
    key = cox("ssh-key")
    assert key.startswith("ssh-ed25519 ") and key.rstrip().endswith("cox@pharosvpn")

    said = cox("servers", "add", machine.address, "--password", "Tr0ub4dor", code=2)
    assert "standard input" in said and "Tr0ub4dor" not in said, "as existing callers give it; it is not repeated"
    refused = cox("servers", "add", machine.address, "--password", typed=f"{PASSWORD}\n", code=6)
    assert machine.fingerprint in refused and "nobody is there to confirm" in refused
    added = cox("servers", "add", machine.address, "--password", "--region", "fra", "--host-key", machine.fingerprint,
                typed=f"{PASSWORD}\n")  # fmt: skip
    for title in ("recognise the host by its key", "log in with the controller's key", "take it into the inventory"):
        assert f"✓ {title}" in added or f"+ {title}" in added
    assert "Next: cox nodes add --server" in added and PASSWORD not in added
    assert machine.address in cox("servers", "list")

    agent = rig.agent(version="0.3.1")
    added = cox("nodes", "add", machine.address, "--name", "fra-1", "--binary", agent)
    assert "prove the link" in added and "link     " in added.replace("link  ", "link     ")
    (node,) = json.loads(cox("nodes", "list", "--json"))
    assert (node["name"], node["link_state"], node["region"]) == ("fra-1", "live", "fra")

    assert "1 upgraded" in cox("rollout", "--binary", rig.agent("new", version="0.3.2"))
    assert "agent 0.3.2" in cox("nodes", "renew", "fra-1")
    failed = cox("nodes", "update", "fra-1", "--binary", rig.agent("bad", version="0.4.0", dies="broken"), code=8)
    assert "is undone" in failed and "broken" in failed
    listed = cox("operations", "list", "--all")
    assert "node.update" in listed and "undone" in listed
    operation = rig.last("node.update")["id"]
    shown = cox("operations", "show", operation)
    assert "the previous program is back" in shown and "being taken back" not in shown
    assert "disabled" not in cox("nodes", "stop", "fra-1")
    assert "active" in cox("nodes", "start", "fra-1")
    assert "removed" in cox("nodes", "remove", "fra-1", "--yes")
    assert "removed" in cox("servers", "rm", machine.address)
    assert "There are no machines yet" in cox("servers", "list")


def test_a_machine_that_is_not_known_yet_is_taken_in_by_the_way(rig, cox):
    """``cox nodes add HOST --user … --port …`` of the existing controller (management-plane.md 2)."""
    machine = rig.machine()
    machine.authorized_keys.write_text(cox("ssh-key"))
    add = ("nodes", "add", machine.address, "--user", "root", "--region", "fra", "--binary", rig.agent(version="0.3.1"))
    refused = cox(*add, code=6)
    assert machine.fingerprint in refused and "There are no machines yet" in cox("servers", "list")
    added = cox(*add, "--name", "fra-1", "--host-key", machine.fingerprint)
    assert "take it into the inventory" in added and "prove the link" in added
    (server,) = json.loads(cox("servers", "list", "--json"))
    assert (server["ssh_host"], server["ssh_user"], server["region"]) == (machine.address, "root", "fra")
    said = cox("relays", "add", machine.address, "--user", "somebody", code=2)
    assert f"user: {machine.address} is known with root, not somebody" in said
    said = cox("relays", "add", machine.address, "--host-key", "SHA256:" + "A" * 43, code=2)
    assert f"host-key: {machine.address} is known with {server['host_key']}, not SHA256:AAA" in said
    assert "takes no --user" in cox("nodes", "add", "--server", server["name"], "--port", "22", code=2)


def test_without_a_login_a_machine_is_taken_in_as_the_configuration_says_once_its_key_is_confirmed(rig, cox):
    """``cox nodes add HOST --region …``, as scripts call it; nothing is sent to a host that nobody confirmed."""
    machine = rig.machine()
    machine.authorized_keys.write_text(cox("ssh-key"))
    add = ("nodes", "add", machine.address, "--region", "fra", "--binary", rig.agent(version="0.3.1"))
    refused = cox(*add, code=6)
    assert "is none of cox servers list" in refused and f"--host-key {machine.fingerprint}" in refused
    assert machine.fingerprint in at_a_terminal(rig, "n", *add, code=1)
    assert "There are no machines yet" in cox("servers", "list")
    assert not re.search("Accepted|authenticating user", machine.log("sshd")), "it was only asked for its key"
    added = at_a_terminal(rig, "y", *add, "--name", "fra-1")
    assert "take it into the inventory" in added and "prove the link" in added
    (server,) = json.loads(cox("servers", "list", "--json"))
    assert (server["ssh_host"], server["ssh_user"], server["ssh_port"]) == (machine.address, "root", 22)
    said = cox("relays", "add", "no-such-host.invalid", "--binary", rig.agent("other"), code=8)
    assert "no-such-host.invalid is none of cox servers list" in said
    assert "cox servers list" in cox("nodes", "add", "srv_aaaaaaaaaaaaaaaa", "--binary", rig.agent("other"), code=4)


def at_a_terminal(rig, typed, *arguments, code=0):
    """What is said on both streams by a command whose input is a terminal, on which somebody types."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "actors.main", *arguments, "--config", str(rig.home / "cox.yaml")]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            os.write(ours, f"{typed}\n".encode())
            said, _ = running.communicate(timeout=100)
    finally:
        os.close(ours)
        os.close(theirs)
    assert running.returncode == code, said
    return said


def test_a_failure_in_the_terminal_says_what_to_do(rig, cox):
    machine = rig.machine()
    said = cox("servers", "add", machine.address, "--key", "--accept-new-host-key", code=8)
    assert "login with the controller's key failed" in said and "cox ssh-key" in said
    operation = rig.last("server.add")["id"]
    machine.authorized_keys.write_text(cox("ssh-key"))
    retried = cox("operations", "retry", operation)
    assert "server.add: done" in retried
    said = cox("nodes", "add", "--server", "nonsuch", "--binary", rig.agent(), code=4)
    assert "cox servers list" in said
    said = cox("relays", "add", code=2)
    assert "cox servers add" in said
    assert "operation" in cox("nodes", "add", machine.address, "--binary", rig.agent(), "--no-wait").lower()


def test_a_machine_that_was_taken_in_after_all_is_nothing_to_look_at(rig, cox):
    """Not for ``cox doctor``, which counts what failed."""
    machine = rig.machine()
    add = ("servers", "add", machine.address, "--key", "--host-key", machine.fingerprint)
    cox(*add, code=8)
    failed = rig.last("server.add")["id"]

    def doctor():
        return [f.text for f in check_daemon(rig.client.get, may_be_stopped=False) if f.check == "operations"]

    assert doctor() == [f"1 has failed: server.add {failed}"]
    machine.authorized_keys.write_text(cox("ssh-key"))
    cox(*add)
    assert doctor() == []


def test_a_known_machine_that_lets_us_in_no_more_says_the_way_out_and_it_is_one(rig, cox):
    machine = rig.machine()
    rig.node_on(machine, rig.agent(), name="r0")
    machine.authorized_keys.write_text("")
    newer = ("nodes", "update", "r0", "--binary", rig.agent("newer", version="9.9.9"))
    said = cox(*newer, code=8)
    command = re.search(r"or let a one-time password do it: cox (servers add .* --password)\.", said)
    assert command, said
    cox(*command[1].split(), typed=PASSWORD + "\n")
    cox(*newer)


def test_trust_in_the_terminal(rig, cox):
    machine = rig.machine()
    rig.add_server(machine)
    machine.new_host_key()
    said = cox("nodes", "add", machine.address, "--binary", rig.agent(), code=8)
    assert "has changed" in said and "cox servers trust" in said
    said = cox("servers", "trust", machine.address, code=6)
    assert machine.fingerprint in said
    assert "is trusted now" in cox("servers", "trust", machine.address, "--host-key", machine.fingerprint)


def test_a_machine_is_not_taken_in_for_a_node_that_would_be_refused(rig, cox):
    machine = rig.machine()
    machine.authorized_keys.write_text(cox("ssh-key"))
    cox("nodes", "add", "taken", "--addr", "192.0.2.1")
    add = ("nodes", "add", machine.address, "--host-key", machine.fingerprint, "--binary", rig.agent(version="0.3.1"))
    assert "a node named 'taken' exists already" in cox(*add, "--name", "taken", code=5)
    assert "is not a name" in cox(*add, "--name", "a/b", code=2)
    assert "is not a name" in cox("relays", *add[1:], "--name", "a/b", code=2)
    cox("nodes", "add", "there", "--addr", machine.address)
    assert f"cox nodes edit there --server {machine.address}" in cox(*add, code=5)
    assert "There are no machines yet" in cox("servers", "list")
    cox("nodes", "remove", "there", "--yes", "--forget")
    assert "prove the link" in cox(*add, "--name", "free")


def test_the_controllers_own_machine_is_asked_about(rig, cox):
    """By the command, when somebody types it; never by the API, nor in a script, as those of the existing controller know no
    ``--yes``. The agent is one that there is not: nothing is installed.
    """
    own = json.loads(cox("servers", "self", "--host", "127.0.3.9", "--json"))
    for role in ("nodes", "relays"):
        for machine in (("--server", own["name"]), (own["ssh_host"],), ("--server", own["id"])):
            add = (role, "add", *machine, "--binary", str(rig.home / "none"))
            assert "none cannot be read" in cox(*add, code=2), machine
            said = at_a_terminal(rig, "n", *add, code=1)
            assert f"{own['name']} is the machine that the controller itself runs on" in said and "Aborted" in said
            assert "none cannot be read" in at_a_terminal(rig, "", *add, "--yes", code=2)
    assert rig.client.get("/api/operations") == []


def test_an_upgrade_over_a_link_that_does_not_stand_says_what_it_will_wait_for(rig, cox):
    machine = rig.machine()
    rig.node_on(machine, rig.agent(version="0.3.1"), name="n0")
    new = ("nodes", "update", "n0", "--binary", rig.agent("new", version="0.3.2"))
    cox("nodes", "edit", "n0", "--addr", f"{machine.address}:9")
    rig.controller.until("n0", link_state="backing_off")
    said = cox(*new, "--no-wait")
    assert f"! n0 is not reached at {machine.address}:9 now: " in said
    assert f"cox nodes edit n0 --addr HOST[:PORT] (its machine is at {machine.address})" in said
    cox("operations", "cancel", rig.last("node.update")["id"])
    cox("nodes", "edit", "n0", "--addr", machine.address)
    rig.controller.until("n0", link_state="live")
    assert "is not reached" not in cox(*new)
