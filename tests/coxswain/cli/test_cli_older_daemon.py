"""A ``cox`` that is newer than its daemon: what that one does not send is told, with both versions, never a traceback."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain import __version__
from coxswain.cli.client import Answer, Client, RemoteError
from coxswain.cli.stream import follow
from tests.fleet import Controller
from tests.support import an_addr

Keep = Callable[[str], bool]
OLD = "0.0.7"


class Older(socketserver.ThreadingUnixStreamServer):
    """In front of a daemon, of whose answers it leaves only the keys that an older one would send."""

    daemon_threads = True

    def __init__(self, path: Path, behind: Path, keep: Keep) -> None:
        self.keep, self.behind = keep, behind
        super().__init__(str(path), _Handler)

    def cut(self, value: Any) -> Any:
        match value:
            case dict():
                return {key: self.cut(v) for key, v in value.items() if self.keep(key)}
            case list():
                return [self.cut(v) for v in value]
            case _:
                return value


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Older

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        asking = Client(self.server.behind)
        try:
            answer = asking.call(self.command, self.path, json.loads(body) if body else None)
        finally:
            asking.close()
        if self.path == "/api/version":
            answer = {"version": OLD}
        raw = json.dumps(self.server.cut(answer)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PATCH = do  # noqa: N815 - http.server's

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's
        pass


@pytest.fixture
def older(controller: Controller, tmp_path: Path) -> Iterator[Callable[[Keep], Callable[..., Result]]]:
    """``cox`` of today, and a daemon that sends only these keys."""
    servers: list[Older] = []

    def start(keep: Keep) -> Callable[..., Result]:
        place = tmp_path / f"{len(servers)}.sock"
        servers.append(Older(place, controller.home / "control.sock", keep))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        config = place.with_suffix(".yaml")
        config.write_text(f"posture: personal\ncontrol:\n  socket: {place}\n")
        return lambda *arguments: CliRunner().invoke(cli, [*arguments, "--config", str(config)], prog_name="cox")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_an_older_daemon_does_not_send_is_told(
    controller: Controller, older: Callable[[Keep], Callable[..., Result]]
) -> None:
    controller.client.post("/api/nodes", {"name": "aged", "control_addr": an_addr()})
    result = older(lambda key: key != "troubled")("status")
    first, second = result.stderr.splitlines()
    assert result.exit_code == 1 and not result.stdout
    assert "'troubled'" in first and "GET /api/status" in first and f"({OLD})" in first and f"({__version__})" in first
    assert "start the daemon again" in second


def test_what_was_done_is_not_denied(controller: Controller, older: Callable[[Keep], Callable[..., Result]]) -> None:
    result = older(lambda key: key not in ("control_addr", "name"))("nodes", "add", "half-told", "--addr", an_addr())
    assert result.exit_code == 1
    assert result.stderr.startswith("cox: this was done, but the daemon on ")
    assert controller.node("half-told")["name"] == "half-told"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/users", {"name": "Ann", "tomorrow": True}),
        ("GET", "/api/tomorrow", None),
        ("POST", "/api/status", {}),
        ("GET", "/api/users?tomorrow=1", None),
    ],
)
def test_what_an_older_daemon_does_not_know_is_told(controller: Controller, method: str, path: str, body: Any) -> None:
    with pytest.raises(RemoteError) as refused:
        controller.client.call(method, path, body)
    assert "probably older than this cox" in refused.value.remedy
    assert controller.client.get("/api/users") == []


COMMANDS = (
    "status", "tree", "nodes list", "nodes show old", "nodes endpoints old", "users list", "devices list", "profiles list",
    "paths list", "alerts", "relays list", "control-paths list", "ssh-key", "operations list", "servers list", "sessions",
    "removed", "geoip show", "tokens list", "admins list", "ca show", "audit", "config show --running",
    "config show --pending", "version --daemon", "doctor --quick",
)  # fmt: skip


def test_no_query_ends_in_a_traceback(controller: Controller, older: Callable[[Keep], Callable[..., Result]]) -> None:
    controller.client.post("/api/nodes", {"name": "old", "control_addr": an_addr()})
    for kept in (("id", "version"), ("id", "name", "version", "fleet", "sessions", "state", "enabled", "children")):
        cox = older(lambda key, kept=kept: key in kept)  # type: ignore[misc]
        for command in COMMANDS:
            result = cox(*command.split())
            assert isinstance(result.exception, SystemExit | None), (command, kept, result.exception)


def test_an_answer_is_a_dictionary_but_for_what_it_lacks(tmp_path: Path) -> None:
    asking = Client(tmp_path / "nobody")
    answer = asking.decoded('{"a": {"b": 1}}', "GET /x")
    assert answer == {"a": {"b": 1}} and answer["a"]["b"] == 1 and isinstance(answer["a"], Answer)
    assert answer.get("c") is None and "c" not in answer and json.loads(json.dumps(answer)) == answer
    with pytest.raises(RemoteError, match="which does not say its version"):
        _ = answer["a"]["c"]


def test_an_event_of_an_older_daemon(controller: Controller) -> None:
    controller.client.post("/api/nodes", {"name": "eventful", "control_addr": an_addr()})
    event = next(follow(controller.client, after=0))
    with pytest.raises(RemoteError, match="of tomorrow"):
        _ = event["of tomorrow"]
