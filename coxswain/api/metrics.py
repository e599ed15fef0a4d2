"""What Prometheus reads: the requests of this process, counted as they come, and the system, asked when it is scraped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from coxswain.api.services import Services
from coxswain.errors import CoxswainError
from coxswain.messages import alerts, audit, control_paths, fleet, hub, sessions
from coxswain.messages.siem import GetSiemCounts, SiemCounts

__all__ = ["MEDIA_TYPE", "count_request", "exposition"]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ASK_S = 5.0
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0)

_REQUESTS = CollectorRegistry()
ProcessCollector(registry=_REQUESTS)
_COUNTED = Counter(
    "coxswain_http_requests", "Requests by route and status.", ("method", "route", "status"), registry=_REQUESTS
)
_TOOK = Histogram(
    "coxswain_http_request_seconds", "How long requests took.", ("method", "route"), buckets=_BUCKETS, registry=_REQUESTS
)


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Called by the dispatcher for every request to a route of the table. Thread-safe."""
    _COUNTED.labels(method, route, str(status)).inc()
    _TOOK.labels(method, route).observe(seconds)


def exposition(services: Services, now: float) -> bytes:
    """Everything, in Prometheus' text format. What does not answer just now is left out.

    Args:
        services: the running system.
        now: epoch seconds.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_System(services, now))
    return generate_latest(registry) + generate_latest(_REQUESTS)


class _System:
    """A collector of one scrape."""

    def __init__(self, services: Services, now: float) -> None:
        self._services = services
        self._now = now

    def collect(self) -> Iterator[Metric]:
        identity = self._services.identity
        build = GaugeMetricFamily("coxswain_build_info", "Always 1.", labels=("version", "store"))
        build.add_metric((identity.version, identity.store), 1)
        yield build
        uptime = max(0.0, self._now - identity.started_at)
        yield GaugeMetricFamily("coxswain_uptime_seconds", "Since the start.", value=uptime)
        yield from _actors(self._services.tree())
        for questions in (self._fleet, self._sessions, self._live, self._siem, self._audit, self._alerts, self._route):
            try:
                found = list(questions())
            except CoxswainError:
                continue
            yield from found

    def _ask(self, name: str, message: Any) -> Any:
        return self._services.ask(name, message, deadline=_ASK_S)

    def _fleet(self) -> Iterator[Metric]:
        found: fleet.FleetSummary = self._ask("fleet", fleet.GetSummary())
        states = GaugeMetricFamily("coxswain_node_links", "Node links by state.", labels=("state",))
        for state, count in sorted(found.by_link_state.items()):
            states.add_metric((state.value,), count)
        yield states
        status = GaugeMetricFamily("coxswain_nodes", "Nodes by status.", labels=("status",))
        for value, count in sorted(found.by_status.items()):
            status.add_metric((value.value,), count)
        yield status
        yield GaugeMetricFamily("coxswain_nodes_in_sync", "Nodes that are what they should be.", value=found.in_sync)
        yield GaugeMetricFamily("coxswain_users", "Users.", value=found.users)
        yield GaugeMetricFamily("coxswain_devices", "Devices.", value=found.devices)
        yield GaugeMetricFamily("coxswain_peers", "Peers on all nodes.", value=found.peers)

    def _sessions(self) -> Iterator[Metric]:
        found: sessions.SessionCounts = self._ask("session_tracker", sessions.GetSessionCounts())
        yield GaugeMetricFamily("coxswain_sessions_active", "Open sessions.", value=found.active)
        yield CounterMetricFamily("coxswain_sessions_opened", "Since the start.", value=found.opened)
        yield CounterMetricFamily("coxswain_sessions_closed", "Since the start.", value=found.closed)
        yield CounterMetricFamily("coxswain_node_events", "Events of nodes, since the start.", value=found.events)

    def _live(self) -> Iterator[Metric]:
        found: hub.LiveCounts = self._ask("live_streams", hub.GetLiveCounts())
        yield GaugeMetricFamily("coxswain_live_clients", "Clients of the live stream.", value=found.clients)
        yield CounterMetricFamily("coxswain_live_clients_served", "Since the start.", value=found.served)
        yield CounterMetricFamily("coxswain_live_clients_gone", "Given up, as nobody was there.", value=found.gone)
        yield CounterMetricFamily("coxswain_live_events_missed", "By clients that did not read.", value=found.missed)

    def _siem(self) -> Iterator[Metric]:
        """Nothing where there is none."""
        if not self._services.setting("siem.listen"):
            return
        found: SiemCounts = self._ask("siem_stream", GetSiemCounts())
        yield GaugeMetricFamily("coxswain_siem_listening", "1: consumers can subscribe.", value=found.listening)
        yield GaugeMetricFamily("coxswain_siem_consumers", "Consumers of the SIEM stream.", value=found.consumers)
        yield CounterMetricFamily("coxswain_siem_consumers_served", "Since the start.", value=found.served)
        yield CounterMetricFamily("coxswain_siem_events", "Sent to consumers.", value=found.sent)
        yield CounterMetricFamily("coxswain_siem_events_late", "Sent from the store.", value=found.late)
        yield CounterMetricFamily("coxswain_siem_events_dropped", "Missed by consumers.", value=found.dropped)

    def _route(self) -> Iterator[Metric]:
        state: control_paths.RouteState = self._ask("servers", control_paths.GetRouteState())
        kind = GaugeMetricFamily("coxswain_control_path", "1: everything is dialled this way.", labels=("route",))
        for name in ("direct", "egress", "onion", "refused"):
            kind.add_metric((name,), name == state.kind)
        yield kind
        yield GaugeMetricFamily("coxswain_control_path_hops", "Relays between here and nodes.", value=len(state.hops))
        yield GaugeMetricFamily("coxswain_control_path_connections", "Over relays, now.", value=state.connections)
        yield GaugeMetricFamily("coxswain_control_path_relay_sessions", "With relays, now.", value=state.sessions)

    def _audit(self) -> Iterator[Metric]:
        state: audit.AuditState = self._ask("audit_writer", audit.DescribeAudit())
        yield GaugeMetricFamily("coxswain_audit_records", "Records in the audit log.", value=state.size)
        yield GaugeMetricFamily(
            "coxswain_audit_checkpoint_timestamp_seconds", "When the log was signed last.", value=state.checkpoint_at
        )
        yield GaugeMetricFamily(
            "coxswain_audit_findings", "What is wrong with the log; 0: nothing.", value=len(state.findings)
        )

    def _alerts(self) -> Iterator[Metric]:
        state: alerts.AnalyticsState = self._ask("alert_engine", alerts.DescribeAnalytics())
        there = GaugeMetricFamily("coxswain_alerts", "Not resolved, by status and severity.", labels=("status", "severity"))
        for (status, severity), count in sorted(state.counts.items()):
            there.add_metric((status, severity), count)
        yield there
        opened = CounterMetricFamily("coxswain_alerts_opened", "Since the start.", labels=("kind",))
        for kind, count in sorted(state.opened.items()):
            opened.add_metric((kind,), count)
        yield opened
        dropped = CounterMetricFamily("coxswain_dropped", "On their way, since the start.", labels=("where",))
        for where, count in sorted(state.dropped.items()):
            dropped.add_metric((where,), count)
        yield dropped
        yield CounterMetricFamily("coxswain_alert_sweeps", "Runs of the rules, since the start.", value=state.sweeps)
        yield GaugeMetricFamily("coxswain_alert_sweep_seconds", "CPU time of the last run.", value=state.took_s)
        yield GaugeMetricFamily(
            "coxswain_alert_rules_failing", "Rules whose last run came to nothing.", value=len(state.failing)
        )


def _actors(tree: dict[str, Any]) -> Iterator[Metric]:
    """Each service by itself; the links, of which there may be thousands, together."""
    up = GaugeMetricFamily("coxswain_actor_up", "1: it runs.", labels=("actor",))
    restarts = CounterMetricFamily("coxswain_actor_restarts", "Since the start.", labels=("actor",))
    mailbox = GaugeMetricFamily("coxswain_actor_mailbox", "Messages that wait.", labels=("actor",))
    link_restarts = 0

    def walk(node: dict[str, Any]) -> None:
        nonlocal link_restarts
        up.add_metric((node["id"],), float(node["state"] == "running"))
        restarts.add_metric((node["id"],), node["restarts"])
        mailbox.add_metric((node["id"],), node["mailbox"])
        if node["id"] == "node_links":
            link_restarts += sum(child["restarts"] for child in node["children"])
            return
        for child in node["children"]:
            walk(child)

    walk(tree)
    yield up
    yield restarts
    yield mailbox
    yield CounterMetricFamily("coxswain_node_link_restarts", "Crashes of links, since the start.", value=link_restarts)
