"""The network policy by nftables: one table of ours, replaced in one transaction, so that there is no moment without it.

What the rules do is what the canonical strings do (node-contract.md 7.3), with isolation for IPv6 as well. Marks need
``ip rule`` and ``ip route`` as in the strings; of those, only what differs is changed.

``down`` of a stored policy has only commands that the existing agent may run. A host that changes to that agent has to
take the table away by hand: ``nft delete table inet coxswain``.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter

from coxswain.agent.dataplane import CLIENT_INTERFACE, DataPlaneFailed, StoredPolicy
from coxswain.agent.wireguard.commands import Shell
from coxswain.agent.wireguard.firewall import NFT_TABLE, egress_of, execute, tear_down
from coxswain.netpolicy import Policy, Transit, render, resolve

__all__ = ["NftablesFirewall", "foreign_drop", "ruleset"]

_log = logging.getLogger(__name__)


def ruleset(policy: Policy, egress: str) -> str:
    """The transaction that makes the table what the policy says, whether it is there or not."""
    # Adding it first makes the deletion work on a host that does not have it.
    lines = [f"table inet {NFT_TABLE} {{}}", f"delete table inet {NFT_TABLE}"]
    if not policy.forwarding:
        return "\n".join(lines) + "\n"
    client = f'"{CLIENT_INTERFACE}"'
    forward = [f"iifname {client} oifname {client} drop"] if policy.isolation else []
    forward += [f"iifname {client} accept", f"oifname {client} accept"]
    lines += [f"table inet {NFT_TABLE} {{", *_chain("forward", "type filter hook forward priority filter", forward)]
    if policy.masquerade:
        rules = [f'meta nfproto ipv4 oifname "{egress}" masquerade']
        lines += _chain("postrouting", "type nat hook postrouting priority srcnat", rules)
    if policy.transits:
        rules = [f"iifname {client} ip saddr {t.device_cidr} meta mark set {t.mark}" for t in policy.transits]
        lines += _chain("prerouting", "type filter hook prerouting priority mangle", rules)
    return "\n".join([*lines, "}"]) + "\n"


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f"  chain {name} {{", f"    {hook}; policy accept;", *(f"    {rule}" for rule in rules), "  }"]


async def foreign_drop(shell: Shell) -> bool:
    """Does another table drop what is forwarded, by policy? Our accept cannot help against it: every table has to let a
    packet pass. Docker's and ufw's do, and there a rule of iptables in their chain is what works.
    """
    listed = await shell("nft", "-j", "list", "chains")
    if not listed.ok:
        return False
    try:
        entries = [item["chain"] for item in json.loads(listed.output)["nftables"] if "chain" in item]
    except (ValueError, KeyError, TypeError):
        return False
    return any(
        chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain.get("table") != NFT_TABLE
        for chain in entries
        if chain.get("family") in {"ip", "inet"}
    )


class NftablesFirewall:
    """See the module."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def apply(self, policy: Policy, previous: StoredPolicy | None) -> StoredPolicy:
        egress = await egress_of(self._shell, policy)
        rules = render(policy)
        for line in rules.pre_up:
            await execute(self._shell, resolve(line, CLIENT_INTERFACE, egress))
        old_down = previous.down if previous is not None else ()
        before = previous.policy.transits if previous is not None else ()
        added = await self._add_transits(policy.transits, before)
        try:
            (await self._shell("nft", "-f", "-", stdin=ruleset(policy, egress))).check()
        except DataPlaneFailed:
            await tear_down(self._shell, added)
            raise
        down = tuple(resolve(line, CLIENT_INTERFACE, egress) for line in rules.post_down if line.startswith("ip "))
        # From here on the new policy is in force; what is left of the old one goes.
        await self._drop_transits(policy.transits, old_down)
        if shutil.which("iptables"):
            await tear_down(self._shell, [argv for argv in old_down if argv[:1] == ("iptables",)])
        return StoredPolicy(policy, tuple(dict.fromkeys(down)))

    async def _add_transits(self, transits: tuple[Transit, ...], before: tuple[Transit, ...]) -> list[tuple[str, ...]]:
        """Routes and rules that are not there yet. Returns what takes the new ones away again.

        Raises ``DataPlaneFailed``, with nothing new left.
        """
        undo: list[tuple[str, ...]] = []
        known_routes = {(t.inner_interface, t.table) for t in before}
        try:
            for inner, table in dict.fromkeys((t.inner_interface, t.table) for t in transits):
                route = ("default", "dev", inner, "table", str(table))
                await execute(self._shell, ("ip", "route", "replace", *route))
                if (inner, table) not in known_routes:
                    undo.insert(0, ("ip", "route", "del", *route))
            if transits:
                there = await self._marks()
                for mark, table in dict.fromkeys((t.mark, t.table) for t in transits):
                    if not there[mark, table]:
                        rule = ("fwmark", str(mark), "lookup", str(table))
                        await execute(self._shell, ("ip", "rule", "add", *rule))
                        undo.insert(0, ("ip", "rule", "del", *rule))
        except DataPlaneFailed:
            await tear_down(self._shell, undo)
            raise
        return undo

    async def _drop_transits(self, transits: tuple[Transit, ...], old_down: tuple[tuple[str, ...], ...]) -> None:
        """Routes and rules of the old policy that the new one does not have."""
        wanted: set[tuple[str, ...]] = {("fwmark", str(t.mark), "lookup", str(t.table)) for t in transits}
        wanted |= {("default", "dev", t.inner_interface, "table", str(t.table)) for t in transits}
        gone = [argv for argv in old_down if argv[:1] == ("ip",) and argv[3:] not in wanted]
        await tear_down(self._shell, gone)

    async def _marks(self) -> Counter[tuple[int, int]]:
        """How many rules look up a table for a mark."""
        listed = (await self._shell("ip", "-N", "-j", "rule", "show")).check()
        marks: Counter[tuple[int, int]] = Counter()
        try:
            for rule in json.loads(listed.output or "[]"):
                if "fwmark" in rule and str(rule.get("table", "")).isdigit():
                    marks[int(str(rule["fwmark"]), 0), int(rule["table"])] += 1
        except (ValueError, TypeError, KeyError):
            raise DataPlaneFailed("ip rule show: its output cannot be read") from None
        return marks
