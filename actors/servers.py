"""``servers``: machines, relays and control paths, and the controller's SSH key. Never speaks to a machine; operations
do.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from actors.control_paths import ControlPaths
from actors.supervision import Actor, Context, Pending
from coxswain.audit import record
from coxswain.control_path.routes import Routes
from coxswain.control_path.targets import Allowance, Allowances, allowances
from coxswain.errors import AlreadyExists, Conflict, CoxswainError, NotFound, StaleVersion
from coxswain.ids import new_id
from coxswain.inventory import check_name, check_region
from coxswain.keyring import Keyring
from coxswain.messages import servers as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.messages.relays import RelaySetChanged
from coxswain.servers import Relay, Server, check_ssh_host, check_ssh_port, check_ssh_user
from coxswain.ssh import SshIdentity, fingerprint_of
from coxswain.store import Store
from coxswain.store import control_paths as path_rows
from coxswain.store import fleet as fleet_rows
from coxswain.store import servers as rows

__all__ = ["Servers"]


_ALLOW_S = 0.2
_ALLOW_AGAIN_S = 1.0


class _Allow:
    """To itself: something changed by which relays have to connect to other places."""


class Servers(Actor):
    """See the module. Rows are few; all of them are read anew for each question, so nothing in memory can be out of date."""

    def __init__(
        self, context: Context, *, store: Store, keyring: Keyring, routes: Routes, allowed: Allowances | None = None
    ) -> None:
        super().__init__(context)
        self._store = store
        self._keyring = keyring
        self._identity: SshIdentity | None = None
        self._paths = ControlPaths(context, store, routes)
        self._allowed = allowed or Allowances()
        self._allowing = Pending(context)

    def started(self) -> None:
        self._paths.refresh()
        self._allow()
        self._identity = rows.ensure_ssh_identity(self._store, self._keyring, self._now())

    def receive(self, message: Any) -> Any:
        match message:
            case m.GetSshIdentity():
                return self._identity
            case m.ListServers():
                return self._servers()
            case m.GetServer(key):
                return self._server(key)
            case m.FindServer(host, port):
                return self._at(host, port)
            case m.PutServer():
                return self._put(message)
            case m.RegisterSelf(caller, host):
                return self._register_self(caller, host)
            case m.HostKeyOffered(server_id, host_key):
                return self._on_offered(server_id, host_key)
            case m.TrustServer():
                return self._trust(message)
            case m.EditServer():
                return self._edit(message)
            case m.RemoveServer():
                return self._remove(message)
            case m.ListRelays():
                return self._relays()
            case m.GetRelay(key):
                return self._relay(key)
            case m.AddRelay(caller, relay):
                return self._add_relay(caller, relay)
            case m.EditRelay():
                return self._edit_relay(message)
            case m.RemoveRelay():
                return self._remove_relay(message)
            case m.CheckNoHop(key):
                return self._paths.check_no_hop(self._relay(key))
            case m.GetAllowance(relay_id):
                return self._allowances().get(self._relay(relay_id).id, Allowance())
            case m.AddressesChanged():
                self._allow_soon()
            case _Allow():
                self._allow()
            case _ if self._paths.takes(message):
                if self._allowing.waits:  # whoever asks for a path may use it at once: its hops are to know where it leads
                    self._allow()
                try:
                    return self._paths.receive(message)
                finally:
                    self._allow_soon()
        return None

    # -- machines

    def _put(self, message: m.PutServer) -> Committed[Server]:
        host, port = check_ssh_host(message.ssh_host), check_ssh_port(message.ssh_port)
        known = self._at(host, port)
        now = self._now()
        if known is None:
            server = Server(
                id=new_id("srv"),
                name=self._name(message.name, known, host, port),
                region=check_region(message.region),
                ssh_host=host,
                ssh_port=port,
                ssh_user=check_ssh_user(message.ssh_user),
                ssh_host_key=message.ssh_host_key,
                facts=dict(message.facts),
                created_at=now,
                updated_at=now,
            )
        elif known.ssh_host_key not in ("", message.ssh_host_key):
            raise Conflict(f"server {known.name}: another host key is pinned", remedy=f"See: cox servers trust {known.id}")
        else:
            server = dataclasses.replace(
                known,
                name=self._name(message.name or known.name, known, host, port),
                region=check_region(message.region or known.region),
                ssh_user=check_ssh_user(message.ssh_user),
                ssh_host_key=message.ssh_host_key,
                facts=dict(message.facts) or known.facts,
                status="active",
            )
        with self._store.write() as tx:
            if known is None:
                rows.insert_server(tx, server)
            else:
                server = rows.update_server(tx, server, expected_version=known.version, now=now)
            action = "server.register" if known is None else "server.update"
            detail = {"name": server.name, "ssh_host": host, "host_key": fingerprint_of(message.ssh_host_key)}
            outbox_id = record(tx, message.caller, action, ("server", server.id), detail, now=now)
        return self._committed(server, outbox_id)

    def _name(self, said: str, known: Server | None, host: str, port: int) -> str:
        """No two machines share one: a file and the command line call them by it. Two that had one before keep it."""
        others = {s.name for s in self._servers() if known is None or s.id != known.id}
        if said:
            name = check_name(said)
            if name in others and (known is None or name != known.name):
                raise AlreadyExists(f"name: a machine named {name!r} exists already; choose another name")
            return name
        free = (_name_of(host), _name_of(f"{host[:56]}-{port}"), new_id("server"))
        return next(name for name in free if name not in others)

    def _register_self(self, caller: Caller, host: str) -> Committed[Server]:
        known = next((s for s in self._servers() if s.is_self), None)
        now = self._now()
        host = check_ssh_host(host) if host else known.ssh_host if known is not None else _own_address()
        if known is not None:
            server = dataclasses.replace(known, ssh_host=host)
        else:
            server = Server(id=new_id("srv"), name="controller", ssh_host=host, is_self=True, created_at=now, updated_at=now)
        with self._store.write() as tx:
            if known is None:
                rows.insert_server(tx, server)
            else:
                server = rows.update_server(tx, server, expected_version=known.version, now=now)
            outbox_id = record(tx, caller, "server.self", ("server", server.id), {"ssh_host": host}, now=now)
        return self._committed(server, outbox_id)

    def _on_offered(self, server_id: str, host_key: str) -> None:
        server = next((s for s in self._servers() if s.id == server_id), None)
        if server is None or server.ssh_host_key == host_key:
            return
        now = self._now()
        shown, known = fingerprint_of(host_key), fingerprint_of(server.ssh_host_key)
        with self._store.write() as tx:
            changed = dataclasses.replace(server, offered_host_key=host_key)
            rows.update_server(tx, changed, expected_version=server.version, now=now)
            record(
                tx,
                Caller("operations", "system"),
                "server.host_key_changed",
                ("server", server.id),
                {"known": known, "shown": shown},
                now=now,
                error="another host key than the pinned one was shown, and refused",
            )
        self.context.log.error("server %s shows another host key: %s is pinned, %s was shown", server.name, known, shown)
        self.context.tell("audit_writer", OutboxGrew())
        data = {"server_id": server.id, "name": server.name, "known": known, "shown": shown}
        self.context.tell("event_hub", Publish("server.host_key_changed", now, data))

    def _trust(self, message: m.TrustServer) -> Committed[Server]:
        server = self._checked(message.id, message.version)
        if not server.offered_host_key:
            raise Conflict(f"server {server.name} showed no other key than the pinned one; there is nothing to decide")
        offered, pinned = fingerprint_of(server.offered_host_key), fingerprint_of(server.ssh_host_key)
        if message.fingerprint not in (offered, pinned):
            raise Conflict(
                f"host_key: server {server.name} showed {offered}, not {message.fingerprint[:60]!r}; {pinned} is pinned",
                remedy="Compare it with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints on the host's console.",
            )
        now = self._now()
        key = server.offered_host_key if message.fingerprint == offered else server.ssh_host_key
        changed = dataclasses.replace(server, ssh_host_key=key, offered_host_key="")
        with self._store.write() as tx:
            changed = rows.update_server(tx, changed, expected_version=server.version, now=now)
            detail = {"before": pinned, "shown": offered, "now": message.fingerprint, "key": changed.ssh_host_key}
            outbox_id = record(tx, message.caller, "server.trust", ("server", server.id), detail, now=now)
        return self._committed(changed, outbox_id)

    def _edit(self, message: m.EditServer) -> Committed[Server]:
        server = self._checked(message.id, message.version)
        if server.is_self and (message.ssh_host, message.ssh_port, message.ssh_user) != (None, None, None):
            raise Conflict("this is the controller's own machine", remedy="For its address: cox servers self --host")
        host = server.ssh_host if message.ssh_host is None else check_ssh_host(message.ssh_host)
        port = server.ssh_port if message.ssh_port is None else check_ssh_port(message.ssh_port)
        other = self._at(host, port)
        if other is not None and other.id != server.id:
            raise AlreadyExists(f"ssh_host: {host} port {port} is server {other.name} already")
        changed = dataclasses.replace(
            server,
            name=server.name if message.name is None else self._name(check_name(message.name), server, host, port),
            region=server.region if message.region is None else check_region(message.region),
            ssh_host=host,
            ssh_port=port,
            ssh_user=server.ssh_user if message.ssh_user is None else check_ssh_user(message.ssh_user),
            # What somebody showed at the address from before decides nothing here.
            offered_host_key=server.offered_host_key if (host, port) == (server.ssh_host, server.ssh_port) else "",
        )
        now = self._now()
        with self._store.write() as tx:
            changed = rows.update_server(tx, changed, expected_version=server.version, now=now)
            detail = {"before": _audited(server), "after": _audited(changed)}
            outbox_id = record(tx, message.caller, "server.update", ("server", server.id), detail, now=now)
        return self._committed(changed, outbox_id)

    def _remove(self, message: m.RemoveServer) -> Committed[Server]:
        server = self._checked(message.id, message.version)
        if server.is_self:
            raise Conflict("this is the controller's own machine; it stays as long as the controller does")
        with self._store.write() as tx:
            nodes = [n.name for n in fleet_rows.list_nodes(tx, now=self._now()) if n.server_id == server.id]
            relays = [r.name for r in rows.list_relays(tx) if r.server_id == server.id]
            if nodes or relays:
                raise Conflict(
                    f"server {server.name}: {', '.join([*nodes, *relays][:5])} runs on it",
                    remedy="Remove what runs on it first: cox nodes remove, cox relays remove",
                )
            rows.delete_server(tx, server.id)
            outbox_id = record(
                tx, message.caller, "server.rm", ("server", server.id), {"name": server.name}, now=self._now()
            )
        return self._committed(server, outbox_id)

    def _servers(self) -> list[Server]:
        with self._store.read() as tx:
            return rows.list_servers(tx)

    def _at(self, host: str, port: int) -> Server | None:
        return next((s for s in self._servers() if (s.ssh_host, s.ssh_port) == (host, port)), None)

    def _server(self, key: str) -> Server:
        with self._store.read() as tx:
            servers = rows.servers_called(tx, key)
        for field in ("id", "name", "ssh_host"):
            for server in servers:
                if getattr(server, field) == key:
                    return server
        raise NotFound(f"server: there is none with the id, name or address {key[:80]!r}", remedy="See: cox servers list")

    def _checked(self, key: str, version: int | None) -> Server:
        server = self._server(key)
        if version is not None and version != server.version:
            raise StaleVersion.of(f"server {server.name}", version, server.version)
        return server

    # -- relays

    def _add_relay(self, caller: Caller, relay: Relay) -> Committed[Relay]:
        now = self._now()
        others = self._relays()
        relay_id = new_id("rly")
        name = check_name(relay.name or f"relay-{relay_id[-6:]}")
        if any(other.name == name for other in others):
            raise AlreadyExists(f"name: a relay named {name!r} exists already; choose another name")
        hop = relay.egress_hop
        if relay.egress_endpoint and not hop:
            hop = 1 + max((other.egress_hop for other in others if other.egress_endpoint), default=0)
        relay = dataclasses.replace(relay, id=relay_id, name=name, egress_hop=hop, created_at=now, updated_at=now, version=1)
        with self._store.write() as tx:
            rows.insert_relay(tx, relay)
            detail = {"name": name, "hostname": relay.hostname}
            outbox_id = record(tx, caller, "relay.register", ("relay", relay.id), detail, now=now)
        return self._committed(relay, outbox_id)

    def _edit_relay(self, message: m.EditRelay) -> Committed[Relay]:
        relay = self._checked_relay(message.id, message.version)
        changed = dataclasses.replace(relay, **message.changes)
        if relay.egress_endpoint and not changed.egress_endpoint:
            self._paths.check_no_hop(relay)
        with self._store.write() as tx:
            changed = rows.update_relay(tx, changed, expected_version=relay.version, now=self._now())
            detail = {"name": relay.name, "changed": sorted(message.changes)}
            outbox_id = record(tx, message.caller, message.action, ("relay", relay.id), detail, now=self._now())
        self._paths.refresh()
        return self._committed(changed, outbox_id)

    def _remove_relay(self, message: m.RemoveRelay) -> Committed[Relay]:
        relay = self._checked_relay(message.id, message.version)
        self._paths.check_no_hop(relay)
        with self._store.write() as tx:
            rows.delete_relay(tx, relay.id, self._now())
            outbox_id = record(tx, message.caller, "relay.rm", ("relay", relay.id), {"name": relay.name}, now=self._now())
        return self._committed(relay, outbox_id)

    def _relays(self) -> list[Relay]:
        with self._store.read() as tx:
            return rows.list_relays(tx)

    def _relay(self, key: str) -> Relay:
        for relay in self._relays():
            if key in (relay.id, relay.name):
                return relay
        raise NotFound(f"relay: there is none with the id or name {key[:80]!r}", remedy="See: cox relays list")

    def _checked_relay(self, key: str, version: int | None) -> Relay:
        relay = self._relay(key)
        if version is not None and version != relay.version:
            raise StaleVersion.of(f"relay {relay.name}", version, relay.version)
        return relay

    # -- where relays may connect

    def _allow_soon(self) -> None:
        """Of many changes at once, relays are told once."""
        if not self._allowing.waits:
            self._allowing.after(_ALLOW_S, _Allow())

    def _allow(self) -> None:
        self._allowing.cancel()
        try:
            self._allowed.set(self._allowances())
        except CoxswainError as error:
            self.context.log.warning("where relays may connect cannot be read: %s", error)
            self._allowing.after(_ALLOW_AGAIN_S, _Allow())

    def _allowances(self) -> dict[str, Allowance]:
        with self._store.read() as tx:
            paths = path_rows.list_control_paths(tx)
            nodes = fleet_rows.list_nodes(tx, now=self._now()) if any(path.hops for path in paths) else []
            return allowances(paths, rows.list_relays(tx), nodes, rows.list_servers(tx))

    # -- inside

    def _committed(self, value: Any, outbox_id: int) -> Committed[Any]:
        self._allow_soon()
        self.context.tell("audit_writer", OutboxGrew())
        kind = "server" if isinstance(value, Server) else "relay"
        if kind == "relay":
            self.context.tell("relays", RelaySetChanged())
        data = {f"{kind}_id": value.id, "name": value.name, "status": value.status}
        self.context.tell("event_hub", Publish(f"{kind}.changed", self._now(), data))
        return Committed(value, outbox_id)

    def _now(self) -> float:
        return self.context.clock.now()


def _audited(server: Server) -> dict[str, str]:
    login = f"{server.ssh_user}@{server.ssh_host} port {server.ssh_port}"
    return {"name": server.name, "region": server.region, "login": login}


def _name_of(host: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in host)[:63].strip("-.") or "server"


def _own_address() -> str:
    """Of the interface that leads out: a UDP socket that is connected tells it, and sends nothing (fleet-model.md 2.3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("1.1.1.1", 80))
            address: str = probe.getsockname()[0]
        except OSError:
            return "localhost"
    return address
