"""Tickets and join links: how somebody who has nothing yet becomes a device of the fleet (accounts-profiles.md 5.1, 5.2)."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import secrets
import struct
import zlib
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from coxswain.accounts.primitives import RandomBytes
from coxswain.errors import InvalidInput

__all__ = [
    "LONGEST_TTL_S",
    "SHORTEST_TTL_S",
    "JoinLink",
    "check_relay",
    "hash_token",
    "host_of_relay",
    "new_token",
    "parse_link",
    "qr_png",
]

SHORTEST_TTL_S, LONGEST_TTL_S = 60, 7 * 86_400
"""A link's pin does not bind, so that a stolen one is as good as its owner (accounts-profiles.md 10.2, 13)."""

_TOKEN_BYTES = 32
_QR_PIXELS = 512
_QR_BORDER = 4
"""Modules of white around a code (ISO/IEC 18004, 9.1)."""

_MAX_LINK = 2_000
_ENDPOINT = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):([0-9]{1,5})")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def new_token(rng: RandomBytes = secrets.token_bytes) -> str:
    """43 characters of unpadded base64url."""
    return base64.urlsafe_b64encode(rng(_TOKEN_BYTES)).rstrip(b"=").decode("ascii")


def hash_token(token: str) -> str:
    """What is stored in its place: lower hex SHA-256 of its text."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def check_relay(text: str, where: str = "relay") -> str:
    """Returns it if it is ``host:port`` (IPv6 in brackets). Raises ``InvalidInput``."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 65_535:
        raise InvalidInput(f"{where}: {text[:80]!r} is not host:port")
    return text


def host_of_relay(endpoint: str) -> str:
    """The name under which clients check its certificate."""
    return endpoint.rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True)
class JoinLink:
    """``ca``: lower hex SHA-256 of the root's DER. ``relay``: ``host:port``. ``token`` is the secret."""

    ca: str
    relay: str
    token: str = field(repr=False)

    def url(self) -> str:
        return "pharosvpn://enroll?" + urlencode({"ca": self.ca, "relay": self.relay, "token": self.token})


def parse_link(url: str) -> JoinLink:
    """As clients read it: any order, blanks around values, the fingerprint in any of its spellings.

    Raises ``InvalidInput``.
    """
    if len(url) > _MAX_LINK:
        raise InvalidInput(f"link: {len(url)} characters are too many; at most {_MAX_LINK}")
    try:
        parts = urlsplit(url.strip())
        query = parse_qs(parts.query, max_num_fields=16)
    except ValueError:
        raise InvalidInput("link: this is no link") from None
    if parts.scheme != "pharosvpn" or parts.netloc != "enroll":
        raise InvalidInput("link: it does not begin with pharosvpn://enroll")
    values = {name: query.get(name, [""])[0].strip() for name in ("ca", "relay", "token")}
    for name, value in values.items():
        if not value:
            raise InvalidInput(f"link: {name} is missing")
    ca = values["ca"].lower().removeprefix("sha256:").replace(":", "")
    if not _FINGERPRINT.fullmatch(ca):
        raise InvalidInput("link: ca is not the SHA-256 of a certificate")
    return JoinLink(ca, check_relay(values["relay"], "link: relay"), values["token"])


def qr_png(text: str) -> bytes:
    """A PNG of 512 by 512 pixels, error correction level M. Each module is the same whole number of pixels wide; what is
    left over is white.
    """
    import segno  # noqa: PLC0415 - only this draws

    code = segno.make_qr(text, error="m", boost_error=False)
    matrix = [list(row) for row in code.matrix]
    return _png(matrix, max(1, _QR_PIXELS // (len(matrix) + 2 * _QR_BORDER)))


def _png(matrix: list[list[int]], scale: int) -> bytes:
    """Black on white, one bit a pixel, the code in the middle of a square of ``_QR_PIXELS``."""
    side = max(_QR_PIXELS, len(matrix) * scale)
    margin = (side - len(matrix) * scale) // 2
    blank = bytes([0xFF]) * ((side + 7) // 8)
    lines = [blank] * margin
    for row in matrix:
        bits = [1] * side
        for index, dark in enumerate(row):
            if dark:
                start = margin + index * scale
                bits[start : start + scale] = [0] * scale
        bits += [1] * (-side % 8)
        packed = int("".join(map(str, bits)), 2).to_bytes(len(bits) // 8)
        lines += [packed] * scale
    lines += [blank] * (side - len(lines))
    raw = b"".join(b"\x00" + line for line in lines)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n")
    out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress(raw, 9)))
    out.write(chunk(b"IEND", b""))
    return out.getvalue()
