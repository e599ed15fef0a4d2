"""Carries changes out through the API, one at a time; what was done stays done, and the next run does the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from coxswain.declare.compare import Action, Change
from coxswain.declare.items import Item, led_to, unready
from coxswain.errors import CoxswainError, Unavailable, class_called
from coxswain.model import LinkState
from coxswain.words import counted

__all__ = ["Api", "Applied", "Stopped", "apply"]

_POLICY = ("forwarding", "masquerade", "isolation")
_POLL_S = 0.25
_OVER = frozenset({"done", "failed", "undone", "cancelled", "waiting"})


class Api(Protocol):
    """What carries requests (``coxswain.cli.client.Client``)."""

    def call(self, method: str, path: str, body: Any = None) -> Any: ...

    def begin(self, path: str, body: Any, method: str = "POST") -> Any: ...


@dataclass(frozen=True, slots=True)
class Applied:
    """How many changes were made, what was said about them, and which could not be made yet: each with what it waits for."""

    count: int
    notes: tuple[str, ...]
    waiting: tuple[tuple[Change, str], ...] = ()


class Stopped(CoxswainError):
    """A change could not be made. ``done`` were, with ``notes`` about them; run it again when the cause is mended."""

    def __init__(self, change: Change, done: int, cause: CoxswainError, notes: Sequence[str] = ()) -> None:
        where = f"{change.wanted.where}: " if change.wanted is not None else ""
        again = f"{counted(done, 'change')} before that stay made; when it is mended, apply the file again."
        super().__init__(f"{where}{change.action} {change.item.title}: {cause}", remedy=f"{again} {cause.remedy}".strip())
        self.done = done
        self.cause = cause
        self.notes = tuple(notes)


class _Run:
    """Ids by kind and key: of what was there, and of what is made on the way."""

    def __init__(self, api: Api, present: Sequence[Item], say: Callable[[str], None]) -> None:
        self.api = api
        self.say = say
        self.ids = {(item.kind, item.key): item.id for item in present}
        self.notes: list[str] = []
        self.waiting: list[tuple[Change, str]] = []
        self._held: dict[tuple[str, str], str] = {}
        """To what those that wait still lead, and which of them; so it cannot go."""
        self._late: set[str] = set()
        """Paths that are not there yet."""

    def reason_to_wait(self, change: Change) -> str:
        """Empty: nothing keeps it from being made now."""
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        if change.action is Action.REMOVE:
            other = self._held.get((item.kind, item.key[0]), "") if len(item.key) == 1 else ""
            return f"{other}, which leads to it until then" if other else ""
        if item.kind == "profile" and new.get("path") in self._late:
            return f"path {new['path']}"
        reasons: list[str] = []
        if item.kind == "path" and (change.action is Action.ADD or "fallbacks" in new):
            for field_name, _, name in led_to(new):
                node = self.api.call("GET", _at("nodes", self.id_of("node", name)))
                reason = unready(node, standby=field_name == "fallbacks")
                if not reason and name in new.get("hops", ())[:-1] and node["link_state"] == LinkState.BACKING_OFF:
                    reason = f"is not reached: {node['link_reason']}"  # it would have to set up its link to the next one
                reasons += [f"node {name}, which {reason}"] if reason else []
        return ", ".join(reasons)

    def put_off(self, change: Change, reason: str) -> None:
        self.waiting.append((change, reason))
        if change.item.kind == "path" and change.action is Action.ADD:
            self._late.add(change.item.key[0])
        if change.present is not None:
            self._held |= {(kind, name): change.item.title for _, kind, name in led_to(change.present.fields)}

    def id_of(self, kind: str, name: str) -> str:
        return self.ids.get((kind, (name,)), name)

    def do(self, change: Change) -> None:
        work: Callable[[Change], None] = getattr(self, f"_{change.action.value}_{change.item.kind}", None) or getattr(
            self, f"_{change.action.value}"
        )
        work(change)

    def _operation(self, change: Change, path: str, body: Any) -> dict[str, Any]:
        """Has something done that may take minutes, longer than a request may; what it kept, when it is over.

        Raises the class of error that it failed with.
        """
        operation = self.api.begin(path, body)
        self.say(f"{change.item.title}: under way; see: cox operations show {operation['id']} --follow")
        while operation["state"] not in _OVER:
            time.sleep(_POLL_S)
            operation = self.api.call("GET", _at("operations", operation["id"]))
        if operation["state"] != "done":
            said = operation["error"] or f"the operation is {operation['state']}"
            remedy = operation["remedy"] or f"See: cox operations show {operation['id']}"
            raise class_called(operation["error_type"])(f"{said} (operation {operation['id']})", remedy=remedy)
        kept: dict[str, Any] = operation["data"]
        return kept

    def _onboard(self, change: Change, node: dict[str, Any]) -> dict[str, Any]:
        """Also one whose onboarding failed: what is there of it is kept."""
        body = {"role": "node", "name": node["name"], "region": node["region"]}
        kept = self._operation(change, _at("servers", self.id_of("server", node["server"]), "deploy"), body)
        made: dict[str, Any] = self.api.call("GET", _at("nodes", kept["node_id"]))
        return made

    def _over(self, answer: Any) -> None:
        if isinstance(answer, dict) and "steps" in answer and "state" in answer:
            raise Unavailable(
                f"it is not over yet and goes on by itself (operation {answer['id']})",
                remedy=f"Follow it with: cox operations show {answer['id']} --follow",
            )

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

    def _add_server(self, change: Change) -> None:
        item = change.item
        body = {k: v for k, (_, v) in change.fields.items() if k != "host_key" or v}
        self.ids[item.kind, item.key] = self._operation(change, "/api/servers", body)["server_id"]

    def _add_node(self, change: Change) -> None:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        policy = {name: new[name] for name in _POLICY}
        if new["server"]:
            made = self._onboard(change, new)
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

    def _edit_node(self, change: Change) -> None:
        item, new = change.item, {name: after for name, (_, after) in change.fields.items()}
        present = change.present
        assert present is not None  # noqa: S101 - it is edited
        version = present.version
        if new.pop("onboarding", None):
            version = self._onboard(change, {**present.fields, **item.fields})["version"]
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

    def _remove_node(self, change: Change) -> None:
        """One on a machine of ours is taken off it: left there it would go on serving whoever it knows."""
        if not change.item.fields.get("server"):
            self._remove(change)
            return
        self._operation(change, _at("nodes", _id(change), "remove"), {"version": _version(change)})

    def _keep(self, _change: Change) -> None:
        return


def apply(
    api: Api,
    changes: Sequence[Change],
    present: Sequence[Item],
    done: Callable[[Change], None],
    say: Callable[[str], None] = lambda _text: None,
) -> Applied:
    """Makes the changes in order; ``done`` is told of each, ``say`` a sentence about what may take minutes.

    Raises:
        Stopped: one could not be made; those before it were.
    """
    run = _Run(api, present, say)
    count = 0
    for change in changes:
        if change.action is Action.KEEP:
            continue
        try:
            reason = run.reason_to_wait(change)
            if reason:
                run.put_off(change, reason)
                continue
            run.do(change)
        except CoxswainError as error:
            raise Stopped(change, count, error, run.notes) from error
        count += 1
        done(change)
    return Applied(count, tuple(run.notes), tuple(run.waiting))


def _at(place: str, row_id: str, action: str = "") -> str:
    return f"/api/{place}/{quote(row_id, safe='')}" + (f"/{action}" if action else "")


def _id(change: Change) -> str:
    assert change.present is not None  # noqa: S101 - it is edited or removed
    return change.present.id


def _version(change: Change) -> int:
    assert change.present is not None  # noqa: S101
    return change.present.version
