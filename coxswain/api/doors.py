"""Doors: the ways into the API. Each says who a request comes from, and what must hold before it is looked at."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from typing import Any, Protocol

import falcon

from coxswain.api.gate import Gate, Head, check_json
from coxswain.api.route import Scope
from coxswain.api.who import Who
from coxswain.messages.access import WhoHolds
from coxswain.messages.audit import Caller

__all__ = ["PEER_UID", "ControlDoor", "Door", "WebDoor"]

PEER_UID = "uid="
"""What REMOTE_ADDR begins with on the control socket, before the uid at its other end."""


class Door(Protocol):
    """One way in. Called on the server's worker threads."""

    def admit(self, request: falcon.Request, *, unsafe: bool) -> None:
        """Before anything else. Raises ``CoxswainError`` for a request that must not come in. ``unsafe``: it may change
        something.
        """
        ...

    def identify(self, request: falcon.Request) -> Who:
        """Raises ``Unauthenticated`` without a good credential, ``Refused`` where a good one may not be used."""
        ...

    def credential(self, request: falcon.Request) -> WhoHolds | None:
        """What a long-lived answer has to look at again now and then; None: nothing that ends."""
        ...

    def address(self, request: falcon.Request) -> str:
        """Where the request comes from, for the audit log and the throttle."""
        ...

    def secure(self, request: falcon.Request) -> bool:
        """Whether what a browser sees is https."""
        ...


class ControlDoor:
    """The control socket: file permissions let callers in, the kernel names them, and they may do everything."""

    def admit(self, request: falcon.Request, *, unsafe: bool) -> None:
        """Whoever could open the socket is in."""

    def identify(self, request: falcon.Request) -> Who:
        return Who(Caller(_peer_name(request), "cli"), Scope.ADMIN, "cli")

    def credential(self, request: falcon.Request) -> WhoHolds | None:  # noqa: ARG002
        return None

    def address(self, request: falcon.Request) -> str:  # noqa: ARG002
        return ""

    def secure(self, request: falcon.Request) -> bool:  # noqa: ARG002
        return False


class WebDoor:
    """TCP: nobody is trusted before ``Gate`` has let them in."""

    def __init__(self, gate: Gate, ask: Callable[..., Any]) -> None:
        self._gate = gate
        self._ask = ask

    def admit(self, request: falcon.Request, *, unsafe: bool) -> None:
        head = _head(request)
        self._gate.admit(head, unsafe=unsafe)
        if unsafe and (request.content_length or "HTTP_TRANSFER_ENCODING" in request.env):
            check_json(head)

    def identify(self, request: falcon.Request) -> Who:
        return self._gate.identify(self._ask, _head(request))

    def credential(self, request: falcon.Request) -> WhoHolds | None:
        return self._gate.holds(_head(request), touch=False)

    def address(self, request: falcon.Request) -> str:
        return str(request.env.get("REMOTE_ADDR", ""))

    def secure(self, request: falcon.Request) -> bool:
        return self._gate.secure(_head(request))


_HEADERS = ("host", "origin", "sec-fetch-site", "cookie", "authorization", "content-type", "x-forwarded-proto")


_KEYS = tuple(
    (name, "CONTENT_TYPE" if name == "content-type" else "HTTP_" + name.upper().replace("-", "_")) for name in _HEADERS
)


def _head(request: falcon.Request) -> Head:
    env = request.env
    found = {name: str(env[key]) for name, key in _KEYS if key in env}
    return Head(request.method, found, str(env.get("REMOTE_ADDR", "")), tls=env.get("wsgi.url_scheme") == "https")


def _peer_name(request: falcon.Request) -> str:
    marker, _, uid = request.env.get("REMOTE_ADDR", "").partition(PEER_UID)
    if marker or not uid.isdigit():
        return "cli"
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return f"uid {uid}"
