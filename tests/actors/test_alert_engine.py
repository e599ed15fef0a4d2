"""The engine in a real system, on both stores: what is written, what is told, and what a crash changes. The fleet, the
audit writer and the GeoIP database are played by small actors.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.alerts import AlertEngine
from actors.event_hub import EventHub
from actors.supervision import Actor, ChildSpec, Context, Harm, System
from coxswain.alerts.history import History
from coxswain.alerts.model import Alert, AlertStatus, Finding, Severity
from coxswain.clock import SystemClock, to_micros
from coxswain.errors import Conflict, NotFound, Unavailable
from coxswain.geoip import Location
from coxswain.ids import new_id
from coxswain.live.ring import EventRing
from coxswain.losses import NODES, SIEM, Losses
from coxswain.messages import alerts as m
from coxswain.messages.audit import Caller, Committed, DescribeAudit
from coxswain.messages.exits import ListExitTrouble
from coxswain.messages.fleet import ListNodes, NodeView
from coxswain.messages.geo import Locate
from coxswain.model import LinkState, Node, NodeStatus, Protocol
from coxswain.store import Store
from coxswain.store import alert_reads as reads
from coxswain.store import alerts as rows
from coxswain.store.session_records import kind_of
from tests.support import eventually

ANN = Caller("ann", "session", "192.0.2.99")
HOUR, DAY = 3_600.0, 86_400.0
NOW = dt.datetime(2026, 9, 17, 10, 20, tzinfo=dt.UTC).timestamp()
"""No midnight, end of month or change of the clocks near it."""


class FromNow(SystemClock):
    """Shows ``NOW`` when a test begins: histories are told from there, and none depends on the day of the test."""

    began = 0.0

    def now(self) -> float:
        return NOW + self.monotonic() - self.began


CLOCK = FromNow()


@pytest.fixture(autouse=True)
def _at_the_beginning() -> None:
    CLOCK.began = CLOCK.monotonic()


SETTINGS: dict[str, Any] = {
    "analytics.disabled": False, "analytics.interval_seconds": 3_600, "analytics.window_hours": 24,
    "analytics.rules_off": [], "analytics.allow": [], "analytics.trusted_proxies": [], "analytics.recovery_seconds": 0,
    "analytics.error_seconds": 0, "analytics.degraded_minutes": 5, "analytics.leaked_window_minutes": 10,
    "analytics.leaked_networks": 2, "analytics.travel_kmh": 900, "analytics.travel_km": 100,
    "analytics.history_connects": 10, "analytics.auth_failures": 5, "analytics.auth_failures_global": 50,
    "analytics.auth_window_minutes": 10, "analytics.dormant_days": 30, "analytics.off_hours_connects": 20,
    "analytics.off_hours_days": 7, "analytics.off_hours_percent": 2, "analytics.volume_floor_mib": 1024,
    "analytics.volume_factor": 10, "analytics.volume_sessions": 20, "analytics.expiry_days": 7,
    "analytics.webhook_url": "", "analytics.webhook_secret": "", "analytics.webhook_severity": "warning",
    "analytics.disk_free_percent": 1, "analytics.dropped_events": 5, "analytics.dropped_window_minutes": 10,
    "retention.metrics_days": 0,
}  # fmt: skip
BERLIN = Location(52.52, 13.405, "Berlin", "Germany", "DE")
SYDNEY = Location(-33.87, 151.21, "Sydney", "Australia", "AU")


class Played(Actor):
    """What the others say is in ``world``."""

    def __init__(self, context: Context, *, world: SimpleNamespace) -> None:
        super().__init__(context)
        self._world = world

    def receive(self, message: Any) -> Any:
        match message:
            case ListNodes():
                return list(self._world.views)
            case ListExitTrouble():
                return []
            case Locate(hosts):
                if self._world.lost:
                    raise Unavailable("not now")
                return {host: self._world.places[host] for host in hosts if host in self._world.places}
            case DescribeAudit():
                return SimpleNamespace(findings=self._world.findings)
        return None


class Running:
    def __init__(self, system: System, store: Store, world: SimpleNamespace, settings: dict[str, Any]) -> None:
        self.system, self.store, self.world, self.settings = system, store, world, settings

    def ask(self, message: Any) -> Any:
        return self.system.ask("alert_engine", message, deadline=20)

    def sweep(self) -> None:
        self.ask(m.SweepNow())

    def alerts(self, **query: Any) -> list[Alert]:
        found: list[Alert] = self.ask(m.ListAlerts(**query))
        return found

    def only(self, **query: Any) -> Alert:
        (alert,) = self.alerts(**query)
        return alert


@contextmanager
def running(
    store: Store,
    places: dict[str, Location] | None = None,
    state_dir: Path | None = None,
    views: tuple[NodeView, ...] = (),
    **settings: Any,
) -> Iterator[Running]:
    world = SimpleNamespace(views=list(views), places=places or {}, lost=False, findings=(), losses=Losses(CLOCK))
    values = SETTINGS | settings
    engine = {"store": store, "settings": values, "state_dir": state_dir, "losses": world.losses}
    system = System(
        children=(
            ChildSpec("event_hub", EventHub, {"store": store, "ring": EventRing()}),
            *(ChildSpec(name, Played, {"world": world}) for name in ("audit_writer", "fleet", "geo_locator")),
            ChildSpec("alert_engine", AlertEngine, engine),
        ),
        clock=CLOCK,
        rng=random.Random(1),
        allow_chaos=True,
    )
    system.start()
    assert system.wait_up(10)
    try:
        yield Running(system, store, world, values)
    finally:
        assert system.stop()


_NUMBERS = iter(range(1, 10**9))


def event(
    store: Store,
    at: float,
    ip: str,
    *,
    device: str = "dev_1",
    session: int = 1,
    reason: str | None = None,
    node: str = "nod_1",
    rx: int | None = None,
    seq: int | None = None,
) -> None:
    with store.write() as tx:
        tx.execute(
            "INSERT INTO connection_events (seq, at, received_at, kind, session_id, node_id, peer_key, device_id, user_id, "
            "source_ip, source_endpoint, rx_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                seq or to_micros(CLOCK.now()) + next(_NUMBERS), to_micros(at), to_micros(at),
                kind_of(Protocol.AMNEZIAWG, reason), session, node, "key=", device, "usr_1", ip, f"{ip}:1", rx,
            ),
        )  # fmt: skip


def audited(store: Store, action: str, at: float, *, seq: int, **more: Any) -> None:
    detail = more.pop("detail", "{}")
    values = {
        "actor": "anonymous",
        "actor_kind": "session",
        "target_id": "",
        "source_ip": "192.0.2.1",
        "result": "ok",
    } | more
    with store.write() as tx:
        tx.execute(
            "INSERT INTO audit_log (seq, id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, "
            "result, error, prev_hash, row_hash, leaf_hash, outbox_id) "
            "VALUES (?, ?, ?, ?, ?, ?, 'user', ?, ?, ?, ?, '', '', '', ?, ?)",
            (
                seq, new_id("aud"), to_micros(at), values["actor"], values["actor_kind"], action, values["target_id"],
                values["source_ip"], detail, values["result"], b"x", seq,
            ),
        )  # fmt: skip


def view(status: NodeStatus, link: LinkState, node_id: str = "nod_1") -> NodeView:
    return NodeView(Node(node_id, f"name of {node_id}", status=status, agent_version="1"), link)


DOWN, LIVE = (NodeStatus.UNREACHABLE, LinkState.BACKING_OFF), (NodeStatus.ACTIVE, LinkState.LIVE)


# -- devices


def test_events_become_alerts_once_and_handled_ones_stay_handled(store: Store) -> None:
    with running(store) as engine:
        engine.world.places = {"192.0.2.1": BERLIN, "198.51.100.7": SYDNEY}
        event(store, NOW - 3 * HOUR, "192.0.2.1")
        event(store, NOW - 2 * HOUR, "198.51.100.7")
        engine.sweep()
        travel, geo = sorted(engine.alerts(), key=lambda alert: alert.kind)
        assert (travel.kind, geo.kind) == ("impossible_travel", "new_geo")
        assert travel.device_id == "dev_1" and travel.user_id == "usr_1" and travel.status is AlertStatus.OPEN
        engine.sweep()
        assert len(engine.alerts()) == 2 and engine.ask(m.GetAlert(travel.id)).version == 1, "nothing new, nothing written"

        engine.ask(m.ResolveAlert(ANN, travel.id))
        engine.ask(m.AckAlert(ANN, geo.id))
        engine.sweep()
        assert engine.alerts(status="open") == [], "the evidence is in the window still"
        event(store, NOW - HOUR, "192.0.2.1")
        engine.sweep()
        again = engine.only(status="open")
        assert again.kind == "impossible_travel" and again.id != travel.id
        assert engine.only(status="acknowledged").id == geo.id


def test_only_devices_with_new_events_are_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[list[str]] = []
    real = reads.events_of
    monkeypatch.setattr(reads, "events_of", lambda tx, ids, since: looked.append(list(ids)) or real(tx, ids, since))
    with running(store) as engine:
        engine.sweep()
        for number in range(5):
            event(store, NOW - HOUR, "192.0.2.1", device=f"dev_{number}", session=number)
        engine.sweep()
        engine.sweep()
        assert looked == [[f"dev_{number}" for number in range(5)]]
        event(store, NOW - 60, "192.0.2.1", device="dev_3", session=9)
        engine.sweep()
        assert looked[1:] == [["dev_3"]]


def test_what_left_the_window_is_remembered_when_retention_takes_it(store: Store) -> None:
    """A device that was not seen for six weeks, with events that are kept for 7 (management-plane.md 13.2, 14)."""
    for day in range(50, 40, -1):
        event(store, NOW - day * DAY, "192.0.2.1", seq=1_000 - day)
    with running(store, {"192.0.2.1": BERLIN, "198.51.100.7": SYDNEY}) as engine:
        engine.sweep()
        with store.write() as tx:
            tx.execute("DELETE FROM connection_events")
        event(store, NOW - HOUR, "198.51.100.7")
        engine.sweep()
        assert {alert.kind for alert in engine.alerts()} == {"dormant_then_active", "new_geo"}
        assert engine.alerts(kind="dormant_then_active")[0].detail["dormant_days"] in (40, 41)
        with store.read() as tx:
            history = reads.histories(tx, ["dev_1"])["dev_1"]
        assert (history.connects, history.days, history.countries) == (10, 10, {"DE": 10})


def test_nothing_is_remembered_twice(store: Store) -> None:
    event(store, NOW - 3 * DAY, "192.0.2.1", seq=1)
    for _ in range(2):
        with running(store) as engine:
            engine.sweep()
            engine.sweep()
    with store.read() as tx:
        assert reads.histories(tx, ["dev_1"])["dev_1"].connects == 1


def test_a_crash_in_the_middle_loses_nothing_and_alerts_once(store: Store) -> None:
    with running(store) as engine:
        engine.world.places = {"192.0.2.1": BERLIN, "198.51.100.7": SYDNEY}
        event(store, NOW - 3 * HOUR, "192.0.2.1")
        engine.sweep()
        event(store, NOW - 2 * HOUR, "198.51.100.7")
        engine.system.harm("alert_engine", Harm.RAISE)
        eventually(lambda: engine.alerts(kind="new_geo"))
        engine.sweep()
        assert len(engine.alerts(kind="new_geo")) == len(engine.alerts(kind="impossible_travel")) == 1


def test_a_revoked_device_that_stays_connected(store: Store) -> None:
    long_ago = to_micros(NOW - HOUR)
    with store.write() as tx:
        tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('usr_1', 0, 0)")
        tx.execute(
            "INSERT INTO devices (id, user_id, name, status, created_at, updated_at) "
            "VALUES ('dev_1', 'usr_1', 'x', 'revoked', 0, ?)",
            (long_ago,),
        )
        tx.execute(
            "INSERT INTO peer_sessions "
            "(id, node_id, protocol, peer_key, device_id, opened_at, opened_seen_at, last_at, endpoint) "
            "VALUES (7, 'nod_1', 1, 'key=', 'dev_1', ?, ?, ?, '192.0.2.1:5')",
            (long_ago - 1, long_ago, long_ago),
        )
    with running(store) as engine:
        engine.sweep()
        alert = engine.only()
        assert (alert.kind, alert.severity, alert.source_ips) == (
            "revoked_profile_active",
            Severity.CRITICAL,
            ("192.0.2.1",),
        )


def test_a_new_device_that_is_not_where_its_user_is(store: Store) -> None:
    """Where the others are, is known of this day and of those before alike; devices of somebody else count for nothing."""
    with store.write() as tx:
        for user, devices in (("usr_1", ("dev_1", "dev_new")), ("usr_2", ("dev_2", "dev_lone"))):
            tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES (?, 0, 0)", (user,))
            for device in devices:
                tx.execute(
                    "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, ?, ?, 0, 0)",
                    (device, user, device),
                )
        for device, joined in (("dev_1", NOW - 90 * DAY), ("dev_new", NOW - HOUR), ("dev_lone", NOW - HOUR)):
            tx.execute(
                "INSERT INTO device_identities (device_id, fingerprint, serial, not_after, enrolled_at) "
                "VALUES (?, ?, '', ?, ?)",
                (device, device, to_micros(NOW + 90 * DAY), to_micros(joined)),
            )
    event(store, NOW - 3 * DAY, "192.0.2.1", device="dev_1", session=1)
    event(store, NOW - 1_800, "198.51.100.7", device="dev_new", session=2)
    event(store, NOW - 1_800, "198.51.100.7", device="dev_lone", session=3)
    with running(store, {"192.0.2.1": BERLIN, "198.51.100.7": SYDNEY}) as engine:
        engine.sweep()
        alert = engine.only(kind="claimed_elsewhere")
        assert (alert.device_id, alert.detail["country"], alert.detail["known_countries"]) == ("dev_new", "AU", ["DE"])
        engine.ask(m.ResolveAlert(ANN, alert.id))
        event(store, NOW - 60, "198.51.100.7", device="dev_new", session=4)
        engine.sweep()
        assert engine.alerts(kind="claimed_elsewhere", unresolved=True) == [], "it was looked at; the claim is the same"


def test_peers_that_nobody_made(store: Store) -> None:
    at = to_micros(NOW - HOUR)
    with store.write() as tx:
        tx.execute(
            "INSERT INTO peer_sessions (id, node_id, protocol, peer_key, opened_at, opened_seen_at, last_at, endpoint) "
            "VALUES (7, 'nod_1', 1, 'key=', ?, ?, ?, '192.0.2.1:5')",
            (at, at, at),
        )
    with running(store) as engine:
        engine.sweep()
        assert engine.only().kind == "unknown_peer"
        with store.write() as tx:
            tx.execute("UPDATE peer_sessions SET closed_at = ?", (at + 1,))
        engine.sweep()
        assert engine.only().status is AlertStatus.RESOLVED


@pytest.mark.parametrize("resolved", [False, True])
def test_a_peer_that_nobody_made_and_that_comes_and_goes_is_one_alert(store: Store, resolved: bool) -> None:
    """Until it has been gone for an hour, or belongs there; also when somebody resolved it meanwhile."""

    def session(number: int, minutes_ago: float) -> None:
        at = to_micros(NOW - minutes_ago * 60)
        with store.write() as tx:
            tx.execute(
                "INSERT INTO peer_sessions (id, node_id, protocol, peer_key, opened_at, opened_seen_at, last_at, endpoint) "
                "VALUES (?, 'nod_1', 1, 'key=', ?, ?, ?, ?)",
                (number, at, at, at, f"192.0.2.{number}:5"),
            )

    def close(minutes_ago: float) -> None:
        with store.write() as tx:
            tx.execute("UPDATE peer_sessions SET closed_at = ?", (to_micros(NOW - minutes_ago * 60),))

    with running(store) as engine:
        session(1, 50)
        engine.sweep()
        first = engine.only()
        if resolved:
            engine.ask(m.ResolveAlert(ANN, first.id))
        close(40)
        engine.sweep()
        session(2, 30)
        engine.sweep()
        close(20)
        engine.sweep()
        assert engine.only().id == first.id and (engine.only().status is AlertStatus.RESOLVED) == resolved
        assert engine.only().source_ips == (("192.0.2.1",) if resolved else ("192.0.2.1", "192.0.2.2"))
    with running(store) as engine:
        engine.sweep()
        assert engine.only().id == first.id and (engine.only().status is AlertStatus.RESOLVED) == resolved
        close(61)
        engine.sweep()
        assert engine.only().status is AlertStatus.RESOLVED
        session(3, 5)
        engine.sweep()
        again = engine.only(unresolved=True)
        assert again.id != first.id
        close(1)
        with store.write() as tx:  # it was taken into the inventory
            tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('usr_1', 0, 0)")
            tx.execute("INSERT INTO nodes (id, name, created_at, updated_at) VALUES ('nod_1', 'n', 0, 0)")
            tx.execute(
                "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES ('dev_1', 'usr_1', 'x', 0, 0)"
            )
            tx.execute(
                "INSERT INTO peers (id, node_id, device_id, protocol, public_key, created_at) "
                "VALUES ('per_1', 'nod_1', 'dev_1', 1, 'key=', 0)"
            )
        engine.sweep()
        assert engine.alerts(unresolved=True) == []


def test_certificates_of_devices_are_one_alert_that_grows_and_shrinks(store: Store) -> None:
    def ends(device: str, days: float) -> None:
        with store.write() as tx:
            tx.execute(
                "INSERT INTO devices (id, user_id, name, created_at, updated_at) VALUES (?, 'usr_1', ?, 0, 0) "
                "ON CONFLICT (id) DO NOTHING",
                (device, device),
            )
            tx.execute(
                "INSERT INTO device_identities (device_id, fingerprint, serial, not_after, enrolled_at) "
                "VALUES (?, ?, '', ?, ?) ON CONFLICT (device_id) DO UPDATE SET not_after = excluded.not_after",
                (device, device, to_micros(NOW + days * DAY), to_micros(NOW - 300.1 * DAY)),
            )

    with store.write() as tx:
        tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('usr_1', 0, 0)")
    with running(store, **{"retention.metrics_days": 7}) as engine:
        ends("dev_1", 10)
        ends("dev_2", 12)
        engine.sweep()
        first = engine.only()
        assert first.detail["devices"] == 2 and first.detail["first"][0].startswith("dev_1 (dev_1), ")
        engine.sweep()
        assert engine.only() == first, "nothing new, nothing written"
        ends("dev_1", 300)
        engine.sweep()
        assert engine.only().id == first.id and engine.only().detail["devices"] == 1
        engine.ask(m.ResolveAlert(ANN, first.id))
        with store.write() as tx:
            tx.execute("UPDATE alert_handled SET at = ?", (to_micros(NOW - 9 * DAY),))
    with running(store, **{"retention.metrics_days": 7}) as engine:  # which forgets what was handled a week ago
        engine.sweep()
        engine.sweep()
        assert engine.alerts(unresolved=True) == [], "resolved means it"
        ends("dev_3", 29)
        engine.sweep()
        again = engine.only(unresolved=True)
        assert again.id != first.id and again.detail["devices"] == 2, "somebody else is to be sent a link"
        ends("dev_2", 300)
        ends("dev_3", 300)
        engine.sweep()
        assert engine.alerts(unresolved=True) == []
        with store.read() as tx:
            assert rows.handled(tx, [first.key]) == {}


# -- nodes


def test_nodes_that_fall_together_are_one_transaction_and_end_by_themselves(store: Store) -> None:
    with running(store) as engine:
        engine.sweep()
        for number in range(200):
            engine.system.tell("alert_engine", m.NodeSeen(view(*DOWN, f"nod_{number}")))
        eventually(lambda: len(engine.alerts(kind="fleet_health", status="open", limit=500)) == 200)
        first = engine.alerts(limit=1)[0]
        engine.ask(m.AckAlert(ANN, first.id))
        for number in range(200):
            engine.system.tell("alert_engine", m.NodeSeen(view(*LIVE, f"nod_{number}")))
        eventually(lambda: engine.alerts(unresolved=True) == [])
        assert engine.ask(m.GetAlert(first.id)).handled_by == "system"


def test_an_error_after_an_outage_makes_it_worse_and_is_told_again(store: Store) -> None:
    with running(store) as engine:
        engine.sweep()
        engine.system.tell("alert_engine", m.NodeSeen(view(*DOWN)))
        alert = eventually(lambda: engine.alerts() and engine.only())
        engine.ask(m.AckAlert(ANN, alert.id))
        engine.system.tell("alert_engine", m.NodeSeen(view(NodeStatus.ERROR, LinkState.BACKING_OFF)))
        eventually(lambda: engine.only().severity is Severity.CRITICAL)
        assert (engine.only().id, engine.only().status) == (alert.id, AlertStatus.OPEN)


@pytest.mark.parametrize("state", [DOWN, (NodeStatus.ACTIVE, LinkState.DEGRADED)])
def test_an_outage_began_when_it_began_whoever_was_restarted_since(store: Store, state: Any) -> None:
    """Not when the rules first saw it after a restart: nothing about it is new."""
    minutes, views = {"analytics.degraded_minutes": 0}, (view(*state),)
    with running(store, views=views, **minutes) as engine:
        engine.sweep()
        before = engine.only()
    with running(store, views=views, **minutes) as engine:
        engine.sweep()
        assert engine.only() == before
        engine.world.views = [view(*LIVE)]
        engine.sweep()
        eventually(lambda: engine.only().status is AlertStatus.RESOLVED)


def test_what_was_resolved_as_a_warning_and_becomes_critical_is_a_new_alert(store: Store) -> None:
    """A certificate that somebody was warned of, and that then ends; resolved once more, it is known."""
    with store.write() as tx:
        tx.execute(
            "INSERT INTO controller_certs (serial, cert_pem, key_sealed, not_before, not_after, created_at) "
            "VALUES ('1', '', ?, ?, ?, 0)",
            (b"", to_micros(NOW - 80 * DAY), to_micros(NOW + 5 * DAY)),
        )
    with running(store) as engine:
        engine.sweep()
        first = engine.only()
        assert (first.kind, first.severity) == ("certificate_expiring", Severity.WARNING)
        engine.ask(m.ResolveAlert(ANN, first.id))
        engine.sweep()
        assert engine.alerts(unresolved=True) == []
        with store.write() as tx:
            tx.execute("UPDATE controller_certs SET not_after = ?", (to_micros(NOW - 1),))
        engine.sweep()
        second = engine.only(unresolved=True)
        assert second.id != first.id and second.severity is Severity.CRITICAL and second.detail["expired"] is True
        engine.ask(m.ResolveAlert(ANN, second.id))
        engine.sweep()
        assert engine.alerts(unresolved=True) == []
        with store.write() as tx:
            tx.execute("UPDATE controller_certs SET not_after = ?", (to_micros(NOW + 80 * DAY),))
        engine.sweep()
        with store.read() as tx:
            assert rows.handled(tx, [first.key]) == {}, "it has ended once"


def test_one_about_a_node_that_is_gone_ends(store: Store) -> None:
    with running(store) as engine:
        engine.world.views = [view(*DOWN)]
        engine.sweep()
        assert engine.only().status is AlertStatus.OPEN
    with running(store) as engine:  # removed while nobody looked
        engine.sweep()
        assert engine.only().status is AlertStatus.RESOLVED


def test_a_rule_that_is_switched_off_ends_what_it_says_is(store: Store) -> None:
    with running(store) as engine:
        engine.world.views = [view(*DOWN)]
        engine.sweep()
        engine.settings["analytics.rules_off"] = ["fleet_health"]
        engine.sweep()
        assert engine.only().status is AlertStatus.RESOLVED
        assert "fleet_health" not in engine.ask(m.DescribeAnalytics()).rules


# -- logins, the log, the disk


def test_failed_logins(store: Store) -> None:
    for number in range(5):
        audited(store, "auth.login_failed", NOW - 60 + number, seq=number + 1, detail='{"username":"admin"}', result="error")
    audited(store, "auth.login", NOW - 10, seq=6, actor="admin", target_id="usr_admin")
    audited(store, "admin.add", NOW - 5, seq=7, actor="system", actor_kind="system", target_id="usr_2")
    with running(store) as engine:
        engine.sweep()
        assert {alert.key for alert in engine.alerts()} == {
            "auth_failure_spike:192.0.2.1", "auth_failure_spike:user:admin", "login_after_failures:usr_admin",
        }  # fmt: skip


def test_a_broken_log_and_a_full_disk(store: Store, tmp_path: Path) -> None:
    with running(store, state_dir=tmp_path) as engine:
        engine.world.findings = ("record 7 is missing",)
        engine.settings["analytics.disk_free_percent"] = 101
        engine.sweep()
        assert {alert.kind for alert in engine.alerts(status="open")} == {"audit_broken", "storage_low"}
        engine.world.findings, engine.settings["analytics.disk_free_percent"] = (), 0
        engine.sweep()
        assert engine.alerts(unresolved=True) == []


def test_what_was_dropped_on_its_way_is_told_once_and_again_only_with_more(store: Store) -> None:
    with running(store) as engine:
        engine.world.losses.add(SIEM, 4)
        engine.sweep()
        assert engine.alerts() == [], "not as many as the operator said"
        engine.world.losses.add(SIEM, 1)
        engine.world.losses.add(NODES, 9, "nod_7")
        engine.sweep()
        siem, node = sorted(engine.alerts(), key=lambda alert: alert.node_id)
        assert (siem.kind, siem.detail["dropped"], siem.node_id) == ("events_dropped", 5, "")
        assert (node.key, node.detail["dropped"]) == ("events_dropped:nodes:nod_7", 9)
        engine.ask(m.ResolveAlert(ANN, siem.id))
        assert engine.system.harm("alert_engine", Harm.RAISE)
        engine.sweep()
        assert [alert.id for alert in engine.alerts(unresolved=True)] == [node.id], "nothing new since, whoever fell"
        CLOCK.began -= 60.0
        engine.world.losses.add(SIEM, 1)
        engine.sweep()
        again = [alert for alert in engine.alerts(unresolved=True) if alert.key == siem.key]
        assert [alert.detail["dropped"] for alert in again] == [6]
        assert engine.ask(m.DescribeAnalytics()).dropped == {"siem": 6, "nodes": 9}


def test_a_rule_that_fails_stops_no_other_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    with running(store) as engine:
        engine.world.views, engine.world.lost = [view(*DOWN)], True
        event(store, NOW - HOUR, "192.0.2.1")
        with monkeypatch.context() as patch:
            patch.setattr(reads, "strangers", broken)
            engine.sweep()
            state = engine.ask(m.DescribeAnalytics())
            assert state.failing == {"unknown_peer": "ZeroDivisionError: a bug", "devices": "not now"}
            assert engine.only().kind == "fleet_health"
        engine.world.lost = False
        engine.sweep()
        assert engine.ask(m.DescribeAnalytics()).failing == {}


def test_switched_off_no_rule_runs_and_alerts_can_be_handled(store: Store) -> None:
    with running(store) as engine:
        engine.world.views = [view(*DOWN)]
        engine.sweep()
        engine.settings["analytics.disabled"] = True
        engine.world.views = [view(*DOWN), view(*DOWN, "nod_2")]
        engine.sweep()
        assert engine.ask(m.ResolveAlert(ANN, engine.only().id)).value.status is AlertStatus.RESOLVED


# -- handling


def test_snoozed_ones_come_back(store: Store) -> None:
    with running(store) as engine:
        engine.world.views = [view(*DOWN)]
        engine.sweep()
        alert = engine.only()
        snoozed: Committed[Alert] = engine.ask(m.SnoozeAlert(ANN, alert.id, CLOCK.now() + 0.3))
        assert snoozed.value.snoozed_until > 0
        eventually(lambda: engine.sweep() or engine.only().snoozed_until == 0)
        assert engine.only().status is AlertStatus.OPEN


def test_what_is_done_is_audited_with_it(store: Store) -> None:
    with running(store) as engine:
        engine.world.views = [view(*DOWN)]
        engine.sweep()
        alert = engine.only()
        for message in (m.AckAlert(ANN, alert.id), m.SnoozeAlert(ANN, alert.id, NOW + HOUR), m.ResolveAlert(ANN, alert.id)):
            engine.ask(message)
        with pytest.raises(Conflict):
            engine.ask(m.AckAlert(ANN, alert.id))
        with pytest.raises(NotFound):
            engine.ask(m.ResolveAlert(ANN, "alr_nope"))
        with store.read() as tx:
            recorded = tx.execute("SELECT actor, action, target_id, result FROM audit_outbox ORDER BY outbox_id")
        assert recorded == [("ann", f"alert.{what}", alert.id, "ok") for what in ("ack", "snooze", "resolve")]


def test_retention_takes_resolved_ones_and_resolves_what_nobody_wanted(store: Store) -> None:
    old = Finding("new_geo", "new_geo:a", Severity.INFO, NOW - 9 * DAY, NOW - 9 * DAY)
    made = Alert("alr_a", old.at, old.kind, old.severity, AlertStatus.RESOLVED, old.key, old.evidence, updated_at=old.at)
    kept = (
        dataclasses.replace(made, id="alr_b", key="new_geo:b", status=AlertStatus.OPEN),
        dataclasses.replace(made, id="alr_c", key="new_geo:c", at=NOW, updated_at=NOW),
        dataclasses.replace(made, id="alr_d", key="new_geo:d", updated_at=NOW),
        dataclasses.replace(made, id="alr_e", key="new_geo:e", status=AlertStatus.OPEN, severity=Severity.CRITICAL),
        dataclasses.replace(made, id="alr_f", key="new_geo:f", status=AlertStatus.OPEN, snoozed_until=NOW + DAY),
        dataclasses.replace(made, id="alr_g", key="new_geo:g", status=AlertStatus.ACKNOWLEDGED, updated_at=NOW),
        dataclasses.replace(made, id="alr_h", key="new_geo:h", status=AlertStatus.ACKNOWLEDGED),
    )
    with store.write() as tx:
        for alert in (made, *kept):
            rows.insert(tx, alert)
        reads.save_histories(tx, {"dev_gone": History(connects=1)}, NOW)
    with running(store, **{"retention.metrics_days": 7}) as engine:
        engine.sweep()
        found = {alert.id: alert for alert in engine.alerts()}
        assert found.keys() == {alert.id for alert in kept}
        left = {name for name, alert in found.items() if alert.status is not AlertStatus.RESOLVED}
        assert left == {"alr_e", "alr_f", "alr_g"}, "nobody did anything about the others for a week"
        assert (found["alr_b"].handled_by, found["alr_h"].handled_by) == ("system", "system")
        with store.read() as tx:
            assert reads.histories(tx, ["dev_gone"]) == {}
            assert "new_geo:b" in rows.handled(tx, ["new_geo:b"]), "only something newer opens another one"
            assert rows.left_alone(tx, NOW - 7 * DAY, 10) == []


def test_filters_and_pages(store: Store) -> None:
    with store.write() as tx:
        for number in range(10):
            alert = Alert(
                f"alr_{number}", NOW - number // 2, "new_geo", Severity.INFO if number % 3 else Severity.WARNING,
                AlertStatus.OPEN if number % 2 else AlertStatus.RESOLVED, f"k{number}", NOW, device_id=f"dev_{number % 4}",
            )  # fmt: skip
            rows.insert(tx, alert)

    def listed(**query: Any) -> list[str]:
        with store.read() as tx:
            return [alert.id for alert in rows.list_alerts(tx, m.ListAlerts(**query))]

    assert listed() == ["alr_1", "alr_0", "alr_3", "alr_2", "alr_5", "alr_4", "alr_7", "alr_6", "alr_9", "alr_8"]
    assert listed(after=(to_micros(NOW - 1), "alr_3"), limit=2) == ["alr_2", "alr_5"]
    assert listed(status="open", severity="warning") == ["alr_3", "alr_9"]
    assert listed(device_id="dev_1") == ["alr_1", "alr_5", "alr_9"]
    assert listed(since=to_micros(NOW - 1), until=to_micros(NOW - 1)) == ["alr_3", "alr_2"]
    assert listed(unresolved=True, limit=1) == ["alr_1"]
    with store.read() as tx:
        assert rows.counts(tx) == {("open", "info"): 3, ("open", "warning"): 2}
