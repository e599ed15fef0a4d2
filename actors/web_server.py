"""``web_server``: the API on loopback TCP, for the dashboard and scripts. Whoever comes here has to show who they are."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import waitress.server

from actors.http_server import LOOKAHEAD, Channel, HandOver, ServerThread
from actors.http_workers import Workers
from actors.supervision import Actor, Context
from coxswain.api.route import MAX_BODY_BYTES

__all__ = ["WebServer", "pause"]

_CHECK_S = 0.5
_BIND_AGAIN_S = (0.02, 2.0)
_COMPLAIN_AFTER = 6
"""Attempts, a second or so: an incarnation before this one may need a moment to let go of the address."""

_THREADS = 12
"""Workers; more than the API lets wait for nodes at once, so that there is always one for a query."""

_STOP_S = 3.0
_REQUEST_S = 20.0
_MOST_HEAD_BYTES = 32 * 1024
_CONNECTIONS = 4_000
"""Browsers keep a handful each. Those whose requests do not end are cut off, so they cannot hold all of them for long."""


class _CheckServer:
    """To itself: does the serving thread live?"""


class _BindAgain:
    """To itself: the address was taken; is it still?"""


class WebServer(Actor):
    """Serves ``app`` from threads of its own; the actor only watches them.

    An address that is taken does not bring the daemon down, which does its work without a dashboard: it tries again.

    Args:
        context: of the actor.
        listen: ``host:port``; an empty host is every address.
        app: the WSGI application.
        behind_tls_proxy: forwarded headers reach the application.
        hand_over: takes over the connections of live streams; None: there are none here.
    """

    def __init__(
        self,
        context: Context,
        *,
        listen: str,
        app: Callable[..., Any],
        behind_tls_proxy: bool = False,
        hand_over: HandOver | None = None,
    ) -> None:
        super().__init__(context)
        self._listen = listen
        self._app = app
        self._behind_tls_proxy = behind_tls_proxy
        self._hand_over = hand_over
        self._serving: ServerThread | None = None
        self._failures = 0

    def started(self) -> None:
        self._bind()

    def receive(self, message: Any) -> Any:
        match message:
            case _BindAgain():
                self._bind()
            case _CheckServer():
                if self._serving is None or not self._serving.lives():
                    raise RuntimeError("the serving thread ended")
                self.context.on_beat(_CHECK_S, message)
        return None

    def stopping(self) -> None:
        if self._serving is not None:
            self._serving.stop(_STOP_S)

    def _bind(self) -> None:
        try:
            listener = _listener(self._listen)
        except OSError as error:
            self._failures += 1
            if self._failures == _COMPLAIN_AFTER:
                self.context.log.error(  # noqa: TRY400 - why is in the error
                    "ui.listen: %s cannot be listened on (%s); trying again every %g s",
                    self._listen, error, _BIND_AGAIN_S[1],
                )  # fmt: skip
            self.context.after(pause(self._failures), _BindAgain())
            return
        self._failures = 0
        server = waitress.server.create_server(
            self._app,
            sockets=[listener],
            _dispatcher=Workers(_THREADS),
            asyncore_use_poll=True,  # select() ends at descriptor 1023
            asyncore_loop_timeout=1,
            channel_timeout=120,
            channel_request_lookahead=LOOKAHEAD,
            connection_limit=_CONNECTIONS,
            max_request_header_size=_MOST_HEAD_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            clear_untrusted_proxy_headers=not self._behind_tls_proxy,
            ident=None,
        )
        server.channel_class = Channel
        server.hand_over = self._hand_over
        self._serving = ServerThread(server, "web-server", request_s=_REQUEST_S)
        self._serving.start()
        self.context.on_void(self._serving.halt)
        self.context.log.info("the API is on http://%s", self._listen)
        self.context.on_beat(_CHECK_S, _CheckServer())


def pause(failures: int) -> float:
    """Seconds before the next attempt to bind, after so many that failed."""
    first, longest = _BIND_AGAIN_S
    return float(min(first * 2 ** min(failures - 1, 20), longest))


def _listener(listen: str) -> socket.socket:
    """A listening socket. Raises ``OSError``."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if host == "" and socket.has_dualstack_ipv6():
        return socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=1024)
