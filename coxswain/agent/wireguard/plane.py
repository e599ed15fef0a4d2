"""The data plane that moves packets: implements ``DataPlane`` with the host's own tools."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from coxswain.agent.dataplane import (
    CLIENT_INTERFACE,
    CLIENT_MTU,
    CLIENT_PORT,
    DataPlaneFailed,
    Dump,
    InterfaceStatus,
    LinkConfig,
    PeerConfig,
    StoredPolicy,
)
from coxswain.agent.identity import AwgIdentity
from coxswain.agent.state import DirectoryFiles
from coxswain.agent.wireguard.commands import Runner, Shell
from coxswain.agent.wireguard.conf import InterfaceBlock, parse_block
from coxswain.agent.wireguard.dump import parse_dump
from coxswain.agent.wireguard.firewall import Firewall, IptablesFirewall, execute
from coxswain.agent.wireguard.interface import Interface
from coxswain.agent.wireguard.nftables import NftablesFirewall, foreign_drop
from coxswain.agent.wireguard.settings import FirewallChoice, WireguardSettings
from coxswain.agent.wireguard.tools import Tools, choose
from coxswain.netpolicy import Policy

__all__ = ["WireguardPlane", "open_plane"]

_log = logging.getLogger(__name__)


class WireguardPlane:
    """Args: ``shell`` runs the tools; default: really.

    Its tools run detached from whoever asked for them; ``close`` waits for them.
    """

    name = "wireguard"
    has_xray = False

    def __init__(self, identity: AwgIdentity, settings: WireguardSettings, shell: Shell | None = None) -> None:
        self._identity = identity
        self._settings = settings
        self._runner = Runner()
        self._shell: Shell = shell if shell is not None else self._runner
        self._files = DirectoryFiles(settings.conf_directory)
        self._clients = self._interface(CLIENT_INTERFACE)
        self._block = InterfaceBlock(identity.private_text, CLIENT_PORT, CLIENT_MTU, identity.obfuscation)
        self._policy: Policy | None = None

    # -- clients

    async def up(self) -> None:
        await self._clients.apply()

    async def status(self) -> InterfaceStatus:
        try:
            tools = self._tools()
            return InterfaceStatus(await tools.is_up(CLIENT_INTERFACE), note=tools.note)
        except DataPlaneFailed as failure:
            return InterfaceStatus(up=False, error=str(failure))

    async def dump(self) -> Dump:
        return parse_dump(await self._tools().dump(CLIENT_INTERFACE))

    async def configured(self) -> tuple[PeerConfig, ...]:
        return await self._clients.peers()

    async def replace_peers(self, peers: Sequence[PeerConfig]) -> None:
        await self._clients.replace(self._block, peers)

    async def upsert_peer(self, peer: PeerConfig) -> None:
        await self._clients.upsert(self._block, peer)

    async def remove_peer(self, public_key: str) -> None:
        await self._clients.remove(self._block, public_key)

    # -- policy

    async def apply_policy(
        self,
        policy: Policy,
        previous: StoredPolicy | None,
        *,
        restoring: bool = False,  # noqa: ARG002
    ) -> StoredPolicy:
        stored = await (await self._firewall()).apply(policy, previous)
        self._policy = policy
        return stored

    async def _firewall(self) -> Firewall:
        choice = self._settings.firewall
        if choice is FirewallChoice.IPTABLES:
            return IptablesFirewall(self._shell)
        if choice is FirewallChoice.NFTABLES:
            return NftablesFirewall(self._shell)
        if not shutil.which("nft"):
            return IptablesFirewall(self._shell)
        if shutil.which("iptables") and await foreign_drop(self._shell):
            _log.info("another firewall drops forwarded packets by policy: using iptables to get past it")
            return IptablesFirewall(self._shell)
        return NftablesFirewall(self._shell)

    # -- inner links

    async def restore_links(self) -> Sequence[str]:
        sentences: list[str] = []
        for link in await asyncio.to_thread(self._known_links):
            try:
                if await self._is_ours(link) and not await link.is_up():
                    await link.apply()
            except DataPlaneFailed as failure:
                sentences.append(f"inner link {link.name} not restored: {failure}")
        return sentences

    async def link_is_up(self, interface: str) -> bool:
        return _is_there(interface)

    async def configure_link(self, link: LinkConfig) -> None:
        interface = self._interface(link.interface)
        block = InterfaceBlock(self._identity.private_text, link.listen_port, link.mtu, link.obfuscation, routed=False)
        before = await interface.read()
        if before is not None and not await self._is_ours(interface):
            raise DataPlaneFailed(f"{interface.path} is not an inner link of this node; another name would do")
        if before is None and _is_there(link.interface):
            raise DataPlaneFailed(f"{link.interface} is there and is not an inner link of this node; another name would do")
        try:
            if before is None or parse_block(before) == block:
                await interface.replace(block, [link.exit])
            else:  # the existing agent ignores a changed port, MTU or obfuscation (node-contract.md 4.12)
                await interface.rebuild(block, [link.exit])
        finally:  # also where the link before came back: without its routes, marked packets would leave here
            await self._restore_transits(link.interface)

    async def remove_link(self, interface: str) -> None:
        link = self._interface(interface)
        if await link.read() is None:
            return
        if not await self._is_ours(link):
            raise DataPlaneFailed(f"{link.path} is not an inner link of this node and is left alone")
        await link.delete()

    async def close(self) -> None:
        await self._runner.close()

    # -- inside

    def _tools(self) -> Tools:
        return choose(self._shell)

    def _interface(self, name: str) -> Interface:
        return Interface(name, self._files, self._shell, self._tools)

    def _known_links(self) -> list[Interface]:
        paths = sorted(self._settings.conf_directory.glob("*.conf"))
        return [self._interface(path.stem) for path in paths if path.stem != CLIENT_INTERFACE]

    async def _is_ours(self, link: Interface) -> bool:
        """Inner links have the node's own key and no routes (node-contract.md 6.6); an operator's own tunnel has not."""
        conf = await link.read()
        if conf is None:
            return False
        block = parse_block(conf)
        return block.private_key == self._identity.private_text and not block.routed

    async def _restore_transits(self, interface: str) -> None:
        """The kernel drops the routes of an interface that goes away, the transits' default routes among them."""
        transits = self._policy.transits if self._policy is not None else ()
        tables = dict.fromkeys(t.table for t in transits if t.inner_interface == interface)
        if not tables or not await self._tools().is_up(interface):
            return
        for table in tables:
            await execute(self._shell, ("ip", "route", "replace", "default", "dev", interface, "table", str(table)))


def _is_there(interface: str) -> bool:
    """An interface of any kind, whoever made it."""
    return Path("/sys/class/net", interface).exists()


def open_plane(identity: AwgIdentity, settings: WireguardSettings | None = None) -> WireguardPlane:
    """The real data plane of this host. Touches nothing yet."""
    return WireguardPlane(identity, settings if settings is not None else WireguardSettings())
