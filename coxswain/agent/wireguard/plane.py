"""The data plane that moves packets: implements ``DataPlane`` with the host's own tools."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Sequence

from coxswain.agent.dataplane import (
    CLIENT_INTERFACE,
    CLIENT_MTU,
    CLIENT_PORT,
    DataPlaneFailed,
    Dump,
    InterfaceStatus,
    Journal,
    LinkConfig,
    PeerConfig,
    StoredPolicy,
)
from coxswain.agent.identity import AwgIdentity
from coxswain.agent.state import DirectoryFiles
from coxswain.agent.wireguard.commands import Runner, Shell
from coxswain.agent.wireguard.conf import InterfaceBlock, parse_block
from coxswain.agent.wireguard.dump import parse_dump
from coxswain.agent.wireguard.firewall import Firewall, IptablesFirewall
from coxswain.agent.wireguard.interface import Interface
from coxswain.agent.wireguard.knock import knock
from coxswain.agent.wireguard.nftables import NftablesFirewall, has_ipv6
from coxswain.agent.wireguard.settings import FirewallChoice, WireguardSettings
from coxswain.agent.wireguard.tools import Tools, Turns, choose
from coxswain.agent.wireguard.transits import is_there
from coxswain.agent.xray_engine import XrayEngine, XrayProcess
from coxswain.netpolicy import Policy
from coxswain.ports import PortRange

__all__ = ["WireguardPlane", "open_plane"]

_log = logging.getLogger(__name__)


class WireguardPlane:
    """Args: ``shell`` runs the tools; default: really.

    Its tools run detached from whoever asked for them; ``close`` waits for them.
    """

    name = "wireguard"

    def __init__(self, identity: AwgIdentity, settings: WireguardSettings, shell: Shell | None = None) -> None:
        self._identity = identity
        self._settings = settings
        self._runner = Runner()
        self._shell: Shell = shell if shell is not None else self._runner
        self._files = DirectoryFiles(settings.conf_directory)
        self._clients = self._interface(CLIENT_INTERFACE)
        self._block = InterfaceBlock(identity.private_text, CLIENT_PORT, CLIENT_MTU, identity.obfuscation)
        self.xray: XrayEngine = XrayProcess(self._shell)
        self._turns = Turns(asyncio.Lock)
        self._links: set[str] = set()
        self._policy: Policy | None = None
        self._firewall: Firewall | None = None
        self._both_families = False

    @property
    def has_xray(self) -> bool:
        """While something runs, its clients are answered for, whatever becomes of the binary."""
        return self.xray.running or XrayProcess.installed()

    @property
    def carries_ipv6(self) -> bool:
        """The canonical rules are IPv4's; ours are both families', on a host that has both."""
        return self._both_families and has_ipv6()

    @property
    def mapped_ports(self) -> PortRange | None:
        return self._firewall.ports if self._firewall is not None else None

    # -- clients

    async def up(self) -> None:
        await self._clients.apply()

    async def status(self) -> InterfaceStatus:
        try:
            tools = self._tools()
            up = await tools.is_up(CLIENT_INTERFACE)
        except DataPlaneFailed as failure:
            return InterfaceStatus(up=False, error=str(failure))
        missing = [f"inner link {link} is not there" for link in self._wanted_links() if not await self.link_is_up(link)]
        return InterfaceStatus(up, note="; ".join([*([tools.note] if tools.note else []), *missing]))

    def _wanted_links(self) -> list[str]:
        """Those that were configured, and those that clients are sent through."""
        transits = self._policy.transits if self._policy is not None else ()
        return sorted(self._links | {transit.inner_interface for transit in transits})

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
        self, policy: Policy, previous: StoredPolicy | None, journal: Journal, *, restoring: bool = False
    ) -> StoredPolicy:
        firewall = await self._choose_firewall()
        if not restoring:  # a start waits for nobody
            await self._wake_links(policy, previous.policy if previous is not None else Policy())
        stored = await firewall.apply(policy, previous, await self._mtus(policy), journal, restoring=restoring)
        self._policy, self._firewall = policy, firewall
        return stored

    async def _choose_firewall(self) -> Firewall:
        choice = self._settings.firewall
        if choice is FirewallChoice.AUTO and shutil.which("nft"):
            # The tool may be there on a kernel that does without.
            usable = (await self._shell("nft", "list", "tables")).ok
            choice = FirewallChoice.NFTABLES if usable else FirewallChoice.IPTABLES
        self._both_families = choice is FirewallChoice.NFTABLES
        return NftablesFirewall(self._shell) if self._both_families else IptablesFirewall(self._shell)

    async def _wake_links(self, policy: Policy, before: Policy) -> None:
        """Those that nobody was sent through before."""
        used = {transit.inner_interface for transit in before.transits}
        new = {transit.inner_interface for transit in policy.transits} - used
        await asyncio.gather(*(self._wake(self._interface(name)) for name in new if is_there(name)))

    async def _wake(self, link: Interface) -> None:
        with contextlib.suppress(DataPlaneFailed):
            peers = await link.peers() if await self._is_ours(link) else ()
            if peers and peers[0].endpoint:
                await knock(self._tools(), link.name, peers[0])

    async def _mtus(self, policy: Policy) -> dict[str, int]:
        """Of the links that the policy sends clients through."""
        found: dict[str, int] = {}
        for interface in dict.fromkeys(transit.inner_interface for transit in policy.transits):
            with contextlib.suppress(DataPlaneFailed):
                conf = await self._interface(interface).read()
                if conf is not None and (mtu := parse_block(conf).mtu):
                    found[interface] = mtu
        return found

    # -- inner links

    async def restore_links(self) -> Sequence[str]:
        with contextlib.suppress(DataPlaneFailed):
            await self._choose_firewall()  # the first status tells already what it will be
        sentences: list[str] = []
        for link in await asyncio.to_thread(self._known_links):
            try:
                if await self._is_ours(link):
                    self._links.add(link.name)
                    if not await link.is_up():
                        await link.apply()
            except DataPlaneFailed as failure:
                sentences.append(f"inner link {link.name} not restored: {failure}")
        return sentences

    async def link_is_up(self, interface: str) -> bool:
        return await self._is_up(interface)

    async def configure_link(self, link: LinkConfig) -> None:
        interface = self._interface(link.interface)
        block = InterfaceBlock(self._identity.private_text, link.listen_port, link.mtu, link.obfuscation, routed=False)
        before = await interface.read()
        if before is not None and not await self._is_ours(interface):
            raise DataPlaneFailed(f"{interface.path} is not an inner link of this node; another name would do")
        if before is None and is_there(link.interface):
            raise DataPlaneFailed(f"{link.interface} is there and is not an inner link of this node; another name would do")
        self._links.add(link.interface)
        try:
            if before is None or parse_block(before) == block:
                await interface.replace(block, [link.exit])
            else:  # the existing agent ignores a changed port, MTU or obfuscation (node-contract.md 4.12)
                await interface.rebuild(block, [link.exit])
        except DataPlaneFailed:
            if before is None:
                self._links.discard(link.interface)
            raise
        finally:  # also where the link before came back: without its routes, marked packets would leave here
            await self._restore_transits(link.interface)

    async def remove_link(self, interface: str) -> None:
        link = self._interface(interface)
        if await link.read() is None:
            self._links.discard(interface)
            return
        if not await self._is_ours(link):
            raise DataPlaneFailed(f"{link.path} is not an inner link of this node and is left alone")
        await link.delete()
        self._links.discard(interface)

    # -- what somebody else took away

    async def heal(self, policy: StoredPolicy | None, journal: Journal) -> StoredPolicy | None:
        for name in sorted(self._links):
            if not await self._is_up(name):
                _log.warning("inner link %s is not there: making it anew", name)
                await self._interface(name).apply()
                await self._restore_transits(name)
        stored = None
        # None was applied if that failed at the start, for want of a default route, say.
        if policy is not None and (self._firewall is None or not await self._firewall.in_force(policy.policy)):
            _log.warning("the network policy is not in force: applying it again")
            stored = await self.apply_policy(policy.policy, policy, journal, restoring=True)
        if not await self._is_up(CLIENT_INTERFACE) and await self._clients.read() is not None:
            _log.warning("%s is not there: making it anew", CLIENT_INTERFACE)
            await self._clients.apply()
        return stored

    async def close(self) -> None:
        await self.xray.stop()
        await self._runner.close()

    # -- inside

    def _tools(self) -> Tools:
        return choose(self._shell, self._turns)

    async def _is_up(self, interface: str) -> bool:
        """What the tools say is what counts (node-contract.md 6.5); they are asked only where a glance does not show it."""
        if is_there(interface):
            return True
        with contextlib.suppress(DataPlaneFailed):
            return await self._tools().is_up(interface)
        return False

    def _interface(self, name: str) -> Interface:
        return Interface(name, self._files, self._shell, self._tools)

    def _known_links(self) -> list[Interface]:
        """Those that may be: a conf that this agent may not read is an operator's own."""
        paths = sorted(self._settings.conf_directory.glob("*.conf"))
        return [self._interface(p.stem) for p in paths if p.stem != CLIENT_INTERFACE and os.access(p, os.R_OK)]

    async def _is_ours(self, link: Interface) -> bool:
        """Inner links have the node's own key and no routes (node-contract.md 6.6); an operator's own tunnel has not."""
        conf = await link.read()
        if conf is None:
            return False
        block = parse_block(conf)
        return block.private_key == self._identity.private_text and not block.routed

    async def _restore_transits(self, interface: str) -> None:
        """The kernel drops the routes of an interface that goes away, the transits' default routes among them."""
        if self._policy is None or self._firewall is None:
            return
        wanted = any(transit.inner_interface == interface for transit in self._policy.transits)
        if wanted and await self._tools().is_up(interface):
            await self._firewall.link_is_back(interface, self._policy, await self._mtus(self._policy))


def open_plane(identity: AwgIdentity, settings: WireguardSettings | None = None) -> WireguardPlane:
    """The real data plane of this host. Touches nothing yet."""
    return WireguardPlane(identity, settings if settings is not None else WireguardSettings())
