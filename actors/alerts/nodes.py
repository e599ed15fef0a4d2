"""What is known of each node, for the rules that must react at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from coxswain.alerts.fleet_health import Health, Watched, degraded_key, fleet_key, judge, judge_degraded
from coxswain.alerts.model import Alert, Finding
from coxswain.alerts.settings import RuleSettings
from coxswain.messages.fleet import NodeView

__all__ = ["NODE_KINDS", "NodeWatch"]

NODE_KINDS = ("fleet_health", "node_degraded")


class NodeWatch:
    """Every node's last view, and what earlier looks remembered. 5,000 nodes are about 3 MB."""

    def __init__(self) -> None:
        self._views: dict[str, NodeView] = {}
        self._watched: dict[str, Watched] = {}
        self._due: dict[str, float] = {}
        self._dirty: set[str] = set()

    @property
    def next_due(self) -> float | None:
        """Epoch seconds; None: nothing will change by itself."""
        return min(self._due.values(), default=None)

    def remember(self, alerts: Iterable[Alert]) -> None:
        """After a start: since when what these alerts are about has been so."""
        for alert in alerts:
            known = self._watched.get(alert.node_id, Watched())
            if alert.kind == "fleet_health" and not known.bad_since:
                known = dataclasses.replace(known, bad_since=alert.evidence)
            elif alert.kind == "node_degraded" and not known.degraded_since:
                known = dataclasses.replace(known, degraded_since=alert.evidence)
            self._watched[alert.node_id] = known

    def seen(self, view: NodeView) -> None:
        self._views[view.node.id] = view
        self._dirty.add(view.node.id)

    def gone(self, node_id: str) -> None:
        for known in (self._views, self._watched, self._due):
            known.pop(node_id, None)
        self._dirty.add(node_id)

    def look_again(self, node_id: str) -> None:
        """There is an alert about it, and perhaps no such node any more."""
        self._dirty.add(node_id)

    def judge_all_again(self) -> None:
        """What was judged could not be written."""
        self._dirty |= self._views.keys()

    def all_are(self, views: Iterable[NodeView]) -> None:
        """The whole inventory, as it is now."""
        found = {view.node.id: view for view in views}
        for node_id in self._views.keys() - found.keys():
            self.gone(node_id)
        self._views = found
        self._dirty |= found.keys()

    def judge(self, now: float, settings: RuleSettings) -> tuple[list[Finding], set[str]]:
        """Of nodes that were seen since the last time, or about which it is time to say something: what is bad, and the
        keys of what is well.
        """
        chosen = self._dirty | {node_id for node_id, due in self._due.items() if due <= now}
        self._dirty = set()
        findings: list[Finding] = []
        well: set[str] = set()
        for node_id in chosen:
            view = self._views.get(node_id)
            self._due.pop(node_id, None)
            if view is None:
                well |= {fleet_key(node_id), degraded_key(node_id)}
                continue
            first = judge(view, self._watched.get(node_id, Watched()), now, settings)
            second = judge_degraded(view, first.watched, now, settings)
            self._watched[node_id] = second.watched
            dues = [made.due for made in (first, second) if made.due is not None]
            if dues:
                self._due[node_id] = now + min(dues)
            for key, made in ((fleet_key(node_id), first), (degraded_key(node_id), second)):
                passes = made.finding is not None and settings.lets_pass(made.finding)
                if made.health is Health.WELL or (made.finding is not None and not passes):
                    well.add(key)
                elif made.finding is not None:
                    findings.append(made.finding)
        return findings, well
