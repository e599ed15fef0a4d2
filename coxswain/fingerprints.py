"""What a node was told, named by its content: the controller's names for it and the agent's (``GetStatus``) are made here,
so that what somebody else told the node is noticed. Pure.

A name is 32 hexadecimal digits of a SHA-256. Both sides may be of different releases, and names are stored: a content that
had a name has it for ever. What is new must not change the name of what does without it; nor may it be part of a name that
is compared with what an agent says that cannot hold it, or that agent is put right at every look.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from coxswain.netpolicy import Policy

__all__ = ["is_fingerprint", "of_policy", "of_reality"]

_FORM = re.compile(r"[0-9a-f]{32}")


def is_fingerprint(text: str) -> bool:
    """Whether it has the form of one."""
    return _FORM.fullmatch(text) is not None


def of_policy(policy: Policy) -> str:
    """Of a network policy with its transits, in their order, and its ports."""
    content: dict[str, object] = {
        "forwarding": policy.forwarding,
        "masquerade": policy.masquerade,
        "isolation": policy.isolation,
    }
    if policy.transits:
        content["transits"] = [[t.device_cidr, t.inner_interface, t.mark, t.table] for t in policy.transits]
    if policy.ports is not None:
        content["endpoint_ports"] = str(policy.ports)
    return _digest(content)


def of_reality(
    port: int,
    dest: str,
    server_names: Iterable[str],
    short_ids: Iterable[str],
    clients: Iterable[tuple[str, str]],
) -> str:
    """Of a REALITY inbound. ``clients``: UUID and flow of each, in any order."""
    return _digest([port, dest, list(server_names), list(short_ids), sorted(map(list, clients))])


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
