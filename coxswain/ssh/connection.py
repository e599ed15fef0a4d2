"""SSH to one host. A key that is not the pinned one, or not the confirmed one, ends it before anything is sent.

Who the host is, is decided on its key alone, right after the key exchange; authentication comes after. So a password never
goes to a host whose key nobody confirmed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coxswain.errors import DeadlineExceeded, NodeRefused, NodeUnreachable
from coxswain.late import Late
from coxswain.ssh.dial import Dialer
from coxswain.ssh.host import MAX_OUTPUT, Done, Host, script_of, text_of
from coxswain.ssh.hostkey import REINSTALLED, HostKeyChanged, algorithms_for, host_key_text
from coxswain.ssh.identity import SshIdentity
from coxswain.ssh.turns import Turn
from coxswain.words import plain

if TYPE_CHECKING:
    import paramiko
else:
    paramiko = Late("paramiko")

__all__ = ["CONNECT_S", "SshHost", "Target", "connect", "see_host_key"]

CONNECT_S = 20.0
"""For TCP, and again for the handshake (fleet-model.md 3.2)."""

_WINDOW = 2**24
_KEEPALIVE_S = 15
_POLL_S = 0.5
_PATIENCE_S = 3.0
_LOOK_S = 0.1
_REST_S = 3.0
_STUCK_S = 2.0

_NEAR_S = 0.01
_IN_FLIGHT = 512 * 1024
"""What is on the way to a near host at once, of the 2 MB that OpenSSH allows. A host that gets data faster than its program
reads them keeps them in a buffer that grows by being copied: 40 MB cost its sshd 0.04 s of CPU like this, and 0.1 to 0.2 s
with the whole window. Where the round trip is long, what is on the way is on the line, not in that buffer, and is needed.
A server that grants nothing within ``_PATIENCE_S`` gets the rest of its window: a few grant only once most of that is used.
Half a second was too short; a host that is busy was taken for such a server then.
"""

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what it says of a peer is in our errors, without its stack traces


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and who must answer. ``host_key`` empty: not known yet. ``route``: relays, for this connection only."""

    host: str
    port: int = 22
    user: str = "root"
    host_key: str = ""
    route: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.host if self.port == 22 else f"{self.host} port {self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """With the controller's key, or with a one-time password."""

    identity: SshIdentity | None = None
    password: str = field(default="", repr=False)


class SshHost(Host):
    """A host over SSH; see ``connect``."""

    def __init__(self, target: Target, transport: paramiko.Transport, host_key: str) -> None:
        super().__init__(target.name)
        self.host_key = host_key
        self._transport = transport

    def execute(
        self, command: str, *, stdin: Iterator[bytes] | None = None, deadline: float = 60.0, max_output: int = MAX_OUTPUT
    ) -> Done:
        until = time.monotonic() + deadline
        stuck = threading.Timer(deadline + _STUCK_S, self._transport.close)  # paramiko waits for some answers for ever
        stuck.daemon = True
        stuck.start()
        channel = None
        try:
            channel = self._transport.open_session(window_size=_WINDOW, timeout=min(deadline, CONNECT_S))
            return self._converse(channel, command, stdin or iter(()), until, max_output)
        except _LateError:
            raise DeadlineExceeded(f"{self.name}: {script_of(command)} took longer than {deadline:g} s") from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            if time.monotonic() > until:
                raise DeadlineExceeded(f"{self.name}: {script_of(command)} took longer than {deadline:g} s") from None
            why = self._transport.get_exception() or error  # of the thread that reads: it knows what ended the line
            raise NodeUnreachable(f"{self.name}: the connection broke: {_words(why)}") from error
        finally:
            if channel is not None:
                with contextlib.suppress(paramiko.SSHException, OSError, EOFError):  # of a line that is cut already
                    channel.close()
            stuck.cancel()

    def close(self) -> None:
        self._transport.close()

    def _withhold(self, channel: paramiko.Channel) -> int:
        """Of a near host's window, what is more than ``_IN_FLIGHT``; it is not used for now. Returns how much that is."""
        if _round_trip_s(self._transport.sock) > _NEAR_S:
            return 0
        with channel.lock:
            withheld: int = max(0, channel.out_window_size - _IN_FLIGHT)
            channel.out_window_size -= withheld
        return withheld

    def _converse(self, channel: paramiko.Channel, command: str, stdin: Iterator[bytes], until: float, most: int) -> Done:
        channel.settimeout(_POLL_S)
        channel.exec_command(command)
        out, err = bytearray(), bytearray()
        withheld, moved_at = self._withhold(channel), time.monotonic()
        turn = Turn(lambda: _check(channel, until), lambda: _round_trip_s(self._transport.sock, mean=True) > _NEAR_S / 2)
        for block in turn.taken_for(stdin):
            view = memoryview(block)
            while view and not channel.exit_status_ready():  # ended without reading all of it: its exit code says why
                _check(channel, until)
                try:
                    view, moved_at = view[channel.send(view) :], time.monotonic()
                except TimeoutError:
                    _drain(channel, out, err, most)
                    if time.monotonic() - moved_at >= _PATIENCE_S:
                        turn.give_away()  # a host that hangs keeps nobody else waiting
                        with channel.lock:
                            channel.out_window_size += withheld
                        withheld = 0
        with contextlib.suppress(OSError):
            channel.shutdown_write()
        _listen(channel, out, err, until, most)
        code = channel.recv_exit_status()
        if code < 0:
            raise EOFError
        return Done(code, text_of(out), text_of(err))


def _round_trip_s(connection: socket.socket, *, mean: bool = False) -> float:
    """The least that the kernel measured lately (``tcpi_min_rtt``, since Linux 4.6); ``mean``: with what waits on the line,
    and longer where a host is busy and nothing is sent. Without end where the way is no plain TCP connection.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
        start = 68 if mean else 148
        return int.from_bytes(info[start : start + 4], sys.byteorder) / 1e6 if len(info) == 152 else math.inf
    except (OSError, AttributeError):
        return math.inf


class _LateError(Exception):
    """The deadline of a command passed."""


def _check(channel: paramiko.Channel, until: float) -> None:
    if time.monotonic() > until:
        raise _LateError
    if channel.closed and not channel.exit_status_ready():
        raise EOFError


def connect(
    target: Target, login: Login, dialer: Dialer, *, hold: Callable[[paramiko.Transport], object] = lambda _transport: None
) -> SshHost:
    """Connects, checks who answers, and logs in.

    Args:
        target: with the pinned host key; without one nothing is sent, and ``Refused`` raised by ``see_host_key``'s callers.
        login: what to show.
        dialer: the way there.
        hold: is given what ends the attempt when closed on another thread.

    Raises:
        HostKeyChanged: another key than the pinned one. Nothing was sent.
        NodeUnreachable: nobody answers, or it breaks off.
        NodeRefused: it does not let us in.
    """
    if not target.host_key:
        raise ValueError("nobody logs in to a host whose key is not known")
    try:
        return _connect(target, login, dialer, hold, asked=False)
    except _AsksError:
        return _connect(target, login, dialer, hold, asked=True)


def _connect(
    target: Target, login: Login, dialer: Dialer, hold: Callable[[paramiko.Transport], object], *, asked: bool
) -> SshHost:
    transport = _transport(target, dialer)
    hold(transport)
    try:
        shown = _handshake(target, transport)
        if shown != target.host_key:
            raise HostKeyChanged(target.name, target.host_key, shown)  # noqa: TRY301 - nothing may follow
        _authenticate(target, transport, login, asked=asked)
        transport.set_keepalive(_KEEPALIVE_S)
    except BaseException:
        transport.close()
        raise
    return SshHost(target, transport, shown)


def see_host_key(target: Target, dialer: Dialer) -> str:
    """The key that a host shows, of the strongest type it has. No login is tried. Raises ``NodeUnreachable``.

    It is the first time that anybody asks it, so what is wrong may be what was typed; whoever knows the host has another
    way out of it.
    """
    try:
        transport = _transport(target, dialer)
        try:
            return _handshake(target, transport)
        finally:
            transport.close()
    except NodeUnreachable as error:
        raise NodeUnreachable(str(error), remedy=error.remedy or _LISTENS) from None


def _transport(target: Target, dialer: Dialer) -> paramiko.Transport:
    connection = dialer.dial(target.host, target.port, timeout=CONNECT_S, route=target.route)
    connection.settimeout(None)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    from coxswain.ssh.packets import Bounded  # noqa: PLC0415 - of paramiko, which takes time to import

    transport = paramiko.Transport(connection, default_window_size=_WINDOW, packetizer_class=Bounded)
    options = transport.get_security_options()
    options.key_types = tuple(a for a in algorithms_for(target.host_key) if a in options.key_types)
    options.ciphers = _fastest_first(options.ciphers)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = CONNECT_S
    return transport


def _fastest_first(ciphers: Sequence[str]) -> tuple[str, ...]:
    """AES-GCM has no separate MAC to compute: twice the throughput of paramiko's first choice, measured."""
    wanted = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
    return tuple(c for c in wanted if c in ciphers)


def _handshake(target: Target, transport: paramiko.Transport) -> str:
    """Returns the key that it shows."""
    try:
        transport.start_client(timeout=CONNECT_S)
        if transport.active and not transport.initial_kex_done:  # paramiko returns when time is up
            raise NodeUnreachable(f"{target.name}: no SSH handshake within {CONNECT_S:g} s")
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and target.host_key:
            kind = target.host_key.split()[0]
            raise NodeRefused(
                f"{target.name}: shows no host key of the type {kind} any more, which is the one that is known",
                remedy=REINSTALLED,
            ) from None
        raise NodeUnreachable(f"{target.name}: no SSH handshake: {_words(error)}") from None
    return host_key_text(key.get_name(), key.asbytes())


class _AsksError(Exception):
    """The host takes no password that is sent, but one that it asks for: keyboard-interactive (node-contract.md 3.9).

    That is tried on a connection of its own: paramiko requests the service anew with every attempt, and strict servers, such
    as those written in Go, end a connection that does so twice.
    """


def _authenticate(target: Target, transport: paramiko.Transport, login: Login, *, asked: bool) -> None:
    try:
        if login.identity is not None:
            more = transport.auth_publickey(target.user, login.identity.signer())
        elif asked:
            more = transport.auth_interactive(target.user, lambda _title, _words, prompts: [login.password for _ in prompts])
        else:
            more = transport.auth_password(target.user, login.password, fallback=False)
    except paramiko.BadAuthenticationType as error:
        if login.identity is None and not asked and "keyboard-interactive" in error.allowed_types:
            raise _AsksError from None
        how = _line(", ".join(error.allowed_types))
        raise NodeRefused(
            f"{target.name}: takes no {_means(login)} from {target.user}; it takes: {how}",
            remedy=_TAKES_KEYS if login.identity is not None else _let_in(target, "and say --key"),
        ) from None
    except paramiko.AuthenticationException:
        raise NodeRefused(
            f"{target.name}: {target.user} was not let in with the {_means(login)}",
            remedy=_let_in(target, f"or let a one-time password do it: {_with_password(target)}")
            if login.identity is not None
            else "Check the password and whether sshd lets this user use one.",
        ) from None
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise NodeUnreachable(f"{target.name}: the login broke off: {_words(error)}") from None
    if more:
        also = _line(", ".join(more))
        raise NodeRefused(
            f"{target.name}: the {_means(login)} alone does not let {target.user} in; it also wants: {also}",
            remedy=_TAKES_KEYS,
        )


_LISTENS = (
    "Is the machine on, does an sshd listen at that address and port, and does no firewall stand in between? Another port "
    "is said with --port."
)
_TAKES_KEYS = (
    "Let its sshd be content with the controller's key (cox ssh-key) for this user: PubkeyAuthentication yes, and nothing "
    "beside publickey in AuthenticationMethods."
)


def _let_in(target: Target, more: str) -> str:
    return f"Put the controller's key (cox ssh-key) into the authorized_keys of {target.user} on the host, {more}."


def _with_password(target: Target) -> str:
    """It puts the key there, on a machine that is known as on a new one."""
    return f"cox servers add {target.host} --user {target.user} --port {target.port} --password"


def _means(login: Login) -> str:
    return "password" if login.identity is None else "controller's key"


def _drain(channel: paramiko.Channel, out: bytearray, err: bytearray, most: int) -> None:
    for ready, receive, kept in (
        (channel.recv_ready, channel.recv, out),
        (channel.recv_stderr_ready, channel.recv_stderr, err),
    ):
        while ready():
            block = receive(32_768)
            if not block:
                break
            kept.extend(block[: max(0, most - len(kept))])


def _listen(channel: paramiko.Channel, out: bytearray, err: bytearray, until: float, most: int) -> None:
    """To the end of its output, and until its exit status is there; wakes for what comes, and otherwise rarely.

    The exit status may overtake the last output, which ends with EOF. What runs on in the background may hold that back, and
    is not waited for longer than ``_REST_S``.
    """
    channel.settimeout(_LOOK_S)
    rest_until = math.inf
    while not (channel.eof_received or channel.closed) and time.monotonic() < rest_until:
        _check(channel, until)
        with contextlib.suppress(TimeoutError):
            block = channel.recv(32_768)
            out.extend(block[: max(0, most - len(out))])
        _drain(channel, out, err, most)
        if rest_until == math.inf and channel.exit_status_ready():
            rest_until = min(until, time.monotonic() + _REST_S)
    while not channel.exit_status_ready():
        _check(channel, until)
        channel.status_event.wait(_LOOK_S)
    _drain(channel, out, err, most)


def _words(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it was closed"
    return _line(str(error)) or type(error).__name__


def _line(text: str) -> str:
    """Of what the host sent: one, and a short one."""
    return plain(text[:200])
