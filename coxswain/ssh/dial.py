"""How a TCP connection to a host comes about: directly, or through relays. One place, so that nothing slips past it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from coxswain.errors import NodeUnreachable, Refused

__all__ = ["Dialer", "DirectDialer"]


class Dialer(Protocol):
    """Opens connections along the active control path."""

    def dial(self, host: str, port: int, *, timeout: float, route: Sequence[str] = ()) -> socket.socket:
        """A connected socket.

        Args:
            host: name or address.
            port: TCP.
            timeout: seconds.
            route: ids of relays, for this connection only; empty: the active control path.

        Raises:
            NodeUnreachable: nobody answers.
            Refused: there is a path to take, and it cannot be taken. Never a direct connection instead.
        """
        ...


class DirectDialer:
    """For a controller without control paths. A route is refused, never ignored."""

    def dial(self, host: str, port: int, *, timeout: float, route: Sequence[str] = ()) -> socket.socket:
        if route:
            raise Refused(
                f"route: {', '.join(route)[:80]}: there is no way through relays, and no direct one instead",
                remedy="Leave the route out to dial directly.",
            )
        try:
            return socket.create_connection((host, port), timeout=timeout)
        except TimeoutError:
            raise NodeUnreachable(f"{host} port {port}: no answer within {timeout:g} s") from None
        except OSError as error:
            raise NodeUnreachable(f"{host} port {port}: {error.strerror or error}") from None
