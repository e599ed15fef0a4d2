"""Telling relays where they may connect: relays of ours hold to it, existing ones and ours of before go on as they are."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coxswain.clock import ManualClock
from coxswain.control_path import ways as ways_module
from coxswain.control_path.announce import Announcer, Signer
from coxswain.control_path.model import Hop, Route
from coxswain.control_path.targets import Allowance
from coxswain.control_path.ways import Ways
from coxswain.relay.contexts import Credentials, client_context, server_context
from coxswain.relay.egress import EgressRelay
from coxswain.relay.listener import Listener
from coxswain.relay.onion import OnionRelay
from coxswain.relay.onion_layers import encode_key
from coxswain.relay.policy import TAKES_POLICIES, PolicyFile
from coxswain.relay.targets import AllowList
from coxswain.relay.yamux import SessionClosed, StreamReset
from tests.control_paths import hang_up
from tests.coxswain.relay.pipes import until
from tests.existing_relay import Relay as ExistingRelay
from tests.relays import Pki

LOG = logging.getLogger("relay")
HERE = "127.0.0.1"
PKI = Pki.make()


class Ours:
    """A relay of ours on this loop: an egress and an onion role, and one file for both."""

    def __init__(self, directory: Path, name: str) -> None:
        PKI.write_relay(directory)
        (directory / "targets.policy").write_bytes(PKI.policy(HERE, 1))
        self.policy = PolicyFile(directory, LOG)
        self.onion_policy = PolicyFile(directory, LOG)
        key = X25519PrivateKey.generate()
        context = server_context(Credentials.read(directory, "fleet-ca.crt"), alpn=(TAKES_POLICIES,))
        self.egress = Listener(EgressRelay(context, LOG, allowed=self.policy).serve, LOG)
        self.onion = Listener(OnionRelay(key, allowed=self.onion_policy).serve, LOG)
        self.hop = Hop(f"rly_{name}", name, "", onion_pubkey=encode_key(key.public_key().public_bytes_raw()))

    async def start(self, *, onion: bool) -> None:
        egress = await self.egress.start(f"{HERE}:0")
        self.hop = replace(self.hop, egress=egress, onion=await self.onion.start(f"{HERE}:0") if onion else "")

    async def stop(self) -> None:
        await self.egress.stop()
        await self.onion.stop()


class Quay:
    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory, self._stack = directory, stack
        self.clock = ManualClock(time.time())
        self.ways = Ways(self.clock)
        signer = PKI.controller()
        context = client_context(replace(signer, anchor_pem=PKI.fleet.pem), alpn=(TAKES_POLICIES,))
        self.ways.use(context, Signer(signer.chain_pem, signer.key_pem))
        self.announcer: Announcer = self.ways.egress.announcer

    async def target(self) -> str:
        server = await self._stack.enter_async_context(await asyncio.start_server(_greet, HERE, 0))
        return f"{HERE}:{server.sockets[0].getsockname()[1]}"

    async def relay(self, name: str, *, onion: bool = False) -> Ours:
        made = Ours(self._directory / name, name)
        await made.start(onion=onion)
        self._stack.push_async_callback(made.stop)
        return made

    async def existing(self, name: str) -> Hop:
        directory = self._directory / name
        PKI.write_relay(directory)
        relay = ExistingRelay(f"{HERE}:0", directory, directory / "log")
        server = await self._stack.enter_async_context(await asyncio.start_server(relay.egress, HERE, 0))
        return Hop(f"rly_{name}", name, f"{HERE}:{server.sockets[0].getsockname()[1]}")

    def allow(self, **targets: set[str]) -> None:
        self.announcer.allowances.set({f"rly_{name}": Allowance(frozenset(all_)) for name, all_ in targets.items()})

    async def reaches(self, target: str, *hops: Hop) -> bool:
        stream = await self.ways.open(Route(hops), target, 1)
        try:
            return await stream.read() == b"hello"
        except OSError:
            return False
        finally:
            stream.close()


def moor(tmp_path: Path, story: Callable[[Quay], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def quay() -> AsyncIterator[Quay]:
        async with AsyncExitStack() as stack:
            made = Quay(tmp_path, stack)
            try:
                yield made
            finally:
                made.ways.egress.keep(())
                hang_up(made.ways)

    async def run() -> None:
        async with asyncio.timeout(60), quay() as made:
            await story(made)

    asyncio.run(run())


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await writer.drain()
    writer.close()


def test_hops_of_a_chain_are_told_before_they_are_asked_and_a_change_is_told_at_once(tmp_path: Path) -> None:
    async def story(quay: Quay) -> None:
        one, two = await quay.relay("one"), await quay.relay("two")
        target, gone = await quay.target(), await quay.target()
        quay.announcer.allowances.on_change(quay.ways.allowances_changed)
        quay.allow(one={two.hop.egress}, two={target, gone})
        assert await quay.reaches(target, one.hop, two.hop) and await quay.reaches(gone, one.hop, two.hop)
        assert not one.policy.permits(HERE, HERE, int(target.rpartition(":")[2]))
        serial = two.policy.serial
        assert await quay.reaches(target, one.hop, two.hop)
        assert two.policy.serial == serial  # nothing new to tell
        quay.allow(one={two.hop.egress}, two={target})
        await until(lambda: two.policy.serial > serial)
        assert not two.policy.permits(HERE, HERE, int(gone.rpartition(":")[2]))
        assert await quay.reaches(target, one.hop, two.hop)

    moor(tmp_path, story)


def test_what_is_asked_for_once_is_told_then_and_forgotten_with_the_next_change(tmp_path: Path) -> None:
    """A route for one connection, and a node that the inventory has had for a moment."""

    async def story(quay: Quay) -> None:
        one, target, port = await quay.relay("one"), await quay.target(), 0
        port = int(target.rpartition(":")[2])
        quay.allow(one=set())
        assert await quay.reaches(target, one.hop) and one.policy.permits(HERE, HERE, port)
        quay.allow(one={"192.0.2.1:1"})
        await quay.ways.egress.tell_all()
        assert not one.policy.permits(HERE, HERE, port)

    moor(tmp_path, story)


def test_onion_hops_are_told_by_their_egress_role_and_refuse_everybody_else(tmp_path: Path) -> None:
    async def story(quay: Quay) -> None:
        one, two = await quay.relay("one", onion=True), await quay.relay("two", onion=True)
        target, elsewhere = await quay.target(), await quay.target()
        quay.allow(one={two.hop.onion, two.hop.egress}, two={target})
        assert await quay.reaches(target, one.hop, two.hop)
        stranger = Ways()  # who knows the public keys, and signs nothing
        for hops, wanted in (((one.hop, two.hop), elsewhere), ((two.hop,), elsewhere), ((one.hop,), target)):
            stream = await stranger.open(Route(hops), wanted, None)
            assert await stream.read() == b""
            stream.close()
        assert await quay.reaches(target, one.hop, two.hop)

    moor(tmp_path, story)


def test_an_onion_hop_that_cannot_be_told_keeps_what_it_was_told_and_nobody_waits_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(quay: Quay) -> None:
        one, target = await quay.relay("one", onion=True), await quay.target()
        quay.allow(one={target})
        assert await quay.reaches(target, one.hop)
        await one.egress.stop()
        hang_up(quay.ways)
        quay.allow(one={target, "192.0.2.1:1"})
        assert await quay.reaches(target, one.hop)

        async def never(*_: object, **__: object) -> None:
            raise AssertionError

        monkeypatch.setattr(quay.ways.egress, "session", never)
        assert await quay.reaches(target, one.hop)

    moor(tmp_path, story)


def test_existing_relays_are_asked_for_nothing_that_they_do_not_know(tmp_path: Path) -> None:
    async def story(quay: Quay) -> None:
        hop, target = await quay.existing("old"), await quay.target()
        ours = await quay.relay("ours")
        quay.allow(old={ours.hop.egress}, ours={target})
        for _ in range(3):
            assert await quay.reaches(target, hop)
            assert await quay.reaches(target, hop, ours.hop)
        dialled = [
            json.loads(line)["target"] for line in (tmp_path / "old" / "log").read_text().splitlines() if "dial" in line
        ]
        assert set(dialled) == {target, ours.hop.egress}

    moor(tmp_path, story)


def test_a_relay_with_flags_of_its_own_says_so_and_holds_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(quay: Quay) -> None:
        target, other = await quay.target(), await quay.target()
        made = Ours(tmp_path / "strict", "strict")
        context = server_context(PKI.relay(), alpn=(TAKES_POLICIES,))
        made.egress = Listener(EgressRelay(context, LOG, allowed=AllowList([target])).serve, LOG)
        await made.start(onion=False)
        quay.allow(strict={other})
        assert await quay.reaches(target, made.hop) and not await quay.reaches(other, made.hop)
        assert sum("--allow" in record.getMessage() for record in caplog.records) == 1
        await made.stop()

    moor(tmp_path, story)


def test_a_relay_that_could_not_take_it_just_then_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its disk was full, or its clock wrong: it takes policies, and will not connect anywhere new without one."""

    async def story(quay: Quay) -> None:
        one, target, other = await quay.relay("one"), await quay.target(), await quay.target()
        quay.allow(one={target})
        assert await quay.reaches(target, one.hop)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr("coxswain.relay.policy.write_whole", full)
            quay.allow(one={target, other})
            for _ in range(3):
                assert not await quay.reaches(other, one.hop) and await quay.reaches(target, one.hop)
        assert sum("No space" in r.getMessage() for r in caplog.records if "does not take" in r.getMessage()) == 1
        quay.clock.advance(31)
        assert await quay.reaches(other, one.hop)

    moor(tmp_path, story)


def test_a_stream_that_breaks_while_a_relay_is_told_costs_no_other_stream(caplog: pytest.LogCaptureFixture) -> None:
    """A session carries the links of all nodes; it is over when it says so itself."""
    announcer, hop = Announcer(ManualClock()), Hop("rly_one", "one", "192.0.2.1:8456")
    signer = PKI.controller()
    announcer.use(Signer(signer.chain_pem, signer.key_pem))
    announcer.allowances.set({"rly_one": Allowance(frozenset({"192.0.2.2:1"}))})

    class Broken:
        def __init__(self, error: OSError) -> None:
            self.error = error

        async def write(self, _: bytes) -> None:
            raise self.error

        def close(self) -> None:
            pass

    async def tell(error: OSError) -> None:
        async def open_stream() -> Any:
            return Broken(error)

        await announcer.tell(hop, open_stream, None)

    with pytest.raises(SessionClosed):
        asyncio.run(tell(SessionClosed("over")))
    assert not announcer.is_told(hop, None)
    asyncio.run(tell(StreamReset("stream 5 was dropped by the other side")))
    assert announcer.is_told(hop, None), "nobody waits for it again, for a while"
    assert "did not say" in caplog.text


def test_a_relay_that_was_told_by_a_clock_ahead_of_ours_is_told_all_the_same(tmp_path: Path) -> None:
    async def story(quay: Quay) -> None:
        one, target = await quay.relay("one"), await quay.target()
        ahead = int(time.time() * 1000) + 3_600_000
        one.policy.accept(PKI.policy(HERE, ahead))
        quay.allow(one={target})
        assert await quay.reaches(target, one.hop)
        assert one.policy.serial == ahead + 1

    moor(tmp_path, story)


def test_a_relay_that_came_back_with_an_older_file_is_told_again(tmp_path: Path) -> None:
    async def story(quay: Quay) -> None:
        one, target = await quay.relay("one"), await quay.target()
        quay.allow(one={target})
        assert await quay.reaches(target, one.hop)
        await one.stop()
        again = Ours(tmp_path / "one", "one")  # whose file is the one from before
        again.hop = one.hop
        await again.egress.start(one.hop.egress)
        assert await quay.reaches(target, one.hop) and again.policy.serial > 1
        await again.stop()

    moor(tmp_path, story)


def test_nothing_is_told_while_the_inventory_was_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_module, "MOVE_S", 0.01)

    async def story(quay: Quay) -> None:
        one, target = await quay.relay("one"), await quay.target()
        assert not await quay.reaches(target, one.hop) and one.policy.serial == 1

    moor(tmp_path, story)
