"""Carries changes out through the API; what was done stays done, and the next run does the rest.

On machines they are made side by side. What cannot be made on one of them, or over a node that is away, holds up what needs
it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol
from urllib.parse import quote

from coxswain.declare.checks import addr_of
from coxswain.declare.compare import Action, Change
from coxswain.declare.items import Item, led_to, unready
from coxswain.declare.side_by_side import OVER, Operation, Work, side_by_side
from coxswain.errors import Conflict, CoxswainError, NodeFailure, NotFound, Refused, Unavailable, class_called, door_of
from coxswain.model import LinkState
from coxswain.words import counted

__all__ = ["Api", "Applied", "Stopped", "Waiting", "apply", "exit_code_of"]

_POLICY = ("forwarding", "masquerade", "isolation")
_WAITS = door_of(Unavailable("")).exit_code
_NODE = door_of(NodeFailure("")).exit_code
_DECIDE = door_of(Refused("")).exit_code
"""As where a machine that is new shows another host key than the file's: applied again later, it is no better."""
_REFUSED_FOR_ONE = frozenset({_NODE, *(door_of(kind("")).exit_code for kind in (Conflict, NotFound))})
"""Exit codes of refusals that are about one machine; others would meet the next one as well."""


class Api(Protocol):
    """What carries requests (``coxswain.cli.client.Client``)."""

    def call(self, method: str, path: str, body: Any = None) -> Any: ...

    def begin(self, path: str, body: Any, method: str = "POST") -> Any: ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """A change that could not be made yet.

    Attributes:
        reason: what it waits for; or, if it ``failed``, a sentence that says why it could not be made.
        remedy: what to do about it.
        exit_code: what the cause means at the command line.
    """

    change: Change
    reason: str
    failed: bool = False
    remedy: str = ""
    exit_code: int = _WAITS


@dataclass(frozen=True, slots=True)
class Applied:
    """How many changes were made, what was said about them, and which could not be made yet."""

    count: int
    notes: tuple[str, ...]
    waiting: tuple[Waiting, ...] = ()


class Stopped(CoxswainError):
    """A change could not be made. ``done`` were, with ``notes`` about them, and some wait; run it again when the cause is
    mended.
    """

    def __init__(
        self, change: Change, done: int, cause: CoxswainError, notes: Sequence[str] = (), waiting: Sequence[Waiting] = ()
    ) -> None:
        where = f"{change.wanted.where}: " if change.wanted is not None else ""
        stay = "stays" if done == 1 else "stay"
        again = f"{counted(done, 'change')} before that {stay} made; when it is mended, apply the file again."
        super().__init__(f"{where}{change.action} {change.item.title}: {cause}", remedy=f"{again} {cause.remedy}".strip())
        self.change = change
        self.done = done
        self.cause = cause
        self.notes = tuple(notes)
        self.waiting = tuple(waiting)


class _ForOne(CoxswainError):
    """Something could not be done on one machine, or takes longer than a request may. The rest has nothing to do with it."""

    def __init__(self, cause: CoxswainError) -> None:
        super().__init__(str(cause), remedy=cause.remedy)
        self.exit_code = exit_code_of(cause)


def exit_code_of(error: CoxswainError) -> int:
    """Of what the daemon said, or of an error of our own."""
    return int(getattr(error, "exit_code", 0)) or door_of(error).exit_code


class _Run:
    """Ids by kind and key: of what was there, and of what is made on the way."""

    def __init__(
        self, api: Api, present: Sequence[Item], done: Callable[[Change], None], say: Callable[[str], None]
    ) -> None:
        self.api = api
        self.say = say
        self.done = done
        self.count = 0
        self._stops = False
        self.ids = {(item.kind, item.key): item.id for item in present}
        self.notes: list[str] = []
        self.waiting: list[Waiting] = []
        self._held: dict[tuple[str, str], str] = {}
        """To what those that wait still lead, and which of them; so it cannot go."""
        self._late: set[tuple[str, str]] = set()
        """What is not there yet, or not yet what it is to be."""
        self._place: dict[tuple[str, str], str] = {}
        """Addresses and machines of nodes that wait, which are not free yet, and which of them."""

    def make(self, changes: Sequence[Change]) -> None:
        """In order; of machines and nodes those side by side that have nothing in common."""
        for on_machines, some in groupby(changes, key=lambda change: change.item.kind in ("server", "node")):
            if on_machines:
                side_by_side(list(some), self._begun, self._go_on)
                continue
            for change in some:
                self._begun(change)

    def _begun(self, change: Change) -> Work | None:
        """None: it is made, or waits. Raises ``Stopped``."""
        try:
            if change.wanted is not None and change.item.kind == "server" and "host_key" in change.fields and change.present:
                self._put_off(Waiting(change, change.note, failed=True, exit_code=_DECIDE))
                return None
            reason = self._reason_to_wait(change)
            if reason:
                self._put_off(Waiting(change, reason))
                return None
            work = self._work(change)
        except CoxswainError as error:
            self._failed(change, error)
            return None
        if work is None:
            self._made(change)
        return work

    def _go_on(self, change: Change, work: Work, waited_for: Operation | None) -> Operation | None:
        """None: it has ended. Raises ``Stopped``."""
        try:
            if waited_for is None:
                return next(work)
            return work.send(self.api.call("GET", _at("operations", waited_for["id"])))
        except StopIteration:
            self._made(change)
        except CoxswainError as error:
            self._failed(change, error)
        return None

    def _made(self, change: Change) -> None:
        self.count += 1
        self.done(change)

    def _failed(self, change: Change, error: CoxswainError) -> None:
        """Raises ``Stopped``, if it is about more than this change and what needs it. Once: what fails of what was under way
        then is waiting, too.
        """
        code = exit_code_of(error)
        if not (self._stops or isinstance(error, _ForOne) or code == _NODE):
            self._stops = True
            raise Stopped(change, self.count, error, self.notes, self.waiting) from error
        if change.item.kind in ("server", "node"):
            self.say(f"{change.item.title}: failed: {error}")
        code = _WAITS if code == _NODE else code
        self._put_off(Waiting(change, str(error), failed=True, remedy=error.remedy, exit_code=code))

    def _reason_to_wait(self, change: Change) -> str:
        """Empty: nothing keeps it from being made now."""
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        if change.action is Action.REMOVE:
            other = self._held.get((item.kind, item.key[0]), "") if len(item.key) == 1 else ""
            return f"{other}, which leads to it until then" if other else ""
        needs = list(led_to(new))
        if "onboarding" in new and change.present is not None:
            needs.append(("server", "server", change.present.fields["server"]))
        missing = dict.fromkeys(f"{kind} {name}" for _, kind, name in needs if (kind, name) in self._late)
        if missing:
            return ", ".join(missing)
        for place in _places(item) if item.kind == "node" else ():
            other = self._place.get(place, item.title)
            if other != item.title:
                return f"{other}, which has its place until then"
        reasons: list[str] = []
        if item.kind == "path" and (change.action is Action.ADD or "fallbacks" in new):
            for field_name, _, name in led_to(new):
                node = self.api.call("GET", _at("nodes", self.id_of("node", name)))
                reason = unready(node, standby=field_name == "fallbacks")
                if not reason and name in new.get("hops", ())[:-1] and node["link_state"] == LinkState.BACKING_OFF:
                    reason = f"is not reached: {node['link_reason']}"  # it would have to set up its link to the next one
                reasons += [f"node {name}, which {reason}"] if reason else []
        return ", ".join(reasons)

    def _put_off(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)
        change, item = waiting.change, waiting.change.item
        if item.kind in ("server", "node") or (item.kind == "path" and change.action is Action.ADD):
            self._late.add((item.kind, item.key[0]))
        if change.present is not None:
            self._held |= {(kind, name): item.title for _, kind, name in led_to(change.present.fields)}
            self._place |= dict.fromkeys(_places(change.present), item.title) if item.kind == "node" else {}

    def id_of(self, kind: str, name: str) -> str:
        return self.ids.get((kind, (name,)), name)

    def _work(self, change: Change) -> Work | None:
        """Makes a change; of one that takes operations, the work that is left."""
        work: Callable[[Change], Work | None] = getattr(self, f"_{change.action.value}_{change.item.kind}", None) or getattr(
            self, f"_{change.action.value}"
        )
        return work(change)

    def _operation(self, change: Change, path: str, body: Any) -> Generator[Operation, Operation, dict[str, Any]]:
        """Has something done on a machine that may take minutes, longer than a request may; what it kept, when it is over.

        Raises ``_ForOne``: it failed, or this machine is not to be worked on now.
        """
        try:
            operation = self.api.begin(path, body)
        except CoxswainError as error:
            if exit_code_of(error) in _REFUSED_FOR_ONE:
                raise _ForOne(error) from error
            raise
        self.say(f"{change.item.title}: under way; see: cox operations show {operation['id']} --follow")
        told = {step["name"] for step in operation["steps"] if step["state"] == "done"}  # of one that is gone on with
        while operation["state"] not in OVER:
            operation = yield operation
            for step in operation["steps"]:  # several may have begun, and been over, since the last look
                if step["state"] != "pending" and step["name"] not in told:
                    self.say(f"{change.item.title}: {step['title']}")
                    told.add(step["name"])
        if operation["state"] != "done":
            said = operation["error"] or f"the operation is {operation['state']}"
            remedy = operation["remedy"] or f"See: cox operations show {operation['id']}"
            kind = class_called(operation["error_type"])
            raise _ForOne(kind(f"{said} (operation {operation['id']})", remedy=remedy))
        kept: dict[str, Any] = operation["data"]
        return kept

    def _onboard(self, change: Change, node: dict[str, Any]) -> Generator[Operation, Operation, dict[str, Any]]:
        """Also one whose onboarding failed: what is there of it is kept."""
        body = {"role": "node", "name": node["name"], "region": node["region"]}
        kept = yield from self._operation(change, _at("servers", self.id_of("server", node["server"]), "deploy"), body)
        made: dict[str, Any] = self.api.call("GET", _at("nodes", kept["node_id"]))
        return made

    def _over(self, answer: Any) -> None:
        if isinstance(answer, dict) and "steps" in answer and "state" in answer:
            error = Unavailable(
                f"it is not over yet and goes on by itself (operation {answer['id']})",
                remedy=f"Follow it with: cox operations show {answer['id']} --follow",
            )
            raise _ForOne(error)

    def learn(self, item: Item, made: dict[str, Any]) -> str:
        self._over(made)
        found: str = made["id"]
        self.ids[item.kind, item.key] = found
        self.note_skipped(item, made)
        return found

    def note_skipped(self, item: Item, made: dict[str, Any]) -> None:
        """An answer is about the device; of its other profiles this was said with them."""
        for skipped in made.get("skipped", []):
            if skipped["profile_id"] in ("", made["id"]):
                self.notes.append(f"{item.title}: not served yet: {skipped['reason']}")

    # -- adding

    def _add_server(self, change: Change) -> Work:
        item = change.item  # what it does not say is as configured
        kept = yield from self._operation(change, "/api/servers", {k: v for k, v in item.fields.items() if v})
        self.ids[item.kind, item.key] = kept["server_id"]

    def _add_node(self, change: Change) -> Work:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        policy = {name: new[name] for name in _POLICY}
        if new["server"]:
            made = yield from self._onboard(change, new)
        else:
            body = {name: new[name] for name in ("name", "control_addr", "region", "public_ip")}
            made = self.api.call("POST", "/api/nodes", body | {"policy": policy, "unique": True})
            self.notes.append(f"{item.title}: enrol it: cox nodes enroll {new['name']} --csr FILE")
        node_id = self.learn(item, made)
        rest: dict[str, Any] = {name: new[name] for name in ("endpoint_ips", "endpoint_ports", "decoy_site") if new[name]}
        if new["server"]:
            rest |= policy
        if rest:
            made = self.api.call("PATCH", _at("nodes", node_id), {"version": made["version"]} | rest)
        if not new["enabled"]:
            self.api.call("POST", _at("nodes", node_id, "disable"), {"version": made["version"]})

    def _add_path(self, change: Change) -> None:
        new = {name: after for name, (_, after) in change.fields.items()}
        hops, fallbacks = ([self.id_of("node", node) for node in new[name]] for name in ("hops", "fallbacks"))
        body = {"name": new["name"], "color": new["color"], "node_ids": hops, "fallback_ids": fallbacks}
        self.learn(change.item, self.api.call("POST", "/api/paths", body))

    def _add_user(self, change: Change) -> None:
        new = {name: after for name, (_, after) in change.fields.items()}
        body = {name: new[name] for name in ("name", "email", "phone")} | {"unique": True}
        made = self.api.call("POST", "/api/users", body)
        user_id = self.learn(change.item, made)
        if new["status"] != "active":
            self.api.call("PATCH", _at("users", user_id), {"version": made["version"], "status": new["status"]})

    def _add_device(self, change: Change) -> None:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        owner = self.ids["user", item.key[:1]]
        body = {"name": new["name"], "platform": new["platform"], "unique": True}
        made = self.api.call("POST", _at("users", owner, "devices"), body)
        device_id = self.learn(item, made)
        if new["all_nodes"]:
            self.api.call("POST", _at("devices", device_id, "provision"), {})
        if new["status"] == "suspended":
            self.api.call("POST", _at("devices", device_id, "suspend"), {})

    def _add_profile(self, change: Change) -> None:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        body = {"device_id": self.ids["device", item.key[:2]], "name": new["name"], "protocol": new["protocol"]}
        body |= self._egress(new)
        self.learn(item, self.api.call("POST", "/api/profiles", body | {"entry_ips": new["entry_ips"]}))

    def _egress(self, new: dict[str, Any]) -> dict[str, Any]:
        if new.get("path"):
            return {"path_id": self.id_of("path", new["path"])}
        return {"node_id": self.id_of("node", new["node"])} if new.get("node") else {}

    # -- changing

    def _edit(self, change: Change) -> None:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        self.api.call("PATCH", _at(f"{item.kind}s", _id(change)), {"version": _version(change)} | new)

    def _edit_path(self, change: Change) -> None:
        new = {name: after for name, (_, after) in change.fields.items()}
        if "fallbacks" in new:
            new["fallback_ids"] = [self.id_of("node", node) for node in new.pop("fallbacks")]
        self.api.call("PATCH", _at("paths", _id(change)), {"version": _version(change)} | new)

    def _edit_node(self, change: Change) -> Work:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        present = change.present
        assert present is not None  # noqa: S101 - it is edited
        version = present.version
        if new.pop("onboarding", None):
            version = (yield from self._onboard(change, {**present.fields, **item.fields}))["version"]
        plain = {name: value for name, value in new.items() if name != "enabled"}
        if "server" in plain:
            plain["server_id"] = self.id_of("server", plain.pop("server"))
        if "control_addr" in plain:
            plain["unique"] = True
        if plain:
            version = self.api.call("PATCH", _at("nodes", present.id), {"version": version} | plain)["version"]
        if "enabled" in new:
            action = "enable" if new["enabled"] else "disable"
            self.api.call("POST", _at("nodes", present.id, action), {"version": version})
        if "control_addr" in new:
            self.notes.append(f"{item.title}: if its host is another one, enrol it again: cox nodes enroll {item.key[0]}")

    def _edit_device(self, change: Change) -> None:
        new = {name: after for name, (_, after) in change.fields.items()}
        device_id = _id(change)
        if "platform" in new:
            body = {"version": _version(change), "platform": new["platform"]}
            self.api.call("PATCH", _at("devices", device_id), body)
        if "status" in new:
            self.api.call("POST", _at("devices", device_id, "suspend" if new["status"] == "suspended" else "resume"), {})
        if new.get("all_nodes"):
            self.api.call("POST", _at("devices", device_id, "provision"), {})

    def _edit_profile(self, change: Change) -> None:
        new = {name: after for name, (_, after) in change.fields.items()}
        body = {name: new[name] for name in ("name", "protocol", "entry_ips") if name in new} | self._egress(new)
        if "node" in new or "path" in new:  # those from before are dropped with a move
            body["entry_ips"] = change.item.fields.get("entry_ips", [])
        changed = self.api.call("PATCH", _at("profiles", _id(change)), {"version": _version(change)} | body)
        self.note_skipped(change.item, changed)

    # -- removing

    def _remove(self, change: Change) -> None:
        self.api.call("DELETE", _at(f"{change.item.kind}s", _id(change)) + f"?version={_version(change)}")

    def _remove_server(self, change: Change) -> None:
        """Only an empty one: relays on it, and nodes that the file does not speak of, are not its business."""
        self.api.call("DELETE", _at("servers", _id(change)) + "?empty=true")

    def _remove_node(self, change: Change) -> Work | None:
        """One on a machine of ours is taken off it: left there it would go on serving whoever it knows."""
        if not change.item.fields.get("server"):
            self._remove(change)
            return None
        return self._taken_off(change)

    def _taken_off(self, change: Change) -> Work:
        yield from self._operation(change, _at("nodes", _id(change), "remove"), {"version": _version(change)})


def apply(
    api: Api,
    changes: Sequence[Change],
    present: Sequence[Item],
    done: Callable[[Change], None],
    say: Callable[[str], None] = lambda _text: None,
) -> Applied:
    """Makes the changes; ``done`` is told of each, ``say`` sentences about what may take minutes. What cannot be made on one
    machine, and what needs it, waits.

    Raises:
        Stopped: one could not be made, for a reason that is not one machine's; those before it were.
    """
    run = _Run(api, present, done, say)
    try:
        run.make([change for change in changes if change.action is not Action.KEEP])
    except Stopped as stopped:  # since it was raised, what was under way on other machines has ended
        raise Stopped(stopped.change, run.count, stopped.cause, run.notes, run.waiting) from stopped.cause
    return Applied(run.count, tuple(run.notes), tuple(run.waiting))


def _places(node: Item) -> list[tuple[str, str]]:
    """Of what there is one for each node only: where it is reached, and the machine that it is on."""
    server = node.fields.get("server", "")
    return [("addr", addr_of(node))] * bool(addr_of(node)) + [("server", server)] * bool(server)


def _at(place: str, row_id: str, action: str = "") -> str:
    return f"/api/{place}/{quote(row_id, safe='')}" + (f"/{action}" if action else "")


def _id(change: Change) -> str:
    assert change.present is not None  # noqa: S101 - it is edited or removed
    return change.present.id


def _version(change: Change) -> int:
    assert change.present is not None  # noqa: S101
    return change.present.version
