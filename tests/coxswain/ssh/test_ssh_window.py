"""How much is on the way to a host at once: little where it is near, all that a server allows where it asks for that."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
import pytest

from coxswain.ssh import SshIdentity, connect, see_host_key
from coxswain.ssh import connection as module
from coxswain.ssh.connection import Login, SshHost, Target
from tests.support import eventually

SIZE = 3_000_000


class _Server(paramiko.ServerInterface):
    """Lets everybody in, and reads what a command is sent. ``hesitates``: only once much of it is there."""

    def __init__(self, *, hesitates: bool = False) -> None:
        self.hesitates = hesitates
        self.got = 0
        self.most = 0

    def check_auth_publickey(self, _username: str, _key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, _kind: str, _chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, _command: bytes) -> bool:
        threading.Thread(target=self._read, args=(channel,), daemon=True).start()
        return True

    def _read(self, channel: paramiko.Channel) -> None:
        if self.hesitates:
            eventually(lambda: len(channel.in_buffer) >= 512 * 1024)
            time.sleep(0.2)  # for more to come, which must not
        self.most = len(channel.in_buffer)
        while block := channel.recv(65_536):
            self.got += len(block)
        channel.send_exit_status(0)
        channel.close()


class _ThroughAPair:
    """A dialer for a server in this process; no TCP, so nothing is known of the round trip."""

    def __init__(self, server: _Server, window: int, *, tcp: bool) -> None:
        self._server = server
        self._window = window
        self._tcp = tcp
        self._key = paramiko.RSAKey.generate(2048)
        self.transports: list[paramiko.Transport] = []

    def dial(self, *_where: object, **_how: object) -> socket.socket:
        ours, theirs = _tcp_pair() if self._tcp else socket.socketpair()
        transport = paramiko.Transport(theirs, default_window_size=self._window)
        transport.add_server_key(self._key)
        transport.start_server(event=threading.Event(), server=self._server)
        self.transports.append(transport)
        return ours


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


@contextmanager
def serving(window: int, *, tcp: bool, hesitates: bool = False) -> Iterator[tuple[SshHost, _Server]]:
    server = _Server(hesitates=hesitates)
    dialer = _ThroughAPair(server, window, tcp=tcp)
    target = Target("127.0.0.1", 22, "root")
    host = None
    try:
        key = see_host_key(target, dialer)
        host = connect(Target("127.0.0.1", 22, "root", key), Login(identity=SshIdentity.make()), dialer)
        yield host, server
    finally:
        if host is not None:
            host.close()
        for transport in dialer.transports:
            transport.close()


def _blocks() -> Iterator[bytes]:
    yield from (bytes(100_000) for _ in range(SIZE // 100_000))


def test_a_near_host_has_no_more_to_keep_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 30.0)
    monkeypatch.setattr(module, "_POLL_S", 0.02)  # it hesitates longer than that, and is given no more for it
    with serving(2**21, tcp=True, hesitates=True) as (host, server):
        assert host.execute("swallow", stdin=_blocks()).code == 0
        assert server.got == SIZE
        assert server.most == 512 * 1024


@pytest.mark.parametrize("tcp", [True, False])
def test_a_server_that_grants_late_gets_all_of_it(tcp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing before a tenth of 16 MB is used: more than what is on the way at first."""
    monkeypatch.setattr(module, "_POLL_S", 0.02)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    with serving(2**24, tcp=tcp) as (host, server):
        assert host.execute("swallow", stdin=_blocks(), deadline=20).code == 0
        assert server.got == SIZE


def test_nothing_is_known_of_the_round_trip_of_what_is_no_tcp() -> None:
    ours, theirs = socket.socketpair()
    assert module._round_trip_s(ours) == float("inf")
    ours.close()
    theirs.close()
    ours, theirs = _tcp_pair()
    assert module._round_trip_s(ours) < 0.01
    ours.close()
    theirs.close()
