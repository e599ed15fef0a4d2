"""``control_socket``: the API on a unix socket, for the CLI. Whoever may open the socket, may do everything."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import waitress.server

from actors.http_server import LOOKAHEAD, Channel, HandOver, ServerThread
from actors.http_workers import Workers
from actors.supervision import Actor, Context
from coxswain.api.bodies import MOST_BODY_BYTES
from coxswain.api.doors import PEER_UID
from coxswain.errors import Refused

__all__ = ["ControlSocket"]

_CHECK_S = 0.5
_THREADS = 12
"""Workers; more than the API lets wait for nodes at once, so that there is always one for a query."""

_STOP_S = 3.0
_REQUEST_S = 120.0
_UCRED = struct.Struct("3i")


class _Channel(Channel):
    """Lets the kernel say who is at the other end; the audit names them."""

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, map: Any = None) -> None:  # noqa: A002
        with contextlib.suppress(OSError):
            _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            addr = (f"{PEER_UID}{uid}", None)
        super().__init__(server, sock, addr, adj, map)


class _CheckServer:
    """To itself: does the serving thread live?"""


class ControlSocket(Actor):
    """Serves ``app`` on ``path``, mode 0600, from threads of its own; the actor only watches them."""

    def __init__(self, context: Context, *, path: Path, app: Callable[..., Any], hand_over: HandOver | None = None) -> None:
        super().__init__(context)
        self._path = path
        self._app = app
        self._hand_over = hand_over
        self._serving: ServerThread | None = None

    def started(self) -> None:
        _remove_stale(self._path)
        server = waitress.server.create_server(
            self._app,
            unix_socket=str(self._path),
            unix_socket_perms="600",
            _dispatcher=Workers(_THREADS),
            asyncore_use_poll=True,
            asyncore_loop_timeout=1,
            channel_timeout=120,
            channel_request_lookahead=LOOKAHEAD,
            connection_limit=500,
            max_request_body_size=MOST_BODY_BYTES,
            ident=None,
        )
        server.channel_class = _Channel
        server.hand_over = self._hand_over
        self._serving = ServerThread(server, "control-socket", request_s=_REQUEST_S)
        self._serving.start()
        self.context.on_void(self._serving.halt)
        self.context.on_beat(_CHECK_S, _CheckServer())

    def receive(self, message: Any) -> Any:
        if isinstance(message, _CheckServer):
            if self._serving is None or not self._serving.lives():
                raise RuntimeError("the serving thread ended")
            self.context.on_beat(_CHECK_S, message)

    def stopping(self) -> None:
        if self._serving is not None:
            self._serving.stop(_STOP_S)
        # Only after an orderly stop: after a failure a successor may have bound the path already.
        self._path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Takes away what an earlier run, or an earlier incarnation, left behind.

    Raises ``Refused`` when another process answers there: with ``control.socket`` two daemons may have been given one path.
    """
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise Refused(f"{path} is in the way of the control socket and is no socket", remedy=f"Move {path} away.")
    pid = _listener(path)
    if pid is not None and pid != os.getpid():
        raise Refused(
            f"another process (pid {pid}) serves on {path}", remedy="Give this daemon a control.socket of its own."
        )
    path.unlink(missing_ok=True)


def _listener(path: Path) -> int | None:
    """The process that listens there; None: nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            pid, _, _ = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        except OSError:
            return None
    return int(pid)
