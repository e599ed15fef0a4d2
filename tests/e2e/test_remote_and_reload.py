"""A real ``cox serve``, asked over HTTP with a token, and told by SIGHUP to read its configuration again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import ROOT, Daemon
from tests.support import eventually, free_port


class Home:
    def __init__(self, directory: Path) -> None:
        self.daemon = Daemon(directory)
        self.config = directory / "cox.yaml"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.write(f"ui:\n  listen: {self.url.removeprefix('http://')}\n")
        self.daemon.start()

    def write(self, more: str) -> None:
        self.config.write_text("posture: personal\nstate_dir: ./state\n" + more)

    def token(self, scope: str) -> tuple[str, str]:
        """Its id and secret."""
        made = json.loads(self.daemon.cox("tokens", "create", f"for {scope}", "--scope", scope, "--json"))
        return made["id"], made["secret"]

    def far(self, token: str, *arguments: str, code: int = 0) -> str:
        """A command from elsewhere: no configuration, no socket."""
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COX_URL": self.url, "COX_TOKEN": token}
        command = [sys.executable, "-m", "actors.main", *arguments]
        done = subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        assert token not in done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def hang_up(self) -> None:
        assert self.daemon._process is not None
        self.daemon._process.send_signal(signal.SIGHUP)

    def config_now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.client().get("/api/config")
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("remote"))
    yield made
    made.daemon.kill()


def test_every_kind_of_command_goes_over_the_network(home: Home) -> None:
    _, admin = home.token("admin")
    added = json.loads(home.far(admin, "nodes", "add", "far", "--addr", "192.0.2.1", "--json"))
    assert added["name"] == "far"
    for command in (
        ("status",), ("tree",), ("nodes", "list"), ("nodes", "show", "far"), ("users", "list"), ("devices", "list"),
        ("profiles", "list"), ("paths", "list"), ("servers", "list"), ("relays", "list"), ("operations", "list"),
        ("sessions",),
        ("tokens", "list"), ("admins", "list"), ("ca", "show"), ("audit",), ("config", "show", "--running"),
        ("config", "show", "--pending"),
    ):  # fmt: skip
        assert json.loads(home.far(admin, *command, "--json")) is not None, command
        assert home.far(admin, *command), command
    assert "daemon" in home.far(admin, "version", "--daemon")
    assert "runs, with all of its" in home.far(admin, "doctor")
    home.far(admin, "nodes", "remove", "far", "--yes", code=0)
    record = home.daemon.client().get("/api/audit?action=node.rm")[0]
    assert (record["actor"], record["actor_kind"], record["source_ip"]) == ("for admin", "token", "127.0.0.1")


def test_a_token_does_what_it_may_and_no_more(home: Home) -> None:
    _, readonly = home.token("readonly")
    home.far(readonly, "nodes", "list")
    assert "scope" in home.far(readonly, "nodes", "add", "no", "--addr", "192.0.2.1", code=6)
    home.far(readonly, "tokens", "list", code=6)
    machine = f"servers: [{{name: m, ssh_host: 192.0.2.1, host_key: 'SHA256:{'A' * 43}'}}]"
    file = home.config.parent / "fleet.yaml"
    file.write_text(f"fleet: 1\n{machine}\n")
    planned = home.far(readonly, "plan", "-f", str(file))
    assert "+ server m" in planned and "ssh_user" not in planned, (
        "how it is logged in to is configured, and not for everybody"
    )
    token_id, admin = home.token("admin")
    home.far(admin, "nodes", "list")
    home.daemon.cox("tokens", "revoke", token_id)
    home.far(admin, "nodes", "list", code=6)
    home.far("cox_nonsense", "nodes", "list", code=6)


def test_what_needs_the_files_says_so(home: Home) -> None:
    _, admin = home.token("admin")
    for command in (("backup", "create"), ("backup", "restore", "x")):
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COX_TOKEN": admin}
        full = [sys.executable, "-m", "actors.main", "--url", home.url, *command]
        done = subprocess.run(full, cwd="/", env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "not over --url" in done.stderr


def test_sighup_takes_a_sound_file_over_and_leaves_a_bad_one(home: Home) -> None:
    listen = f"ui:\n  listen: {home.url.removeprefix('http://')}\n"
    home.write(
        listen + "retention: {audit_days: 77, metrics_days: 5}\nlog: {level: warn}\nfleet: {vpn_subnet: 10.9.0.0/16}\n"
    )
    assert {c["key"] for c in home.config_now()["reloadable"]} == {
        "retention.audit_days",
        "retention.metrics_days",
        "log.level",
    }
    home.hang_up()
    eventually(lambda: home.config_now()["values"]["retention.audit_days"]["value"] == 77)
    now = home.config_now()
    assert now["reloadable"] == [] and [c["key"] for c in now["pending"]] == ["fleet.vpn_subnet"]
    assert now["values"]["fleet.vpn_subnet"]["value"] == "10.86.0.0/16"
    record = home.daemon.client().get("/api/audit?action=config.reload")[0]
    assert (record["actor"], record["result"]) == ("SIGHUP", "ok")
    home.write(listen + "retention: {audit_days: 40000}\n")
    home.hang_up()
    record = eventually(
        lambda: (r := home.daemon.client().get("/api/audit?action=config.reload")[0])["result"] == "error" and r
    )
    assert "40000 is not accepted" in record["error"]
    assert home.config_now()["values"]["retention.audit_days"]["value"] == 77
    for _ in range(50):
        home.hang_up()
    assert home.daemon.client().get("/readyz")["ready"], "many at once harm nobody"
    home.write(listen)
    home.hang_up()
    eventually(lambda: home.config_now()["values"]["retention.audit_days"]["value"] == 30)
