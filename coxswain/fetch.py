"""Fetches a file over HTTP(S) into a file, within bounds. Blocks: for the thread of an operation.

Whatever comes is foreign: its size is capped while it is read, on the wire and unpacked, and nothing of it is in an error. A
file that did not come whole is not left behind.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from coxswain import __version__
from coxswain.errors import InvalidInput, SourceFailure

__all__ = ["USUAL", "Bounds", "Fetched", "NotThereError", "check_url", "fetch", "shown"]

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({403, 404, 410})
_CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"
_WITH_GZIP_HEADER = 31
"""wbits of zlib (https://docs.python.org/3/library/zlib.html#zlib.decompress)."""

_LONGEST_URL = 2_000


class NotThereError(SourceFailure):
    """The server has no such file (any more, or yet)."""


class Held(Protocol):
    """Whatever cuts off what blocks; ``Work.hold`` and ``Work.check``."""

    def __call__(self, thing: Wire) -> object: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """``wire`` and ``unpacked``: bytes. ``silence_s``: how long the other end may say nothing."""

    wire: int = 512 * 1024 * 1024
    unpacked: int = 2 * 1024 * 1024 * 1024
    silence_s: float = 30.0


USUAL = Bounds()


@dataclass(frozen=True, slots=True)
class Fetched:
    """``sha256``: lower hex, of what came over the wire. ``size``: bytes of the file that was written."""

    url: str
    sha256: str
    size: int


class Wire:
    """One connection. ``close`` may be called on any thread, and ends what blocks in it."""

    def __init__(self, url: SplitResult, silence_s: float) -> None:
        host, port = url.hostname or "", url.port
        if url.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=silence_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=silence_s)
        self._sock: socket.socket | None = None

    def get(self, url: SplitResult) -> http.client.HTTPResponse:
        """Raises ``OSError``, ``http.client.HTTPException``."""
        place = urlunsplit(("", "", url.path or "/", url.query, ""))
        self._connection.connect()
        self._sock = self._connection.sock  # it is taken from the connection when the answer is the last one
        headers = {"User-Agent": f"coxswain/{__version__}", "Accept-Encoding": "identity", "Connection": "close"}
        self._connection.request("GET", place, headers=headers)
        return self._connection.getresponse()

    def close(self) -> None:
        """Not of the descriptor: a thread that reads would go on, on one that is another's by then."""
        if self._sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # SSLSocket's own would also forget that it is one

    def let_go(self) -> None:
        """Of the descriptor; only on the thread that uses it."""
        self._connection.close()


def check_url(url: str, sha256: str) -> None:
    """Raises ``InvalidInput``, naming the field and the way out."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, brackets that do not close
        good = False
    if not good or len(url) > _LONGEST_URL or not all("!" <= c <= "~" for c in url) or parts.username is not None:
        raise InvalidInput(f"url: {shown(url)!r} is no http(s) URL, or names a user")
    if parts.scheme == "http" and not sha256:
        raise InvalidInput(
            f"url: {shown(url)!r} is not encrypted, so anybody on the way could change what comes",
            remedy="Give an https URL, or --sha256 with the digest of what is behind it.",
        )


def shown(url: str) -> str:
    """Without its query, which may hold a licence key, and no longer than a line."""
    return url.partition("?")[0].partition("#")[0].rpartition("@")[2][:200]


def fetch(
    url: str,
    into: Path,
    *,
    sha256: str = "",
    bounds: Bounds = USUAL,
    hold: Held = lambda _thing: None,
    check: Callable[[], object] = lambda: None,
) -> Fetched:
    """What is behind ``url`` into a new file, synced to disk; what is packed with gzip is unpacked.

    Args:
        url: as ``check_url`` takes it.
        into: is made, with mode 0600; what was there is gone. Not there afterwards if this raises.
        sha256: of what comes over the wire, lower hex; empty: whatever comes.
        bounds: see ``Bounds``.
        hold: gets what has to be closed to end this from another thread.
        check: called again and again; what it raises ends this.

    Raises:
        NotThereError: the server has no such file.
        SourceFailure: it cannot be reached, answers with an error, too much or something broken, or not with this digest.
        OSError: ``into`` cannot be written.
    """
    wire, response, parts = _opened(url, bounds, hold)
    digest = hashlib.sha256()
    size = 0
    try:
        into.unlink(missing_ok=True)
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            for data in _unpacked(_pieces(response, parts, bounds, digest.update, check), parts, bounds):
                file.write(data)
                size += len(data)
            file.flush()
            os.fsync(file.fileno())
        found = digest.hexdigest()
        _compare(url, found, sha256)
    except BaseException:
        into.unlink(missing_ok=True)
        raise
    finally:
        response.close()
        wire.let_go()
    return Fetched(url, found, size)


def _compare(url: str, found: str, wanted: str) -> None:
    if wanted and found != wanted:
        raise SourceFailure(
            f"what {shown(url)} sends has the SHA-256 {found}, not {wanted}; nothing of it was kept",
            remedy="Compare with what its publisher says; somebody may have changed it on the way.",
        )


def _opened(url: str, bounds: Bounds, hold: Held) -> tuple[Wire, http.client.HTTPResponse, SplitResult]:
    """Follows redirects, from https only to https."""
    parts = urlsplit(url)
    for _ in range(_MOST_REDIRECTS + 1):
        wire = Wire(parts, bounds.silence_s)
        hold(wire)
        try:
            response = wire.get(parts)
        except (OSError, http.client.HTTPException) as error:
            wire.let_go()
            raise _unreachable(parts, error) from None
        if response.status == http.HTTPStatus.OK:
            return wire, response, parts
        place = response.getheader("Location") or ""
        response.close()
        wire.let_go()
        if response.status not in _REDIRECTS or not place:
            raise _refusal(parts, response.status)
        parts = _redirected(parts, place)
    raise SourceFailure(f"{_name(parts)}: more than {_MOST_REDIRECTS} redirects")


def _redirected(parts: SplitResult, place: str) -> SplitResult:
    target = urljoin(parts.geturl(), place)
    try:
        check_url(target, "given")
        found = urlsplit(target)
    except InvalidInput:
        raise SourceFailure(f"{_name(parts)} leads to a place that is no http(s) URL") from None
    if parts.scheme == "https" and found.scheme != "https":
        raise SourceFailure(f"{_name(parts)} leads to {_name(found)}, which is not encrypted")
    return found


def _refusal(parts: SplitResult, status: int) -> SourceFailure:
    kind = NotThereError if status in _GONE else SourceFailure
    return kind(f"{_name(parts)} answers with the status {status}")


def _unreachable(parts: SplitResult, error: Exception) -> SourceFailure:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return SourceFailure(f"{_name(parts)} cannot be reached, or breaks off: {reason[:200]}")


def _pieces(
    response: http.client.HTTPResponse,
    parts: SplitResult,
    bounds: Bounds,
    seen: Callable[[bytes], object],
    check: Callable[[], object],
) -> Iterator[bytes]:
    """The body as it comes; all of it, or an error."""
    promised = response.length
    size = 0
    if promised is not None and promised > bounds.wire:
        raise _too_much(parts, bounds.wire)
    while True:
        check()
        try:
            data = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(parts, error) from None
        if not data:
            break
        size += len(data)
        if size > bounds.wire:
            raise _too_much(parts, bounds.wire)
        seen(data)
        yield data
    if promised is not None and size != promised:
        raise SourceFailure(f"{_name(parts)} breaks off: {size} of {promised} bytes came")


def _unpacked(pieces: Iterator[bytes], parts: SplitResult, bounds: Bounds) -> Iterator[bytes]:
    """Packed data unpacked a piece at a time, so that a bomb costs no memory; other data as they are."""
    head = b""
    for data in pieces:
        head += data
        if len(head) >= len(_GZIP):
            break
    if not head.startswith(_GZIP):
        yield head
        yield from pieces
        return
    left = bounds.unpacked
    engine = zlib.decompressobj(wbits=_WITH_GZIP_HEADER)
    damaged = f"what {_name(parts)} sends is damaged"
    for packed in chain((head,), pieces):
        data = packed
        while data:
            if engine.eof:
                raise SourceFailure(f"{damaged}: there is more after its end")
            try:
                found = engine.decompress(data, _CHUNK)
            except zlib.error:
                raise SourceFailure(f"{damaged}: it cannot be unpacked") from None
            left -= len(found)
            if left < 0:
                raise _too_much(parts, bounds.unpacked)
            yield found
            data = engine.unused_data if engine.eof else engine.unconsumed_tail
    yield engine.flush()
    if not engine.eof:
        raise SourceFailure(f"{damaged}: it ends too early")


def _too_much(parts: SplitResult, most: int) -> SourceFailure:
    return SourceFailure(f"{_name(parts)} sends more than {most // 1_000_000} MB")


def _name(parts: SplitResult) -> str:
    return shown(parts.geturl())
