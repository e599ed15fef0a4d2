"""Where marked packets go: one rule and one table per link (node-contract.md 7.3), and nowhere else.

The table of a link has its default route and, behind it, one that refuses: a link that goes away takes its route with it,
and what was meant for it would otherwise follow the main table out of this node.

Rules and routes are made what they should be by looking at what is there: repeated rules, such as the existing agent adds
one per client, become one.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coxswain.agent.dataplane import DataPlaneFailed, StoredPolicy
from coxswain.agent.wireguard.commands import Shell
from coxswain.netpolicy import Transit

__all__ = ["REFUSE_METRIC", "Hop", "Transits", "hops", "hops_of", "is_there"]

_RESERVED = frozenset({0, 253, 254, 255})
"""default, main and local (ip-route(8)); what is stored could have been written by somebody else."""

REFUSE_METRIC = 4000
"""Of the route that refuses: any that is larger than 0, a default route's own."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hop:
    """What one link needs in one address family. ``family``: 4 or 6."""

    family: int
    mark: int
    table: int
    interface: str

    @property
    def _ip(self) -> tuple[str, ...]:
        # IPv4 without an option, as the canonical strings have it.
        return ("ip",) if self.family == 4 else ("ip", "-6")

    def rule(self, verb: str) -> tuple[str, ...]:
        return (*self._ip, "rule", verb, "fwmark", str(self.mark), "lookup", str(self.table))

    def route(self, verb: str) -> tuple[str, ...]:
        return (*self._ip, "route", verb, "default", "dev", self.interface, "table", str(self.table))

    def refusal(self, verb: str) -> tuple[str, ...]:
        metric = ("metric", str(REFUSE_METRIC))
        return (*self._ip, "route", verb, "unreachable", "default", *metric, "table", str(self.table))

    def down(self) -> tuple[tuple[str, ...], ...]:
        """What takes it away again, for ``netpolicy.json``: commands that the existing agent may run as well."""
        return (self.rule("del"), self.route("del"), self.refusal("del"))


def hops(transits: Iterable[Transit]) -> tuple[Hop, ...]:
    """One per link, however many clients are sent through it."""
    found: dict[Hop, None] = {}
    for transit in transits:
        found[Hop(_family(transit.device_cidr), transit.mark, transit.table, transit.inner_interface)] = None
    return tuple(found)


def hops_of(stored: StoredPolicy | None) -> tuple[Hop, ...]:
    """Every one that a stored policy speaks of: its own, and those that its teardown commands take away besides."""
    if stored is None:
        return ()
    rules: dict[tuple[int, int, int], None] = {}
    routes: dict[tuple[int, int], list[str]] = {}
    for argv in stored.down:
        family, words = (6, argv[2:]) if argv[:2] == ("ip", "-6") else (4, argv[1:] if argv[:1] == ("ip",) else ())
        match words:
            case ("rule", "del", "fwmark", mark, "lookup", looked_up) if _is_ours(mark) and _is_ours(looked_up):
                rules[family, int(mark), int(looked_up)] = None
            case ("route", "del", "default", "dev", interface, "table", own) if _is_ours(own):
                routes.setdefault((family, int(own)), []).append(interface)
    found = dict.fromkeys(hops(stored.policy.transits))
    for version, number, table in rules:
        found |= dict.fromkeys(Hop(version, number, table, link) for link in routes.get((version, table), ()))
    return tuple(found)


def _is_ours(number: str) -> bool:
    """A mark, or a table that is not the host's own."""
    return number.isascii() and number.isdigit() and len(number) <= 10 and int(number) not in _RESERVED


def _family(cidr: str) -> int:
    try:
        return ipaddress.ip_network(cidr, strict=False).version
    except ValueError:
        return 4  # stored unchecked by another agent, whose rules are IPv4's


def is_there(interface: str) -> bool:
    """An interface of any kind, whoever made it."""
    return Path("/sys/class/net", interface).exists()


class Transits:
    """Changes rules and routes. Additions come before the marks that need them, removals after those are gone."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def add(
        self, wanted: tuple[Hop, ...], before: tuple[Hop, ...], *, without_links: bool
    ) -> tuple[tuple[str, ...], ...]:
        """Puts in place what is not there yet; returns the commands that undo it.

        ``without_links``: one whose link is missing gets no route to it; what it carries is refused.

        Raises:
            DataPlaneFailed: with nothing new left.
        """
        undo: list[tuple[str, ...]] = []
        try:
            for hop in wanted:
                new = hop not in before
                await self._run(hop.refusal("replace"))
                if new and not any(hop.table == known.table and hop.family == known.family for known in before):
                    undo.insert(0, hop.refusal("del"))
                try:
                    await self._run(hop.route("replace"))
                except DataPlaneFailed:
                    if without_links and not is_there(hop.interface):
                        continue
                    raise
                if new:
                    undo.insert(0, hop.route("del"))
            for family in dict.fromkeys(hop.family for hop in wanted):
                there = await self._rules(family) or Counter()
                for hop in wanted:
                    if hop.family == family and not there[hop.mark, hop.table]:
                        await self._run(hop.rule("add"))
                        there[hop.mark, hop.table] += 1
                        undo.insert(0, hop.rule("del"))
        except DataPlaneFailed:
            await self.take_down(undo)
            for hop in before:  # a route of the same table may have been replaced
                if is_there(hop.interface):
                    await self.take_down([hop.route("replace")])
            raise
        return tuple(undo)

    async def drop(self, wanted: tuple[Hop, ...], before: tuple[Hop, ...]) -> None:
        """Takes away what only the policy before needs, and all but one of rules that are there several times."""
        wanted_rules = {(hop.family, hop.mark, hop.table) for hop in wanted}
        wanted_tables = {(hop.family, hop.table) for hop in wanted}
        for family in dict.fromkeys(hop.family for hop in (*wanted, *before)):
            try:
                there = await self._rules(family)
            except DataPlaneFailed as failure:
                _log.warning("rules of links that are not used any more may remain: %s", failure)
                continue
            if there is None:
                left = [hop for hop in before if hop.family == family and (family, hop.mark, hop.table) not in wanted_rules]
                await self.take_down(hop.rule("del") for hop in left)
                continue
            for hop in dict.fromkeys((*wanted, *before)):
                if hop.family == family:
                    keep = 1 if (family, hop.mark, hop.table) in wanted_rules else 0
                    for _ in range(there[hop.mark, hop.table] - keep):
                        await self.take_down([hop.rule("del")])
                    there[hop.mark, hop.table] = keep
        for hop in before:
            if hop not in wanted:
                same_table = (hop.family, hop.table) in wanted_tables
                await self.take_down([hop.route("del"), *([] if same_table else [hop.refusal("del")])])

    async def are_there(self, wanted: tuple[Hop, ...]) -> bool:
        """Are the rules of all links there, and their routes? Of a link that is not, the one that refuses. Never raises."""
        try:
            for family in dict.fromkeys(hop.family for hop in wanted):
                there = await self._rules(family)
                if there is None or not all(there[hop.mark, hop.table] for hop in wanted if hop.family == family):
                    return False
            for hop in wanted:
                routes = await self._routes(hop)
                if "" not in routes or (is_there(hop.interface) and hop.interface not in routes):
                    return False
        except DataPlaneFailed:
            return False
        return True

    async def take_down(self, lines: Iterable[tuple[str, ...]]) -> None:
        """Runs each command; what is not there any more is not missed."""
        for argv in lines:
            try:
                await self._run(argv)
            except DataPlaneFailed as failure:
                _log.debug("teardown: %s", failure)

    async def link_is_back(self, interface: str, wanted: tuple[Hop, ...]) -> None:
        """The kernel dropped the routes of an interface that went away. Raises ``DataPlaneFailed``."""
        for hop in wanted:
            if hop.interface == interface:
                await self._run(hop.route("replace"))

    async def _run(self, argv: tuple[str, ...]) -> None:
        (await self._shell(*argv)).check()

    async def _routes(self, hop: Hop) -> set[str]:
        """Interfaces of the default routes of a table; empty: of one that refuses."""
        family = ("-6",) if hop.family == 6 else ()
        listed = (await self._shell("ip", *family, "-j", "route", "show", "table", str(hop.table))).check()
        try:
            defaults = [route for route in json.loads(listed.output or "[]") if route.get("dst") == "default"]
            return {"" if route.get("type") == "unreachable" else str(route.get("dev", "?")) for route in defaults}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise DataPlaneFailed("ip route show: its output cannot be read") from None

    async def _rules(self, family: int) -> Counter[tuple[int, int]] | None:
        """How many rules look up a table for a mark. None: the tool says nothing, not even that there are none."""
        listed = (await self._shell("ip", *(("-6",) if family == 6 else ()), "-N", "-j", "rule", "show")).check()
        if not listed.output.strip():
            return None
        found: Counter[tuple[int, int]] = Counter()
        try:
            for rule in json.loads(listed.output):
                if "fwmark" in rule and str(rule.get("table", "")).isdigit():
                    found[int(str(rule["fwmark"]), 0), int(rule["table"])] += 1
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise DataPlaneFailed("ip rule show: its output cannot be read") from None
        return found
