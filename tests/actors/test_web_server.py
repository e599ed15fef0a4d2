"""The web server under its supervisor: it comes back, waits for its address, and serves beyond descriptor 1,023."""

from __future__ import annotations

import random
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import waitress.server

from actors.http_server import Channel, ServerThread
from actors.http_workers import Workers
from actors.supervision import ChildSpec, Harm, Intensity, System
from actors.web_server import WebServer, pause
from coxswain.clock import SystemClock
from coxswain.live.start import HAND_OVER, LiveStart, View
from tests.support import eventually, free_port
from tests.web import Web, raw


class App:
    """Answers with the path, or, for ``/slow``, when it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.slow = 0
        self.granted = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            self.slow += 1
            assert self.go.wait(30)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/live":
            environ[HAND_OVER] = LiveStart(View(websocket=False, admin=False))
            self.granted += 1
            assert self.go.wait(30)
        if environ["PATH_INFO"] == "/proto":
            return [environ.get("HTTP_X_FORWARDED_PROTO", "none").encode()]
        return [environ["PATH_INFO"].encode()]


def started(listen: str, app: App | None = None, **more: Any) -> System:
    arguments = {"listen": listen, "app": app or App(), **more}
    spec = ChildSpec("web_server", WebServer, arguments, hang_s=1.0)
    rng = random.Random(1)
    running = System(children=(spec,), clock=SystemClock(), rng=rng, allow_chaos=True, intensity=Intensity(100, 10.0))
    running.start()
    assert running.wait_up(10)
    return running


@pytest.fixture
def listen() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def served(listen: str) -> Iterator[System]:
    running = started(listen)
    yield running
    assert running.stop()


def answers(listen: str) -> bool:
    try:
        return Web(listen).get("/x").body == b"/x"
    except OSError:
        return False


@pytest.mark.parametrize("how", [Harm.RAISE, Harm.HANG])
def test_it_serves_again_after_a_crash_and_a_hang(served: System, listen: str, how: Harm) -> None:
    eventually(lambda: answers(listen))
    before = served.tree().children[0].incarnation
    assert served.harm("web_server", how, 60)
    eventually(lambda: served.tree().children[0].incarnation > before, timeout=60)
    eventually(lambda: answers(listen))


def test_an_address_that_is_taken_is_waited_for_and_brings_nobody_down(
    listen: str, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = listen.rpartition(":")
    with socket.create_server((host, int(port))):
        running = started(listen)
        eventually(lambda: "cannot be listened on" in caplog.text)
        assert running.tree().children[0].restarts == 0
    eventually(lambda: answers(listen))
    assert running.stop()


def test_the_address_is_free_before_the_workers_have_ended(listen: str) -> None:
    """So a successor binds it at once, and not when the slowest request of the crashed one has come to its end."""
    app = App()
    host, _, port = listen.rpartition(":")
    server = waitress.server.create_server(
        app, sockets=[socket.create_server((host, int(port)))], _dispatcher=Workers(2), asyncore_use_poll=True
    )
    server.channel_class, server.hand_over = Channel, None
    free, end = [], server.task_dispatcher.shutdown

    def shutdown(*args: Any, **more: Any) -> Any:
        with socket.create_server((host, int(port))):  # OSError: it is taken
            free.append(True)
        return end(*args, **more)

    server.task_dispatcher.shutdown = shutdown
    serving = ServerThread(server, "test")
    serving.start()
    asking = threading.Thread(target=raw, args=(listen, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"))
    asking.start()
    try:
        eventually(lambda: app.slow == 1)
        serving.halt()
        eventually(lambda: free)
    finally:
        app.go.set()
        asking.join()
        serving.stop(10)
    assert not serving.lives()
    serving.halt()


def test_the_first_attempts_to_bind_again_come_quickly() -> None:
    pauses = [pause(failures) for failures in range(1, 100)]
    assert sum(pauses[:3]) < 0.2
    assert max(pauses) == pauses[-1] == 2.0


def test_it_serves_with_more_descriptors_open_than_select_can_hold(served: System, listen: str) -> None:
    """1,500 idle connections: 3,000 descriptors of this process, which has both ends."""
    del served
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    host, _, port = listen.rpartition(":")
    idle = []
    try:
        eventually(lambda: answers(listen))
        idle += [socket.create_connection((host, int(port)), 10) for _ in range(1_500)]
        assert max(one.fileno() for one in idle) > 1_500
        for n in range(20):
            assert Web(listen).get(f"/{n}").body == f"/{n}".encode()
        last = idle[-1]
        last.sendall(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert last.makefile("rb").read().endswith(b"/last"), "and so are those beyond"
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_stop_does_not_wait_for_a_slow_request(listen: str) -> None:
    app = App()
    running = started(listen, app)
    eventually(lambda: answers(listen))
    asking = threading.Thread(target=raw, args=(listen, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"))
    asking.start()
    try:
        eventually(lambda: app.slow == 1)
        assert running.stop(10)
    finally:
        app.go.set()
        asking.join()


def test_forwarded_headers_pass_only_from_a_tls_proxy(listen: str) -> None:
    for believed, seen in ((False, b"none"), (True, b"https")):
        running = started(listen, behind_tls_proxy=believed)
        eventually(lambda: answers(listen))
        assert Web(listen).call("GET", "/proto", headers={"X-Forwarded-Proto": "https"}).body == seen
        assert running.stop()


def connect(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    return socket.create_connection((host, int(port)), 30)


def test_an_answer_comes_in_one_piece_and_seldom_wakes_anybody(
    served: System, listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del served
    eventually(lambda: answers(listen))
    with connect(listen) as client:
        client.sendall(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65_536).endswith(b"/first")
        pulls: list[object] = []
        monkeypatch.setattr("waitress.trigger.trigger._physical_pull", pulls.append)
        for number in range(100):
            client.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            piece = client.recv(65_536)
            assert piece.startswith(b"HTTP/1.1 200 OK\r\n")
            assert piece.endswith(b"\r\n\r\n/%d" % number)
        assert len(pulls) < 100, "only if the next request was there before the worker was through with the last"


def test_requests_that_do_not_wait_for_answers_are_answered_in_order(listen: str) -> None:
    app = App()
    running = started(listen, app)
    eventually(lambda: answers(listen))
    with connect(listen) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: app.slow == 1)
        for number in range(50):
            client.sendall(b"GET /after-%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        client.sendall(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        app.go.set()
        got = client.makefile("rb").read()
    places = [got.index(b"\r\n\r\n/%s" % path) for path in (b"slow", *(b"after-%d" % n for n in range(50)), b"last")]
    assert places == sorted(places)
    assert running.stop()


def test_whoever_hangs_up_before_the_answer_harms_nobody(listen: str) -> None:
    app = App()
    running = started(listen, app)
    eventually(lambda: answers(listen))
    clients = [connect(listen) for _ in range(5)]
    for client in clients:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: app.slow == 5)
    for client in clients:
        client.close()
    app.go.set()
    assert all(answers(listen) for _ in range(20))
    assert running.stop()


@pytest.mark.parametrize("early", [b"", b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", b"half a req"])
def test_a_stream_is_granted_to_whoever_waits_for_the_answer(listen: str, early: bytes) -> None:
    """What was said too early is with the server already, and would be missing from the stream."""
    app, handed = App(), list[bytes]()

    def hand_over(sock: socket.socket, head: bytes, start: LiveStart) -> None:
        del start
        handed.append(head)
        sock.setblocking(True)
        sock.sendall(head + b"the stream")
        sock.close()

    running = started(listen, app, hand_over=hand_over)
    eventually(lambda: answers(listen))
    with connect(listen) as client:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: app.granted == 1)
        client.sendall(early)
        if early:
            assert answers(listen), "by now it was read"
        app.go.set()
        got = client.makefile("rb").read()
    assert (got.endswith(b"the stream"), len(handed)) == ((False, 0) if early else (True, 1))
    assert answers(listen)
    assert running.stop()
