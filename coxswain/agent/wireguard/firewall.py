"""The network policy in force: what both ways of doing it share, and the way by iptables (node-contract.md 7).

The canonical rule strings (``coxswain.netpolicy``) are the contract. ``IptablesFirewall`` executes them. See
``nftables.py`` for the other way.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from typing import Protocol

from coxswain.agent.dataplane import CLIENT_INTERFACE, DataPlaneFailed, StoredPolicy
from coxswain.agent.wireguard.commands import Shell, ToolFailed, ToolMissing
from coxswain.netpolicy import Policy, Rules, render, resolve

__all__ = ["NFT_TABLE", "Firewall", "IptablesFirewall", "egress_of", "execute", "forget_nft_table", "tear_down"]

NFT_TABLE = "coxswain"
"""Name of our table in the ``inet`` family of nftables."""

_PROGRAMS = ("sysctl", "iptables", "ip")
"""All that a rule may run (node-contract.md 7.4); what is stored could have been written by somebody else."""

_log = logging.getLogger(__name__)


class Firewall(Protocol):
    """A way to put a policy in force."""

    async def apply(self, policy: Policy, previous: StoredPolicy | None) -> StoredPolicy:
        """See ``DataPlane.apply_policy``."""
        ...


async def execute(shell: Shell, argv: tuple[str, ...]) -> None:
    """One rule. Raises ``DataPlaneFailed``."""
    if not argv or argv[0] not in _PROGRAMS:
        raise DataPlaneFailed(f"{argv[:1]} is none of {', '.join(_PROGRAMS)}")
    if argv[0] == "iptables" and "-w" not in argv:
        # Waits for others that are changing rules, instead of failing (node-contract.md 9.2).
        argv = (argv[0], "-w", *argv[1:])
    (await shell(*argv)).check()


async def tear_down(shell: Shell, lines: Iterable[tuple[str, ...]]) -> None:
    """Teardown commands in order; what is not there any more is not missed."""
    for argv in lines:
        try:
            await execute(shell, argv)
        except DataPlaneFailed as failure:
            _log.debug("teardown: %s", failure)


async def egress_of(shell: Shell, policy: Policy) -> str:
    """The interface of the default route, if the policy needs it; else empty (node-contract.md 7.8).

    Raises:
        DataPlaneFailed: it needs it and there is none.
    """
    if not policy.masquerade:
        return ""
    found = (await shell("ip", "route", "show", "default")).check()
    for line in found.output.splitlines():
        words = line.split()
        if "dev" in words[:-1]:
            return words[words.index("dev") + 1]
    raise DataPlaneFailed("masquerading needs a default route, and there is none")


async def forget_nft_table(shell: Shell) -> None:
    """Removes what the nftables way has left, if anything: two ways at once would not be what the policy says."""
    if shutil.which("nft"):
        known = await shell("nft", "list", "table", "inet", NFT_TABLE)
        if known.ok:
            (await shell("nft", "delete", "table", "inet", NFT_TABLE)).check()


class IptablesFirewall:
    """Rules by iptables, one command each, in the order of node-contract.md 7.5.

    Better than there: the egress interface is found before anything is taken down, and what was in force is put back when
    the new policy cannot be installed.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def apply(self, policy: Policy, previous: StoredPolicy | None) -> StoredPolicy:
        egress = await egress_of(self._shell, policy)
        rules = render(policy)
        down = tuple(resolve(line, CLIENT_INTERFACE, egress) for line in rules.post_down)
        if previous is not None:
            await tear_down(self._shell, previous.down)
        await forget_nft_table(self._shell)
        try:
            await self._install(rules, egress)
        except DataPlaneFailed:
            await tear_down(self._shell, down)
            if previous is not None:
                await self._put_back(previous)
            raise
        return StoredPolicy(policy, down)

    async def _install(self, rules: Rules, egress: str) -> None:
        lines = (*rules.pre_up, *rules.post_up)
        for step, line in enumerate(lines, 1):
            try:
                await execute(self._shell, resolve(line, CLIENT_INTERFACE, egress))
            except (ToolFailed, ToolMissing) as failure:
                raise DataPlaneFailed(f"step {step} of {len(lines)}: {failure}") from None

    async def _put_back(self, previous: StoredPolicy) -> None:
        try:
            egress = await egress_of(self._shell, previous.policy)
            await self._install(render(previous.policy), egress)
        except DataPlaneFailed as failure:
            _log.warning("the network policy before could not be put back: %s", failure)
