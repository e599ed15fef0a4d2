"""Agents and relays that are no root: the user, what belongs to it, and what becomes of both when agents change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.machines import Machine, relay_file
from tests.onboarding.conftest import Rig

ADMIN, BIND = 1 << 12, 1 << 10
"""CAP_NET_ADMIN and CAP_NET_BIND_SERVICE, as bits."""

WRITTEN = ("node.key", "awg-node.json", "xray-node.json", "awg-revision", "netpolicy.json")
PUT_THERE = ("node.crt", "ca.crt", "node.yaml")
UNIT = "/etc/systemd/system/node.service"


def running(machine: Machine, unit: str = "node.service") -> tuple[str, dict[str, int]]:
    """The user that a service runs as, and its sets of capabilities."""
    status = machine.status(unit)
    uids = set(status["Uid"].split())
    (name,) = (name for name, uid in machine.accounts().items() if {str(uid)} == uids)
    assert name == "root" or status["Groups"].split() == []
    return name, {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def belongs_to(machine: Machine, user: str) -> None:
    """Every file of the agent's is its user's, nobody else reads keys, and what is put there stays root's."""
    for name in WRITTEN:
        mode = "600" if name.endswith((".key", "-node.json")) else "644"
        assert machine.owner(f"/etc/node/{name}") == f"{user} {mode}", name
    for name in PUT_THERE:
        assert machine.owner(f"/etc/node/{name}").startswith("root "), name
    shared = "root 1775" if user != "root" else "root 755"
    assert machine.owner("/etc/node") == shared


def test_an_agent_is_no_root_and_neither_are_its_files(rig: Rig) -> None:
    machine = rig.machine()
    machine.path("/etc/node/node.yaml").chmod(0o600)
    node = rig.node_on(machine, rig.agent())
    assert "User=cox-node" in machine.path(UNIT).read_text().splitlines()
    assert running(machine) == ("cox-node", dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), ADMIN | BIND))
    belongs_to(machine, "cox-node")
    assert machine.owner("/etc/amnezia/amneziawg") == "root 1770"
    assert machine.owner("/usr/local/bin/node") == "root 755"
    before = machine.path("/etc/node/node.crt").read_bytes()
    rig.client.post(f"/api/nodes/{node['id']}/renew")
    assert machine.path("/etc/node/node.crt").read_bytes() != before
    assert (machine.owner("/etc/node/node.crt"), machine.owner("/etc/node/ca.crt")) == ("root 644", "root 644")
    belongs_to(machine, "cox-node")
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert "cox-node" not in machine.accounts()
    assert not machine.path("/etc/node").exists() or machine.files("/etc/node") == []


def test_a_roots_agent_is_taken_over_and_comes_back(rig: Rig) -> None:
    """An upgrade from one that is root to one that is not, and the way back: files change hands while nothing runs."""
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent("old", version="0.3.1", root=True))
    path, confs = f"/api/nodes/{node['id']}", machine.path("/etc/amnezia/amneziawg")
    assert "User=" not in machine.path(UNIT).read_text() and "awg-quick" in machine.path(UNIT).read_text()
    assert running(machine)[0] == "root" and "cox-node" not in machine.accounts()
    belongs_to(machine, "root")
    own = machine.path("/etc/node/awg-node.json").read_text().split('"private_key": "')[1].split('"')[0]
    assert machine.owner("/etc/amnezia/amneziawg") == "root 700", "within its unit it could not make it"
    for name, key in (("awg0", own), ("awg1", own), ("theirs", "A" * 43 + "=")):
        (confs / f"{name}.conf").write_text(f"[Interface]\nPrivateKey = {key}\nListenPort = 443\n")
        (confs / f"{name}.conf").chmod(0o600)
    revision = machine.path("/etc/node/awg-revision").read_text()
    key = machine.path("/etc/node/node.key").read_bytes()

    upgraded = rig.client.post(f"{path}/update-agent", {"binary_path": rig.agent("new", version="0.3.2")})
    assert (upgraded["agent_version"], upgraded["link_state"], upgraded["in_sync"]) == ("0.3.2", "live", True)
    assert running(machine)[0] == "cox-node"
    belongs_to(machine, "cox-node")
    owners = {name: machine.owner(f"/etc/amnezia/amneziawg/{name}.conf") for name in ("awg0", "awg1", "theirs")}
    assert owners == {"awg0": "cox-node 600", "awg1": "cox-node 600", "theirs": "root 600"}
    assert int(machine.path("/etc/node/awg-revision").read_text()) >= int(revision)
    assert machine.path("/etc/node/node.key").read_bytes() == key

    back = rig.client.post(f"{path}/rollback")
    assert (back["agent_version"], back["link_state"], back["in_sync"]) == ("0.3.1", "live", True)
    assert running(machine)[0] == "root"
    belongs_to(machine, "root")
    assert machine.owner("/etc/amnezia/amneziawg/awg0.conf") == "root 600"


def test_an_upgrade_from_a_roots_agent_that_fails_is_taken_back_whole(rig: Rig) -> None:
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent("old", version="0.3.1", root=True))
    unit = machine.path(UNIT).read_text()
    dying = rig.agent("new", version="0.3.2", dies="not today")
    assert "not today" in str(rig.fails(f"/api/nodes/{node['id']}/update-agent", binary_path=dying))
    rig.controller.until(node["name"], link_state="live", agent_version="0.3.1", in_sync=True)
    assert machine.path(UNIT).read_text() == unit
    assert running(machine)[0] == "root"
    belongs_to(machine, "root")


def test_an_onboarding_that_is_taken_back_leaves_no_user(rig: Rig) -> None:
    machine = rig.machine()
    server = rig.add_server(machine)
    operation = rig.over(
        rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent("dying", dies="no"))
    )
    assert operation["state"] == "failed" and "cox-node" in machine.accounts()
    rig.client.post(f"/api/operations/{operation['id']}/cancel")
    assert rig.over(operation)["state"] == "cancelled"
    assert "cox-node" not in machine.accounts()
    assert machine.files("/usr/local/bin") == [] and machine.files("/etc/systemd/system") == []
    assert machine.owner("/etc/node") == "root 755"


def test_a_user_that_cannot_be_made_is_told_and_nothing_is_lost(rig: Rig) -> None:
    """The step says so, what ran goes on, and it can be retried; to take it back leaves the agent from before."""
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent("old", version="0.3.1", root=True))
    server = node["server_id"]
    useradd = machine.scratch / "bin/useradd"
    useradd.write_text("#!/bin/sh\necho 'useradd: cannot lock /etc/passwd; try again later.' >&2; exit 1\n")
    useradd.chmod(0o755)
    body = {"role": "node", "binary_path": rig.agent("new", version="0.3.2")}
    operation = rig.over(rig.begin(f"/api/servers/{server}/deploy", **body))
    assert [step["name"] for step in operation["steps"] if step["state"] == "failed"] == ["service"]
    assert "the user that it runs as" in operation["error"] and "cannot lock /etc/passwd" in operation["error"]
    rig.client.post(f"/api/operations/{operation['id']}/cancel")
    assert rig.over(operation)["state"] == "cancelled"
    assert running(machine)[0] == "root"
    assert machine.path("/usr/local/bin/node").read_bytes() == (rig.home / "old").read_bytes()
    useradd.unlink()
    assert rig.client.post(f"/api/servers/{server}/deploy", body)["agent_version"] == "0.3.2"
    assert running(machine)[0] == "cox-node"


def test_what_a_hostile_agent_leaves_in_its_directories_gets_it_nothing(rig: Rig) -> None:
    """Root works there at an upgrade, a renewal, a guard: it follows no link, and takes no name for a path."""
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent("old", version="0.3.1"))
    secret = machine.path("/var/lib/secret")
    secret.write_text("root's own\n")
    secret.chmod(0o600)
    home = machine.home / "victim"
    home.write_text("root's own\n")
    uid = machine.accounts()["cox-node"]
    own = machine.path("/etc/node/awg-node.json").read_text().split('"private_key": "')[1].split('"')[0]
    confs = machine.path("/etc/amnezia/amneziawg")

    def plant(path: Path, target: str) -> None:
        path.symlink_to(target)
        _chown(path, uid)

    plant(machine.path("/etc/node/evil-revision"), "/var/lib/secret")
    plant(machine.path("/etc/node/control.nft"), "/var/lib/secret")
    plant(confs / "awg7.conf", "/var/lib/secret")
    crooked = confs / "x\nvictim"  # what reads names line by line, in root's home, takes the second for a file there
    crooked.write_text(f"PrivateKey = {own}\n")
    _chown(crooked, uid)
    node = rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": rig.agent("new", version="0.3.2")})
    assert node["link_state"] == "live"
    text = "posture: personal\nstate_dir: ./state\nnode: {control_from: [auto]}\n"
    (rig.home / "cox.yaml").write_text(text)
    rig.client.post("/api/config/reload", {})
    rig.client.post(f"/api/nodes/{node['id']}/guard", {})
    assert machine.owner("/etc/node/control.nft") == "root 640", "its own file, and not through the link"
    rig.client.post(f"/api/nodes/{node['id']}/remove")
    assert machine.owner("/var/lib/secret") == "root 600" and secret.read_text() == "root's own\n"
    assert home.stat().st_uid == 0


def _chown(path: Path, uid: int) -> None:
    os.chown(path, uid, uid, follow_symlinks=False)


@pytest.mark.parametrize("onion", [False, True])
def test_a_relay_is_no_root(rig: Rig, tmp_path: Path, onion: bool) -> None:
    machine = rig.machine()
    machine.path("/etc/relay/address").write_text(machine.address)
    server = rig.add_server(machine)
    roles: dict[str, Any] = {"egress": True, "onion": onion, "hostname": machine.address}
    binary = str(relay_file(tmp_path / "relay"))
    relay = rig.client.post(f"/api/servers/{server['id']}/deploy", {"role": "relay", "binary_path": binary, **roles})
    names = ("relay", "relay-egress", *(["relay-onion"] if onion else []))
    for name in names:
        assert running(machine, f"{name}.service") == (
            "cox-relay", dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), BIND)
        )  # fmt: skip
    assert machine.owner("/etc/relay") == "root 1775" and machine.owner("/etc/relay/relay.crt") == "root 644"
    for key in ("relay.key", "targets.policy", *(["onion.key"] if onion else [])):
        assert machine.owner(f"/etc/relay/{key}") == "cox-relay 600"
    rig.client.post(f"/api/relays/{relay['id']}/remove")
    assert "cox-relay" not in machine.accounts()


def test_an_upgrade_of_a_relay_that_fails_is_taken_back_whole(rig: Rig, tmp_path: Path) -> None:
    """With the unit from before, flags of an operator's included, and the user that this wants."""
    machine = rig.machine()
    machine.path("/etc/relay/address").write_text(machine.address)
    server = rig.add_server(machine)
    roles: dict[str, Any] = {"egress": True, "no_ingress": True, "hostname": machine.address}
    binary = str(relay_file(tmp_path / "relay"))
    relay = rig.client.post(f"/api/servers/{server['id']}/deploy", {"role": "relay", "binary_path": binary, **roles})
    unit, keys = machine.path("/etc/systemd/system/relay-egress.service"), ("relay.key", "targets.policy")
    text = unit.read_text().replace("egress --tunnel-addr", "egress --allow 192.0.2.1:22 --tunnel-addr")
    dying = tmp_path / "dying"
    dying.write_text(relay_file(dying, version="0.5.0").read_text().replace("import os", "import os, sys", 1))
    dying.write_text(dying.read_text().replace("main()\n", "sys.exit('not today') if 'egress' in sys.argv else main()\n"))
    for user in ("cox-relay", "root"):
        before = text if user != "root" else text.replace("User=cox-relay\nGroup=cox-relay\n", "")
        unit.write_text(before)
        for key in keys:
            _chown(machine.path(f"/etc/relay/{key}"), machine.accounts()[user])
        assert "not today" in str(rig.fails(f"/api/relays/{relay['id']}/update-agent", binary_path=str(dying)))
        assert unit.read_text() == before
        assert running(machine, "relay-egress.service")[0] == user
        assert {machine.owner(f"/etc/relay/{key}") for key in keys} == {f"{user} 600"}
