"""Alerts are sent out, signed, and again where nobody answered."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from coxswain.config import load
from coxswain.errors import CoxswainError
from tests.fleet import live_fleet
from tests.support import eventually

SECRET = "a secret of two"


class _Receiver(BaseHTTPRequestHandler):
    """Answers with the statuses of ``server.answers``, then with 204."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.got.append((self.path, dict(self.headers), body))
        status = server.answers.pop(0) if server.answers else 204
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Without a word."""


@contextmanager
def receiving(*answers: int) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.got, server.answers = [], list(answers)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def test_a_killed_node_is_told_to_the_webhook_signed_until_it_is_taken(tmp_path: Path) -> None:
    with receiving(500, 302) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/hook?a=b"
        config = f"posture: personal\nstate_dir: ./state\nanalytics: {{webhook_url: '{url}', webhook_secret: '{SECRET}'}}\n"
        (tmp_path / "cox.yaml").touch(mode=0o600)  # it holds a secret
        with live_fleet(tmp_path, 1, 15_300, config=config) as fleet:
            fleet.nodes.do("kill", node=0)
            eventually(lambda: len(server.got) >= 3, timeout=40)
            path, headers, body = server.got[2]
            told = json.loads(body)
            assert (path, told["type"], told["alert"]["kind"]) == ("/hook?a=b", "alert", "fleet_health")
            signed = f"{headers['X-Coxswain-Timestamp']}.".encode() + body
            wanted = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
            assert headers["X-Coxswain-Signature"] == wanted
            assert {path for path, _, _ in server.got} == {"/hook?a=b"}, "redirects are not followed"
            assert [json.loads(b)["alert"]["id"] for _, _, b in server.got[:3]] == [told["alert"]["id"]] * 3
            fleet.nodes.do("start", node=0)
            over = eventually(lambda: [b for _, _, b in server.got if b'"resolved"' in b], timeout=60)
            assert json.loads(over[0])["type"] == "alert_updated"


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://hooks.example.org/x", True), ("http://127.0.0.1:9/x", True), ("http://[::1]:9/x", True), ("", True),
        ("http://hooks.example.org/x", False), ("ftp://127.0.0.1/x", False), ("http://127.0.0.1:99999/", False),
    ],
)  # fmt: skip
def test_alerts_leave_the_machine_encrypted_or_not_at_all(tmp_path: Path, url: str, good: bool) -> None:
    path = tmp_path / "cox.yaml"
    path.touch(mode=0o600)  # the URL is a secret
    path.write_text(f"posture: personal\nanalytics: {{webhook_url: '{url}'}}\n")
    if good:
        assert load(path, {})["analytics.webhook_url"] == url
    else:
        with pytest.raises(CoxswainError, match="webhook_url"):
            load(path, {})
