"""What a request for the live stream comes to, when it may have one: an agreement between the API and the server around it.

A stream would hold one of the server's worker threads for as long as it lives. So a handler that grants one does not answer;
it puts a ``LiveStart`` into the request's environment, and the server takes the connection out of its own hands and gives it
to the I/O loop (``actors/http_server.py``). Everything before that, who may come in and what is refused, is as for any other
route.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coxswain.errors import InvalidInput
from coxswain.messages.access import WhoHolds

__all__ = ["CAN_HAND_OVER", "HAND_OVER", "LiveStart", "View", "check_upgrade"]

HAND_OVER = "coxswain.live_start"
"""Key of the environment under which a handler leaves its ``LiveStart``."""

CAN_HAND_OVER = "coxswain.can_hand_over"
"""Key of the environment that is there where the server knows what to do with one."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""


@dataclass(frozen=True, slots=True)
class View:
    """What of the stream somebody sees, and in which form. Those with equal views get the same bytes.

    Attributes:
        websocket: as WebSocket text frames; else as server-sent events.
        admin: also what is for admins alone.
        classes: only events of these classes; None: all.
    """

    websocket: bool
    admin: bool
    classes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class LiveStart:
    """One granted stream.

    Attributes:
        view: what is sent.
        after: the number of the last event that the client has seen; None: from now on.
        resumes: the client takes part in resuming: it is told numbers also where nothing happens.
        accept: value of ``Sec-WebSocket-Accept``; empty: server-sent events.
        credential: to be looked at again while the stream lives; None: it is not one that ends.
        expires_at: epoch seconds; None: never.
        who: for the log.
    """

    view: View
    after: int | None = None
    resumes: bool = False
    accept: str = ""
    credential: WhoHolds | None = None
    expires_at: float | None = None
    who: str = ""


def check_upgrade(environ: Mapping[str, Any]) -> str:
    """Checks the head of a WebSocket handshake (RFC 6455, section 4.2.1); returns ``Sec-WebSocket-Accept``.

    Raises ``InvalidInput``.
    """

    def words(name: str) -> set[str]:
        return {word.strip().lower() for word in str(environ.get(name, "")).split(",")}

    if "websocket" not in words("HTTP_UPGRADE") or "upgrade" not in words("HTTP_CONNECTION"):
        raise InvalidInput(
            "Upgrade: this is a WebSocket, and the request is not for one",
            remedy="Use a WebSocket client, or server-sent events: GET /api/events",
        )
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise InvalidInput("a WebSocket needs HTTP/1.1")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != "13":
        raise InvalidInput("Sec-WebSocket-Version: only 13 is spoken here")
    key = str(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")).strip()
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise InvalidInput("Sec-WebSocket-Key: has to be 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()).decode()
