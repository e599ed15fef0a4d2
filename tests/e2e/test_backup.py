"""A controller is lost, and comes back from a backup on another machine: its fleet is linked again, and what was revoked
since the backup stays revoked. With a real fleet of simulated nodes, on both databases.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from coxswain.audit import record
from coxswain.backup.revocations import read_file
from coxswain.cli.client import RemoteError
from coxswain.messages.audit import Caller
from coxswain.pki import Leaf
from coxswain.store import open_store
from coxswain.store.servers import insert_relay_cert
from tests.caravel import Caravel, RelayLeg, leg_to
from tests.every_action import one_time_code
from tests.fleet import Daemon, Nodes, peers_body
from tests.support import eventually, free_ports

BASE_PORT = 13_700
PHRASE = "five random words are enough"


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COX_BACKUP_PASSPHRASE", PHRASE)


class Fleet:
    """A daemon, and nodes that are in sync with it."""

    def __init__(self, home: Path, dsn: str, count: int) -> None:
        home.mkdir()
        self.count = count
        self.daemon = Daemon(home, dsn=dsn)
        self.daemon.start()
        self.nodes = Nodes.make(home / "nodes", count)
        self.ids: list[str] = []
        client, base_port = self.daemon.client(), free_ports(BASE_PORT, count)
        for index in range(count):
            body = {"name": f"n{index}", "control_addr": f"127.0.0.1:{base_port + index}"}
            self.ids.append(client.post("/api/nodes", body)["id"])
            self.nodes.install(index, client.post(f"/api/nodes/n{index}/enroll", {"csr": self.nodes.csr(index)}))
        client.post("/api/peers", peers_body(self.ids, 3))
        self.nodes.start(base_port)
        in_sync(self.daemon, count)


@pytest.fixture
def fleet(tmp_path: Path, dsns: tuple[str, str]) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "old", dsns[0], 3)
    yield made
    made.nodes.stop()
    made.daemon.kill()


def in_sync(daemon: Daemon, count: int) -> None:
    eventually(lambda: daemon.client().get("/api/status")["fleet"]["in_sync"] == count, timeout=40, every=0.1)


def node(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.client().get(f"/api/nodes/{name}")
    return found


def restore(home: Path, dsn: str, backup: Path, *options: str) -> tuple[Daemon, dict[str, Any]]:
    home.mkdir(exist_ok=True)
    daemon = Daemon(home, dsn=dsn, init=False)
    told = json.loads(daemon.cox("backup", "restore", str(backup), "--json", *options))
    return daemon, told


def test_the_fleet_is_linked_again_and_nothing_revoked_is_revived(
    fleet: Fleet, dsns: tuple[str, str], tmp_path: Path
) -> None:
    old = fleet.daemon
    backup = tmp_path / "kept" / "b.coxbak"
    backup.parent.mkdir()
    told = json.loads(old.cox("backup", "create", "--out", str(backup), "--json"))
    assert told["manifest"]["counts"] == {"nodes": 3, "users": 1, "devices": 9}
    assert backup.stat().st_mode & 0o777 == 0o600
    # life goes on
    client = old.client()
    client.post("/api/peers", peers_body([fleet.ids[0]], 2, first=100))
    for index in (0, 1):  # renewed: the backup knows of neither certificate
        fleet.nodes.install(index, client.post(f"/api/nodes/n{index}/enroll", {"csr": fleet.nodes.csr(index)}))
    client.post("/api/nodes/n1/revoke", {"reason": "stolen"})
    client.call("DELETE", f"/api/nodes/n2?version={node(old, 'n2')['version']}")
    ahead = eventually(lambda: (n := node(old, "n0"))["in_sync"] and n["peers_configured"] == 5 and n)
    actions = [e.action for e in read_file(old.state / "revocations.log")]
    assert [action for action in actions if action.startswith("node.")][-4:] == [
        *["node.enroll"] * 2,
        "node.revoke",
        "node.rm",
    ]
    old.kill()
    # on another machine
    new, told = restore(tmp_path / "new", dsns[1], backup, "--beside", str(old.state))
    assert len(told["revoked_again"]) == 2 and told["notes"] == []
    new.start()
    try:
        back = eventually(lambda: (n := node(new, "n0"))["in_sync"] and n, timeout=40, every=0.1)
        assert back["applied_revision"] > ahead["applied_revision"], "the node's revision was ahead, and was adopted"
        assert back["peers_configured"] == 3, "it has what the backup says, and shows a certificate that was issued since"
        revoked, removed = node(new, "n1"), node(new, "n2")
        assert revoked["link_state"] != "live" and not revoked["enrolled"]
        assert (removed["enabled"], removed["enrolled"], removed["link_state"]) == (False, False, "disabled")
        actions = [record["action"] for record in new.client().get("/api/audit?limit=20")]
        assert "backup.restore" in actions
        detail = next(r for r in new.client().get("/api/audit?limit=20") if r["action"] == "backup.restore")
        assert json.loads(json.dumps(detail["detail"])) and told["manifest"]["id"] in json.dumps(detail["detail"])
        # and it can be worked with
        fleet.nodes.install(1, new.client().post("/api/nodes/n1/enroll", {"csr": fleet.nodes.csr(1)}))
        eventually(lambda: node(new, "n1")["in_sync"], timeout=40, every=0.1)
        assert "0 wrong" in new.cox("doctor"), "with the audit log and its checkpoints"
        assert json.loads(new.cox("audit", "verify", "--json"))["ok"]
        assert new.stop() == 0
    finally:
        new.kill()


def test_nor_is_what_was_taken_away_by_hand_or_used_up(fleet: Fleet, dsns: tuple[str, str], tmp_path: Path) -> None:
    old, password = fleet.daemon, "correct horse battery"
    client = old.client()
    client.post("/api/admins/admin/password", {"new_password": password})
    secret = client.post("/api/admins/admin/totp")["secret"]
    codes = client.post("/api/admins/admin/totp/confirm", {"code": one_time_code(secret, time.time())})["recovery_codes"]
    token = client.post("/api/tokens", {"name": "ci", "scope": "admin"})
    address = {"version": node(old, "n1")["version"], "endpoint_ips": ["203.0.113.7"]}
    client.call("PATCH", "/api/nodes/n1", address)
    user = client.post("/api/users", {"name": "Ann"})["id"]
    device = client.post(f"/api/users/{user}/devices", {"name": "phone"})["id"]
    client.post("/api/profiles", {"device_id": device, "name": "home", "node_id": "n1"})

    def key_of(daemon: Daemon) -> str:
        """Of the device, as its node is to know it."""
        found: str = daemon.client().get(f"/api/devices/{device}")["credentials"][0]["wg_public_key"]
        return found

    stolen = key_of(old)
    backup = tmp_path / "b.coxbak"
    old.cox("backup", "create", "--out", str(backup))
    # life goes on
    login = {"username": "admin", "password": password}
    client.post("/api/auth/login", login | {"code": codes[0]})
    client.call("DELETE", f"/api/tokens/{token['id']}")
    client.post(f"/api/devices/{device}/provision", {"rotate": True})
    mine = {"id": "dev_hand", "user_id": "usr_test", "name": "by hand"}
    assert client.get("/api/devices/dev_0")["peer_count"] == 1
    with closing(open_store(old.store)) as store, store.read() as tx:
        ((key,),) = tx.execute("SELECT public_key FROM peers WHERE device_id = 'dev_0'")
    client.post("/api/peers", {"devices": [mine], "remove": [{"node_id": fleet.ids[0], "public_key": key}]})
    version = client.get("/api/users/usr_test")["version"]
    client.call("PATCH", "/api/users/usr_test", {"version": version, "status": "disabled"})
    old.kill()
    new, told = restore(tmp_path / "new", dsns[1], backup, "--beside", str(old.state))
    assert len(told["revoked_again"]) == 5, told["revoked_again"]
    new.start()
    try:
        client = new.client()
        with pytest.raises(RemoteError) as caught:
            client.post("/api/auth/login", login | {"code": codes[0]})
        assert caught.value.status == 401, "a recovery code is good once"
        client.post("/api/auth/login", login | {"code": codes[1]})
        assert client.get("/api/tokens")[0]["revoked_at"]
        assert client.get("/api/devices/dev_0")["peer_count"] == 0
        assert client.get("/api/users/usr_test")["status"] == "disabled"
        eventually(lambda: node(new, "n0")["peers_configured"] == 0, timeout=40, every=0.1)
        client.post(f"/api/devices/{device}/provision")
        assert key_of(new) != stolen
        eventually(lambda: node(new, "n1")["peers_configured"] == 1, timeout=40, every=0.1)
        assert json.loads(new.cox("audit", "verify", "--json"))["ok"]
    finally:
        new.kill()


def test_links_that_were_used_or_revoked_are_not_good_again(dsns: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = Daemon(tmp_path / "old", dsn=dsns[0])
    old.start()
    client = old.client()
    user = client.post("/api/users", {"name": "Ann"})["id"]

    def link(**body: Any) -> tuple[str, str]:
        made = client.post(f"/api/users/{user}/invite", {"relay": "r.example:443", **body})
        return made["ticket_id"], made["url"]

    (_, used), (revoked_id, revoked), (_, still_open), (_, first) = (link() for _ in range(4))
    phone, other, successor = Caravel(), Caravel(), Caravel()
    old.stop()
    leg = leg_to(old)
    old.start()
    phone.enroll(leg, first)
    device = client.get(f"/api/users/{user}/devices")[0]["id"]
    _, again = link(device_id=device)
    backup = tmp_path / "b.coxbak"
    old.cox("backup", "create", "--out", str(backup))
    other.enroll(leg, used)
    client.call("DELETE", f"/api/invites/{revoked_id}")
    successor.enroll(leg, again)
    old.kill()
    leg.close()

    new, told = restore(tmp_path / "new", dsns[1], backup, "--beside", str(old.state))
    assert len(told["revoked_again"]) == 3
    leg = leg_to(new)
    new.start()
    try:
        for url in (used, revoked, again):
            with pytest.raises(grpc.RpcError) as refused:
                Caravel().claim(leg, url)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        for known in (phone, other, successor):
            with pytest.raises(grpc.RpcError) as refused:
                known.sync(leg)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        Caravel().enroll(leg, still_open)
        _, fresh = link_of(new, user, device)
        assert phone.enroll(leg, fresh)["user"] == user
    finally:
        new.kill()
        leg.close()


def renewed(daemon: Daemon, name: str) -> RelayLeg:
    """A relay with a new certificate, issued and recorded as the authority does it. The daemon does not run just now."""
    leg = leg_to(daemon, known=False)
    with closing(open_store(daemon.store)) as store, store.write() as tx:
        ((relay,),) = tx.execute("SELECT id FROM relays WHERE name = ?", (name,))
        insert_relay_cert(tx, relay, Leaf(leg.certificate), time.time())
        ends = int(leg.certificate.not_valid_after_utc.timestamp())
        detail = {"name": name, "serial": str(leg.certificate.serial_number), "not_after": ends}
        record(tx, Caller("renewals", "system"), "relay.enroll", ("relay", relay), detail, now=time.time())
    return leg


@pytest.mark.parametrize("is_beside", [True, False])
def test_a_relay_that_was_renewed_since_is_let_in_if_it_is_known_what_became_of_it(
    dsns: tuple[str, str], tmp_path: Path, *, is_beside: bool
) -> None:
    (tmp_path / "old").mkdir()
    old = Daemon(tmp_path / "old", dsn=dsns[0])
    before = {name: leg_to(old, name) for name in ("stays", "gone")}
    old.start()
    user = old.client().post("/api/users", {"name": "Ann"})["id"]
    links = [old.client().post(f"/api/users/{user}/invite", {"relay": "r.example:443"})["url"] for _ in range(4)]
    assert old.stop() == 0
    backup = tmp_path / "kept" / "b.coxbak"
    backup.parent.mkdir()
    old.cox("backup", "create", "--out", str(backup))
    after = {name: renewed(old, name) for name in before}
    old.start()
    relays = {relay["name"]: relay["id"] for relay in old.client().get("/api/relays")}
    old.client().call("DELETE", f"/api/relays/{relays['gone']}")
    old.client().post("/api/tokens", {"name": "late", "scope": "readonly"})
    old.kill()

    new, told = restore(tmp_path / "new", dsns[1], backup, *(["--beside", str(old.state)] if is_beside else []))
    new.start()
    legs = {
        (name, when): leg.to(new.state) for when, those in (("then", before), ("now", after)) for name, leg in those.items()
    }
    try:
        let_in = {key for key, leg in legs.items() if joins(leg, links)}
        if is_beside:
            assert let_in == {("stays", "then"), ("stays", "now")}
            assert ["relay.rm" in effect for effect in told["revoked_again"]] == [True]
            gone = new.client().get(f"/api/relays/{relays['gone']}")
            assert (gone["status"], gone["endpoint"], gone["tunnel"]) == ("removed", "", "")
            assert "gone was removed after the backup" in new.cox("doctor")
        else:  # nobody knows that one was removed; but what nobody knows of is let in nowhere
            assert let_in == {("stays", "then"), ("gone", "then")}
        assert new.client().get("/api/tokens") == [], "one that was made since is not known either"
    finally:
        new.kill()
        for leg in (*before.values(), *after.values(), *legs.values()):
            leg.close()


def joins(leg: RelayLeg, links: list[str]) -> bool:
    """Whether a device joins through it with one of the links."""
    try:
        Caravel().enroll(leg, links[-1])
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False
    links.pop()
    return True


def link_of(daemon: Daemon, user: str, device: str) -> tuple[str, str]:
    body = {"relay": "r.example:443", "device_id": device}
    made = daemon.client().post(f"/api/users/{user}/invite", body)
    return made["ticket_id"], made["url"]


def test_without_the_file_beside_it_says_what_is_not_known(fleet: Fleet, dsns: tuple[str, str], tmp_path: Path) -> None:
    backup = tmp_path / "kept" / "b.coxbak"
    backup.parent.mkdir()
    fleet.daemon.cox("backup", "create", "--out", str(backup))
    assert fleet.daemon.stop() == 0
    new, told = restore(tmp_path / "new", dsns[1], backup)
    assert any("is not known" in note and "--beside" in note for note in told["notes"])
    new.start()
    try:
        in_sync(new, 3)
    finally:
        new.kill()


def test_a_policy_that_was_changed_since_is_the_one_of_the_backup(
    fleet: Fleet, dsns: tuple[str, str], tmp_path: Path
) -> None:
    """No revision counts policies, and no look shows them."""
    old, backup = fleet.daemon, tmp_path / "b.coxbak"
    old.cox("backup", "create", "--out", str(backup))
    body = {"version": node(old, "n0")["version"], "isolation": True}
    old.client().call("PATCH", "/api/nodes/n0", body)

    def isolates() -> bool:
        (found,) = fleet.nodes.do("network", node=0)["network"]
        return bool(found["policy"]["isolation"])

    eventually(isolates)
    assert old.stop() == 0
    new, _ = restore(tmp_path / "new", dsns[1], backup, "--beside", str(old.state))
    new.start()
    try:
        eventually(lambda: not isolates(), timeout=30)
        assert node(new, "n0")["isolation"] is False
        in_sync(new, 3)
    finally:
        new.kill()


@pytest.mark.timeout(400)  # four starts of a daemon
def test_a_database_that_is_put_back_by_hand_revives_nobody(tmp_path: Path) -> None:
    """Past ``cox backup restore``: a copy of the file, as of a snapshot. What lies beside it knows better."""
    fleet = Fleet(tmp_path / "old", "", 3)
    daemon, kept = fleet.daemon, tmp_path / "a week ago"
    try:
        client = daemon.client()
        user = client.post("/api/users", {"name": "Ann", "email": "ann@example.org"})["id"]
        stolen = client.post(f"/api/users/{user}/devices", {"name": "stolen"})["id"]
        assert daemon.stop() == 0
        shutil.copytree(daemon.state, kept)
        daemon.start()
        client = daemon.client()
        client.post(f"/api/devices/{stolen}/revoke")
        client.post("/api/nodes/n2/revoke", {"reason": "stolen"})
        eventually(lambda: node(daemon, "n0")["in_sync"])
        assert daemon.stop() == 0
        for old in daemon.state.glob("app.db*"):
            old.unlink()
        for copy in kept.glob("app.db*"):
            shutil.copy(copy, daemon.state / copy.name)
        for _ in range(2):  # it is done once; the next start finds nothing
            daemon.start()
            client = daemon.client()
            in_sync(daemon, 2)
            assert client.get(f"/api/devices/{stolen}")["status"] == "revoked"
            assert not node(daemon, "n2")["enrolled"] and node(daemon, "n2")["link_state"] != "live"
            told = [r for r in client.get("/api/audit?limit=100") if r["action"] == "backup.put_back"]
            assert len(told) == 1 and len(told[0]["detail"]["revoked_again"]) == 2, told
            eventually(lambda: any(a["kind"] == "audit_broken" for a in daemon.client().get("/api/alerts")["alerts"]))
            assert daemon.stop() == 0
    finally:
        fleet.nodes.stop()
        daemon.kill()


def test_a_stopped_daemon_and_a_restore_in_place(fleet: Fleet, dsns: tuple[str, str], tmp_path: Path) -> None:
    old = fleet.daemon
    assert old.stop() == 0
    backup = tmp_path / "b.coxbak"
    old.cox("backup", "create", "--out", str(backup))
    old.start()
    client = old.client()
    client.post("/api/nodes/n1/revoke", {"reason": "stolen"})
    refused = run(old, "backup", "restore", str(backup), "--force")
    assert refused.returncode == 6 and "held by another daemon" in refused.stderr, "a daemon runs on it"
    assert old.stop() == 0
    refused = run(old, "backup", "restore", str(backup))
    assert refused.returncode == 5 and "--force" in refused.stderr
    told = json.loads(old.cox("backup", "restore", str(backup), "--force", "--json"))
    assert "1 certificate of node" in " ".join(told["revoked_again"]), "its own file is beside it"
    assert Path(told["replaced"], "ca.key").is_file()
    old.start()
    eventually(lambda: node(old, "n0")["in_sync"] and node(old, "n2")["in_sync"], timeout=40, every=0.1)
    assert not node(old, "n1")["enrolled"]
    again = json.loads(old.cox("backup", "create", "--out", str(tmp_path / "c.coxbak"), "--json"))
    assert again["manifest"]["audit"]["size"] >= told["audit_seq"]


def run(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = daemon.command(*arguments)
    return subprocess.run(command, env=daemon._environment | os.environ, capture_output=True, text=True, check=False)
