"""``cox doctor``: each kind of trouble is made for real, and found, with what to do about it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain.audit import append_outbox, record
from coxswain.config import Config, load
from coxswain.doctor import Finding, Level, extras, files
from coxswain.doctor.daemon import check_daemon
from coxswain.doctor.state import check_state
from coxswain.errors import DaemonNotRunning, DeadlineExceeded
from coxswain.geoip import UPDATED
from coxswain.messages.audit import Caller
from coxswain.store import open_store
from tests.file_server import make_certificate
from tests.fleet import Controller
from tests.mmdb import city, write_mmdb

DAY = 86_400.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A sound installation, stopped."""
    path = tmp_path / "cox.yaml"
    result = CliRunner().invoke(cli, ["init", "--config", str(path)])
    assert result.exit_code == 0, result.output
    return load(path, {})


def run(config: Config, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["doctor", "--config", str(config.path), *arguments])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def state(config: Config, *, now: float | None = None, **options: Any) -> list[Finding]:
    return list(check_state(config, {}, now=time.time() if now is None else now, **options))


def found(findings: list[Finding], check: str, level: Level) -> str:
    """The texts of those findings, which must be there, each with a way out."""
    chosen = [f for f in findings if (f.check, f.level) == (check, level)]
    assert chosen, findings
    assert all(f.remedy for f in chosen if f.level is not Level.OK)
    return "\n".join(f.text for f in chosen)


def test_a_sound_installation_that_is_stopped(config: Config) -> None:
    out = run(config).stdout
    assert "0 wrong" in out and "no daemon answers" in out and "cox serve" in out
    told = json.loads(run(config, "--json", "--quick").stdout)
    assert told["ok"] and {f["level"] for f in told["findings"]} == {"ok", "warn"}
    run(config, "--strict", code=1)


def test_a_configuration_that_is_not_sound(config: Config) -> None:
    config.path.write_text("posture: personal\nlog: {level: loud}\nnode: {ssh_port: 70000}\n")
    out = run(config, code=1).stdout
    assert "'loud' is not accepted" in out and "node.ssh_port" in out and "2 wrong" in out
    config.path.unlink()
    assert "cannot be read" in run(config, code=1).stdout


def test_permissions(config: Config) -> None:
    (config.state_dir / "ca.key").chmod(0o644)
    (config.state_dir / "sub").mkdir(mode=0o755)
    (config.state_dir / "sub").chmod(0o755)
    text = found(list(files.check_permissions(config)), "permissions", Level.FAIL)
    assert "ca.key" in text and "sub" in text
    config.state_dir.chmod(0o755)
    assert str(config.state_dir) in found(list(files.check_permissions(config)), "permissions", Level.FAIL)
    config.state_dir.with_name("state.replaced-1").mkdir()
    assert "state.replaced-1" in found(list(files.check_permissions(config)), "permissions", Level.WARN)
    config.path.chmod(0o666)
    assert "0666" in found(list(files.check_config(config)), "configuration", Level.FAIL)


def test_a_lost_key(config: Config) -> None:
    config.key_file.rename(config.key_file.with_name("elsewhere"))
    assert "cannot be read" in found(list(files.check_key(config, {})), "CA key", Level.FAIL)
    assert "cannot be read" in found(state(config), "CA", Level.FAIL)
    config.key_file.write_text("00" * 32)
    config.key_file.chmod(0o600)
    assert "sealed under another key" in found(state(config), "CA", Level.FAIL)
    config.audit_paths.key.unlink()
    assert "there is no" in found(list(files.check_key(config, {})), "audit key", Level.WARN)


def test_little_room(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(config.state_dir)

    def with_free(free: int) -> Callable[[Any], os.statvfs_result]:
        values = list(real)[:10]
        values[1], values[2], values[4], values[7] = 1, 10**12, free, 10
        return lambda _path: os.statvfs_result(values)

    for free, level in ((10**11, Level.OK), (10**9, Level.WARN), (10**7, Level.FAIL)):
        monkeypatch.setattr(os, "statvfs", with_free(free))
        findings = list(files.check_disk(config))
        found(findings, "disk space", level)
        assert "more files" in found(findings, "disk space", Level.WARN)


def test_the_clock_is_looked_at() -> None:
    assert all(f.check == "clock" for f in files.check_clock())


def test_a_dashboard_whose_port_another_program_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        assert "listens on" in found(list(files.check_dashboard(os.getpid(), listen)), "dashboard", Level.OK)
        with subprocess.Popen(["sleep", "60"]) as other:  # in the same network, and has no socket at all
            text = found(list(files.check_dashboard(other.pid, listen)), "dashboard", Level.FAIL)
            other.kill()
        assert text == f"does not listen on {listen}, which another program has"
    assert "another ui.listen" in found(list(files.check_dashboard(os.getpid(), listen)), "dashboard", Level.WARN)
    assert list(files.check_dashboard(2**30, listen)) == []


def test_a_daemon_with_few_descriptors() -> None:
    assert list(files.check_process(os.getpid(), 1)) == []
    text = found(list(files.check_process(os.getpid(), 10**9)), "daemon", Level.WARN)
    assert "1000000200 for 1000000000 nodes" in text
    assert list(files.check_process(2**30, 1)) == []


def test_a_damaged_database(config: Config) -> None:
    database = Path(config.database)
    raw = bytearray(database.read_bytes())
    raw[40_960:45_056] = os.urandom(4_096)
    database.write_bytes(raw)
    text = found(state(config), "database", Level.FAIL)
    assert "damaged" in text or "does not answer" in text
    database.write_bytes(b"no database at all" * 1_000)
    found(state(config), "database", Level.FAIL)
    database.unlink()
    assert "there is no database" in found(state(config), "database", Level.FAIL)
    assert not database.exists(), "a doctor makes none"


def test_rows_that_lead_nowhere(config: Config) -> None:
    with apsw.Connection(str(config.database)) as connection:
        connection.execute(
            "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES ('d', 'nobody', 'd', 1, 1)"
        )
    assert "1 reference to what is not there" in found(state(config), "database", Level.FAIL)


def test_another_schema(config: Config) -> None:
    with apsw.Connection(str(config.database)) as connection:
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    assert "has schema 3" in found(state(config), "schema", Level.WARN)
    with apsw.Connection(str(config.database)) as connection:
        connection.execute("UPDATE meta SET value = '9999' WHERE key IN ('schema_version', 'compat_version')")
    assert "has schema 9999" in found(state(config), "schema", Level.FAIL)


def test_the_certificate_of_the_siem_stream(config: Config, tmp_path: Path) -> None:
    assert list(extras.check_siem(config, now=0)) == [], "there is no stream"
    certificate, key = make_certificate(tmp_path / "pki")
    text = f"\nsiem:\n  listen: ':9443'\n  tls_cert: {certificate}\n  tls_key: {key}\n"
    config.path.write_text(config.path.read_text() + text)

    def look(days: float = 0) -> list[Finding]:
        return list(extras.check_siem(load(config.path, {}), now=time.time() + days * DAY))

    key.chmod(0o640)
    assert "siem.tls_key: others may read" in found(look(), "SIEM stream", Level.FAIL)
    key.chmod(0o600)
    assert "expires in" in found(look(), "SIEM stream", Level.WARN), "it is good for a day"
    assert "good for" in found(look(-60), "SIEM stream", Level.OK)
    assert "expired 2 days ago" in found(look(3), "SIEM stream", Level.FAIL)
    key.unlink()
    assert "cannot be read" in found(look(), "SIEM stream", Level.FAIL)
    assert "siem.tls_key" in run(config, "--quick", code=1).stdout


def test_the_geoip_database(config: Config) -> None:
    def look(days: float = 0) -> list[Finding]:
        return list(extras.check_geoip(config, now=time.time() + days * DAY))

    assert look() == [], "there need not be one"
    path = config.state_dir / UPDATED
    path.write_bytes(b"nonsense")
    assert "no MMDB file" in found(look(), "GeoIP", Level.FAIL)
    write_mmdb(path, {"8.8.8.0/24": city(1.0, 2.0, "Somewhere")})
    assert "0 days old" in found(look(), "GeoIP", Level.OK)
    assert "100 days old" in found(look(100), "GeoIP", Level.WARN)


def test_certificates_that_end(config: Config) -> None:
    now = time.time()
    with apsw.Connection(str(config.database)) as connection:
        connection.execute("INSERT INTO nodes (id, name, created_at, updated_at) VALUES ('nod_a', 'ams', 1, 1)")
        connection.execute(
            "INSERT INTO node_certs (serial, node_id, server_name, cert_pem, not_before, not_after, created_at) "
            "VALUES ('1', 'nod_a', 'x', '', 0, ?, 1)",
            (int((now + 30 * DAY) * 1e6),),
        )
    assert found(state(config, now=now), "certificates", Level.OK)
    assert "ams" in found(state(config, now=now + 15 * DAY), "certificates", Level.WARN)
    assert "have expired" in found(state(config, now=now + 40 * DAY), "certificates", Level.FAIL)
    assert "CA expires in" in found(state(config, now=now + 5 * 365 * DAY - 30 * DAY), "certificates", Level.WARN)
    ends = now + 5 * 365 * DAY - 30 * DAY
    assert any("makes its heir in time" in finding.remedy for finding in state(config, now=ends))
    with apsw.Connection(str(config.database)) as connection:
        connection.execute(
            "INSERT INTO authority_lines (serial, role, cert_pem, key_sealed, not_after, created_at) "
            "VALUES ('7', 'control', '', x'00', ?, ?)",
            (int((now + 9 * 365 * DAY) * 1e6), int((now + 4 * 365 * DAY) * 1e6)),
        )
    assert "1 node not given its heir to trust: ams" in found(state(config, now=ends), "certificates", Level.WARN)
    assert "CA has expired" in found(state(config, now=now + 6 * 365 * DAY), "certificates", Level.FAIL)


def test_certificates_of_devices_that_end_soon(config: Config) -> None:
    import time  # noqa: PLC0415

    now = time.time()
    with apsw.Connection(str(config.database)) as connection:
        connection.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('usr_a', 1, 1)")
        for name, days in (("dev_long", 200.0), ("dev_soon", 9.4), ("dev_later", 20.4)):
            connection.execute(
                "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, 'usr_a', 'x', 1, 1)", (name,)
            )
            connection.execute(
                "INSERT INTO device_identities (device_id, fingerprint, serial, not_after, enrolled_at) "
                "VALUES (?, ?, '1', ?, 1)",
                (name, name, int((now + days * DAY) * 1e6)),
            )
    text = found(state(config, now=now), "certificates", Level.WARN)
    assert "device dev_soon ends in 9 days, and those of 1 more within 30 days" in text
    assert "dev_soon has ended" in found(state(config, now=now + 10 * DAY), "certificates", Level.WARN)


def test_backups_and_the_audit_log(config: Config) -> None:
    now = time.time()
    assert "no record" in found(state(config, now=now), "backups", Level.WARN)
    store = open_store(config.database)
    with store.write() as tx:
        record(tx, Caller("t", "cli"), "backup.create", ("backup", "b"), {}, now=now)
        append_outbox(tx)
    store.close()
    assert found(state(config, now=now), "backups", Level.OK)
    assert "9 days old" in found(state(config, now=now + 9 * DAY), "backups", Level.WARN)
    assert "set back" in found(state(config, now=now - 3_600), "clock", Level.WARN)
    store = open_store(config.database)
    with store.write() as tx:
        record(tx, Caller("t", "cli"), "node.add", ("node", "n"), {}, now=now - 600)
    store.close()
    assert "have waited for 10 minutes" in found(state(config, now=now), "audit log", Level.WARN)
    config.audit_paths.revocations.write_text('{"seq": 1}\n')
    assert "cannot be read" in found(state(config, now=now), "revocations", Level.FAIL)


def test_an_interrupted_restore(config: Config) -> None:
    with apsw.Connection(str(config.database)) as connection:
        connection.execute("INSERT INTO meta (key, value) VALUES ('restoring', 'bak_x')")
    assert "interrupted" in found(state(config), "database", Level.FAIL)


# -- a running daemon


def test_a_running_daemon(controller: Controller) -> None:
    controller.client.post("/api/nodes", {"name": "no-certificate", "control_addr": "192.0.2.1"})
    findings = list(check_daemon(controller.client.get, may_be_stopped=True))
    assert "runs, with all of its" in found(findings, "daemon", Level.OK)
    assert "no-certificate" in found(findings, "nodes", Level.WARN)


def test_what_a_token_may_not_look_at_is_no_failure_of_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "cox.yaml").write_text("posture: personal\nstate_dir: ./state\n")
    (tmp_path / "state").mkdir(mode=0o700)
    running = Controller(tmp_path / "state", web=True)
    running.start()
    try:
        made = {s: running.client.post("/api/tokens", {"name": s, "scope": s}) for s in ("readonly", "monitor", "admin")}

        def look(scope: str, code: int = 0) -> dict[str, dict[str, str]]:
            (tmp_path / scope).write_text(made[scope]["secret"])
            (tmp_path / scope).chmod(0o600)
            where = ["--url", f"http://{running.listen}", "--token-file", str(tmp_path / scope)]
            result = CliRunner().invoke(cli, [*where, "doctor", "--json"])
            assert result.exit_code == code, result.output
            return {f["check"]: f for f in json.loads(result.stdout)["findings"]}

        for scope in ("readonly", "monitor"):
            findings = look(scope)
            assert findings["daemon"]["level"] == "ok"
            hidden = findings["configuration"]
            assert hidden["level"] == "warn"
            assert hidden["text"].endswith(f"with this token: it takes the scope admin, and this one has {scope}")
            assert "cox tokens create NAME --scope admin" in hidden["remedy"]
        assert "configuration" not in look("admin"), "it was looked at, and there is nothing to say"
        assert running.client.get("/api/audit?action=auth.refused") == [], "who may not look does not ask"
        running.client.call("DELETE", f"/api/tokens/{made['readonly']['id']}")
        assert look("readonly", code=1)["daemon"]["level"] == "fail", "one that is no good is not passed over"
    finally:
        running.stop()


SOUND: dict[str, Any] = {
    "/api/status": {"version": __import__("coxswain").__version__},
    "/api/tree": {
        "id": "root", "state": "running", "restarts": 0, "busy_s": 0.0, "mailbox": 0, "zombies": 0, "last_failure": "",
        "children": [],
    },
    "/api/nodes": [],
    "/api/relays": [],
    "/api/config": {"problem": "", "reloadable": [], "pending": []},
    "/api/audit/head": {"findings": []},
    "/api/operations?state=failed&limit=100": [],
    "/api/operations?state=waiting&limit=100": [],
}  # fmt: skip


def told(**changed: Any) -> list[Finding]:
    names = {"tree": "/api/tree", "nodes": "/api/nodes", "relays": "/api/relays", "config": "/api/config",
             "audit": "/api/audit/head", "status": "/api/status",
             "failed": "/api/operations?state=failed&limit=100"}  # fmt: skip
    answers = SOUND | {names[name]: value for name, value in changed.items()}

    def get(path: str) -> Any:
        if isinstance(answers[path], Exception):
            raise answers[path]
        return answers[path]

    return list(check_daemon(get, may_be_stopped=False))


def node(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "enabled": True,
        "enrolled": True,
        "link_state": "live",
        "in_sync": True,
        "link_reason": "",
    } | changed


def test_parts_that_are_down_restarted_slow_or_left_threads() -> None:
    worker = SOUND["/api/tree"]
    children = [
        worker | {"id": "fleet", "state": "backing_off", "last_failure": "ValueError: x\ntrace"},
        worker | {"id": "hub", "restarts": 50, "last_failure": "y"},
        worker | {"id": "slow", "busy_s": 9.0, "mailbox": 5_000},
        worker | {"id": "left", "zombies": 2},
        worker | {"id": "node_links", "children": [worker | {"id": "node_link:x", "state": "backing_off"}]},
    ]
    findings = told(tree=worker | {"children": children})
    assert found(findings, "daemon", Level.FAIL) == "fleet is backing_off: ValueError: x"
    text = found(findings, "daemon", Level.WARN)
    assert "hub was restarted 50" in text and "slow does not keep up" in text and "2 threads" in text
    assert "node_link" not in text


def test_nodes_that_are_not_well() -> None:
    findings = told(
        nodes=[
            node("a", enrolled=False),
            node("b", link_state="backing_off"),
            node("c", link_state="degraded", link_reason="drift"),
            node("d", in_sync=False),
            node("e", enabled=False, link_state="disabled"),
        ]
    )
    text = found(findings, "nodes", Level.WARN)
    assert text.splitlines() == [
        "1 of 4 is not linked: b",
        "1 of 4 is degraded: c (drift)",
        "1 of 4 is not in sync: d",
        "1 of 4 has no certificate: a",
    ]
    assert found(told(nodes=[node("a")]), "nodes", Level.OK) == "the only one is linked and in sync"
    assert found(told(nodes=[node("a"), node("b")]), "nodes", Level.OK) == "all 2 are linked and in sync"
    both = told(nodes=[node("a", in_sync=False), node("b", in_sync=False)])
    assert found(both, "nodes", Level.WARN) == "2 of 2 are not in sync: a, b"


def test_what_waits_or_is_wrong() -> None:
    assert "loud" in found(told(config=SOUND["/api/config"] | {"problem": "loud"}), "configuration", Level.FAIL)
    change = [{"key": "ui.listen"}]
    assert "next start: ui.listen" in found(
        told(config=SOUND["/api/config"] | {"pending": change}), "configuration", Level.WARN
    )
    assert "ui.listen" in found(told(config=SOUND["/api/config"] | {"reloadable": change}), "configuration", Level.WARN)
    assert found(told(audit={"findings": ["cut"]}), "audit log", Level.FAIL) == "cut"
    assert "node.add op_1" in found(told(failed=[{"kind": "node.add", "id": "op_1"}]), "operations", Level.WARN)
    failed = [{"kind": "server.add", "id": "op_1", "overtaken_by": "op_2"}]
    assert [f for f in told(failed=failed) if f.check == "operations"] == [], "it was done since"
    failed.append({"kind": "node.add", "id": "op_3", "overtaken_by": ""})
    assert found(told(failed=failed), "operations", Level.WARN) == "1 has failed: node.add op_3"
    failed.append({"kind": "node.add", "id": "op_4", "overtaken_by": ""})
    assert found(told(failed=failed), "operations", Level.WARN) == "2 have failed: node.add op_3, node.add op_4"
    assert "it is 0.0.0" in found(told(status={"version": "0.0.0"}), "daemon", Level.WARN)


def test_relays_that_do_not_serve() -> None:
    stands = {"id": "rly_a", "name": "stands", "status": "active", "tunnel": "connected", "tunnel_error": ""}
    fell = stands | {"name": "fell", "tunnel": "waiting", "tunnel_error": "its certificate is not known here"}
    gone = stands | {"name": "gone", "status": "removed", "tunnel": ""}
    assert [f for f in told(relays=[stands, stands | {"tunnel": ""}]) if f.check == "relays"] == []
    assert "of fell does not stand: its certificate is" in found(told(relays=[stands, fell]), "relays", Level.WARN)
    assert "gone was removed after the backup" in found(told(relays=[gone]), "relays", Level.WARN)


def test_a_daemon_that_does_not_answer() -> None:
    assert found(told(status=DaemonNotRunning("nobody")), "daemon", Level.FAIL) == "nobody"
    assert found(told(status=DeadlineExceeded("late")), "daemon", Level.FAIL) == "late"
    assert "late" in found(told(nodes=DeadlineExceeded("late")), "daemon", Level.FAIL)
