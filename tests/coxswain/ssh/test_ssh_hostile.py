"""The SSH adapter against hosts that mean it: what they send costs neither memory, nor time without end, nor a terminal."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_DATA

from coxswain.errors import DeadlineExceeded, NodeFailure, NodeMisbehaved, NodeRefused, NodeUnreachable
from coxswain.ssh import DirectDialer, SshHost, SshIdentity, connect, connection, host_key_text, packets, see_host_key
from coxswain.ssh.connection import Login, Target

DIALER = DirectDialer()
KEY = paramiko.ECDSAKey.generate()
PINNED = host_key_text(KEY.get_name(), KEY.asbytes())

Serving = Callable[[socket.socket], object]


@contextlib.contextmanager
def listening(serve: Serving) -> Iterator[Target]:
    """One that accepts a single connection; what breaks there is of no interest."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(Exception):
                taken, _ = listener.accept()
                with taken:
                    serve(taken)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield Target("127.0.0.1", listener.getsockname()[1], host_key=PINNED)
    thread.join(10)


class Hostile(paramiko.ServerInterface):
    """Lets everybody in, and has ``answer`` to each command."""

    def __init__(self, answer: Callable[[paramiko.Channel], object]) -> None:
        self._answer = answer

    def check_auth_publickey(self, _username, _key):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, _kind, _chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, _command):
        def answer() -> None:
            time.sleep(0.1)  # after the reply to the request
            with contextlib.suppress(Exception):
                self._answer(channel)

        threading.Thread(target=answer, daemon=True).start()
        return True


@contextlib.contextmanager
def host_that(answer: Callable[[paramiko.Channel], object]) -> Iterator[SshHost]:
    def serve(taken: socket.socket) -> None:
        transport = paramiko.Transport(taken)
        transport.add_server_key(KEY)
        transport.start_server(server=Hostile(answer))
        while transport.is_active():
            time.sleep(0.02)

    with listening(serve) as target:
        opened = connect(target, Login(SshIdentity.make()), DIALER)
        try:
            yield opened
        finally:
            opened.close()


def ended(channel: paramiko.Channel, out: bytes, err: bytes = b"", code: int = 0) -> None:
    channel.sendall(out)
    channel.sendall_stderr(err)
    channel.send_exit_status(code)
    channel.shutdown_write()
    channel.close()


def pour(block: bytes, taken: socket.socket) -> None:
    while True:
        taken.sendall(block)


# -- before anybody knows who it is


@pytest.mark.parametrize("block", [b"x" * 65_536, b"Welcome\r\n" * 8_192, b"\x1b[2J" * 8_192])
def test_a_greeting_without_end_is_not_listened_to(block):
    began = time.monotonic()
    refused = pytest.raises(NodeUnreachable, match="no SSH handshake")
    with listening(lambda taken: pour(block, taken)) as target, refused as caught:
        see_host_key(target, DIALER)
    assert time.monotonic() - began < connection.CONNECT_S
    assert str(caught.value).isprintable()


def test_a_greeting_that_drips_has_no_more_time_than_one_that_hangs(monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 1.0)

    def drip(taken: socket.socket) -> None:
        while True:
            taken.sendall(b"x")
            time.sleep(0.05)

    began = time.monotonic()
    with listening(drip) as target, pytest.raises(NodeUnreachable, match="no SSH handshake"):
        see_host_key(target, DIALER)
    assert time.monotonic() - began < 15  # it would drip for ever


def test_a_packet_is_not_as_long_as_the_host_says(monkeypatch):
    """Four bytes announce up to 4 GB, before anybody was asked who they are."""

    def serve(taken: socket.socket) -> None:
        taken.sendall(b"SSH-2.0-hostile\r\n" + (0xFFFF_FFF4).to_bytes(4, "big"))
        pour(b"\0" * 65_536, taken)

    tracemalloc.start()
    try:
        with listening(serve) as target:
            began = time.monotonic()
            with pytest.raises(NodeUnreachable, match="no SSH handshake"):
                see_host_key(target, DIALER)
            assert time.monotonic() - began < connection.CONNECT_S
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


# -- once it let us in


def without_a_window(channel: paramiko.Channel, block: bytes) -> None:
    """Sends on, whatever it was allowed to send."""
    while True:
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_DATA)
        message.add_int(channel.remote_chanid)
        message.add_string(block)
        channel.transport._send_user_message(message)


def test_output_without_end_ends_it(monkeypatch):
    monkeypatch.setattr(packets, "_MOST", 20_000_000)
    with host_that(lambda channel: without_a_window(channel, b"y\n" * 16_000)) as host:
        began = time.monotonic()
        with pytest.raises(NodeFailure, match="sent more than"):
            host.execute("true", deadline=60)
        assert time.monotonic() - began < 30


def test_output_without_end_ends_it_while_something_is_uploaded(monkeypatch):
    """It takes a byte now and then, so nobody looks at what it prints meanwhile."""
    monkeypatch.setattr(packets, "_MOST", 8_000_000)
    hostile = host_that(lambda channel: without_a_window(channel, b"y\n" * 16_000))
    with hostile as host, pytest.raises(NodeFailure, match="sent more than"):
        host.execute("true", stdin=(b"x" * 65_536 for _ in range(100_000)), deadline=60)


def test_a_command_that_is_never_answered_is_late(monkeypatch):
    class Silent(Hostile):
        def check_channel_exec_request(self, _channel, _command):
            time.sleep(5)
            return True

    monkeypatch.setitem(globals(), "Hostile", Silent)
    with host_that(lambda _channel: None) as host:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="took longer"):
            host.execute("true", deadline=1)
        assert time.monotonic() - began < 10


NASTY = b"one\x00two \x1b]0;owned\x07\x1b[2J \xe2\x80\xaeesrever \xff\xfe \xc2\x9b31m\rover\r\nnext"


def test_what_it_prints_is_text_for_any_terminal_store_and_log():
    with host_that(lambda channel: ended(channel, NASTY, NASTY, 3)) as host:
        done = host.execute("true")
        assert done.code == 3
        for text in (done.stdout, done.stderr):
            lines = text.split("\n")
            assert all(line.isprintable() for line in lines), lines
            assert lines[0].startswith("one\N{REPLACEMENT CHARACTER}two ")
            assert lines[-2:] == ["over", "next"]
        with pytest.raises(NodeRefused) as caught:
            host.run("false")
        assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_a_file_that_it_makes_up_is_its_fault():
    hostile = host_that(lambda channel: ended(channel, b"cox: from here on\n\xff###A"))
    with hostile as host, pytest.raises(NodeMisbehaved, match="no base64"):
        host.read("/etc/node/control.nft")


def test_the_ways_in_that_it_names_are_no_place_for_a_novel():
    class Closed(Hostile):
        def check_auth_publickey(self, _username, _key):
            return paramiko.AUTH_FAILED

        def get_allowed_auths(self, _username):
            return "pass\x1b[2Jword," * 2_000

    def serve(taken: socket.socket) -> None:
        transport = paramiko.Transport(taken)
        transport.add_server_key(KEY)
        transport.start_server(server=Closed(lambda _channel: None))
        while transport.is_active():
            time.sleep(0.02)

    with listening(serve) as target, pytest.raises(NodeRefused) as caught:
        connect(target, Login(SshIdentity.make()), DIALER)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
