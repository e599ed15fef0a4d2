"""The agent's gRPC server: mutual TLS, limits and a bounded stop (node-contract.md 2.2, 2.6, 9.2).

grpcio accepts TLS 1.2 besides 1.3 and has no knob for it (node-contract.md 9.1, 2); every other verdict on a client is
the existing agent's.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from coxswain.agent.state import refuse_loose
from coxswain.errors import Refused

__all__ = ["AgentServer", "TlsFiles", "TlsMaterial", "bind_targets", "reloading_credentials", "static_credentials"]

MAX_RECEIVE_BYTES = 4 * 1024 * 1024
"""node-contract.md 2.6."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    # No compression: a compressed request is UNIMPLEMENTED, as with the existing agent (node-contract.md 2.6).
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # A second agent on the port must fail to start, not take half of the connections.
    ("grpc.so_reuseport", 0),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM texts. ``anchors``: whose clients are let in, each certificate an anchor (node-contract.md 2.2)."""

    key: bytes = field(repr=False)
    chain: bytes
    anchors: bytes


class TlsFiles:
    """``node.key``, ``node.crt`` and ``ca.crt`` of a config directory, read again when one of them changes."""

    def __init__(self, directory: Path) -> None:
        self._paths = tuple(directory / name for name in ("node.key", "node.crt", "ca.crt"))
        self._stamp: object = None

    def read(self) -> TlsMaterial:
        """Raises ``Refused`` if a file is missing or is no PEM, or if others may read the key."""
        stamp = self._stamps()
        contents: list[bytes] = []
        for path in self._paths:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise Refused(f"{path.name}: cannot be read: {error.strerror}") from None
            if path.name == "node.key":
                refuse_loose(path.name, path.stat().st_mode)
            if b"-----BEGIN " not in contents[-1]:
                raise Refused(f"{path.name}: is no PEM file")
        self._stamp = stamp
        return TlsMaterial(*contents)

    def changed(self) -> bool:
        """True if a file differs from what ``read`` last saw; False also while one is missing."""
        try:
            return self._stamps() != self._stamp
        except Refused:
            return False

    def _stamps(self) -> object:
        try:
            found = [os.stat(path) for path in self._paths]  # noqa: PTH116 - on the handshake path
        except OSError as error:
            raise Refused(f"{Path(error.filename).name}: cannot be read: {error.strerror}") from None
        return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found]


def static_credentials(material: TlsMaterial) -> grpc.ServerCredentials:
    """Credentials that stay as they are."""
    pair = [(material.key, material.chain)]
    return grpc.ssl_server_credentials(pair, material.anchors, require_client_auth=True)


def reloading_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: a new handshake uses what is there, running connections stay.

    Raises:
        Refused: the files are not usable now. Later on, unusable files leave the last good ones in force.
    """

    def configuration(material: TlsMaterial) -> Any:
        pair = [(material.key, material.chain)]
        return grpc.ssl_server_certificate_configuration(pair, root_certificates=material.anchors)

    def fetch() -> Any:
        # Called by gRPC for every handshake, on a thread of its own.
        if not files.changed():
            return None
        try:
            material = files.read()
        except Refused as error:
            _log.warning("certificates not reloaded: %s", error)
            return None
        _log.info("certificates reloaded")
        return configuration(material)

    first = configuration(files.read())
    return cast(
        "grpc.ServerCredentials",
        grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True),
    )


def bind_targets(listen_addr: str) -> tuple[str, ...]:
    """What to try to bind for a Go-style ``host:port``; an empty host means all addresses, IPv6 and IPv4."""
    host, _, port = listen_addr.rpartition(":")
    return (f"[::]:{port}", f"0.0.0.0:{port}") if not host else (listen_addr,)


class AgentServer:
    """One listening port with one service on it."""

    def __init__(self, handler: grpc.GenericRpcHandler, credentials: grpc.ServerCredentials) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((handler,))
        self._credentials = credentials

    async def start(self, targets: tuple[str, ...]) -> int:
        """Binds the first of ``targets`` that can be bound and serves. Returns the port.

        Raises:
            Refused: none could be bound, or the certificates are no good.
        """
        for target in targets:
            try:
                port = int(self._server.add_secure_port(target, self._credentials))
            except RuntimeError:
                continue
            if port:
                await self._server.start()
                return port
        await self._server.stop(None)
        raise Refused(
            f"cannot listen on {' or '.join(targets)}",
            remedy="Is another agent running there, or is node.crt not the certificate of node.key?",
        )

    async def stop(self, grace: float | None) -> None:
        """Takes no new calls; running ones get ``grace`` seconds (None: none). Returns when all is over."""
        await self._server.stop(grace)

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self._server.wait_for_termination()
