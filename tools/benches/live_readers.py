"""WebSocket clients that read as fast as they can, and say how late the news is. Run by ``benches/live.py``.

Arguments: address, how many, and may be ``--lazy``: one of them never reads. On stdin: the token, then ``start`` and
``stop``; the answer to the latter is all latencies in milliseconds.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import os
import sys
import time
from typing import Any

_AT = b'"at":"'
_KEPT = 200_000


class Reader(asyncio.Protocol):
    """Looks at the first event of each piece that it reads: the oldest one in it."""

    measured: list[float] | None = None

    def __init__(self, host: str, token: str) -> None:
        self._host = host
        self._token = token
        self.is_in = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /ws/events?class=session HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        )
        self.transport: Any = transport
        self.transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        if not self.is_in.done():
            self.is_in.set_result(data.startswith(b"HTTP/1.1 101 "))
        elif Reader.measured is not None and len(Reader.measured) < _KEPT:
            place = data.find(_AT)
            if place >= 0 and len(data) >= place + 33:
                stamp = data[place + 6 : place + 32].decode()
                at = dt.datetime.fromisoformat(stamp).replace(tzinfo=dt.UTC).timestamp()
                Reader.measured.append((time.time() - at) * 1e3)


async def main() -> None:
    loop = asyncio.get_running_loop()
    address, count, lazy = sys.argv[1], int(sys.argv[2]), "--lazy" in sys.argv
    host, _, port = address.rpartition(":")
    token = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
    readers = []
    for _ in range(count):
        _, reader = await loop.create_connection(lambda: Reader(address, token), host, int(port))
        if not await reader.is_in:
            sys.exit("not let in")
        readers.append(reader)
    if lazy:
        readers[0].transport.pause_reading()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() == "start":
            Reader.measured = []
        else:
            print(" ".join(f"{value:.1f}" for value in Reader.measured or ()), flush=True)
            Reader.measured = None


asyncio.run(main())
