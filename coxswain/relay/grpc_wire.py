"""gRPC over HTTP/2 as values: which metadata passes a relay, messages looked at in passing, timeouts, statuses
(relay-contract.md 1.4 to 1.6 and 2).
"""

from __future__ import annotations

import ssl
from enum import IntEnum
from urllib.parse import quote

from coxswain.pki import device_fingerprint as fingerprint_of_pem

__all__ = [
    "CLAIM_PATH",
    "MAX_MESSAGE",
    "Code",
    "GrpcFailure",
    "MessageGate",
    "certless_refusal",
    "device_fingerprint",
    "failure_headers",
    "format_timeout",
    "parse_timeout",
    "request_headers",
    "response_headers",
    "trailers",
]

Pairs = list[tuple[bytes, bytes]]

MAX_MESSAGE = 16 * 1024 * 1024
CLAIM_PATH = "/pharos.account.v1.AccountSync/ClaimEnrollment"
"""The only method that may be called without a certificate."""

_AUTHORITY = b"coxswain-grpc"
_CONTENT_TYPE = b"application/grpc+proto"
_RESERVED = frozenset(
    b"content-type user-agent te grpc-timeout grpc-encoding grpc-status grpc-message grpc-message-type"
    b" connection host content-length".split()
)
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Code(IntEnum):
    """The gRPC statuses that a relay gives itself."""

    CANCELLED = 1
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class GrpcFailure(Exception):
    """A call ends with this status."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def device_fingerprint(der: bytes) -> str:
    """What the controller knows a device by: a hash of the PEM text, not of the DER (1.5)."""
    return fingerprint_of_pem(ssl.DER_cert_to_PEM_cert(der).encode("ascii"))


def certless_refusal(path: str) -> GrpcFailure | None:
    """What a caller without certificate is told, if it may not call this (1.4)."""
    if path == CLAIM_PATH:
        return None
    return GrpcFailure(Code.UNAUTHENTICATED, f"relay: {path} requires a device certificate")


def request_headers(device: Pairs, path: bytes, *, fingerprint: str, timeout_s: float | None, agent: str) -> Pairs:
    """What goes to the controller for what came from a device (1.6). ``fingerprint`` empty: it has no certificate."""
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path),
        (b":authority", _AUTHORITY),
        (b"content-type", _CONTENT_TYPE),
        (b"user-agent", agent.encode("ascii")),
        (b"te", b"trailers"),
    ]
    if timeout_s is not None:
        pairs.append((b"grpc-timeout", format_timeout(timeout_s)))
    pairs += [pair for pair in device if _passes(pair[0])]
    if fingerprint:
        pairs.append((b"x-pharos-device-fp", fingerprint.encode("ascii")))
    return pairs


def response_headers(controller: Pairs) -> Pairs:
    """Initial metadata for the device. Raises ``GrpcFailure`` when it is no gRPC answer, or one that is compressed."""
    found = dict(controller)
    if found.get(b":status") != b"200":
        status = found.get(b":status", b"").decode("ascii", "replace")
        raise GrpcFailure(Code.UNAVAILABLE, f"unexpected HTTP status code received from server: {status}")
    encoding = found.get(b"grpc-encoding", b"identity")
    if encoding != b"identity":
        raise _compressed(Code.INTERNAL, encoding)
    start = [(b":status", b"200"), (b"content-type", _CONTENT_TYPE)]
    return start + [pair for pair in controller if _passes(pair[0])]


def trailers(controller: Pairs) -> Pairs:
    """The status, its message and details, and what else the controller sent, for the device."""
    kept = [pair for pair in controller if pair[0] in (b"grpc-status", b"grpc-message") or _passes(pair[0])]
    if not any(name == b"grpc-status" for name, _ in kept):
        raise GrpcFailure(Code.INTERNAL, "server closed the stream without sending trailers")
    return kept


def failure_headers(failure: GrpcFailure, *, started: bool) -> Pairs:
    """Trailers with the relay's own status. ``started``: headers were sent already."""
    text = quote(failure.text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode("ascii")
    end = [(b"grpc-status", str(int(failure.code)).encode("ascii")), (b"grpc-message", text)]
    return end if started else [(b":status", b"200"), (b"content-type", _CONTENT_TYPE), *end]


def parse_timeout(value: bytes) -> float:
    """Seconds. Raises ``GrpcFailure``: it is none."""
    digits, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not 1 <= len(digits) <= 8 or not digits.isdigit():
        raise GrpcFailure(Code.INTERNAL, "malformed grpc-timeout")
    return int(digits) * unit


def format_timeout(seconds: float) -> bytes:
    """In the finest unit that takes eight digits at most, microseconds first."""
    for unit in (b"u", b"m", b"S", b"M", b"H"):
        count = max(1, int(seconds / _UNITS[unit]))
        if count <= 99_999_999:
            return str(count).encode("ascii") + unit
    return b"99999999H"


def _passes(name: bytes) -> bool:
    lower = name.lower()
    return not (lower.startswith((b":", b"x-pharos-")) or lower in _RESERVED)


def _compressed(code: Code, encoding: bytes) -> GrpcFailure:
    text = encoding.decode("ascii", "replace")
    return GrpcFailure(code, f'grpc: Decompressor is not installed for grpc-encoding "{text}"')


class MessageGate:
    """Looks at the messages of one direction as they pass, in whatever pieces: none is compressed, none too large.

    Args:
        encoding: what the sender says it compresses with, for the text of the refusal.
        compressed: the status of that refusal; the two directions differ.
    """

    def __init__(self, encoding: bytes, compressed: Code) -> None:
        self._encoding = encoding
        self._compressed = compressed
        self._prefix = bytearray()
        self._left = 0

    def look(self, data: bytes) -> None:
        """Raises ``GrpcFailure`` when this must not pass."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            step = min(5 - len(self._prefix), len(data) - at)
            self._prefix += data[at : at + step]
            at += step
            if len(self._prefix) == 5:
                self._begin(self._prefix[0], int.from_bytes(self._prefix[1:]))
                self._prefix.clear()

    def _begin(self, flag: int, length: int) -> None:
        if flag == 1:
            raise _compressed(self._compressed, self._encoding)
        if flag:
            raise GrpcFailure(Code.INTERNAL, f"grpc: received unexpected payload format {flag}")
        if length > MAX_MESSAGE:
            raise GrpcFailure(
                Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({length} vs. {MAX_MESSAGE})"
            )
        self._left = length
