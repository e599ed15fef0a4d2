"""The CLI's side of the socket: finding it quickly, and saying what is the matter when nobody answers well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.api.query import IGNORED
from coxswain.cli.client import Client, RemoteError, _simple_values, config_path, socket_path
from coxswain.config import check
from coxswain.errors import CoxswainError, DaemonNotRunning, DeadlineExceeded, InvalidInput

HERE = Path("/somewhere/cox.yaml")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COX_CONFIG", "COX_STATE_DIR", "COX_CONTROL__SOCKET"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Somebody on the socket who takes one request at a time and then does as told."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DaemonNotRunning, match=r"no daemon answers on .*control\.sock") as caught:
        Client(tmp_path / "control.sock").get("/")
    assert "cox serve" in caught.value.remedy
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(DaemonNotRunning):
        Client(tmp_path / "dead.sock").get("/")


def test_a_daemon_that_dies_while_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with answering(path, lambda c: None), pytest.raises(DaemonNotRunning, match="went away"):
        Client(path).get("/")
    (path).unlink()
    with (
        answering(path, lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")),
        pytest.raises(DaemonNotRunning, match="went away"),
    ):
        Client(path).get("/")


def test_a_daemon_that_is_silent(tmp_path: Path) -> None:
    gone = threading.Event()

    def stay_silent(_connection: socket.socket) -> None:
        gone.wait(30)

    with answering(tmp_path / "s", stay_silent):
        with pytest.raises(DeadlineExceeded, match=r"did not answer GET /x within 0\.05 s"):
            Client(tmp_path / "s", timeout=0.05).get("/x")
        gone.set()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", RemoteError),
        (b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\n<html>", RemoteError),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]", RemoteError),
        (b"SSH-2.0-OpenSSH\r\n", DaemonNotRunning),
        (b"\x00" * 100_000, DaemonNotRunning),
    ],
)
def test_somebody_else_there(tmp_path: Path, answer: bytes, error: type[CoxswainError]) -> None:
    with answering(tmp_path / "s", lambda c: c.sendall(answer)), pytest.raises(error):
        Client(tmp_path / "s", timeout=5).get("/")


def test_an_error_carries_what_the_daemon_said(tmp_path: Path) -> None:
    body = b'{"error": "no", "remedy": "do", "exit_code": 5}'
    head = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(tmp_path / "s", lambda c: c.sendall(head + body)), pytest.raises(RemoteError) as caught:
        Client(tmp_path / "s").get("/")
    assert (str(caught.value), caught.value.remedy, caught.value.exit_code, caught.value.status) == ("no", "do", 5, 409)


def test_a_daemon_that_lets_a_filter_go_unheeded(tmp_path: Path) -> None:
    """An older one answers a newer command with everything."""
    path = tmp_path / "control.sock"
    answer = f"HTTP/1.1 200 OK\r\n{IGNORED}: hue\r\nContent-Length: 2\r\n\r\n[]".encode()
    for method, done in (("GET", ""), ("DELETE", "this was done, but ")):
        with answering(path, lambda c: c.sendall(answer)), pytest.raises(RemoteError) as caught:
            Client(path).call(method, "/api/nodes?hue=red")
        assert str(caught.value) == f"{done}the daemon on {path} does not know hue of {method} /api/nodes"
        path.unlink()


def test_which_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path(None) == Path("cox.yaml")
    monkeypatch.setenv("COX_CONFIG", "/etc/cox.yaml")
    assert config_path(None) == Path("/etc/cox.yaml")
    assert config_path("mine.yaml") == Path("mine.yaml")


def test_the_environment_moves_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "cox.yaml"
    config.write_text("posture: personal\n")
    assert socket_path(config) == tmp_path / "state/control.sock"
    monkeypatch.setenv("COX_STATE_DIR", "elsewhere")
    assert socket_path(config) == tmp_path / "elsewhere/control.sock"
    monkeypatch.setenv("COX_CONTROL__SOCKET", "/run/cox.sock")
    assert socket_path(config) == Path("/run/cox.sock")


def test_a_file_that_is_not_simple_is_parsed(tmp_path: Path) -> None:
    config = tmp_path / "cox.yaml"
    config.write_text("{posture: personal, control: {socket: there.sock}}\n")
    assert socket_path(config) == tmp_path / "there.sock"
    config.write_text("posture: personal\nstate_dir: [\n")
    with pytest.raises(InvalidInput, match="not YAML"):
        socket_path(config)
    with pytest.raises(InvalidInput, match="cannot be read"):
        socket_path(tmp_path / "absent.yaml")


LINES = st.sampled_from(
    [
        "posture: personal",
        "state_dir: here",
        'state_dir: "a b"',
        "state_dir: 'it''s'",
        "state_dir: x#y",
        "state_dir: x # y",
        "state_dir: a: b",
        "state_dir: |",
        "state_dir: >-",
        "state_dir:",
        "  folded",
        "control:",
        "  socket: /run/cox.sock",
        '  socket: "s\\x41"',
        "log:",
        "  level: warn",
        "fleet:",
        "  regions: []",
        "  regions:",
        "  - fra",
        "    - ams",
        "# comment",
        "   # indented comment",
        "",
        "---",
        "...",
        'database: {dsn: ""}',
        "\tx",
        'admin: {password: "a',
        '  b"}',
        "? complex",
    ]
)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_reading_quickly_and_reading_well_agree(text: str) -> None:
    """Whenever the quick way has an answer for a file that a daemon would take, it is the daemon's."""
    quick = _simple_values(text)
    try:
        config = check(text.encode(), HERE, {})
    except InvalidInput:
        return
    if quick is not None:
        base = HERE.parent
        explicit = quick.get("control.socket")
        found = base / explicit if explicit else base / quick.get("state_dir", "./state") / "control.sock"
        assert found == config.socket
