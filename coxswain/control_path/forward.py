"""Handing a connection over relays to those who can only dial a socket (relay-contract.md 8).

gRPC takes no dialler, so its channel connects to a unix socket in a directory of 0700 that only this process uses. Each
channel has one of its own, which takes one connection: gRPC never dials again by itself behind a change of route. What goes
through it is TLS between the controller and the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from coxswain.control_path.model import Route
from coxswain.control_path.ways import Ways
from coxswain.errors import CoxswainError, NodeFailure, NodeUnreachable
from coxswain.relay.byte_stream import CHUNK, ByteStream, SocketStream, WrappedStream, splice

__all__ = ["Forwarder", "Forwarders", "socket_over"]


class Forwarders:
    """Makes forwarders; owns their directory. On the I/O loop, but for the constructor."""

    def __init__(self, directory: Path, ways: Ways) -> None:
        self._directory = directory
        self.ways = ways
        self._fd = -1
        self._numbers = itertools.count(1)

    async def start(self, route: Route, target: str, number: int | None, *, claimed: bool = False) -> Forwarder:
        """A socket at which one connection to ``target`` may be had; see ``Ways.open``."""
        if self._fd < 0:
            self._fd = _own_directory(self._directory)
        # By descriptor: the path of a unix socket may have 107 bytes, that of a state directory more.
        path = f"/proc/self/fd/{self._fd}/{next(self._numbers)}"
        forwarder = Forwarder(path, self.ways, route, target, number, claimed=claimed)
        await forwarder.listen()
        return forwarder


class Forwarder:
    """One socket, one connection. ``failure``: why it could not be made; empty: it was, or nobody tried."""

    def __init__(self, path: str, ways: Ways, route: Route, target: str, number: int | None, *, claimed: bool) -> None:
        self.target = f"unix:{path}"
        self.failure = ""
        self._path = path
        self._ways = ways
        self._route = route
        self._address = target
        self._number = number
        self._claimed = claimed
        self._server: asyncio.Server | None = None
        self._work: asyncio.Task[None] | None = None

    def by_way(self, failure: NodeFailure) -> NodeFailure:
        """A failure, with the relays that were between."""
        return type(failure)(f"{failure} (by way of {self._route})", remedy=failure.remedy)

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._on_connection, self._path, backlog=1)

    def close(self) -> None:
        """Ends the connection and takes the socket away."""
        self._stop_listening()
        if self._work is not None:
            self._work.cancel()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stop_listening()
        if self._work is not None:
            writer.close()
            return
        self._work = asyncio.get_running_loop().create_task(self._carry(SocketStream(reader, writer)))

    async def _carry(self, near: ByteStream) -> None:
        try:
            opened = await self._ways.open(self._route, self._address, self._number, claimed=self._claimed)
        except CoxswainError as error:
            self.failure = str(error)
            near.close()
            return
        except BaseException:
            near.close()
            raise
        await splice(near, _Answering(opened, self._on_silence))

    def _on_silence(self) -> None:
        """Before the near end is closed: whoever dialled asks for it then."""
        self.failure = _silent(self._route, self._address)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            with contextlib.suppress(OSError):
                Path(self._path).unlink()


async def socket_over(ways: Ways, route: Route, target: str, number: int | None, within: float) -> socket.socket:
    """A blocking socket that is connected to ``target`` over relays, for who speaks second (SSH): a first byte has come.

    Args:
        within: seconds for all of it.

    Raises:
        NodeUnreachable: names the hop, or says that nobody answered behind them.
        Unavailable: there is no certificate yet.
    """
    try:
        async with asyncio.timeout(within):
            return await _socket_over(ways, route, target, number)
    except TimeoutError:
        raise NodeUnreachable(f"{target}: no answer within {within:g} s by way of {route}") from None


_carried: set[asyncio.Task[None]] = set()


async def _socket_over(ways: Ways, route: Route, target: str, number: int | None) -> socket.socket:
    far = _Answering(await ways.open(route, target, number))
    theirs, ours = socket.socketpair()
    try:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
    except BaseException:
        far.close()
        ours.close()
        theirs.close()
        raise
    carrying = asyncio.get_running_loop().create_task(splice(SocketStream(reader, writer), far))
    _carried.add(carrying)
    carrying.add_done_callback(_carried.discard)
    answer = asyncio.ensure_future(far.answered.wait())
    try:
        await asyncio.wait((carrying, answer), return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        carrying.cancel()
        theirs.close()
        raise
    finally:
        answer.cancel()
    if not far.answered.is_set():
        theirs.close()
        raise NodeUnreachable(_silent(route, target))
    return theirs


class _Answering(WrappedStream):
    """A stream that knows whether anything ever came: an end before that is all that a failure looks like (5.2, 6.3)."""

    def __init__(self, inner: ByteStream, on_silence: Callable[[], None] = lambda: None) -> None:
        super().__init__(inner)
        self._on_silence = on_silence
        self.answered = asyncio.Event()

    async def read(self, limit: int = CHUNK) -> bytes:
        try:
            data = await self._inner.read(limit)
        except OSError:
            self._heard(b"")
            raise
        self._heard(data)
        return data

    def _heard(self, data: bytes) -> None:
        if data:
            self.answered.set()
        elif not self.answered.is_set():
            self._on_silence()


def _silent(route: Route, target: str) -> str:
    return f"{target} was not reached by way of {route}: the connection ended before a byte came"


def _own_directory(path: Path) -> int:
    """A descriptor of the directory, made anew: what an earlier run left in it is of no use."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
