"""How a TCP connection to a host comes about: directly, or through relays. One place, so that nothing slips past it."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

from coxswain.control_path.forward import socket_over
from coxswain.control_path.model import Route, check_hops, resolve
from coxswain.control_path.routes import Routes
from coxswain.control_path.ways import Ways
from coxswain.errors import NodeUnreachable, Refused, Unavailable
from coxswain.servers import Relay

__all__ = ["Dialer", "DirectDialer", "RoutedDialer"]

_GRACE_S = 2.0


class Dialer(Protocol):
    """Opens connections along the active control path."""

    def dial(self, host: str, port: int, *, timeout: float, route: Sequence[str] = ()) -> socket.socket:
        """A connected socket.

        Args:
            host: name or address.
            port: TCP.
            timeout: seconds.
            route: ids or names of relays, for this connection only; empty: the active control path.

        Raises:
            NodeUnreachable: nobody answers.
            InvalidInput: a route of what are no hops.
            Refused: there is a path to take, and it cannot be taken. Never a direct connection instead.
            Unavailable: which path to take is not known just now.
        """
        ...


class DirectDialer:
    """Dials directly. A route is refused, never ignored."""

    def dial(self, host: str, port: int, *, timeout: float, route: Sequence[str] = ()) -> socket.socket:
        if route:
            raise Refused(f"route: {', '.join(route)[:80]}: there is no way through relays here, and no direct one instead")
        try:
            return socket.create_connection((host, port), timeout=timeout)
        except TimeoutError:
            raise NodeUnreachable(f"{host} port {port}: no answer within {timeout:g} s") from None
        except OSError as error:
            raise NodeUnreachable(f"{host} port {port}: {error.strerror or error}") from None


class RoutedDialer:
    """Follows the active control path, or a route that is given. Used by worker threads; relays are spoken to on the loop.

    ``relays``: reads the relays that there are, at each dial. ``submit``: starts a coroutine on the I/O loop.
    """

    def __init__(
        self,
        routes: Routes,
        ways: Ways,
        relays: Callable[[], Sequence[Relay]],
        submit: Callable[[Coroutine[Any, Any, socket.socket]], Future[socket.socket]],
    ) -> None:
        self._routes = routes
        self._ways = ways
        self._relays = relays
        self._submit = submit
        self._direct = DirectDialer()
        self._lock = threading.Lock()
        self._open: weakref.WeakKeyDictionary[socket.socket, int] = weakref.WeakKeyDictionary()

    def dial(self, host: str, port: int, *, timeout: float, route: Sequence[str] = ()) -> socket.socket:
        if route:
            relays = self._relays()
            number, taken = None, resolve(check_hops(route, relays), relays)
        else:
            number, active = self._routes.current()
            taken = active.before(host)
        if not taken.is_direct:
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            return self._over(taken, target, number, timeout)
        made = self._direct.dial(host, port, timeout=timeout)
        with self._lock:
            self._open[made] = number or 0
        if self._routes.number != number:
            made.close()
            raise Unavailable("the control path became another one while this was dialled; try again")
        return made

    def cut_before(self, number: int) -> None:
        """Ends direct connections that were made before the route with this number was in force. Any thread."""
        with self._lock:
            old = [made for made, its in self._open.items() if its < number]
        for made in old:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)

    def _over(self, route: Route, target: str, number: int | None, timeout: float) -> socket.socket:
        future = self._submit(socket_over(self._ways, route, target, number, timeout))
        try:
            return future.result(timeout + _GRACE_S)
        except CancelledError:
            raise Unavailable(f"{target}: the I/O loop ended while this was dialled; try again") from None
        except TimeoutError:
            future.cancel()
            future.add_done_callback(_close_unwanted)
            raise NodeUnreachable(f"{target}: no answer within {timeout:g} s by way of {route}") from None


def _close_unwanted(dialled: Future[socket.socket]) -> None:
    if not dialled.cancelled() and dialled.exception() is None:
        dialled.result().close()
