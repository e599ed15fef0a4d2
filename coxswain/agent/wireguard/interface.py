"""One interface: its conf, the last conf that worked, its live state and its routes.

A change writes the new conf, applies it, and keeps a copy beside it once it is applied (``<iface>.conf.good``). If it
cannot be applied, the conf that was in force comes back, on disk and live (node-contract.md 9.2; the existing agent leaves
the bad one, 4.4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from coxswain.agent.dataplane import DataPlaneFailed, PeerConfig
from coxswain.agent.state import DirectoryFiles
from coxswain.agent.wireguard.commands import Shell
from coxswain.agent.wireguard.conf import ConfError, InterfaceBlock, parse_block, parse_peers, render
from coxswain.agent.wireguard.routes import Routes, routed
from coxswain.agent.wireguard.tools import Tools

__all__ = ["Interface"]

_log = logging.getLogger(__name__)
T = TypeVar("T")


def heirs_of(leaver: PeerConfig, peers: Sequence[PeerConfig]) -> list[PeerConfig]:
    """Who gets the addresses that a peer had and has no more: the last of ``peers`` that is configured with one.

    An address belongs to whom it was written last (node-contract.md 4.15): a device that is sent back from a path, whose
    edge peer had its address, would otherwise be deaf until the next push.
    """
    now = next((peer for peer in peers if peer.public_key == leaver.public_key), None)
    lost = set(leaver.allowed_ips) - set(now.allowed_ips if now is not None else ())
    heirs = {address: peer for peer in peers for address in peer.allowed_ips if address in lost}
    return list({peer.public_key: peer for peer in heirs.values()}.values())


class Interface:
    """Args: ``tools`` is asked for each change anew. All methods but ``read`` and ``is_up`` change something."""

    def __init__(self, name: str, files: DirectoryFiles, shell: Shell, tools: Callable[[], Tools]) -> None:
        self.name = name
        self._conf = f"{name}.conf"
        self._good = f"{name}.conf.good"
        self._files = files
        self._routes = Routes(shell)
        self._tools = tools

    @property
    def path(self) -> Path:
        return self._files.directory / self._conf

    async def read(self) -> str | None:
        """The conf; None: there is none. Raises ``DataPlaneFailed``."""
        return await self._read(self._conf)

    async def peers(self) -> tuple[PeerConfig, ...]:
        """Of the conf. Raises ``DataPlaneFailed``."""
        conf = await self.read()
        return parse_peers(conf) if conf is not None else ()

    async def is_up(self) -> bool:
        """Raises ``DataPlaneFailed`` if that cannot be told."""
        return await self._tools().is_up(self.name)

    async def apply(self) -> None:
        """Makes the interface what its conf says; no conf: nothing. A conf that cannot be applied gives way to the last
        one that could. Raises ``DataPlaneFailed``.
        """
        conf = await self.read()
        if conf is None:
            return
        try:
            await self._make_live(conf)
        except DataPlaneFailed as failure:
            good = await self._read(self._good)
            if good is None or good == conf:
                raise
            _log.warning("%s cannot be applied (%s); going back to the last that could", self._conf, failure)
            await self._make_live(good)
            await self._write(self._conf, good)
            return
        await self._keep(conf)

    async def replace(self, block: InterfaceBlock, peers: Sequence[PeerConfig]) -> None:
        """A new conf, live. Raises ``DataPlaneFailed`` with the conf before in force."""
        before = await self.read()
        self._tools()  # a host without any is told so before anything is touched
        conf = render(block, peers)
        await self._write(self._conf, conf)
        try:
            await self._make_live(conf)
            await self._drop_preshared_keys(before, peers)
        except DataPlaneFailed:
            await self._go_back(before, conf)
            raise
        await self._drop_routes(before, conf)
        await self._keep(conf)

    async def rebuild(self, block: InterfaceBlock, peers: Sequence[PeerConfig]) -> None:
        """As ``replace``, for what a running interface cannot take over: it goes down first."""
        before = await self.read()
        tools = self._tools()
        if await tools.is_up(self.name):
            await tools.down(self.path)
        conf = render(block, peers)
        await self._write(self._conf, conf)
        try:
            await self._make_live(conf)
        except DataPlaneFailed:
            await self._go_back(before, conf)
            raise
        await self._keep(conf)

    async def upsert(self, block: InterfaceBlock, peer: PeerConfig) -> None:
        """One peer: an existing key keeps its place. On an interface that is down the conf keeps it (contract 4.7)."""
        before = await self.read()
        peers = list(parse_peers(before)) if before is not None else []
        place = next((i for i, known in enumerate(peers) if known.public_key == peer.public_key), None)
        drop_psk = place is not None and bool(peers[place].preshared_key) and not peer.preshared_key
        heirs: list[PeerConfig] = []
        if place is None:
            peers.append(peer)
        else:
            heirs = heirs_of(peers[place], [*peers[:place], peer, *peers[place + 1 :]])
            peers[place] = peer

        async def live(tools: Tools) -> None:
            await tools.set_peer(self.name, peer, drop_psk=drop_psk)
            for heir in heirs:
                await tools.set_peer(self.name, heir)
            await self._routes.add(self.name, routed([peer]) if block.routed else ())

        await self._edit(before, render(block, peers), live, revert=True)

    async def remove(self, block: InterfaceBlock, public_key: str) -> None:
        """One peer; an absent one is no error. On an interface that is down the conf is cleaned (contract 4.8)."""
        before = await self.read()
        if before is None:
            await self._tools().remove_peer(self.name, public_key)
            return
        known = parse_peers(before)
        kept = [peer for peer in known if peer.public_key != public_key]
        heirs = [heir for peer in known if peer.public_key == public_key for heir in heirs_of(peer, kept)]

        async def live(tools: Tools) -> None:
            await tools.remove_peer(self.name, public_key)
            for heir in heirs:
                await tools.set_peer(self.name, heir)

        # Whatever the tool says, the conf stays clean: it may be a key that no tool takes (node-contract.md 4.7).
        await self._edit(before, render(block, kept), live, revert=False)

    async def delete(self) -> None:
        """Takes the interface down and forgets it. Raises ``DataPlaneFailed``, with the conf still there."""
        if await self.read() is not None:
            await self._tools().down(self.path)
        await self._delete(self._conf)
        await self._delete(self._good)

    # -- steps

    async def _edit(self, before: str | None, conf: str, live: Callable[[Tools], Awaitable[None]], *, revert: bool) -> None:
        """Writes an edited conf and makes the edit live. ``revert``: goes back if a running interface refuses it."""
        tools = self._tools()
        await self._write(self._conf, conf)
        try:
            await live(tools)
        except DataPlaneFailed:
            if revert and await tools.is_up(self.name):
                await self._go_back(before, conf)
            raise
        await self._drop_routes(before, conf)
        await self._keep(conf)

    async def _make_live(self, conf: str) -> None:
        """Applies a conf that is on disk: reload or bring up, then the routes (node-contract.md 4.4, steps 6 and 7)."""
        tools = self._tools()
        block, peers = parse_block(conf), parse_peers(conf)
        if await tools.is_up(self.name):
            await tools.reload(self.path, block, peers)
        else:
            await tools.up(self.path, block, peers)
        if block.routed:
            await self._routes.add(self.name, routed(peers))

    async def _drop_preshared_keys(self, before: str | None, peers: Sequence[PeerConfig]) -> None:
        """Syncconf leaves a peer the preshared key that the conf does not give it any more."""
        try:
            had = {peer.public_key for peer in parse_peers(before or "") if peer.preshared_key}
        except ConfError:
            had = {peer.public_key for peer in peers}
        for peer in peers:
            if peer.public_key in had and not peer.preshared_key:
                await self._tools().drop_preshared_key(self.name, peer.public_key)

    async def _go_back(self, before: str | None, failed: str) -> None:
        """Best effort: what was in force is in force again; where there was nothing, nothing is left."""
        try:
            if before is None:
                try:
                    if await self.is_up():
                        await self._tools().down(self.path)
                finally:
                    await self._delete(self._conf)
                return
            await self._write(self._conf, before)
            await self._make_live(before)
            await self._drop_preshared_keys(failed, parse_peers(before))
            await self._drop_routes(failed, before)
        except (DataPlaneFailed, OSError) as failure:
            _log.warning("%s: the conf before could not be put back in force: %s", self.name, failure)

    async def _drop_routes(self, before: str | None, after: str) -> None:
        """Routes of peers and CIDRs that vanished. One that stays leads to no peer, so it is only worth a warning."""
        try:
            if before is None or not parse_block(after).routed:
                return
            now = parse_peers(after)
            staying = set(now)
            gone = routed(peer for peer in parse_peers(before) if peer not in staying)
            kept = set(routed(now)) if gone else set()
            await self._routes.remove(self.name, tuple(route for route in gone if route not in kept))
        except ConfError:
            _log.warning("%s: the conf before cannot be read, routes of its peers may remain", self.name)
        except DataPlaneFailed as failure:
            _log.warning("%s: a route remains: %s", self.name, failure)

    async def _keep(self, conf: str) -> None:
        if await self._read(self._good) != conf:
            await self._write(self._good, conf)

    # -- files, off the loop

    async def _read(self, name: str) -> str | None:
        content = await self._off_loop(lambda: self._files.read(name))
        return content.decode("utf-8", "replace") if content is not None else None

    async def _write(self, name: str, text: str) -> None:
        await self._off_loop(lambda: self._files.write(name, text.encode(), 0o600))

    async def _delete(self, name: str) -> None:
        await self._off_loop(lambda: self._files.delete(name))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise DataPlaneFailed(f"{error.filename or self.path}: {error.strerror}") from None
