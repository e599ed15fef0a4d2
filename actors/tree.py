"""The service tree: which actors there are, in which order they start, what falls with what.

    root (one_for_one)
    ├── event_hub                live fan-out to whoever watches
    ├── audit_writer             the only writer of the audit log; signs its checkpoints
    ├── audit_reader             lists, proves, exports and verifies it
    ├── access                   admins, their logins, API tokens
    ├── configuration            takes over what of the file can be taken over at SIGHUP
    ├── fleet                    the inventory and its intent
    ├── certificate_authority    the only holder of CA keys
    ├── geo_locator              the GeoIP database
    ├── servers                  machines, relays, control paths, the controller's SSH key
    ├── session_tracker          node events in, sessions out
    ├── session_archive          questions about sessions; retention
    ├── meter                    what the fleet did over time
    ├── alert_engine             the rules, and the alerts they make
    ├── network (rest_for_one)   what stands on the I/O loop falls with it
    │   ├── io_loop
    │   ├── node_links           dynamic: one node_link per node
    │   └── reconcile_clock
    ├── operation_runs           dynamic: one operation:<id> per running operation
    ├── operations               the journal of operations, and whose turn it is
    ├── renewals                 starts the renewal of nodes' and relays' certificates
    ├── accounts                 invites; how devices join and what they fetch
    ├── relays                   dynamic: one relay_tunnel per remote relay; the embedded relay
    ├── live_streams             who may go on watching; their sockets are on the I/O loop
    ├── web_server               the API on loopback TCP
    ├── control_socket           the API on a unix socket
    └── siem_stream              connects, disconnects and alerts for SIEMs over gRPC; only with siem.listen

Started in that order, stopped in reverse.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from actors.access import Access
from actors.access.state import Rules
from actors.accounts import Accounts, SyncServer
from actors.alerts import AlertEngine
from actors.api_services import ApiServices
from actors.audit_reader import AuditReader
from actors.audit_writer import AuditWriter
from actors.certificate_authority import CertificateAuthority
from actors.configuration import Configuration
from actors.control_socket import ControlSocket
from actors.event_funnel import EventFunnel
from actors.event_hub import EventHub
from actors.fleet import Fleet
from actors.geo_locator import GeoLocator
from actors.io_loop import IoLoop, IoLoopActor
from actors.live import Fanout, LiveStreams
from actors.meter import MeterActor
from actors.node_connection import Dialer
from actors.node_link import LinkServices, node_of_link
from actors.node_links import NodeLinks
from actors.operations import OperationRuns, Operations
from actors.ownership import SoloOwnership
from actors.reconcile_clock import ReconcileClock
from actors.relays import Relays, RelayServices
from actors.renewals import Renewals
from actors.route_probe import RouteProbe
from actors.servers import Servers
from actors.session_archive import SessionArchive
from actors.session_tracker import SessionTracker
from actors.siem import MonitorServer, SiemStream
from actors.supervision import (
    ChildSpec,
    Intensity,
    LifecycleEvent,
    LifecycleRecord,
    Strategy,
    Supervisor,
    System,
)
from actors.web_server import WebServer
from coxswain import __version__
from coxswain.api.app import create_app
from coxswain.api.doors import ControlDoor, WebDoor
from coxswain.api.gate import Gate, names_of_listener
from coxswain.api.services import Identity
from coxswain.audit.settings import AuditPaths, AuditSettings
from coxswain.cascade.exit_operation import PATH_EXIT
from coxswain.cascade.operations import KINDS as PATH_KINDS
from coxswain.clock import Clock, SystemClock
from coxswain.config.live import LiveConfig
from coxswain.control_path.forward import Forwarders
from coxswain.control_path.model import Route
from coxswain.control_path.routes import Routes
from coxswain.control_path.ways import MOVE_S, Ways
from coxswain.errors import CoxswainError
from coxswain.geoip import candidates
from coxswain.geoip_update import geoip_update
from coxswain.keyring import Keyring
from coxswain.live.ring import EventRing
from coxswain.losses import CONTROLLER, NODES, Losses
from coxswain.messages.control_paths import RouteChanged
from coxswain.messages.fleet import LinkFell, Sighting
from coxswain.messages.hub import Publish
from coxswain.messages.sessions import EventBatch
from coxswain.onboarding.kinds import onboarding_kinds
from coxswain.operations import Kind
from coxswain.servers import Relay
from coxswain.siem.tls import MonitorTls
from coxswain.ssh.dial import Dialer as HostDialer
from coxswain.ssh.dial import RoutedDialer
from coxswain.statedir import ACCOUNT_SYNC_SOCKET
from coxswain.store import Store
from coxswain.store.servers import list_relays
from coxswain.web.table import PAGES
from coxswain.wire.node_control import Deadlines

__all__ = ["Parts", "build"]


@dataclass(frozen=True)
class Parts:
    """What the tree is built from; all of it outlives every actor.

    Attributes:
        reconcile_interval_s: seconds between two looks at a node; None: what ``settings`` say at the time.
        settings: the configuration; its values may change while the system runs.
        listen: where the API is served on TCP; empty: nowhere.
        live_recheck_s: after how many seconds the credential of a live stream is looked at again.
        kinds: of operations, beside those of ``operation_kinds``.
        audit_paths: None: in the state directory.
        hang_s: for how long a service may work on one message before it counts as hung.
        intensity: of the root; the network beneath it gives up at the same rate, and so takes the root with it in the end.
    """

    store: Store
    keyring: Keyring
    state_dir: Path
    socket: Path
    reconcile_interval_s: float | None = None
    deadlines: Deadlines = Deadlines()
    hang_s: float = 15.0
    intensity: Intensity = Intensity(max_restarts=20, period_s=60.0)
    allow_chaos: bool = False
    settings: LiveConfig = field(default_factory=LiveConfig.of_defaults)
    listen: str = ""
    live_recheck_s: float = 60.0
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    audit_paths: AuditPaths | None = None

    def interval_s(self) -> float:
        given = self.reconcile_interval_s
        return float(self.settings["fleet.reconcile_interval"]) if given is None else given


def build(parts: Parts, *, clock: Clock | None = None, rng: random.Random | None = None) -> System:
    """Puts the system together; nothing runs until ``start`` or ``run``."""
    clock = clock or SystemClock()
    io = IoLoop(clock)
    routes, ways = Routes(), Ways(clock)
    dialer = Dialer(parts.deadlines, clock, routes, Forwarders(parts.state_dir / "run" / "ways", ways))
    host_dialer = RoutedDialer(routes, ways, partial(_relays, parts.store), io.submit)
    ring = EventRing()
    losses = Losses(clock)
    services = ApiServices(_identity(parts, clock), parts.settings, ring, RouteProbe(io, dialer, ways), host_dialer)

    def send(batch: EventBatch) -> object:
        return system.tell("session_tracker", batch)

    fanout = Fanout(io, ring, clock, losses)
    monitor = _monitor(parts.settings, io, ring, clock, losses)

    def is_watched() -> bool:
        return fanout.is_watched() or (monitor is not None and monitor.is_watched())

    funnel = EventFunnel(secrets.token_hex(8), send, is_watched=is_watched, on_lost=partial(losses.add, NODES, 1))

    def acknowledge(epoch: str, number: int) -> None:
        io.call(lambda: funnel.acknowledge(epoch, number))

    io.on_start(dialer.reset)
    io.on_start(partial(_start_ways, routes, ways, host_dialer))
    routes.carried = ways.carried
    allowed = ways.egress.announcer.allowances
    allowed.on_change(lambda: io.call(ways.allowances_changed))
    ways.egress.on_back = lambda: system.tell("node_links", RouteChanged())
    routes.on_change(lambda number, route: io.call(partial(_follow, ways, host_dialer, number, route)))
    io.on_start(funnel.reset)
    io.on_start(fanout.reset)
    account_sync = SyncServer(io, parts.state_dir / ACCOUNT_SYNC_SOCKET)
    io.on_start(account_sync.reset)
    relays = RelayServices(io, parts.state_dir / ACCOUNT_SYNC_SOCKET)
    io.on_start(relays.reset)
    io.on_stop(account_sync.let_go)
    wakes = [fanout.wake]
    if monitor is not None:
        io.on_start(monitor.reset)
        io.on_stop(monitor.let_go)
        wakes.append(monitor.wake)

    def wake() -> None:
        for each in wakes:
            each()

    sightings: dict[str, Sighting] = {}
    links = LinkServices(io, dialer, funnel, sightings)
    store = {"store": parts.store}
    audit = store | {"paths": parts.audit_paths or AuditPaths.in_state(parts.state_dir)}
    live = {"hand_over": fanout.hand_over}
    spec = partial(ChildSpec, hang_s=parts.hang_s)
    network = (
        spec("io_loop", IoLoopActor, {"io": io, "waiting": lambda: funnel.depth}),
        spec(
            "node_links",
            NodeLinks,
            {"services": links, "ownership": SoloOwnership()},
            shutdown_s=20.0,
            hang_s=2 * parts.hang_s,
        ),
        spec("reconcile_clock", ReconcileClock, {"interval_s": parts.interval_s}),
    )
    rest_for_one = {"children": network, "strategy": Strategy.REST_FOR_ONE, "intensity": parts.intensity}
    children = (
        spec("event_hub", EventHub, store | {"ring": ring, "wake": wake}),
        spec("audit_writer", AuditWriter, audit | {"settings": partial(audit_settings, parts.settings)}),
        spec("audit_reader", AuditReader, audit, hang_s=2 * parts.hang_s),
        spec("access", Access, store | {"keyring": parts.keyring, "rules": _access_rules(parts.settings)}),
        spec("configuration", Configuration, store | {"settings": parts.settings}),
        spec("fleet", Fleet, store | {"keyring": parts.keyring, "settings": parts.settings, "sightings": sightings}),
        spec("certificate_authority", CertificateAuthority, store | {"keyring": parts.keyring}),
        spec("geo_locator", GeoLocator, {"files": candidates(parts.settings["geoip_db"], parts.state_dir)}),
        spec("servers", Servers, store | {"keyring": parts.keyring, "routes": routes, "allowed": allowed}),
        spec(
            "session_tracker",
            SessionTracker,
            store
            | {"epoch": funnel.epoch, "acknowledge": acknowledge, "geo": "geo_locator"}
            | {"on_untold": partial(losses.add, CONTROLLER)},
            hang_s=2 * parts.hang_s,
        ),
        spec(
            "session_archive",
            SessionArchive,
            store | {"keep_days": lambda: int(parts.settings["retention.metrics_days"])},
            hang_s=2 * parts.hang_s,
        ),
        spec(
            "meter",
            MeterActor,
            store | {"keep_days": lambda: int(parts.settings["retention.metrics_days"])},
            hang_s=2 * parts.hang_s,
        ),
        spec(
            "alert_engine",
            AlertEngine,
            store | {"settings": parts.settings, "state_dir": parts.state_dir, "io": io, "losses": losses},
            hang_s=2 * parts.hang_s,
        ),
        spec("network", Supervisor, rest_for_one, shutdown_s=25.0),
        spec("operation_runs", OperationRuns, shutdown_s=10.0),
        spec(
            "operations",
            Operations,
            store | {"kinds": operation_kinds(host_dialer, parts.state_dir) | dict(parts.kinds)},
        ),
        spec("renewals", Renewals),
        spec(
            "accounts",
            Accounts,
            store | {"keyring": parts.keyring, "settings": parts.settings, "server": account_sync},
            hang_s=2 * parts.hang_s,
        ),
        spec("relays", Relays, {"services": relays, "settings": parts.settings}, shutdown_s=10.0, hang_s=2 * parts.hang_s),
        spec("live_streams", LiveStreams, {"io": io, "fanout": fanout, "recheck_s": parts.live_recheck_s}),
        *((spec("web_server", WebServer, _web(parts, services) | live),) if parts.listen else ()),
        spec("control_socket", ControlSocket, {"path": parts.socket, "app": create_app(services, ControlDoor())} | live),
        *(
            (spec("siem_stream", SiemStream, {"io": io, "server": monitor, "recheck_s": parts.live_recheck_s}),)
            if monitor is not None
            else ()
        ),
    )
    system = System(
        children=children,
        strategy=Strategy.ONE_FOR_ONE,
        intensity=parts.intensity,
        clock=clock,
        rng=rng or random.Random(secrets.randbits(64)),  # noqa: S311 - jitter
        allow_chaos=parts.allow_chaos,
        shutdown_s=40.0,
    )
    system.add_lag_source(io.lag)
    system.on_record(_publisher(system))
    services.system = system
    return system


def audit_settings(settings: LiveConfig) -> AuditSettings:
    """What is in force now."""
    return AuditSettings(
        checkpoint_records=settings["audit.checkpoint_records"],
        checkpoint_s=float(settings["audit.checkpoint_interval_seconds"]),
        retention_days=settings["retention.audit_days"],
    )


def _identity(parts: Parts, clock: Clock) -> Identity:
    return Identity(__version__, os.getpid(), clock.now(), parts.store.kind, str(parts.state_dir), parts.allow_chaos)


def _relays(store: Store) -> list[Relay]:
    with store.read() as tx:
        return list_relays(tx)


def _start_ways(routes: Routes, ways: Ways, host_dialer: RoutedDialer) -> None:
    """On a new loop. Which route is in force may not be known yet; then it follows. The loop before may have ended before it
    cut what went by the route that was left.
    """
    ways.reset()
    with suppress(CoxswainError):
        number, route = routes.current()
        _follow(ways, host_dialer, number, route)


def _follow(ways: Ways, host_dialer: RoutedDialer, number: int, route: Route) -> None:
    ways.follow(number, route)
    asyncio.get_running_loop().call_later(MOVE_S, host_dialer.cut_before, number)


def _monitor(settings: LiveConfig, io: IoLoop, ring: EventRing, clock: Clock, losses: Losses) -> MonitorServer | None:
    """None: there is no SIEM stream."""
    listen, certificate, key = (settings[f"siem.{name}"] for name in ("listen", "tls_cert", "tls_key"))
    if not listen:
        return None
    client_ca = settings["siem.client_ca"]
    tls = MonitorTls(Path(certificate), Path(key), Path(client_ca) if client_ca else None) if certificate else None
    keep_days = partial(settings.__getitem__, "retention.metrics_days")
    return MonitorServer(io, ring, clock, listen=listen, tls=tls, keep_days=keep_days, losses=losses)


def _access_rules(settings: LiveConfig) -> Rules:
    return Rules(settings["admin.password"], settings["admin.password_hash"])


def _web(parts: Parts, services: ApiServices) -> dict[str, Any]:
    settings = parts.settings
    gate = Gate(
        hosts=frozenset(name.lower() for name in settings["ui.allowed_hosts"]) | names_of_listener(parts.listen),
        origins=frozenset(settings["ui.allowed_origins"]),
        behind_tls_proxy=settings["ui.behind_tls_proxy"],
    )
    return {
        "listen": parts.listen,
        "app": create_app(services, WebDoor(gate, services.ask), PAGES),
        "behind_tls_proxy": gate.behind_tls_proxy,
    }


def operation_kinds(dialer: HostDialer, state_dir: Path) -> dict[str, Kind]:
    """All kinds of operations, by name. Their steps are in the library; they reach actors through ``Work.ask``."""
    kinds: tuple[Kind, ...] = (*PATH_KINDS, PATH_EXIT, *onboarding_kinds(dialer), geoip_update(state_dir))
    return {kind.name: kind for kind in kinds}


def _publisher(system: System) -> Callable[[LifecycleRecord], None]:
    def publish(record: LifecycleRecord) -> None:
        if record.event not in (LifecycleEvent.STARTED, LifecycleEvent.STOPPED):
            data = {"actor": record.name, "incarnation": record.incarnation, "reason": record.reason}
            system.tell("event_hub", Publish(f"tree.{record.event.value}", record.at, data))
        node_id = node_of_link(record.name)
        if node_id and record.event in (LifecycleEvent.CRASHED, LifecycleEvent.HUNG):
            system.tell("fleet", LinkFell(node_id, record.incarnation, record.at, record.reason))

    return publish
