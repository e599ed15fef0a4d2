"""From a link's plan to the calls that carry it out, and from what came of them to what the link remembers. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from actors.node_change import XRAY_STEP, Change, Changed, Configure, Remove
from coxswain.errors import NodeRefused
from coxswain.model import Protocol
from coxswain.reconcile import codec
from coxswain.reconcile.desired import policy_fingerprint
from coxswain.reconcile.types import (
    UNVERSIONED,
    ConfigureLink,
    Desired,
    LinkMemory,
    Observed,
    Plan,
    PushPeers,
    PushXray,
    Reason,
    RemoveLink,
    SetPolicy,
)

__all__ = ["after", "calls", "cascade_applied", "doubted", "served", "touched_links"]


def touched_links(made: Plan) -> tuple[str, ...] | None:
    """The interfaces whose state a plan is about to put in doubt; None: it has nothing to do with inner links. Those to be
    removed are as they were until they are gone.
    """
    if not any(isinstance(step, ConfigureLink | RemoveLink) for step in made.steps):
        return None
    return tuple(step.link.interface for step in made.steps if isinstance(step, ConfigureLink))


def calls(made: Plan, desired: Desired, link_revision: int, *, verify: bool) -> Change:
    """The calls of a plan. ``desired`` has the revision under which peers are pushed."""
    parts: dict[str, Any] = {}
    configure: list[Configure] = []
    remove: list[Remove] = []
    for step in made.steps:
        match step:
            case ConfigureLink(link=link):
                configure.append(Configure(codec.link_config(link), f"{link.block}:{link.peer}"))
            case PushPeers():
                parts["push"] = codec.push_request(desired)
            case SetPolicy():
                parts["policy"] = codec.policy_request(desired.network)
                parts["needs"] = frozenset(transit.inner_interface for transit in desired.transits)
            case PushXray() if desired.xray is not None:
                parts["xray"] = codec.xray_request(desired.xray, desired.revision)
            case RemoveLink(interface=interface, register=register):
                remove.append(Remove(interface, codec.inert_link(interface) if register else None))
    return Change(tuple(configure), remove=tuple(remove), link_revision=link_revision, verify=verify, **parts)


def doubted(memory: LinkMemory, change: Change) -> LinkMemory:
    """While a change is under way the node may have the one, the other, or half of it (node-contract.md 7.5)."""
    if change.policy is not None:
        memory = dataclasses.replace(memory, policy_confirmed="", policy_suspect=True)
    if change.xray is not None:
        memory = dataclasses.replace(memory, xray_confirmed="")
    return memory


def after(memory: LinkMemory, desired: Desired, change: Changed, agent_version: str) -> LinkMemory:
    """What a link remembers of a change; how far it came counts, not whether it failed."""
    links = {name: known for name, known in memory.links.items() if name not in change.removed} | dict(change.configured)
    for name in _missed(desired, change) & links.keys():
        links[name] = f"{links[name].partition(':')[0]}:"
    known: dict[str, Any] = {
        "links": links,
        "registered": (memory.registered | change.configured.keys()) - change.forgotten,
    }
    if change.pushed is not None:
        known["applied_content"] = desired.content
    if change.policy_applied:
        known |= {
            "policy_confirmed": policy_fingerprint(desired.policy, desired.transits, desired.ports),
            "policy_suspect": False,
        }
    if change.xray and desired.xray is not None:
        known |= {"xray_confirmed": desired.xray.fingerprint, "xray_unsupported": "", "xray_refused": 0}
    elif change.xray is False:
        known["xray_unsupported"] = agent_version or UNVERSIONED
    elif change.failed_at == XRAY_STEP and isinstance(change.failure, NodeRefused):
        known["xray_refused"] = memory.xray_refused + 1
    return dataclasses.replace(memory, **known)


def _missed(desired: Desired, change: Changed) -> set[str]:
    """The interfaces that a policy failed for by the node's own words. Somebody has taken them away: an existing agent does
    not notice, nor does it say so until a transit needs one.
    """
    if change.failure is None or change.failed_at != "SetNetworkConfig":
        return set()
    words = set(re.findall(r"\w+", str(change.failure)))
    return words & {transit.inner_interface for transit in desired.transits}


def served(observed: Observed, clients: int) -> Observed:
    """What a node is once it acknowledged a push of REALITY with so many clients."""
    services = tuple(
        dataclasses.replace(s, running=True, peer_count=clients) if s.protocol is Protocol.XRAY_REALITY else s
        for s in observed.services
    )
    return dataclasses.replace(observed, services=services)


def cascade_applied(desired: Desired, memory: LinkMemory, applied_revision: int) -> str | None:
    """The fingerprint of what paths make of the node, if it has acknowledged all of it; None: not yet, or in doubt."""
    if applied_revision != desired.revision or memory.policy_suspect or Reason.POLICY_DIFFERS in memory.healed:
        return None
    if memory.policy_confirmed != policy_fingerprint(desired.policy, desired.transits, desired.ports):
        return None
    if any(memory.links.get(link.interface) != f"{link.block}:{link.peer}" for link in desired.links):
        return None
    return desired.cascade
