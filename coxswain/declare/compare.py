"""What has to be done to make a fleet what a file says: a list of changes, in the order in which they can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from coxswain.declare.checks import addr_of, address_of, check_file, replaced
from coxswain.declare.items import KINDS, Item, Key, led_to, unready
from coxswain.declare.schema import FIELDS
from coxswain.errors import Conflict, InvalidInput
from coxswain.inventory import host_of

__all__ = ["Action", "Change", "compare"]


_PEOPLE = frozenset({"user", "device", "profile"})
_OWNED = {"device": "user", "profile": "device"}
_EVERY_NODE = "its device has no profile then, and is given every node"
_FIRST = "its device's first profile: it has every node until then, and after it what its profiles say"


class Action(StrEnum):
    """What a change does."""

    ADD = "add"
    EDIT = "edit"
    REMOVE = "remove"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do.

    Attributes:
        wanted: as the file has it; None for what is not in it.
        present: as it is; None for what is not there.
        fields: what changes: name to (before, after); of a new item all that it will have.
        note: what comes of it besides.
    """

    action: Action
    wanted: Item | None
    present: Item | None
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    note: str = ""

    @property
    def item(self) -> Item:
        found = self.wanted or self.present
        assert found is not None  # noqa: S101 - one of them is there
        return found


def compare(wanted: Sequence[Item], spoken: frozenset[str], present: Sequence[Item], *, prune: bool) -> list[Change]:
    """Compares a file with a fleet.

    Args:
        wanted: the file's items.
        spoken: the kinds that the file speaks of; of others nothing is too much.
        present: the fleet's.
        prune: remove what the file does not have; otherwise it is only shown (``Action.KEEP``).

    Returns:
        Changes in order: each can be made when those before it are.

    Raises:
        Conflict: something would have to change that cannot, or is named as two things are that are there.
        InvalidInput: something is named that is neither in the file nor there, a node gets an address that no client can
            dial, or a profile one that its entry does not have.
    """
    there = {(item.kind, item.key): item for item in present}
    named = {(item.kind, item.key) for item in wanted}
    check_file(wanted, spoken, present, prune=prune)
    last = _last_profiles(wanted, present, named) if prune else {}
    becomes = {new.key: old for old, new in last.values() if new is not None}
    stand_in = {old.id for old in becomes.values()}
    changes: list[Change] = []
    gone: dict[str, set[Key]] = {kind: set() for kind in KINDS}
    extra: list[Change] = []
    for item in sorted((i for i in present if i.kind in spoken), key=lambda i: KINDS.index(i.kind)):
        if (item.kind, item.key) in named or item.id in stand_in:
            continue
        if item.kind in _OWNED and item.key[:-1] in gone[_OWNED[item.kind]]:
            gone[item.kind].add(item.key)
            continue  # it goes, or stays, with its owner
        gone[item.kind].add(item.key)
        widens = item.kind == "profile" and last.get(item.key[:-1], (None, None)) == (item, None)
        extra.append(Change(Action.REMOVE if prune else Action.KEEP, None, item, note=_EVERY_NODE if widens else ""))
    extra.reverse()
    # People and what is theirs go first, which frees their addresses; places last, when nothing leads to them any more.
    changes += [change for change in extra if change.item.kind in _PEOPLE]
    places = [change for change in extra if change.item.kind not in _PEOPLE]
    going = {(kind, key) for kind in KINDS for key in gone[kind]}
    making_room = _making_room(places, replaced(wanted, present, going), there) if prune else []
    for kind in KINDS:
        changes += making_room if kind == "node" else []
        found = [
            _renamed(item, becomes[item.key])
            if kind == "profile" and item.key in becomes
            else _change(item, there.get((kind, item.key)))
            for item in wanted
            if item.kind == kind
        ]
        ordered = [change for change in found if change is not None]
        changes += _freed_first(kind, ordered)
        changes += _other_keys(wanted, there) if kind == "server" else []
    early = {id(change.present) for change in making_room}
    changes += [change for change in places if id(change.present) not in early]
    return _noted(changes, there)


def _making_room(places: Sequence[Change], nodes: Mapping[Key, Item], there: Mapping[tuple[str, Key], Item]) -> list[Change]:
    """Of what goes, what has to go before there are other nodes: those in whose place they come, and before them the paths
    that lead over these.
    """
    found = list[Change]()
    for change in places:
        if change.item.kind == "node" and change.item.key in nodes:
            old, new = change.item.key[0], nodes[change.item.key]
            same = f"; if that is the same one, first: cox nodes edit {old} --name {new.key[0]}"
            note = f"makes room for {new.title}" + (same if ("node", new.key) not in there else "")
            found.append(replace(change, note=note))
        elif change.item.kind == "path" and any((name,) in nodes for _, _, name in led_to(change.item.fields)):
            found.append(change)
    return found


def _other_keys(wanted: Sequence[Item], there: Mapping[tuple[str, Key], Item]) -> list[Change]:
    """Machines of which the file has another host key than is known: a difference that no file makes good."""
    found = list[Change]()
    for item in (i for i in wanted if i.kind == "server"):
        before = there.get((item.kind, item.key))
        said, has = item.fields.get("host_key"), before.fields["host_key"] if before is not None else ""
        if before is None or not said or not has or said == has:
            continue
        name = item.key[0]
        if before.fields.get("offered_host_key") == said:
            way = f"The machine has shown this one since. If it was set up anew: cox servers trust {name} --host-key {said}"
        else:
            port = before.fields["ssh_port"]
            add = f"cox servers add {before.fields['ssh_host']} --key" + (f" --port {port}" if port != 22 else "")
            way = f"If it was set up anew, have it show its key ({add}), and then: cox servers trust {name}"
        note = f"no file changes the key that is known. If the machine still has that, say it here. {way}"
        found.append(Change(Action.EDIT, item, before, {"host_key": (has, said)}, note))
    return found


def _noted(changes: list[Change], there: Mapping[tuple[str, Key], Item]) -> list[Change]:
    """With notes about what has to wait for nodes that are not enrolled, as one that is onboarded on a machine will be;
    about nodes that do not move with their machine; about users who may be one, of whom the file names one otherwise; and
    about devices that lose every other node to a first profile.
    """
    others = {c.item.fields["name"]: c.item for c in changes if c.wanted is None and c.item.kind == "user"}
    everywhere = {key for (kind, key), item in there.items() if kind == "device" and item.fields.get("all_nodes")}
    will = {item.key[0]: item.fields for item in there.values() if item.kind == "node"}
    for change in changes:
        if change.item.kind == "node" and change.wanted is not None:
            name, said = change.item.key[0], change.item.fields
            set_up = "onboarding" in change.fields or (change.action is Action.ADD and bool(said.get("server")))
            made = {"enrolled": set_up, "wg_public_key": "?" if set_up else "", "enabled": True}
            will[name] = {**(made if set_up else will.get(name, made)), **said}
    late: set[str] = set()
    noted: list[Change] = []
    for change in changes:
        reasons = []
        if change.action is Action.ADD and change.item.kind == "path":
            for field_name, _, name in led_to(change.item.fields):
                reason = unready(will[name], standby=field_name == "fallbacks")
                reasons += [f"node {name}, which {reason}"] if reason else []
            late |= {change.item.key[0]} if reasons else set()
        elif change.wanted is not None and change.wanted.fields.get("path") in late:
            reasons = [f"path {change.wanted.fields['path']}"]
        note = f"waits for {', '.join(reasons)}" if reasons else change.note
        if change.item.kind == "profile" and change.action is Action.ADD and change.item.key[:-1] in everywhere:
            everywhere.discard(change.item.key[:-1])
            note = "; ".join(filter(None, (note, _FIRST)))
        if change.item.kind == "server" and change.action is Action.EDIT and "ssh_host" in change.fields:
            note = _left_behind(change, will)
        if change.item.kind == "user" and change.action is Action.ADD:
            note = _same_one(change.item, others.get(change.item.fields["name"]))
        noted.append(replace(change, note=note) if note else change)
    return noted


def _same_one(new: Item, other: Item | None) -> str:
    """Who gets an e-mail address in the file is named by it from then on, and would lose the devices of before."""
    if other is None:
        return ""
    way = next((f"--{name} {new.fields[name]}" for name in ("email", "phone") if new.fields.get(name)), "--email ''")
    return f"there is {other.title}, of the same name; if this is the same one, first: cox users edit {other.id} {way}"


def _left_behind(moved: Change, nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Links, paths and clients have addresses of their own."""
    old = moved.fields["ssh_host"][0]
    for name, node in nodes.items():
        addresses = [host_of(node["control_addr"])] if node.get("control_addr") else []
        addresses += node.get("endpoint_ips") or [node.get("public_ip", "")]
        if node.get("server") == moved.item.key[0] and old in addresses:
            return f"node {name} on it is still reached at {old}: give it its new control_addr and endpoint_ips"
    return ""


def _freed_first(kind: str, changes: list[Change]) -> list[Change]:
    """A number is one user's, an address one machine's, or one node's: whoever gives it up goes before whoever gets it.

    Raises:
        Conflict: in a circle nobody can be first.
    """
    if kind not in _EXCHANGED:
        return changes
    # Who is new frees nothing, and of a node that is onboarded the address is not in the file.
    changes = sorted(changes, key=lambda change: change.action is Action.ADD)
    left, ordered = [(change, *_had_and_gets(change)) for change in changes], list[Change]()
    while left:
        held = {had: change for change, had, gets in left if had and had != gets}
        free = [change for change, _, gets in left if held.get(gets, change) is change]
        if not free:
            gets_of = {id(change): gets for change, _, gets in left}
            first = left[0][0]
            for _ in left:  # into the circle, if it only waits for one
                first = held[gets_of[id(first)]]
            stuck = first.present
            assert stuck is not None  # noqa: S101 - it is edited
            what, remedy = _EXCHANGED[kind]
            raise Conflict(f"{first.item.where}: {stuck.title}: {what}", remedy=remedy.format(id=stuck.id))
        ordered += free
        done = set(map(id, free))
        left = [entry for entry in left if id(entry[0]) not in done]
    return ordered


_EXCHANGED = {
    "user": (
        "phone: users exchange their numbers, and nobody can be the first",
        "Take it away from one of them before: cox users edit {id} --phone ''",
    ),
    "server": (
        "ssh_host: machines exchange their addresses, and none can be the first",
        "Give one of them another port for a moment: cox servers edit {id} --port PORT",
    ),
    "node": (
        "control_addr: nodes exchange their addresses, and none can be the first",
        "Give one of them another one for a moment: cox nodes edit {id} --addr ADDR",
    ),
}


def _had_and_gets(change: Change) -> tuple[Any, Any]:
    """What is one's alone, of a kind in ``_EXCHANGED``: before and after. None: nothing that matters here."""
    if change.item.kind == "user":
        had, gets = change.fields.get("phone", (None, None))
        return had or None, gets or None
    if change.item.kind == "node":
        had = "" if change.present is None else addr_of(change.present)
        return had or None, (addr_of(change.item) or had) or None
    had = None if change.present is None else address_of(change.present)
    return had, address_of(change.item, change.present)


def _last_profiles(
    wanted: Sequence[Item], present: Sequence[Item], named: set[tuple[str, Key]]
) -> dict[Key, tuple[Item, Item | None]]:
    """Of each device that keeps none of its profiles: the last of them, and which new one it becomes, if there is one.

    Were it removed first, the device would be given every node until the new one is there.
    """
    had, has = _by_device(present), _by_device(wanted)
    found: dict[Key, tuple[Item, Item | None]] = {}
    for item in wanted:
        old, new = had.get(item.key, []), has.get(item.key, [])
        if item.kind != "device" or not old or item.fields.get("all_nodes") or any(("profile", p.key) in named for p in old):
            continue
        pairs = [(before, after) for before in old for after in new]
        alike = [(before, after) for before, after in pairs if _egress(before) == _egress(after)]
        found[item.key] = next(iter((*alike, *pairs)), (old[0], None))
    return found


def _by_device(items: Sequence[Item]) -> dict[Key, list[Item]]:
    found: dict[Key, list[Item]] = {}
    for item in items:
        if item.kind == "profile":
            found.setdefault(item.key[:-1], []).append(item)
    return found


def _egress(profile: Item) -> tuple[str, str]:
    return profile.fields.get("node", ""), profile.fields.get("path", "")


def _change(wanted: Item, present: Item | None) -> Change | None:
    table = FIELDS[wanted.kind]
    if present is None:
        made = {name: (None, wanted.fields.get(name, f.default)) for name, f in table.items()}
        return Change(Action.ADD, wanted, None, made)
    differing = {
        name: (present.fields.get(name), value)
        for name, value in wanted.fields.items()
        if value != present.fields.get(name) and not _is_no_change(name, value)
    }
    if "node" in differing or "path" in differing:
        for name in ("node", "path"):
            if present.fields.get(name) != wanted.fields.get(name, ""):
                differing[name] = (present.fields.get(name), wanted.fields.get(name, ""))
    protocol = wanted.fields.get("protocol", present.fields.get("protocol"))
    if wanted.kind == "profile" and wanted.fields.get("path") and protocol != "amneziawg":
        raise InvalidInput(
            f"{wanted.where}: {wanted.title}: protocol: only amneziawg can follow a path, and it is {protocol}",
            remedy="Say protocol: amneziawg in the file.",
        )
    if present.fields.get("unfinished") and wanted.fields.get("server") and wanted.fields.get("enabled", True):
        differing.pop("enabled", None)  # as it will be
        differing["onboarding"] = ("unfinished", "done")
    for name in differing:
        if name in table and table[name].fixed and not (name == "server" and not present.fields["server"]):
            raise Conflict(
                f"{wanted.where}: {wanted.title}: {name} is {present.fields.get(name)!r} and cannot become "
                f"{wanted.fields[name]!r}",
                remedy="Say endpoint_ips, which count instead of it."
                if name == "public_ip"
                else "Remove it and add it anew, under another name if it has to stay in use meanwhile.",
            )
    return Change(Action.EDIT, wanted, present, differing) if differing else None


def _renamed(wanted: Item, present: Item) -> Change:
    """A profile that takes the place of another: what the file does not say of it is as of a new one."""
    new = {name: wanted.fields.get(name, f.default) for name, f in FIELDS["profile"].items()}
    differing = {name: (present.fields.get(name), value) for name, value in new.items() if value != present.fields.get(name)}
    return Change(Action.EDIT, wanted, present, differing)


def _is_no_change(name: str, value: Any) -> bool:
    """A device cannot be un-provisioned, only suspended; and a host key is only for the first time."""
    return (name == "all_nodes" and not value) or name == "host_key" or (name == "control_addr" and not value)
