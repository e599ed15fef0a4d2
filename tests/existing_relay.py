"""A relay as existing ones are, where ours is better: its egress serves one session at a time (relay-contract.md 5.4).

Run as a program: ``python -m tests.existing_relay egress|onion --listen HOST:PORT --config-dir DIR --log FILE``. It dials
out from the address that it listens at, so that whoever is dialled can tell relays apart, and writes one line of JSON per
event.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coxswain.errors import InvalidInput
from coxswain.relay.byte_stream import ByteStream, SocketStream, splice
from coxswain.relay.onion_layers import Keystream, VeiledStream, open_layer
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Session, SessionClosed


class Relay:
    def __init__(self, listen: str, directory: Path, log: Path) -> None:
        self.host, _, port = listen.rpartition(":")
        self.port = int(port)
        self.directory = directory
        self._log = log.open("a")
        self._slot = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, **event: Any) -> None:
        self._log.write(json.dumps(event) + "\n")
        self._log.flush()

    async def dial(self, target: str) -> SocketStream:
        host, _, port = target.rpartition(":")
        self.say(event="dial", target=target)
        async with asyncio.timeout(60):
            streams = await asyncio.open_connection(host.strip("[]"), int(port), local_addr=(self.host, 0))
        return SocketStream(*streams)

    def start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- egress

    async def egress(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.directory / "relay.crt", self.directory / "relay.key")
        context.load_verify_locations(self.directory / "fleet-ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        async with self._slot:
            stream = SocketStream(reader, writer)
            try:
                tls = await tls_over(stream, context, server_name=None, within_s=30)
            except OSError:
                return
            self.say(event="session", source=writer.get_extra_info("peername")[0])
            async with Session(tls, client=False) as session:
                try:
                    while True:
                        self.start(self._substream(await session.accept()))
                except SessionClosed as error:
                    self.say(event="session ended", why=str(error))

    async def _substream(self, stream: ByteStream) -> None:
        line = b""
        try:
            while not line.endswith(b"\n"):
                one = await stream.read(1)
                line += one
                if not one or len(line) > 256:
                    stream.close()
                    return
            onward = await self.dial(line[:-1].decode())
        except (OSError, ValueError):
            stream.close()
            return
        await splice(stream, onward)

    # -- onion

    async def onion(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = SocketStream(reader, writer)
        private = X25519PrivateKey.from_private_bytes(base64.b64decode((self.directory / "onion.key").read_text()))
        try:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            setup = await reader.readexactly(length)
            layer = open_layer(private, setup)
            self.say(event="circuit", source=writer.get_extra_info("peername")[0], exit=layer.exit)
            onward = await self.dial(layer.address)
            if not layer.exit:
                await onward.write(struct.pack(">H", len(layer.inner)) + layer.inner)
        except (OSError, ValueError, InvalidInput, EOFError):
            stream.close()
            return
        veiled = VeiledStream(
            stream, reading=Keystream(layer.key, forward=True), writing=Keystream(layer.key, forward=False)
        )
        await splice(veiled, onward)


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("egress", "onion"))
    for name in ("--listen", "--config-dir", "--log"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    relay = Relay(given.listen, Path(given.config_dir), Path(given.log))
    server = await asyncio.start_server(relay.egress if given.role == "egress" else relay.onion, relay.host, relay.port)
    relay.say(event="ready", pid=os.getpid())
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
