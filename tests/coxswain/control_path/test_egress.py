"""Sessions with hops, against relays as existing ones are: one session each, made once, taken over by who has precedence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coxswain.control_path import egress as module
from coxswain.control_path import ways as ways_module
from coxswain.control_path.egress import EgressPool
from coxswain.control_path.forward import Forwarders, socket_over
from coxswain.control_path.model import Hop, Route
from coxswain.control_path.ways import Ways
from coxswain.errors import CoxswainError, NodeUnreachable, Unavailable
from coxswain.pki import Role, create_authorities, issue_hop_leaf
from coxswain.relay.byte_stream import ByteStream
from coxswain.relay.contexts import Credentials, client_context
from tests.control_paths import hang_up
from tests.existing_relay import Relay
from tests.relays import Pki, key_pem

PKI = Pki.make()


class Harbour:
    """Relays on this loop, a target behind them that greets and echoes, and the controller's side."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.ways = Ways()
        self.ways.use(controller(PKI))
        self.target = ""
        self.relays: dict[str, Relay] = {}

    async def hop(self, name: str, *, pki: Pki = PKI, host: str = "127.0.0.1") -> Hop:
        directory = self._directory / name
        directory.mkdir()
        credentials = pki.relay(host)
        for file, content in (
            ("relay.crt", credentials.chain_pem), ("relay.key", credentials.key_pem), ("fleet-ca.crt", PKI.fleet.pem)
        ):  # fmt: skip
            (directory / file).write_bytes(content)
        relay = self.relays[name] = Relay("127.0.0.1:0", directory, directory / "log")
        server = await self._stack.enter_async_context(await asyncio.start_server(relay.egress, "127.0.0.1", 0))
        return Hop(f"rly_{name}", name, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

    def sessions(self, name: str) -> int:
        lines = (self._directory / name / "log").read_text().splitlines()
        return sum(json.loads(line)["event"] == "session" for line in lines)

    async def greeted(self, *hops: Hop, number: int | None = 1) -> ByteStream:
        stream = await self.ways.open(Route(hops), self.target, number)
        assert await stream.read() == b"hello"
        return stream


async def over(stream: ByteStream) -> None:
    """Waits for its end, in whatever way that comes."""
    with contextlib.suppress(OSError):
        while await stream.read():
            pass


def controller(pki: Pki) -> Any:
    leaf = issue_hop_leaf(pki.fleet, time.time())
    assert leaf.key is not None
    return client_context(Credentials(leaf.pem + pki.fleet.pem, key_pem(leaf.key), PKI.authorities[Role.ROOT].pem))


@asynccontextmanager
async def harbour(directory: Path) -> AsyncIterator[Harbour]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async with AsyncExitStack() as stack:
        made = Harbour(directory, stack)
        target = await stack.enter_async_context(await asyncio.start_server(greet, "127.0.0.1", 0))
        made.target = f"127.0.0.1:{target.sockets[0].getsockname()[1]}"
        try:
            yield made
        finally:
            made.ways.egress.keep(())
            hang_up(made.ways)
            await asyncio.sleep(0.05)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()


def sail(tmp_path: Path, story: Callable[[Harbour], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), harbour(tmp_path) as made:
            await story(made)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RIVAL_S", 0.3)


def test_however_many_come_at_once_there_is_one_session_with_each_hop(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        one, two = await h.hop("one"), await h.hop("two")
        h.ways.follow(1, Route((one, two)))
        streams = await asyncio.gather(*(h.greeted(one, two) for _ in range(50)))
        assert (h.sessions("one"), h.sessions("two"), h.ways.open_now) == (1, 1, 50)
        payload = bytes(range(256)) * 4_096
        for stream in streams[:3]:
            sending = asyncio.ensure_future(stream.write(payload))
            got = bytearray()
            while len(got) < len(payload):
                got += await stream.read()
            await sending
            assert got == payload
        for stream in streams:
            stream.close()
            stream.close()
        assert h.ways.open_now == 0
        await h.greeted(one, two)
        assert h.sessions("two") == 1, "a session of the route in force is kept"

    sail(tmp_path, story)


def test_a_single_connection_never_takes_a_relay_from_the_route_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(h: Harbour) -> None:
        one, two = await h.hop("one"), await h.hop("two")
        h.ways.follow(1, Route((one, two)))
        stream = await h.greeted(one, two)
        monkeypatch.setattr(module, "DIAL_S", 1.0)
        with pytest.raises(
            NodeUnreachable, match="relays serve one session at a time, and this controller holds it by way of"
        ):
            await h.greeted(two, number=None)
        await stream.write(b"still there")
        assert await stream.read() == b"still there"

    sail(tmp_path, story)


def test_the_route_in_force_takes_it_from_a_single_connection(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        one, two = await h.hop("one"), await h.hop("two")
        h.ways.follow(1, Route((one, two)))
        stream = await h.greeted(two, number=None)
        await h.greeted(one, two)
        await over(stream)

    sail(tmp_path, story)


def test_what_was_left_is_closed_and_what_is_still_used_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_module, "MOVE_S", 0.2)

    async def story(h: Harbour) -> None:
        one, two = await h.hop("one"), await h.hop("two")
        h.ways.follow(1, Route((one,)))
        old, other = await h.greeted(one), await h.greeted(one, number=None)
        h.ways.follow(2, Route((two,)))
        await h.greeted(two, number=2)
        await over(old)
        await other.write(b"of no route")
        assert await other.read() == b"of no route"
        assert list(h.ways.egress._sessions) == [(one,), (two,)]
        other.close()
        assert list(h.ways.egress._sessions) == [(two,)], "the session goes with its last connection"

    sail(tmp_path, story)


def test_a_relay_of_another_name_or_fleet_is_none(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        for name, options in (("named", {"host": "relay.example"}), ("foreign", {"pki": Pki.make()})):
            hop = await h.hop(name, **options)  # type: ignore[arg-type]
            with pytest.raises(
                NodeUnreachable, match=rf"relay {name} .*certificate is not one that this controller accepts"
            ):
                await h.greeted(hop)

    sail(tmp_path, story)


def test_a_relay_that_does_not_take_us_is_said(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        hop = await h.hop("strict")
        stranger = Pki(create_authorities(time.time()))
        h.ways.use(controller(stranger))
        with pytest.raises(NodeUnreachable, match=r"relay strict .*does not take us"):
            await h.greeted(hop)

    sail(tmp_path, story)


def test_without_a_certificate_nobody_is_dialled(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        hop = await h.hop("alone")
        with pytest.raises(Unavailable, match="no credentials yet"):
            await EgressPool().open((hop,), h.target, precedence=True)

    sail(tmp_path, story)


def test_many_who_wait_for_a_dead_hop_dial_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIAL_S", 1.0)
    monkeypatch.setattr(module, "_AFTER_FAILURE_S", 60.0)

    async def story(h: Harbour) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and says nothing
            hop = Hop("rly_mute", "mute", f"127.0.0.1:{listener.getsockname()[1]}")
            failures = await asyncio.gather(*(h.greeted(hop) for _ in range(40)), return_exceptions=True)
            assert {str(failure) for failure in failures if isinstance(failure, CoxswainError)} == {str(failures[0])}
            with pytest.raises(NodeUnreachable, match=r"relay mute .*no TLS handshake"):
                await h.greeted(hop)
            listener.setblocking(False)
            listener.accept()[0].close()
            with pytest.raises(BlockingIOError):
                listener.accept()

    sail(tmp_path, story)


def test_a_session_that_ended_is_made_again_by_the_next_who_comes(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        hop = await h.hop("back")
        h.ways.follow(1, Route((hop,)))
        back: list[int] = []
        h.ways.egress.on_back = lambda: back.append(h.sessions("back"))
        await h.greeted(hop)
        assert not back
        h.ways.egress._sessions[hop,]._session.abort()
        await h.greeted(hop)
        assert h.sessions("back") == 2
        assert len(back) == 1, "a hop that was away so shortly that nobody dialled it in vain calls its links back, too"

    sail(tmp_path, story)


def test_nobody_behind_relays_is_told_from_a_dead_relay(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        hop = await h.hop("last")
        with pytest.raises(NodeUnreachable, match=r"127\.0\.0\.1:1 was not reached by way of last: the connection ended"):
            await socket_over(h.ways, Route((hop,)), "127.0.0.1:1", 1, 5.0)
        reached = await socket_over(h.ways, Route((hop,)), h.target, 1, 5.0)
        assert await asyncio.to_thread(reached.recv, 100) == b"hello"
        reached.close()

    sail(tmp_path, story)


def test_a_forwarder_carries_one_connection_and_says_what_failed(tmp_path: Path) -> None:
    async def story(h: Harbour) -> None:
        hop = await h.hop("only")
        forwarders = Forwarders(tmp_path / ("x" * 120) / "run", h.ways)
        forwarder = await forwarders.start(Route((hop,)), h.target, 1)
        assert (tmp_path / ("x" * 120) / "run").stat().st_mode & 0o777 == 0o700
        path = forwarder.target.removeprefix("unix:")
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read(100) == b"hello"
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(path)
        writer.close()
        forwarder.close()

        dead = await forwarders.start(Route((hop,)), "127.0.0.1:1", 1)
        reader, writer = await asyncio.open_unix_connection(dead.target.removeprefix("unix:"))
        assert await reader.read() == b""
        assert "127.0.0.1:1 was not reached by way of only" in dead.failure
        writer.close()

    sail(tmp_path, story)
