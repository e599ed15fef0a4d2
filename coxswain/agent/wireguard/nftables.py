"""The network policy by nftables: one table of ours, replaced in one transaction, so that there is no moment without it.

The rules are in ``ruleset.py``. Marks need rules and routes of ``ip`` as well (``transits.py``): those are there before
the table that marks for them, and go after it.

``down`` of a stored policy has only commands that the existing agent may run; ``HANDOVER_GROUP`` tells how they put this
table out of force.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from coxswain.agent.dataplane import CLIENT_INTERFACE, DataPlaneFailed, Journal, StoredPolicy
from coxswain.agent.wireguard.commands import Shell
from coxswain.agent.wireguard.firewall import IptablesLines, both, egress_of, has_moved, loosen, turned
from coxswain.agent.wireguard.ruleset import HANDOVER_GROUP, NFT_TABLE, ruleset
from coxswain.agent.wireguard.transits import Transits, hops, hops_of
from coxswain.netpolicy import Policy, render
from coxswain.ports import PortRange

__all__ = ["NftablesFirewall", "foreign_chains", "has_ipv6"]

_HAND_OVER = ("ip", "link", "set", "dev", CLIENT_INTERFACE, "group", str(HANDOVER_GROUP))
_TAKE_OVER = ("ip", "link", "set", "dev", CLIENT_INTERFACE, "group", "0")

_PAST_THE_OTHERS = {
    family: tuple((tool, "-I", "FORWARD", "1", side, CLIENT_INTERFACE, "-j", "ACCEPT") for side in ("-i", "-o"))
    for family, tool in (("ip", "iptables"), ("ip6", "ip6tables"))
}
"""By family. Our own table has had its say by then or still will: accepting here only keeps others' chains from dropping.

Those of IPv6 are not among the commands of a stored policy, which the existing agent must be able to run.
"""

_log = logging.getLogger(__name__)


async def foreign_chains(shell: Shell) -> Mapping[str, bool]:
    """Families in which others look at what is forwarded, and whether they drop it, by policy. Our accept cannot help
    against that: every table has to let a packet pass. Docker's and ufw's do drop, and there a rule of iptables in their
    chain is what works.
    """
    listed = await shell("nft", "-j", "list", "chains")
    if not listed.ok:
        return {}
    found: dict[str, bool] = {}
    try:
        for chain in (item["chain"] for item in json.loads(listed.output)["nftables"] if "chain" in item):
            if chain.get("hook") == "forward" and chain.get("table") != NFT_TABLE:
                family = "ip" if chain.get("family") == "inet" else chain.get("family")
                found[family] = found.get(family, False) or chain.get("policy") == "drop"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return found


def has_ipv6() -> bool:
    """Can this host have addresses of it? Where not, it takes no routes to them either."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text(encoding="ascii").strip() == "0"
    except OSError:
        return False


class NftablesFirewall:
    """See the module. ``ports``: the range that the table maps; a kernel may not be able to."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._lines = IptablesLines(shell)
        self._transits = Transits(shell)
        self._egress = ""
        self._listed: bytes | None = None
        self._passes_ipv6 = True
        self.ports: PortRange | None = None

    async def apply(
        self,
        policy: Policy,
        previous: StoredPolicy | None,
        mtus: Mapping[str, int],
        journal: Journal,
        *,
        restoring: bool,
    ) -> StoredPolicy:
        egress = await egress_of(self._shell, policy)
        wanted = hops(policy.transits)
        before = hops(previous.policy.transits) if previous is not None else ()
        chains = await foreign_chains(self._shell)
        past = self._past_the_others(policy, chains, "ip")
        back = tuple(turned(argv, "-D") for argv in past)
        switch = (_HAND_OVER,) if policy.forwarding else ()
        down = (*back, *switch, *(argv for hop in wanted for argv in hop.down()))
        await journal(both(previous, down))
        await loosen(self._shell, render(policy))
        undo = await self._transits.add(wanted, before, without_links=restoring)
        try:
            added = await self._lines.add(past)
            try:
                await self._commit(policy, egress, mtus)
            except DataPlaneFailed:
                await self._lines.take_down(added)
                raise
        except DataPlaneFailed:
            await self._transits.take_down(undo)
            raise
        self._egress = egress
        await self._take_over()
        await self._past_the_others_ipv6(policy, chains)
        # From here on the new policy is in force; what is left of the old one goes.
        await self._transits.drop(wanted, hops_of(previous))
        if previous is not None and shutil.which("iptables"):
            await self._lines.take_down(argv for argv in dict.fromkeys(previous.down) if argv not in down)
        return StoredPolicy(policy, down)

    async def link_is_back(self, interface: str, policy: Policy, mtus: Mapping[str, int]) -> None:
        await self._transits.link_is_back(interface, hops(policy.transits))
        await self._commit(policy, self._egress, mtus)

    async def in_force(self, policy: Policy) -> bool:
        if not policy.forwarding and self.ports is None:
            return True
        if await has_moved(self._shell, policy, self._egress):
            return False
        listed = await self._listing()
        # A table that was flushed has its chains still, and one rule less is isolation gone: all of it has to be as it was.
        if listed is None or listed != self._listed or not await self._transits.are_there(hops(policy.transits)):
            return False
        # The other firewall may have come, or have been loaded again, since.
        chains = await foreign_chains(self._shell)
        families = ("ip", "ip6") if self._passes_ipv6 else ("ip",)
        return await self._lines.are_there(
            argv for family in families for argv in self._past_the_others(policy, chains, family)
        )

    async def _commit(self, policy: Policy, egress: str, mtus: Mapping[str, int]) -> None:
        try:
            await self._put(policy, egress, mtus)
        finally:
            self._listed = await self._listing()

    async def _listing(self) -> bytes | None:
        """What names the whole table as it is, as the kernel says; None: it is not there."""
        listed = await self._shell("nft", "-s", "list", "table", "inet", NFT_TABLE)
        return hashlib.sha256(listed.output.encode()).digest() if listed.ok else None

    async def _put(self, policy: Policy, egress: str, mtus: Mapping[str, int]) -> None:
        ended = await self._shell("nft", "-f", "-", stdin=ruleset(policy, egress, mtus))
        if ended.ok:
            self.ports = policy.ports
            return
        if policy.isolation or policy.ports is not None:
            again = await self._shell("nft", "-f", "-", stdin=ruleset(policy, egress, mtus, lookups=False))
            if again.ok:
                self.ports = None
                without = ["isolation does not cover paths out and back in"] if policy.isolation else []
                without += [f"ports {policy.ports} are not mapped"] if policy.ports is not None else []
                _log.warning("this kernel cannot look up addresses or routes in rules: %s", "; ".join(without))
                return
        ended.check()

    def _past_the_others(self, policy: Policy, chains: Mapping[str, bool], family: str) -> tuple[tuple[str, ...], ...]:
        """What has to be in their chain of a family, if anything."""
        past = _PAST_THE_OTHERS[family]
        return past if policy.forwarding and chains.get(family) and shutil.which(past[0][0]) else ()

    async def _past_the_others_ipv6(self, policy: Policy, chains: Mapping[str, bool]) -> None:
        """What cannot be done here is no reason to be without the policy."""
        past = self._past_the_others(policy, chains, "ip6")
        try:
            await self._lines.add(past)
            self._passes_ipv6 = True
        except DataPlaneFailed as failure:
            self._passes_ipv6 = False
            _log.warning("another firewall drops the clients' IPv6, and lets nothing be added: %s", failure)
        if not past and "ip6" in chains and shutil.which("ip6tables"):
            await self._lines.take_down(turned(argv, "-D") for argv in _PAST_THE_OTHERS["ip6"])

    async def _take_over(self) -> None:
        """The client interface may still be in the group that puts our table out of force."""
        if _group_of(CLIENT_INTERFACE) == HANDOVER_GROUP:
            (await self._shell(*_TAKE_OVER)).check()


def _group_of(interface: str) -> int:
    try:
        return int(Path("/sys/class/net", interface, "netdev_group").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0  # it is not up yet, and will come up in this one
