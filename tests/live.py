"""Clients of the live stream for tests: raw sockets, so that each byte is the test's own."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from typing import Any, Self

__all__ = ["RawStream", "ServerSent", "WebSocket", "request"]


def _connect(address: str) -> socket.socket:
    if "/" in address:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(address)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def _head(path: str, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


def request(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One plain GET; underscores in header names are dashes. Returns status, headers, body."""
    sent = {"Host": address if ":" in address else "x", "Connection": "close"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    with _connect(address) as sock:
        sock.sendall(_head(path, sent))
        raw = b"".join(iter(lambda: sock.recv(65536), b""))
    return _parsed(raw)


def _parsed(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, body


class RawStream:
    """A connection whose answer has begun; ``status`` and ``headers`` are of its head."""

    def __init__(self, address: str, path: str, headers: dict[str, str]) -> None:
        self.sock = _connect(address)
        self._buffer = b""
        self.sock.sendall(_head(path, {"Host": address if ":" in address else "x"} | headers))
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.status, self.headers, _ = _parsed(head + b"\r\n\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def take_line(self) -> str:
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def event(self) -> dict[str, Any]:
        """The next event."""
        raise NotImplementedError

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The next event that has these values."""
        while True:
            event = self.event()
            if all(event.get(name) == value for name, value in wanted.items()):
                return event

    def is_gone(self, within_s: float = 20.0) -> bool:
        """Whether the other end closes within that time."""
        self.sock.settimeout(within_s)
        end = time.monotonic() + within_s
        try:
            while time.monotonic() < end:
                if not self.sock.recv(65536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False


class WebSocket(RawStream):
    """A WebSocket client that answers nothing by itself."""

    def __init__(self, address: str, query: str = "", **headers: str) -> None:
        self.key = base64.b64encode(os.urandom(16)).decode()
        sent = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.key,
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(address, f"/ws/events{query}", {k: v for k, v in sent.items() if v})

    def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        first, size = self._take(2)
        assert not size & 0x80, "a server does not mask"
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        assert first & 0x80
        return first & 0x0F, self._take(size)

    def event(self) -> dict[str, Any]:
        """The next text frame."""
        while True:
            opcode, payload = self.frame()
            if opcode == 1:
                found: dict[str, Any] = json.loads(payload)
                return found

    def closing(self) -> tuple[int, str]:
        """Reads on until the close frame: code and reason."""
        while True:
            opcode, payload = self.frame()
            if opcode == 8:
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def send(self, opcode: int, payload: bytes = b"", *, size: int | None = None) -> None:
        """A masked frame; ``size`` may lie."""
        size = len(payload) if size is None else size
        mask = os.urandom(4)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 65_536:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))


class ServerSent(RawStream):
    """A reader of server-sent events. ``last_id``: as a browser would send it when it comes back."""

    def __init__(self, address: str, query: str = "", **headers: str) -> None:
        self.last_id = ""
        super().__init__(address, f"/api/events{query}", {n.replace("_", "-"): v for n, v in headers.items()})

    def event(self) -> dict[str, Any]:
        data = ""
        while True:
            line = self.take_line()
            if line.startswith("id: "):
                self.last_id = line[4:]
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and data:
                found: dict[str, Any] = json.loads(data)
                return found
