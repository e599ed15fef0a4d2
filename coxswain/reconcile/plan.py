"""The difference between what a node should be and what it is, as steps. Pure.

The rules are those of node-contract.md 11.3 and 11.4 and management-plane.md 8, with the known weaknesses turned round:
content is compared and not only the counter, an idle node is not a stalled one, a revision from the future is adopted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from coxswain.model import Protocol
from coxswain.reconcile.codec import normal_ips, psk_digest
from coxswain.reconcile.desired import policy_fingerprint
from coxswain.reconcile.types import (
    UNVERSIONED,
    ConfigureLink,
    Desired,
    Finding,
    LinkMemory,
    Observed,
    Plan,
    PushPeers,
    PushXray,
    Reason,
    RemoveLink,
    ServiceHealth,
    SetPolicy,
    Step,
)
from coxswain.words import counted

__all__ = [
    "CLAIMED",
    "COOLED",
    "DRIFT",
    "FOREIGN",
    "RIVAL",
    "STALL_COOLDOWN_S",
    "describe",
    "forced",
    "plan",
    "remember",
    "unused_links",
]

STALL_COOLDOWN_S = 300.0
"""management-plane.md 8.1: a stalled data plane is healed at most every five minutes. So is what telling did not mend."""

_CLOCK_STEP_S = 1.0
"""What may lie between two runs of ours without meaning that an agent started anew: steps of the clock, slow answers."""

_XRAY_LEAP, _XRAY_LEAPS = 8, 10
"""What a revision is raised by grows so by each refusal of XRay: whatever is ahead is reached soon, and numbers last."""

_NO_KEY = psk_digest("")

_NO_PEERS = "awg0 up, 0 peers"
"""What agents say of an interface that they could read, and that has none (node-contract.md 1.3)."""

DRIFT = frozenset({
    Reason.REVISION_AHEAD, Reason.REVISION_LOST, Reason.PEERS_DIFFER, Reason.PEERS_LIVE, Reason.DATA_PLANE_DOWN,
    Reason.POLICY_DIFFERS, Reason.PORTS_DIFFER, Reason.XRAY_DIFFERS,
})  # fmt: skip
"""What somebody else did to the node, or its files became: nothing of it was to be."""

FOREIGN = frozenset({Reason.REVISION_AHEAD, Reason.XRAY_DIFFERS})
"""Of that, what only a controller does, or a state that is older than the node. Policies: ``remember``."""

CLAIMED = frozenset({Reason.POLICY_DIFFERS, Reason.XRAY_DIFFERS})
"""What only the agent's own word shows. It is asked right after it was told: what it then has, nobody else gave it."""

COOLED = CLAIMED | {Reason.PEERS_LIVE}
"""For these a node is not told again at every look that it did not become what it was told (``LinkMemory.healed``)."""

_RIVAL_WITHIN_S = 3600.0
_RIVAL_HOLDS_S = 180.0
"""Once is a restored database, or files of the agent's. Twice within an hour, and it is another controller, which is said
until it has been quiet for some looks."""

RIVAL = "another controller pushes to it as well; stop one of the two"
"""The last of what degrades a node: where this is what is said of it, there is nothing else."""

_STALL_FORGOTTEN_S = 1800.0
"""After half an hour without a look at it (the node was away), a silence says nothing any more."""


def plan(desired: Desired, observed: Observed, memory: LinkMemory, now: float) -> Plan:
    """What to do to a node, in order: first inner links, then the data plane and its peers, then the policy with the
    transits that need both, and what no transit needs any more last (node-contract.md 11.4, rule 7).

    Args:
        desired: what it should be.
        observed: what it is.
        memory: what the link remembers, already told of ``observed`` (``remember``).
        now: monotonic seconds.
    """
    findings: list[Finding] = []
    push = _push(desired, observed, memory, findings) or _revive(observed, memory, now, findings)
    xray = _xray(desired, observed, memory, now, findings)
    runs = _service(observed, Protocol.XRAY_REALITY)
    may_run = bool(memory.xray_confirmed or memory.xray_refused) if runs is None else runs.running
    if xray is not None and push is None and may_run:
        # An agent whose XRay runs takes an equal revision for a repetition, whatever is in it (node-contract.md 4.5). Its
        # counter is its own and in no status: one that is ahead of ours shows in a refusal only.
        leap = _XRAY_LEAP ** min(memory.xray_refused, _XRAY_LEAPS)
        push = PushPeers(xray.reason, True, observed.applied_revision + leap, "for XRay")
    steps: list[Step] = [*_links(desired, memory)]
    if push is not None:
        steps.append(push)
    policy = policy_fingerprint(desired.policy, desired.transits, desired.ports)
    foreign = _is_foreign(observed.policy, policy, memory)
    if foreign and _cools(memory, Reason.POLICY_DIFFERS, now):
        findings.append(_unheeded(Reason.POLICY_DIFFERS))
        foreign = False
    if foreign:
        steps.append(SetPolicy(Reason.POLICY_DIFFERS))
    elif memory.policy_suspect:
        steps.append(SetPolicy(Reason.POLICY_SUSPECT))
    elif memory.policy_confirmed != policy:
        steps.append(SetPolicy(Reason.POLICY_CHANGED))
    elif observed.mapped_ports and observed.mapped_ports != str(desired.ports or ""):
        steps.append(SetPolicy(Reason.PORTS_DIFFER))  # of a restored database, or by another controller
    elif desired.ports is not None and observed.mapped_ports == "":
        findings.append(Finding(f"the agent does not map ports {desired.ports}: clients are told of port 443 alone"))
    if xray is not None:
        steps.append(xray)
    steps += unused_links(desired, memory)
    if _has_rival(memory, now):
        findings.append(Finding(RIVAL, degraded=True))
    if observed.clock_skew_s:
        side = "ahead of" if observed.clock_skew_s > 0 else "behind"
        minutes = max(1, round(abs(observed.clock_skew_s) / 60))
        findings.append(Finding(f"the node's clock is about {minutes} min {side} ours; set up NTP on it"))
    return Plan(tuple(steps), tuple(findings))


def remember(
    memory: LinkMemory,
    observed: Observed,
    now: float,
    *,
    reconnected: bool = False,
    ours: int | None = None,
    policy: str = "",
    xray: str = "",
) -> LinkMemory:
    """The memory after a look.

    Args:
        memory: as it was before.
        observed: what was seen.
        now: monotonic seconds.
        reconnected: it is the first look of a connection.
        ours: the highest revision that this controller has counted; None: not known.
        policy: fingerprint of the intended network policy; empty: not known.
        xray: of the intended REALITY inbound, as the agent names it; empty: not known.
    """
    service = _service(observed)
    handshakes = service is not None and service.handshaking_peers > 0
    # Whoever answers on a new connection may be another process, unless it is older than the last time that it was seen.
    unproven = reconnected and memory.seen_at is not None and now - observed.uptime_s > memory.seen_at
    restarted = unproven or _restarted(memory, observed)
    key, known = observed.wg_public_key, memory.wg_public_key
    another = bool(key and known and key != known)
    made_anew = another or observed.applied_revision == 0 < memory.applied_revision
    anew = restarted or made_anew
    # Somebody else told it things, or we did and our database was put back since: what it acknowledged is not what it has.
    ahead = ours is not None and observed.applied_revision > ours
    # The same where it has another policy than it acknowledged; of inner links, say, no look shows what became of them.
    # One that it did not become is no new one: each time, everything would be told again.
    meddled = _is_foreign(observed.policy, policy, memory) and not _cools(memory, Reason.POLICY_DIFFERS, now)
    doubtful = anew or ahead or meddled
    started = now - observed.uptime_s
    began = 0.0 if observed.asked_at is None else observed.asked_at[1] - observed.uptime_s
    return dataclasses.replace(
        memory,
        uptime_s=observed.uptime_s,
        wg_public_key=key or known,
        applied_revision=observed.applied_revision,
        highest_revision=0 if another else max(memory.highest_revision, memory.applied_revision, observed.applied_revision),
        # node-contract.md 11.4, rule 6; and no look shows whether a host that was set up anew has any policy.
        policy_suspect=memory.policy_suspect or doubtful,
        # A restarted agent may have lost a file, and each time that it is found so until it is mended is one time.
        overtaken=(
            (*memory.overtaken, now)[-2:]
            if meddled and not (anew or ahead or memory.policy_suspect or Reason.POLICY_DIFFERS in memory.healed)
            else memory.overtaken
        ),
        links={name: f"{had.partition(':')[0]}:" for name, had in memory.links.items()} if doubtful else memory.links,
        registered=frozenset() if anew else memory.registered,
        xray_confirmed="" if doubtful else memory.xray_confirmed,
        applied_content="" if doubtful else memory.applied_content,
        xray_unsupported="" if anew else memory.xray_unsupported,
        xray_refused=0 if anew else memory.xray_refused,
        seen_at=now,
        started_by=started if anew or memory.started_by is None else min(started, memory.started_by),
        agent_started_at=began if anew or not memory.agent_started_at else memory.agent_started_at,
        healed={} if anew else _unhealed(memory, observed, policy, xray),
        # After a restart everybody's handshake is old or unknown: silence then is no sign of a stall.
        handshakes_seen_at=now if handshakes else None if restarted else memory.handshakes_seen_at,
    )


def _is_foreign(said: str, policy: str, memory: LinkMemory) -> bool:
    """Whether a node holds neither the policy that it acknowledged nor the intended one. An existing agent does not say."""
    return memory.policy_confirmed != "" and said not in ("", policy, memory.policy_confirmed)


def _cools(memory: LinkMemory, reason: Reason, now: float, found: str | None = None) -> bool:
    """Whether the node was told for this reason a short while ago, and did not become what it was told. ``found``: what of
    it was found, where something else is a reason to tell it at once; None: whatever it was.
    """
    healed_at, before = memory.healed.get(reason, (None, ""))
    return healed_at is not None and found in (None, before) and now - healed_at < STALL_COOLDOWN_S


def _unhealed(memory: LinkMemory, observed: Observed, policy: str, xray: str) -> Mapping[Reason, tuple[float, str]]:
    """``LinkMemory.healed`` without what the node is seen to be by now. What it does not say is as it was."""
    if not memory.healed:
        return memory.healed
    service = _service(observed)
    mended = {
        Reason.PEERS_LIVE: service is not None and service.peer_count == _listed(observed),
        Reason.POLICY_DIFFERS: observed.policy != "" and observed.policy in (policy, memory.policy_confirmed),
        Reason.XRAY_DIFFERS: observed.xray != "" and observed.xray == xray,
    }
    return {reason: told for reason, told in memory.healed.items() if not mended[reason]}


def _unheeded(reason: Reason) -> Finding:
    text = f"{reason.value}, also after it was told; see its agent's log, restart the agent or install another one"
    return Finding(text, degraded=True)


def describe(made: Plan) -> tuple[str, ...]:
    """One line per step, in an operator's words."""
    return tuple(_describe(step) for step in made.steps)


def _describe(step: Step) -> str:
    match step:
        case PushPeers(reason=reason, detail=detail):
            return f"push all peers: {reason.value}{f' ({detail})' if detail else ''}"
        case SetPolicy(reason=reason):
            return f"set the network policy: {reason.value}"
        case PushXray(reason=reason):
            return f"push XRay: {reason.value}"
        case ConfigureLink(link=link, reason=reason):
            return f"configure inner link {link.interface} to {link.endpoint}: {reason.value}"
        case RemoveLink(interface=interface, reason=reason):
            return f"remove inner link {interface}: {reason.value}"


def forced(desired: Desired, observed: Observed, memory: LinkMemory) -> Plan:
    """Everything, needed or not, under a fresh revision: what an operator asks for with a push."""
    revision = max(observed.applied_revision, desired.revision) + 1
    steps: list[Step] = [ConfigureLink(link, Reason.OPERATOR) for link in desired.links]
    steps += [PushPeers(Reason.OPERATOR, True, revision), SetPolicy(Reason.OPERATOR)]
    if desired.xray is not None and desired.xray.reality.enabled:
        steps.append(PushXray(Reason.OPERATOR))
    return Plan((*steps, *unused_links(desired, memory)), ())


def _links(desired: Desired, memory: LinkMemory) -> list[ConfigureLink]:
    steps = []
    for link in desired.links:
        known = memory.links.get(link.interface)
        if known == f"{link.block}:{link.peer}":
            continue
        _, _, peer = (known or "").partition(":")
        reason = Reason.LINK_NEW if known is None else Reason.LINK_CHANGED if peer else Reason.LINK_DOUBTFUL
        steps.append(ConfigureLink(link, reason))
    return steps


def unused_links(desired: Desired, memory: LinkMemory) -> list[RemoveLink]:
    """The links that the node has, or may have, and should not."""
    if not memory.links:
        return []
    wanted = {link.interface for link in desired.links}
    return [
        RemoveLink(name, name not in memory.registered, Reason.LINK_UNUSED) for name in sorted(memory.links.keys() - wanted)
    ]


def _xray(desired: Desired, observed: Observed, memory: LinkMemory, now: float, findings: list[Finding]) -> PushXray | None:
    wanted = desired.xray
    if wanted is None:
        return None
    service = _service(observed, Protocol.XRAY_REALITY)
    served = service.peer_count if service is not None and service.running else None
    if not wanted.reality.enabled:  # it cannot be switched off, but it can be emptied (node-contract.md 4.5)
        return PushXray(Reason.XRAY_CHANGED) if served else None
    if memory.xray_unsupported == (observed.agent_version or UNVERSIONED):
        if wanted.clients:
            findings.append(
                Finding(f"the agent has no XRay: {counted(len(wanted.clients), 'client')} not served", degraded=True)
            )
        return None
    if memory.xray_confirmed != wanted.fingerprint:
        return PushXray(Reason.XRAY_CHANGED)
    if observed.xray and observed.xray != wanted.as_told:
        if not _cools(memory, Reason.XRAY_DIFFERS, now):
            return PushXray(Reason.XRAY_DIFFERS)
        findings.append(_unheeded(Reason.XRAY_DIFFERS))
    if service is not None and served != len(wanted.clients):
        return PushXray(Reason.XRAY_DOWN)
    return None


def _restarted(memory: LinkMemory, observed: Observed) -> bool:
    """Whether the agent is another process than the one that was last seen, by us or, before us, by an earlier run."""
    if memory.uptime_s is not None and observed.uptime_s < memory.uptime_s:
        return True
    if observed.asked_at is None:
        return False
    monotonic, epoch = observed.asked_at
    if memory.started_by is not None:
        return monotonic - observed.uptime_s - 1 > memory.started_by
    known = memory.agent_started_at
    return bool(known) and epoch - observed.uptime_s - 1 > known + _CLOCK_STEP_S


def _push(desired: Desired, observed: Observed, memory: LinkMemory, findings: list[Finding]) -> PushPeers | None:
    applied, intended = observed.applied_revision, desired.revision
    if applied < intended:
        lost = applied < memory.highest_revision
        reason = Reason.REVISION_LOST if lost else Reason.REVISION_BEHIND
        return PushPeers(reason, False, intended, f"{applied}, intended {intended}")
    if applied > intended:
        findings.append(
            Finding(
                f"the node's revision {applied} is ahead of ours, {intended}: another controller pushed to it, "
                "or our database was restored"
            )
        )
        return PushPeers(Reason.REVISION_AHEAD, True, applied + 1, f"{applied}, intended {intended}")
    difference, hidden = _difference(desired, observed)
    if difference:
        return PushPeers(Reason.PEERS_DIFFER, True, applied + 1, difference)
    if hidden and memory.applied_content != desired.content:
        return PushPeers(Reason.KEYS_HIDDEN, True, applied + 1)
    if memory.applied_content not in ("", desired.content) and observed.peers is None:
        return PushPeers(Reason.CONTENT_UNKNOWN, True, applied + 1)
    return None


def _revive(observed: Observed, memory: LinkMemory, now: float, findings: list[Finding]) -> PushPeers | None:
    """A data plane that is down or stalled gets everything anew, under a fresh revision: the same one would be answered
    as a replay, and a restart of the service does nothing where the conf is lost (node-contract.md 4.4, 4.10).
    """
    service = _service(observed)
    if service is None:
        findings.append(Finding("the agent reports no AmneziaWG service", degraded=True))
        return None
    if not service.running:
        return PushPeers(Reason.DATA_PLANE_DOWN, True, observed.applied_revision + 1, service.detail)
    if _stalled(service, memory, now):
        return PushPeers(Reason.STALLED, True, observed.applied_revision + 1, f"{service.peer_count} peers")
    return _live(service, observed, memory, now, findings)


def _live(
    service: ServiceHealth, observed: Observed, memory: LinkMemory, now: float, findings: list[Finding]
) -> PushPeers | None:
    """Peers that somebody gave the interface, or took from it, past the agent: they are not in the list of those that are
    configured, but they are counted (node-contract.md 1.3, 4.9). A push makes the interface what is configured. One that
    changed nothing is repeated after five minutes.

    An agent that cannot read its interface counts none, too, and what it then says in ``detail`` is an error. A push would
    mend nothing there, and with an existing agent takes the peers of cascades off for a moment (fleet-model.md 12.14).
    """
    listed = _listed(observed)
    is_counted = service.peer_count > 0 or service.detail.startswith(_NO_PEERS)
    if listed is None or service.peer_count == listed or not is_counted:
        return None
    detail = f"{service.peer_count} live, {listed} configured"
    if not _cools(memory, Reason.PEERS_LIVE, now, detail):
        return PushPeers(Reason.PEERS_LIVE, True, observed.applied_revision + 1, detail)
    findings.append(Finding(f"{Reason.PEERS_LIVE.value}: {detail}", degraded=service.peer_count > listed))
    return None


def _listed(observed: Observed) -> int | None:
    """How many peers the agent has configured; None: it was not asked."""
    return None if observed.peers is None else len({peer.public_key for peer in observed.peers})


def _difference(desired: Desired, observed: Observed) -> tuple[str, bool]:
    """Counts of missing, extra and changed peers as text; empty when there are none, or nothing was observed. And whether
    preshared keys cannot be compared: an agent may leave them out of what it shows (node-contract.md 9.1, 7). That it has
    them says only that it acknowledged these very peers, and was not restarted since.
    """
    if observed.peers is None:
        return "", False
    rows = zip(desired.peers, desired.addresses, desired.psk_digests, strict=True)
    wanted = {peer.public_key: (ips, digest) for peer, ips, digest in rows if peer.protocol is Protocol.AMNEZIAWG}
    seen: set[str] = set()
    extra = changed = rekeyed = 0
    for peer in observed.peers:
        key = peer.public_key
        row = wanted.get(key)
        if row is None or key in seen:
            extra += 1
            continue
        seen.add(key)
        # Agents show what they were given, so the texts are nearly always the same already.
        same_ips = peer.allowed_ips == row[0] or normal_ips(peer.allowed_ips) == row[0]
        if not same_ips:
            changed += 1
        elif peer.psk_digest != row[1]:
            rekeyed += 1
    hidden = rekeyed > 0 and all(peer.psk_digest == _NO_KEY for peer in observed.peers)
    if not hidden:
        changed += rekeyed
    missing = len(wanted) - len(seen)
    counts = {"missing": missing, "extra": extra, "changed": changed}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count), hidden


def _has_rival(memory: LinkMemory, now: float) -> bool:
    """Whether somebody else goes on telling the node things."""
    if len(memory.overtaken) < 2:
        return False
    before, last = memory.overtaken
    return last - before < _RIVAL_WITHIN_S and now - last < _RIVAL_HOLDS_S


def _service(observed: Observed, protocol: Protocol = Protocol.AMNEZIAWG) -> ServiceHealth | None:
    for service in observed.services:
        if service.protocol is protocol:
            return service
    return None


def _stalled(service: ServiceHealth, memory: LinkMemory, now: float) -> bool:
    """Peers shook hands before, and now none does any more (management-plane.md 13.6, 39).

    A node where nobody ever did is idle. An agent that is too old to tell reports 0 and an age of 0 (node-contract.md
    1.3), which means nothing. One silence is healed once: where that did not bring anybody back, everybody left.
    """
    seen_at, healed_at = memory.handshakes_seen_at, memory.last_stall_heal_at
    if seen_at is None or service.handshaking_peers > 0 or service.peer_count == 0:
        return False
    if service.newest_handshake_age_s == 0:
        return False
    if now - seen_at > _STALL_FORGOTTEN_S:
        return False
    return healed_at is None or (healed_at < seen_at and now - healed_at >= STALL_COOLDOWN_S)
