"""The control socket: private, named by the kernel, and there again whatever was in its place."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.control_socket import ControlSocket
from actors.supervision import ChildSpec, Harm, Intensity, System
from coxswain.cli.client import Client, RemoteError
from coxswain.clock import SystemClock
from coxswain.errors import CoxswainError
from tests.support import eventually

HOLDER = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(1, flush=True); input()"
)


class App:
    """Answers with who asked; ``/slow`` waits until it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.slow = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            self.slow += 1
            self.go.wait(30)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [f'"{environ["REMOTE_ADDR"]}"'.encode()]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cox-") as where:
        yield Path(where) / "control.sock"


def system_on(path: Path, app: App | None = None) -> System:
    spec = ChildSpec("control_socket", ControlSocket, {"path": path, "app": app or App()}, hang_s=1.0)
    rng = random.Random(1)
    return System(children=(spec,), clock=SystemClock(), rng=rng, allow_chaos=True, intensity=Intensity(3, 10.0))


@pytest.fixture
def served(path: Path) -> Iterator[System]:
    running = system_on(path)
    running.start()
    assert running.wait_up(10)
    yield running
    assert running.stop()


@pytest.mark.usefixtures("served")
def test_the_kernel_says_who_asks(path: Path) -> None:
    assert Client(path).get("/") == f"uid={os.getuid()}"


@pytest.mark.usefixtures("served")
def test_only_its_owner_may_open_it(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_orderly_stop_takes_the_file_along(path: Path) -> None:
    running = system_on(path)
    running.start()
    assert running.wait_up(10)
    assert running.stop()
    assert not path.exists()


def test_a_stop_does_not_wait_for_a_slow_request(path: Path) -> None:
    app = App()
    running = system_on(path, app)
    running.start()
    assert running.wait_up(10)

    def ask() -> None:
        with contextlib.suppress(CoxswainError):
            Client(path, 20).get("/slow")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        eventually(lambda: app.slow == 1)
        assert running.stop(10)
        assert not path.exists()
    finally:
        app.go.set()
        asking.join()


def test_what_a_killed_daemon_left_is_taken_away(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    running = system_on(path)
    running.start()
    assert running.wait_up(10)
    assert Client(path).get("/")
    assert running.stop()


def test_a_file_that_is_no_socket_is_not_touched(path: Path) -> None:
    path.write_text("somebody's work")
    running = system_on(path)
    running.start()
    assert running.wait_ended(20)
    assert running.failure is not None and "is no socket" in running.failure
    assert path.read_text() == "somebody's work"


def test_another_process_that_serves_there_is_left_alone(path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "1\n"
        running = system_on(path)
        running.start()
        assert running.wait_ended(20)
        assert running.failure is not None and f"(pid {other.pid}) serves on" in running.failure
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        other.kill()


@pytest.mark.parametrize("how", [Harm.RAISE, Harm.HANG])
def test_it_serves_again_after_a_crash_and_a_hang(served: System, path: Path, how: Harm) -> None:
    before = served.tree().children[0].incarnation
    assert served.harm("control_socket", how, 60)

    def back() -> bool:
        child = served.tree().children[0]
        return child.incarnation > before and child.state.value == "running"

    eventually(back, timeout=60)
    assert Client(path).get("/") == f"uid={os.getuid()}"


@pytest.mark.usefixtures("served")
def test_nonsense_is_answered_and_the_next_one_served(path: Path) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET " + b"x" * 300_000 + b"\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(path))
            raw.sendall(nonsense)
            assert b" 200 " not in raw.recv(200)
    assert Client(path).get("/")


@pytest.mark.usefixtures("served")
def test_a_hundred_idle_connections_do_not_keep_others_out(path: Path) -> None:
    idle = []
    try:
        for _ in range(100):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(path))
            one.sendall(b"GET / HT")
            idle.append(one)
        assert Client(path, 10).get("/")
    finally:
        for one in idle:
            one.close()


def test_an_answer_that_is_no_json_is_an_error_of_the_daemon(path: Path) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("502 Bad", [])
        return [b"<html>"]

    running = system_on(path, app)  # type: ignore[arg-type]
    running.start()
    assert running.wait_up(10)
    with pytest.raises(RemoteError, match="HTTP 502"):
        Client(path).get("/")
    assert running.stop()
