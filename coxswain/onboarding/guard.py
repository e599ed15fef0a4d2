"""Who may reach a node's control port at all (``node.control_from``): a table of its own in the host's firewall.

Without it whoever has no certificate of the control CA is turned away in the handshake; with it they do not get that far. It
touches nothing but that one port, so SSH always gets in to mend it; and it counts only once the port was reached through it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from coxswain.errors import InvalidInput, NodeMisbehaved, NodeRefused
from coxswain.inventory import AUTO, CONTROL_PORT, is_source
from coxswain.onboarding.units import GUARD_FILE, NODE
from coxswain.operations import Work
from coxswain.ssh import Host

__all__ = ["UNGUARD", "check_sources", "guard", "guard_rules", "unguard"]

TABLE = "cox_control"
UNGUARD = f"nft delete table inet {TABLE} 2>/dev/null || true; rm -f {GUARD_FILE}"


def check_sources(texts: Iterable[str]) -> list[str]:
    """Each once, in order. Raises ``InvalidInput``."""
    found = list(dict.fromkeys(texts))
    for text in found:
        if not is_source(text):
            raise InvalidInput(f"control_from: {text[:60]!r} is neither an address nor a network nor {AUTO}")
    return found


def guard_rules(port: int, sources: Sequence[str]) -> str:
    """For ``nft -f``; replaces what was there in one transaction. The host itself is never shut out."""
    networks = [ipaddress.ip_network(source) for source in sources]
    lines = [
        f"    tcp dport {port} {family} saddr {{ {', '.join(str(n) for n in networks if n.version == version)} }} accept"
        for family, version in (("ip", 4), ("ip6", 6))
        if any(n.version == version for n in networks)
    ]
    return "\n".join(
        (
            "# Written by coxswain from node.control_from: who may reach the agent's control port.",
            f"table inet {TABLE}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            "  chain input {",
            "    type filter hook input priority filter - 5; policy accept;",
            f'    iifname "lo" tcp dport {port} accept',
            *lines,
            f"    tcp dport {port} drop",
            "  }",
            "}",
            "",
        )
    )


def guard(work: Work, host: Host, sources: Sequence[str], port: int = CONTROL_PORT) -> None:
    """Puts the rules in force, now and after a reboot (the unit loads them). Empty ``sources``: everybody may.

    Raises:
        NodeRefused: the host has no nftables.
    """
    before = _present(host)
    if "guard" not in work.remembered:
        work.remember(guard=None if before is None else before.decode(errors="replace"))
    if not sources:
        if before is not None:
            host.run(UNGUARD, what="opening the control port")
            work.say("the control port is open to everybody who has a certificate for it")
        return
    if host.run("command -v nft", check=False).code:
        raise NodeRefused(
            f"{host.name}: there is no nft, which limits who reaches the control port",
            remedy="Install nftables there, or take node.control_from out of the configuration, and retry.",
        )
    seen = _resolved(host, sources)
    _load(host, guard_rules(port, seen))
    work.say(f"port {port} is reached from {', '.join(seen)} and from nowhere else")


def unguard(work: Work, host: Host) -> None:
    """What was there before comes back. The undo of ``guard``."""
    if "guard" not in work.remembered:
        return
    before = work.remembered["guard"]
    if before is None:
        host.run(UNGUARD, what="opening the control port")
    else:
        _load(host, str(before))


def _present(host: Host) -> bytes | None:
    """The rules that are there. Only what root has put there counts: the agent may make files beside it, and links."""
    if host.was_absent(GUARD_FILE):
        return None
    roots = host.run(f"[ ! -e {GUARD_FILE} ] || find {GUARD_FILE} -maxdepth 0 -type f -user root", what="looking for rules")
    return host.read(GUARD_FILE) if roots.stdout.strip() else None


def _load(host: Host, rules: str) -> None:
    """The agent reads them when it starts, so they are its group's."""
    host.put(GUARD_FILE, rules.encode(), 0o640)
    groups = f"! getent group {NODE.account} >/dev/null || chgrp -h {NODE.account} {GUARD_FILE}"
    host.run(f"set -e; {groups}; nft -f {GUARD_FILE}", what="limiting who reaches the control port")


def _resolved(host: Host, sources: Sequence[str]) -> list[str]:
    if AUTO not in sources:
        return list(sources)
    told = host.ask('echo "${SSH_CONNECTION%% *}"', deadline=30).stdout.strip()
    if not told:  # the controller's own machine: it comes over the loopback
        return [source for source in sources if source != AUTO] or ["127.0.0.1"]
    if told == AUTO or not is_source(told):
        raise NodeMisbehaved(f"{host.name}: asked from where it sees this controller, it said {told[:60]!r}")
    return list(dict.fromkeys(told if source == AUTO else source for source in sources))
