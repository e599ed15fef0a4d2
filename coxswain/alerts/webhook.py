"""One POST for each alert to a URL of the operator's, signed. On the I/O loop; nothing here blocks.

The receiver checks ``X-Coxswain-Signature``: ``sha256=`` and the HMAC-SHA-256, with the shared secret, over the time in
``X-Coxswain-Timestamp`` (epoch seconds), a full stop, and the body as it came. Redirects are not followed: what is signed
goes where the operator said, or nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from coxswain import __version__
from coxswain.alerts.model import Severity
from coxswain.clock import rfc3339
from coxswain.errors import SourceFailure

__all__ = ["Hook", "body_of", "deliver", "signature"]

_MOST_HEAD = 8_192


@dataclass(frozen=True, slots=True)
class Hook:
    """Where alerts are sent.

    Attributes:
        url: empty: nowhere. A secret as well: whoever knows that of a chat can write there.
        secret: what is signed with; empty: nothing is.
        severity: milder ones are not sent.
        timeout_s: for one POST.
    """

    url: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    severity: Severity = Severity.WARNING
    timeout_s: float = 10.0


def body_of(kind: str, alert: dict[str, Any], now: float) -> bytes:
    """``kind``: ``alert`` or ``alert_updated``, as on the live stream; ``alert``: as the API shows it."""
    return json.dumps({"type": kind, "sent_at": rfc3339(now), "alert": alert}, separators=(",", ":")).encode()


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """See the module."""
    return "sha256=" + hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


async def deliver(hook: Hook, body: bytes, *, now: float, context: ssl.SSLContext | None = None) -> None:
    """Sends one.

    Args:
        hook: where to.
        body: JSON text.
        now: epoch seconds.
        context: whom to trust; None: the machine's authorities.

    Raises:
        SourceFailure: it did not answer in time, or with anything but a 2xx. Nothing that it said is in the text.
    """
    try:
        async with asyncio.timeout(hook.timeout_s):
            status = await _post(hook, body, now, context)
    except TimeoutError:
        raise SourceFailure(f"the webhook did not answer within {hook.timeout_s:g} s") from None
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise SourceFailure(f"the webhook cannot be reached: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise SourceFailure(f"the webhook answered {status}")


async def _post(hook: Hook, body: bytes, now: float, context: ssl.SSLContext | None) -> int:
    parts = urlsplit(hook.url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    tls = (context or ssl.create_default_context()) if secure else None
    reader, writer = await asyncio.open_connection(host, parts.port or (443 if secure else 80), ssl=tls, limit=_MOST_HEAD)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        stamp = int(now)
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            f"User-Agent: coxswain/{__version__}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Coxswain-Timestamp: {stamp}",
            "Connection: close",
        ]
        if hook.secret:
            head.append(f"X-Coxswain-Signature: {signature(hook.secret, stamp, body)}")
        writer.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        await writer.drain()
        line = (await reader.readuntil(b"\r\n")).split(b" ", 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not (line[1].isdigit() and len(line[1]) == 3):
            raise ValueError("no HTTP")
        return int(line[1])
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
