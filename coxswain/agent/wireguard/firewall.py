"""The network policy in force: what both ways of doing it share, and the way by iptables (node-contract.md 7).

The canonical rule strings (``coxswain.netpolicy``) are the contract. ``IptablesFirewall`` executes them. See
``nftables.py`` for the other way.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from coxswain.agent.dataplane import CLIENT_INTERFACE, DataPlaneFailed, Journal, StoredPolicy
from coxswain.agent.wireguard.commands import Outcome, Shell
from coxswain.agent.wireguard.ruleset import NFT_TABLE
from coxswain.agent.wireguard.transits import Transits, hops, hops_of
from coxswain.netpolicy import Policy, Rules, render, resolve
from coxswain.ports import PortRange

__all__ = [
    "Firewall",
    "IptablesFirewall",
    "IptablesLines",
    "both",
    "egress_of",
    "forget_nft_table",
    "has_moved",
    "loosen",
    "turned",
]

_log = logging.getLogger(__name__)

Argv = tuple[str, ...]


class Firewall(Protocol):
    """A way to put a policy in force. ``mtus``: of the inner links, as far as known, by interface."""

    @property
    def ports(self) -> PortRange | None:
        """Those of the policy in force that lead to the client interface."""
        ...

    async def apply(
        self,
        policy: Policy,
        previous: StoredPolicy | None,
        mtus: Mapping[str, int],
        journal: Journal,
        *,
        restoring: bool,
    ) -> StoredPolicy:
        """See ``DataPlane.apply_policy``."""
        ...

    async def link_is_back(self, interface: str, policy: Policy, mtus: Mapping[str, int]) -> None:
        """An inner link of the policy in force was made (anew). Raises ``DataPlaneFailed``."""
        ...

    async def in_force(self, policy: Policy) -> bool:
        """Is the policy that was applied still there, as far as a look shows it? Never raises."""
        ...


def both(previous: StoredPolicy | None, down: tuple[Argv, ...]) -> StoredPolicy:
    """What is in force, with the commands that also take down what is about to be."""
    known = previous if previous is not None else StoredPolicy(Policy())
    return StoredPolicy(known.policy, tuple(dict.fromkeys((*known.down, *down))))


async def loosen(shell: Shell, rules: Rules) -> None:
    """The sysctls of a policy. One that cannot be set is no failure if the kernel has the value already, or has no IPv6.

    Raises:
        DataPlaneFailed: forwarding or the reverse path filter is not what the policy needs.
    """
    for line in rules.pre_up:
        ended = await shell(*line.split())
        if not ended.ok:
            name, _, wanted = line.split()[-1].partition("=")
            found = _sysctl(name)
            if found is None and ".ipv6." in name:
                _log.info("%s is not there: this host does without IPv6", name)
            elif found != wanted:
                ended.check()


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


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


async def has_moved(shell: Shell, policy: Policy, egress: str) -> bool:
    """Does the default route lead elsewhere than the policy masquerades? One that is away for the moment does not."""
    try:
        return await egress_of(shell, policy) != egress
    except DataPlaneFailed:
        return False


async def forget_nft_table(shell: Shell) -> None:
    """Removes what the nftables way has left, if anything: two ways at once would not be what the policy says."""
    if shutil.which("nft"):
        known = await shell("nft", "list", "table", "inet", NFT_TABLE)
        if known.ok:
            (await shell("nft", "delete", "table", "inet", NFT_TABLE)).check()


class IptablesLines:
    """Rules of iptables, added where they are missing, and taken away by the commands that a policy was stored with."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def add(self, lines: Iterable[Argv], known: Collection[Argv] | None = None) -> tuple[Argv, ...]:
        """Adds those that are not there; returns the commands that undo it. Raises ``DataPlaneFailed``, with none added.

        Args:
            lines: the rules, in order.
            known: the stored teardown commands. A rule that is there and that they do not take away was left by nobody knows
                whom, at nobody knows which place: an isolation behind an ACCEPT isolates nobody. It is made anew where it
                belongs. None: whatever is there stays.
        """
        undo: list[Argv] = []
        lines = tuple(lines)
        for step, argv in enumerate(lines, 1):
            if await self._is_there(argv):
                if known is None or turned(argv, "-D") in known:
                    continue
                await self.take_down([turned(argv, "-D")])
            ended = await self._run(argv)
            if not ended.ok:
                await self.take_down(undo)
                raise DataPlaneFailed(f"step {step} of {len(lines)}: {ended.complaint()}")
            undo.insert(0, turned(argv, "-D"))
        return tuple(undo)

    async def take_down(self, lines: Iterable[Argv]) -> None:
        """Runs teardown commands of iptables and no others; what is not there any more is not missed."""
        for argv in lines:
            if argv[:1] in {("iptables",), ("ip6tables",)} and "-D" in argv:
                try:
                    (await self._run(argv)).check()
                except DataPlaneFailed as failure:
                    _log.debug("teardown: %s", failure)

    async def are_there(self, lines: Iterable[Argv]) -> bool:
        for argv in lines:
            if not await self._is_there(argv):
                return False
        return True

    async def _is_there(self, argv: Argv) -> bool:
        return (await self._run(turned(argv, "-C"))).ok

    async def _run(self, argv: Argv) -> Outcome:
        # Waits for others that are changing rules, instead of failing (node-contract.md 9.2).
        return await self._shell(argv[0], "-w", *argv[1:])


def turned(argv: Argv, verb: str) -> Argv:
    """The same rule with another command: ``-C`` asks for it, ``-D`` removes it."""
    words = list(argv)
    place = next(i for i, word in enumerate(words) if word in {"-A", "-I", "-D"})
    if words[place] == "-I" and words[place + 2 : place + 3] == ["1"]:
        del words[place + 2]
    words[place] = verb
    return tuple(words)


class IptablesFirewall:
    """Rules by iptables, one command each (node-contract.md 7.3, 7.5).

    Better than there: what is in force already stays, so that there is no gap; what the old policy has besides goes last;
    and when the new one cannot be installed, the old one has not been touched. It maps no ports: no canonical rule does.
    """

    ports = None

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._lines = IptablesLines(shell)
        self._transits = Transits(shell)
        self._egress = ""

    async def apply(
        self,
        policy: Policy,
        previous: StoredPolicy | None,
        mtus: Mapping[str, int],  # noqa: ARG002 - the canonical rules do not look at them
        journal: Journal,
        *,
        restoring: bool,
    ) -> StoredPolicy:
        egress = await egress_of(self._shell, policy)
        rules = render(policy)
        wanted = hops(policy.transits)
        before = hops(previous.policy.transits) if previous is not None else ()
        lines = tuple(resolve(line, CLIENT_INTERFACE, egress) for line in rules.post_down)
        down = (*(argv for argv in lines if argv[0] == "iptables"), *(argv for hop in wanted for argv in hop.down()))
        await journal(both(previous, down))
        await loosen(self._shell, rules)
        undo = await self._transits.add(wanted, before, without_links=restoring)
        try:
            known = frozenset(previous.down) if previous is not None else frozenset[Argv]()
            added = await self._lines.add(self._rules(rules, egress), known)
            try:
                await forget_nft_table(self._shell)
            except DataPlaneFailed:
                await self._lines.take_down(added)
                raise
        except DataPlaneFailed:
            await self._transits.take_down(undo)
            raise
        self._egress = egress
        if previous is not None:
            await self._lines.take_down(argv for argv in dict.fromkeys(previous.down) if argv not in down)
        await self._transits.drop(wanted, hops_of(previous))
        return StoredPolicy(policy, down)

    async def link_is_back(self, interface: str, policy: Policy, mtus: Mapping[str, int]) -> None:  # noqa: ARG002
        await self._transits.link_is_back(interface, hops(policy.transits))

    async def in_force(self, policy: Policy) -> bool:
        if await has_moved(self._shell, policy, self._egress):
            return False
        # Of the transits' lines the first speaks for all: asking for each would be a process for each client.
        few = replace(policy, transits=policy.transits[:1])
        lines = self._rules(render(few), self._egress)
        return await self._lines.are_there(lines) and await self._transits.are_there(hops(policy.transits))

    @staticmethod
    def _rules(rules: Rules, egress: str) -> tuple[Argv, ...]:
        lines = (resolve(line, CLIENT_INTERFACE, egress) for line in rules.post_up)
        return tuple(argv for argv in lines if argv[0] == "iptables")
