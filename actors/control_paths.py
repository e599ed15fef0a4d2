"""The part of ``servers`` that holds control paths: which there are, which one is active, and the route that it makes now.

Whatever is about to change the route first takes away the present one (``Routes.refuse``), and what is in the store after
the change is read back before anybody may dial again. So there is no moment at which the store has a path and somebody dials
directly, whatever breaks in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from actors.supervision import Context, Pending
from coxswain.audit import record
from coxswain.control_path.model import DIRECT, ControlPath, check_hops, resolve
from coxswain.control_path.routes import Routes
from coxswain.errors import AlreadyExists, Conflict, CoxswainError, NotFound, Refused, StaleVersion, Unavailable
from coxswain.ids import new_id
from coxswain.inventory import check_name
from coxswain.messages import control_paths as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.servers import Relay
from coxswain.store import Store, Tx
from coxswain.store import control_paths as rows
from coxswain.store import operations as operation_rows
from coxswain.store import servers as server_rows

__all__ = ["ControlPaths", "ReadRouteAgain"]

_RETRY_S = 1.0
_SAY_DIRECT = (
    "Say allow_direct (--allow-direct) if the controller's address may be seen by every node; or activate another path."
)


class ReadRouteAgain:
    """``servers`` to itself: the route could not be read. There is one of them at most."""


class ControlPaths:
    """See the module. Only ever used by ``servers``."""

    def __init__(self, context: Context, store: Store, routes: Routes) -> None:
        self._context = context
        self._store = store
        self._routes = routes
        self._again = Pending(context)
        self._handlers: dict[type, Callable[[Any], Any]] = {
            m.ListControlPaths: lambda _: self._list(),
            m.GetRouteState: lambda _: self._state(),
            m.GetControlPath: lambda message: self._get(message.key),
            m.AddControlPath: self._add,
            m.EditControlPath: self._edit,
            m.ActivateControlPath: self._activate,
            m.DeactivateControlPath: self._deactivate,
            m.RemoveControlPath: self._remove,
            ReadRouteAgain: lambda _: self.refresh(),
        }

    def takes(self, message: Any) -> bool:
        return type(message) in self._handlers

    def receive(self, message: Any) -> Any:
        return self._handlers[type(message)](message)

    def refresh(self) -> None:
        """Takes over the route that the store says. Where that cannot be read, nobody dials until it can."""
        self._again.cancel()
        before, was_refused = self._routes.number, self._routes.is_refused
        try:
            with self._store.read() as tx:
                active = next((p for p in rows.list_control_paths(tx) if p.is_active), None)
                relays = server_rows.list_relays(tx)
            self._routes.set(DIRECT if active is None else resolve(active.hops, relays))
        except Refused as error:
            self._routes.refuse(error)
            self._context.log.warning("%s", error)
        except CoxswainError as error:
            self._routes.refuse(Unavailable(f"the control path cannot be read: {error}; nothing is dialled"))
            self._context.log.warning("the control path cannot be read: %s", error)
            self._again.after(_RETRY_S, ReadRouteAgain())
        if self._routes.number != before or (was_refused and not self._routes.is_refused):
            self._context.tell("node_links", m.RouteChanged())  # of the same number: who waits for it dials at once

    def check_no_hop(self, relay: Relay) -> None:
        """Raises ``Conflict`` naming the paths of which a relay is a hop."""
        with self._store.read() as tx:
            paths = [path.name for path in rows.list_control_paths(tx) if relay.id in path.hops]
        if paths:
            raise Conflict(
                f"relay {relay.name}: it is a hop of the control path {', '.join(paths[:5])}",
                remedy="Remove the path first: cox control-paths rm",
            )

    # -- questions

    def _list(self) -> list[m.ControlPathView]:
        with self._store.read() as tx:
            paths, relays = rows.list_control_paths(tx), server_rows.list_relays(tx)
        return [_view(path, relays) for path in paths]

    def _get(self, key: str) -> m.ControlPathView:
        views = self._list()
        for view in views:
            if view.path.id == key:
                return view
        for view in views:
            if view.path.name == key:
                return view
        raise NotFound(f"control path: there is none with the id or name {key[:80]!r}", remedy="See: cox control-paths list")

    def _state(self) -> m.RouteState:
        connections, sessions = self._routes.carried()
        try:
            _, route = self._routes.current()
        except CoxswainError as error:
            return m.RouteState("refused", reason=str(error), connections=connections, sessions=sessions)
        return m.RouteState(route.kind, tuple(hop.name for hop in route.hops), "", connections, sessions)

    # -- changes

    def _add(self, message: m.AddControlPath) -> Committed[m.ControlPathView]:
        name, now = check_name(message.name), self._context.clock.now()
        with self._store.write() as tx:
            if any(path.name == name for path in rows.list_control_paths(tx)):
                raise AlreadyExists(f"name: a control path named {name!r} exists already; choose another name")
            relays = server_rows.list_relays(tx)
            hops = check_hops(message.hops, relays)
            _check_stay(tx, hops, relays)
            path = ControlPath(new_id("cpath"), name, hops, created_at=now, updated_at=now)
            rows.insert_control_path(tx, path)
            outbox_id = self._record(tx, message.caller, "control_path.add", path, {"hops": list(hops)})
        return self._committed(path, relays, outbox_id)

    def _edit(self, message: m.EditControlPath) -> Committed[m.ControlPathView]:
        path, now = self._checked(message.id, message.version).path, self._context.clock.now()
        with self._store.write() as tx:
            relays = server_rows.list_relays(tx)
            name = path.name if message.name is None else check_name(message.name)
            hops = path.hops if message.hops is None else check_hops(message.hops, relays)
            _check_stay(tx, set(hops) - set(path.hops), relays)
            if path.is_active and hops != path.hops:
                raise Conflict(
                    f"control path {path.name}: it is the active one, and nobody has probed other hops",
                    remedy="Make another path of them, and activate that: cox control-paths add NAME --via … --activate",
                )
            if any(other.name == name and other.id != path.id for other in rows.list_control_paths(tx)):
                raise AlreadyExists(f"name: a control path named {name!r} exists already; choose another name")
            path = rows.update_control_path(tx, replace(path, name=name, hops=hops), now)
            outbox_id = self._record(tx, message.caller, "control_path.update", path, {"hops": list(hops)})
        return self._committed(path, relays, outbox_id)

    def _activate(self, message: m.ActivateControlPath) -> Committed[m.ControlPathView]:
        path = self._checked(message.id, message.version).path
        if not path.hops and not message.allow_direct:
            raise Conflict(
                f"control path {path.name}: it has no hops, so that everything is dialled directly", remedy=_SAY_DIRECT
            )
        detail = {"probed": message.probed} if message.probed else {}
        with self._changing() as (tx, now):
            relays = server_rows.list_relays(tx)
            resolve(path.hops, relays)
            active = next((p for p in rows.list_control_paths(tx) if p.is_active), None)
            if active is not None and active.id == path.id:
                raise Conflict(f"control path {path.name}: it is the active one already")
            if active is not None:
                rows.update_control_path(tx, replace(active, is_active=False), now)
                detail["instead_of"] = active.name
            path = rows.update_control_path(tx, replace(path, is_active=True), now)
            outbox_id = self._record(tx, message.caller, "control_path.activate", path, detail)
        return self._committed(path, relays, outbox_id)

    def _deactivate(self, message: m.DeactivateControlPath) -> Committed[m.ControlPathView]:
        active = next((view.path for view in self._list() if view.path.is_active), None)
        if active is None:
            raise Conflict("no control path is active; everything is dialled directly already")
        if message.version is not None and message.version != active.version:
            raise StaleVersion.of(f"control path {active.name}", message.version, active.version)
        if not message.allow_direct:
            raise Conflict(f"without control path {active.name} everything is dialled directly", remedy=_SAY_DIRECT)
        with self._changing() as (tx, now):
            active = rows.update_control_path(tx, replace(active, is_active=False), now)
            outbox_id = self._record(tx, message.caller, "control_path.deactivate", active, {})
            relays = server_rows.list_relays(tx)
        return self._committed(active, relays, outbox_id)

    def _remove(self, message: m.RemoveControlPath) -> Committed[m.ControlPathView]:
        path = self._checked(message.id, message.version).path
        if path.is_active and not message.allow_direct:
            raise Conflict(
                f"control path {path.name} is active; without it everything is dialled directly", remedy=_SAY_DIRECT
            )
        with self._changing() as (tx, _now):
            rows.delete_control_path(tx, path.id)
            detail = {"was_active": True} if path.is_active else {}
            outbox_id = self._record(tx, message.caller, "control_path.rm", path, detail)
            relays = server_rows.list_relays(tx)
        return self._committed(path, relays, outbox_id)

    # -- inside

    @contextmanager
    def _changing(self) -> Iterator[tuple[Tx, float]]:
        """A transaction that may change the route. Until what it left is read back, nobody dials: of a commit whose answer
        is lost, nobody knows what it did.
        """
        self._routes.refuse(Unavailable("the control path is just being changed; try again"))
        try:
            with self._store.write() as tx:
                yield tx, self._context.clock.now()
        finally:
            self.refresh()

    def _record(self, tx: Tx, caller: Caller, action: str, path: ControlPath, detail: dict[str, Any]) -> int:
        now = self._context.clock.now()
        return record(tx, caller, action, ("control_path", path.id), {"name": path.name} | detail, now=now)

    def _checked(self, key: str, version: int | None) -> m.ControlPathView:
        view = self._get(key)
        if version is not None and version != view.path.version:
            raise StaleVersion.of(f"control path {view.path.name}", version, view.path.version)
        return view

    def _committed(self, path: ControlPath, relays: list[Relay], outbox_id: int) -> Committed[m.ControlPathView]:
        self._context.tell("audit_writer", OutboxGrew())
        data = {"control_path_id": path.id, "name": path.name, "active": path.is_active}
        self._context.tell("event_hub", Publish("control_path.changed", self._context.clock.now(), data))
        return Committed(_view(path, relays), outbox_id)


def _check_stay(tx: Tx, hops: Iterable[str], relays: list[Relay]) -> None:
    """Before a path leads over relays anew. Raises ``Conflict``: one is just being removed; whether it is a hop was asked
    before it is stopped.
    """
    for relay_id, operation_id in operation_rows.being_removed(tx, hops).items():
        (name,) = (relay.name for relay in relays if relay.id == relay_id)
        raise Conflict(
            f"hops: relay {name} is being removed (operation {operation_id})",
            remedy=f"See: cox operations show {operation_id}",
        )


def _view(path: ControlPath, relays: list[Relay]) -> m.ControlPathView:
    known = {relay.id: relay for relay in relays}
    named = tuple(known.get(hop) for hop in path.hops)
    try:
        return m.ControlPathView(path, named, resolve(path.hops, relays))
    except Refused as error:
        return m.ControlPathView(path, named, None, str(error))
