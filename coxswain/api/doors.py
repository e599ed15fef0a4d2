"""Doors: the ways into the API. Each says who a request comes from, and what must hold before it is looked at."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from typing import Protocol

import falcon

from coxswain.api.route import Scope
from coxswain.messages.audit import Caller

__all__ = ["PEER_UID", "ControlDoor", "Door", "Who"]

PEER_UID = "uid="
"""What REMOTE_ADDR begins with on the control socket, before the uid at its other end."""


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody whose credential was good.

    Attributes:
        caller: how they appear in the audit log.
        scope: what they may do.
        kind: ``cli``, ``token`` or ``session``.
        id: of the token or login session; empty at the control socket.
        user_id: of the admin whose session it is; empty for others.
    """

    caller: Caller
    scope: Scope
    kind: str
    id: str = ""
    user_id: str = ""


class Door(Protocol):
    """One way in. Called on the server's worker threads."""

    def admit(self, request: falcon.Request) -> None:
        """Before anything else, for every request. Raises ``CoxswainError`` for one that must not come in."""
        ...

    def identify(self, request: falcon.Request) -> Who:
        """Raises ``Unauthenticated`` without a good credential, ``Refused`` where a good one may not be used."""
        ...

    def address(self, request: falcon.Request) -> str:
        """Where the request comes from, for the audit log and the throttle."""
        ...


class ControlDoor:
    """The control socket: file permissions let callers in, the kernel names them, and they may do everything."""

    def admit(self, request: falcon.Request) -> None:
        """Whoever could open the socket is in."""

    def identify(self, request: falcon.Request) -> Who:
        return Who(Caller(_peer_name(request), "cli"), Scope.ADMIN, "cli")

    def address(self, request: falcon.Request) -> str:  # noqa: ARG002
        return ""


def _peer_name(request: falcon.Request) -> str:
    marker, _, uid = request.env.get("REMOTE_ADDR", "").partition(PEER_UID)
    if marker or not uid.isdigit():
        return "cli"
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return f"uid {uid}"
