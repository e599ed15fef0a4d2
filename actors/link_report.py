"""What a node link tells ``fleet``: each time something is different from what it said last."""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from actors.link_calls import cascade_applied
from actors.supervision import Context
from coxswain.cascade.health import edges_seen, links_in_use
from coxswain.messages.fleet import Intent, LinkReport, Sighting, intent_mark
from coxswain.model import LinkState, NodeStatus
from coxswain.reconcile.types import Desired, Finding, LinkMemory, Observed

__all__ = ["Known", "Reporter"]


@dataclass(frozen=True, slots=True)
class Known:
    """What a link knows of its node. ``observed`` None: it is not connected."""

    intent: Intent | None
    desired: Desired | None
    observed: Observed | None
    memory: LinkMemory
    peers_online: int | None


class Reporter:
    """The reports of one link."""

    def __init__(self, context: Context, node_id: str, sightings: MutableMapping[str, Sighting] | None = None) -> None:
        """``sightings``: where what changes at every look is noted, for ``fleet`` to read."""
        self._context = context
        self._sightings = {} if sightings is None else sightings
        self._node_id = node_id
        self._last: LinkReport | None = None
        self._unheard = False
        self._seen: tuple[tuple[tuple[str, float], ...], tuple[str, ...]] = ((), ())

    @property
    def last_reason(self) -> str:
        return self._last.reason if self._last is not None else ""

    def report(
        self, state: LinkState, reason: str, status: NodeStatus | None, findings: tuple[Finding, ...], known: Known
    ) -> None:
        now = self._context.clock.now()
        if known.observed is None:
            self._seen = ((), ())
        elif known.observed.peers is not None and known.desired is not None:
            self._seen = _links_seen(known.desired, known.observed, now)
        report = LinkReport(
            self._node_id,
            self._context.incarnation,
            now,
            state,
            reason,
            status,
            findings=tuple(finding.text for finding in findings),
            edges_seen=self._seen[0],
            links_in_use=self._seen[1],
            policy_confirmed=known.memory.policy_confirmed,
            **_intended(known),
            **_seen(known),
            **_reached(known, state),
        )
        self.sight(known)
        said, self._last = self._last, report
        if self._unheard or report != said:
            self._unheard = not self._context.tell("fleet", report)

    def sight(self, known: Known) -> None:
        """Notes what changes at every look, and is no reason for a report."""
        observed = known.observed
        if observed is None or observed.uptime_s is None or not self._context.is_current:
            return
        now, online = self._context.clock.now(), known.peers_online or 0
        self._sightings[self._node_id] = Sighting(self._context.incarnation, now, observed.uptime_s, online)

    def doubt(self, memory: LinkMemory) -> None:
        """What was confirmed is not any more."""
        if self._last is not None:
            self._last = dataclasses.replace(
                self._last,
                policy_confirmed=memory.policy_confirmed,
                xray_confirmed=memory.xray_confirmed,
                links_confirmed=tuple(sorted(memory.links.items())),
                cascade_applied=None,
            )
            self.again()

    def intent_changed(self) -> None:
        """The next report is told also if it is as the last: with the intent, ``fleet`` may have changed what it knew of the
        node (one that was enabled is pending there until its link speaks).
        """
        self._unheard = True

    def again(self) -> None:
        """What was said last, once more."""
        if self._last is not None:
            self._unheard = not self._context.tell("fleet", dataclasses.replace(self._last, at=self._context.clock.now()))


def _links_seen(desired: Desired, observed: Observed, now: float) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...]]:
    peers, skew = observed.peers or (), observed.clock_skew_s or 0.0
    return edges_seen(desired.peers, peers, skew), links_in_use(desired.transits, peers, skew, now)


def _intended(known: Known) -> dict[str, Any]:
    """What can be said once the intent was read. In one go, as the rest: a report is made at every look at every node."""
    intent, desired, memory = known.intent, known.desired, known.memory
    if desired is None:
        return {}
    return {
        "links_confirmed": tuple(sorted(memory.links.items())),
        "applied_content": memory.applied_content,
        "xray_confirmed": memory.xray_confirmed,
        "agent_started_at": memory.agent_started_at,
        "peers_configured": sum(bool(peer.device_id) for peer in desired.peers),
        "intent": intent_mark(intent.node, desired.revision, desired.cascade) if intent else None,
    }


def _seen(known: Known) -> dict[str, Any]:
    """What can be said of a node that was looked at."""
    observed = known.observed
    if observed is None:
        return {}
    return {
        "agent_version": observed.agent_version,
        "uptime_s": observed.uptime_s,
        "wg_public_key": observed.wg_public_key,
        "obfuscation": observed.obfuscation,
        "xray_public_key": observed.xray_public_key,
        "tunnel_ipv6": observed.tunnel_ipv6,
        "mapped_ports": observed.mapped_ports,
        "applied_revision": observed.applied_revision,
        "peers_online": known.peers_online,
    }


def _reached(known: Known, state: LinkState) -> dict[str, Any]:
    """Whether it is what it should be."""
    desired, observed = known.desired, known.observed
    if desired is None or observed is None:
        return {}
    applied = observed.applied_revision == desired.revision
    return {
        "in_sync": applied and state is LinkState.LIVE,
        "cascade_applied": cascade_applied(desired, known.memory, observed.applied_revision),
    }
