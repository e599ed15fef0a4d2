"""What each kind of item may say: its fields, what they accept, what they are by default. The file is read by this table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from coxswain.declare.items import Item, Key
from coxswain.declare.yaml_tree import Tree, parse, wrong
from coxswain.errors import InvalidInput
from coxswain.inventory import (
    check_decoy_site,
    check_endpoint_ips,
    check_endpoint_ports,
    check_name,
    check_region,
    parse_control_addr,
)
from coxswain.model import DeviceStatus
from coxswain.provisioning.checks import (
    check_email,
    check_label,
    check_phone,
    check_platform,
    check_protocol,
    check_user_status,
)
from coxswain.servers import check_ssh_host, check_ssh_port, check_ssh_user
from coxswain.ssh.hostkey import check_fingerprint, fingerprint_of

__all__ = ["FIELDS", "FORMAT", "SECTIONS", "Field", "read", "user_key"]

FORMAT = 1
"""The version of the format, in the file's ``fleet:``."""

SECTIONS = ("servers", "nodes", "paths", "users")
_POLICY = ("forwarding", "masquerade", "isolation")
_COLOUR = re.compile(r"(#[0-9a-fA-F]{6})?")


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        kind: ``str``, ``int``, ``bool`` or ``list`` (of texts).
        default: what a new item has if the file does not say; None: it has to.
        check: returns the value in its normal form; raises ``InvalidInput``.
        fixed: it cannot be changed once the item is there.
    """

    kind: type[Any]
    default: Any
    check: Callable[[Any], Any] = lambda value: value
    fixed: bool = False


def _one_address(text: str) -> str:
    return next(iter(check_endpoint_ips((text,))), "")


def _addresses(texts: list[str]) -> list[str]:
    return list(check_endpoint_ips(tuple(texts)))


def _host_key(text: str) -> str:
    """As a fingerprint; the key itself is taken as well."""
    text = text.strip()
    return fingerprint_of(text) if " " in text else text and check_fingerprint(text)


def _device_status(text: str) -> str:
    if text not in (DeviceStatus.ACTIVE, DeviceStatus.SUSPENDED):
        raise InvalidInput(f"status: {text[:40]!r} is not active or suspended; revoking is not for a file")
    return text


def _colour(text: str) -> str:
    if not _COLOUR.fullmatch(text):
        raise InvalidInput(f"color: {text[:40]!r} is not a colour such as #3366cc")
    return text.lower()


FIELDS: dict[str, dict[str, Field]] = {
    "server": {
        "name": Field(str, None, check_name, fixed=True),
        "ssh_host": Field(str, None, check_ssh_host),
        "ssh_user": Field(str, "", check_ssh_user),  # of a new one, these two are as configured
        "ssh_port": Field(int, 0, check_ssh_port),
        "region": Field(str, "", check_region),
        "host_key": Field(str, "", _host_key, fixed=True),
    },
    "node": {
        "name": Field(str, None, check_name, fixed=True),
        "server": Field(str, "", lambda text: text and check_name(text), fixed=True),
        "control_addr": Field(str, "", lambda text: text and parse_control_addr(text)),
        "region": Field(str, "", check_region),
        "public_ip": Field(str, "", _one_address, fixed=True),
        "endpoint_ips": Field(list, [], _addresses),
        "endpoint_ports": Field(str, "", check_endpoint_ports),
        "decoy_site": Field(str, "", check_decoy_site),
        "enabled": Field(bool, True),
        "forwarding": Field(bool, True),
        "masquerade": Field(bool, True),
        "isolation": Field(bool, False),
    },
    "path": {
        "name": Field(str, None, check_name, fixed=True),
        "hops": Field(list, None, lambda hops: [check_name(hop) for hop in hops], fixed=True),
        "color": Field(str, "", _colour),
        "fallbacks": Field(list, [], lambda nodes: [check_name(node) for node in nodes]),
    },
    "user": {
        "name": Field(str, None, lambda text: check_label("name", text)),
        "email": Field(str, "", check_email),
        "phone": Field(str, "", check_phone),
        "status": Field(str, "active", lambda text: check_user_status(text).value),
    },
    "device": {
        "name": Field(str, None, lambda text: check_label("name", text), fixed=True),
        "platform": Field(str, "", check_platform),
        "status": Field(str, "active", _device_status),
        "all_nodes": Field(bool, False),
    },
    "profile": {
        "name": Field(str, None, lambda text: check_label("name", text), fixed=True),
        "node": Field(str, "", lambda text: text and check_name(text)),
        "path": Field(str, "", lambda text: text and check_name(text)),
        "entry_ips": Field(list, [], _addresses),
        "protocol": Field(str, "amneziawg", lambda text: check_protocol(text).value),
    },
}
_WITHIN = {"user": ("devices", "device"), "device": ("profiles", "profile")}
_OF_SECTION = {"servers": "server", "nodes": "node", "paths": "path", "users": "user"}
_WORDS: dict[type[Any], str] = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}


def user_key(fields: dict[str, Any]) -> str:
    """What names a user in a file: the e-mail address, else the phone number, else the name."""
    return str(fields.get("email") or fields.get("phone") or fields["name"])


def read(raw: bytes, file: str = "fleet.yaml") -> tuple[list[Item], frozenset[str]]:
    """Reads a fleet file.

    Returns:
        Its items, owners before what they own; and the kinds that it speaks of at all: a section that is not there says
        nothing, an empty one says that there are none.

    Raises:
        InvalidInput: names file, line and place.
    """
    root = parse(raw, file)
    top = _mapping(root, file, ("fleet", *SECTIONS))
    version = top.get("fleet")
    if version is None:
        raise wrong(file, root, f"fleet: is missing; this release reads fleet: {FORMAT}")
    if version.value != FORMAT:
        raise wrong(file, version, f"{version.value!r} is no format that this release reads; it reads {FORMAT}")
    items: list[Item] = []
    spoken: set[str] = set()
    for section in SECTIONS:
        if section in top:
            spoken.update({"user", "device", "profile"} if section == "users" else {_OF_SECTION[section]})
            items += _items(top[section], _OF_SECTION[section], (), file)
    _no_repeats(items, file)
    _references(items, spoken, file)
    return items, frozenset(spoken)


def _items(tree: Tree, kind: str, owner: Key, file: str) -> Iterator[Item]:
    if not isinstance(tree.value, list):
        raise wrong(file, tree, "a list is needed")
    for entry in tree.value:
        yield from _item(entry, kind, owner, file)


def _item(tree: Tree, kind: str, owner: Key, file: str) -> Iterator[Item]:
    within, inner = _WITHIN.get(kind, ("", ""))
    table = FIELDS[kind]
    places = _policy_inlined(_mapping(tree, file, (*_names(kind), *([within] if within else []))), kind, file)
    fields: dict[str, Any] = {}
    for name, place in places.items():
        if name != within:
            fields[name] = _value(place, table[name], file)
    for name, field in table.items():
        if field.default is None and name not in fields:
            raise wrong(file, tree, f"{name}: is missing")
    _whole(kind, fields, tree, file)
    key = (*owner, user_key(fields) if kind == "user" else fields["name"])
    yield Item(kind, key, fields, f"{file}:{tree.line}")
    if within in places:
        yield from _items(places[within], inner, key, file)


def _names(kind: str) -> tuple[str, ...]:
    names = tuple(FIELDS[kind])
    return (*(n for n in names if n not in _POLICY), "policy") if kind == "node" else names


def _policy_inlined(places: dict[str, Tree], kind: str, file: str) -> dict[str, Tree]:
    if kind != "node" or "policy" not in places:
        return places
    inner = _mapping(places["policy"], file, _POLICY)
    return {name: place for name, place in places.items() if name != "policy"} | inner


def _mapping(tree: Tree, file: str, accepted: tuple[str, ...]) -> dict[str, Tree]:
    if not isinstance(tree.value, dict):
        raise wrong(file, tree, "keys and values are needed")
    for name, place in tree.value.items():
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f"did you mean {near[0]}?" if near else f"accepted are {', '.join(accepted)}"
            raise wrong(file, Tree(None, place.line, tree.path), f"{name[:60]}: unknown key; {hint}")
    found: dict[str, Tree] = tree.value
    return found


def _value(place: Tree, field: Field, file: str) -> Any:
    value = place.value
    if field.kind is list and isinstance(value, list):
        if not all(isinstance(entry.value, str) for entry in value):
            raise wrong(file, place, "a list of texts is needed")
        value = [entry.value for entry in value]
    if value is None or not isinstance(value, field.kind) or (field.kind is int and isinstance(value, bool)):
        raise wrong(file, place, f"{_WORDS[field.kind]} is needed{_instead(value) if field.kind is str else ''}")
    try:
        return field.check(value)
    except InvalidInput as error:
        raise wrong(file, place, str(error)) from None


def _instead(value: Any) -> str:
    """What YAML made of something that is not in quotes."""
    if value is None:
        return ", and there is nothing; what begins with # is a comment unless it is in quotes"
    if isinstance(value, int):
        return f", and this is read as {'true or false' if isinstance(value, bool) else 'a number'}; put it in quotes"
    return ""


def _whole(kind: str, fields: dict[str, Any], tree: Tree, file: str) -> None:
    """What fields say of one another."""
    if kind == "node" and not fields.get("control_addr") and not fields.get("server"):
        raise wrong(file, tree, "control_addr or server: one of them is needed")
    if kind == "profile":
        if bool(fields.get("node")) == bool(fields.get("path")):
            raise wrong(file, tree, "node, path: exactly one of them is needed")
        if fields.get("path") and fields.get("protocol", "amneziawg") != "amneziawg":
            raise wrong(file, tree, "protocol: only amneziawg can follow a path")
    if kind == "path" and not 2 <= len(fields["hops"]) <= 3:
        raise wrong(file, tree, f"hops: 2 or 3 nodes are needed, not {len(fields['hops'])}")
    for place, node in enumerate(fields.get("hops", ())):
        if node in fields["hops"][:place]:
            raise wrong(file, tree, f"hops: {node} is there twice")
    others = fields.get("fallbacks", ()) if kind == "path" else ()
    for place, node in enumerate(others):
        if node in fields["hops"] or node in others[:place]:
            raise wrong(file, tree, f"fallbacks: {node} is a node of the path already")


def _no_repeats(items: list[Item], file: str) -> None:
    seen: dict[tuple[str, Key], Item] = {}
    unique: dict[tuple[str, str], Item] = {}
    for item in items:
        other = seen.setdefault((item.kind, item.key), item)
        if other is not item:
            raise InvalidInput(f"{item.where}: {item.title} is in the file already ({other.where.removeprefix(f'{file}:')})")
        for name, value in _alone(item):
            other = unique.setdefault((name, value), item)
            if other is not item:
                raise InvalidInput(f"{item.where}: {name}: {value} is {other.title}'s already")
        if item.kind == "profile" and seen["device", item.key[:-1]].fields.get("all_nodes"):
            raise InvalidInput(f"{item.where}: {item.title}: all_nodes: a device that has profiles is given what they say")


def _alone(item: Item) -> Iterator[tuple[str, str]]:
    """What is one thing's of its kind only, besides names: of a machine its address, and there is one node on each."""
    said = item.fields
    match item.kind:
        case "user":
            yield from ((name, said[name]) for name in ("email", "phone") if said.get(name))
        case "server" if said.get("ssh_port"):  # else it is what it was, or as configured
            yield "ssh_host", f"{said['ssh_host']} port {said['ssh_port']}"
        case "node" if said.get("server"):
            yield "server", said["server"]


def _references(items: list[Item], spoken: set[str], file: str) -> None:
    """A name must be in the file, if the file speaks of that kind at all."""
    known = {kind: {item.key[0] for item in items if item.kind == kind} for kind in ("server", "node", "path")}
    for item in items:
        for field, kind in (("server", "server"), ("node", "node"), ("path", "path")):
            name = item.fields.get(field) if item.kind in ("node", "profile") else None
            if name and kind in spoken and name not in known[kind]:
                raise InvalidInput(f"{item.where}: {field}: there is no {kind} {name!r} in {file}")
        for field in ("hops", "fallbacks"):
            for hop in item.fields.get(field, ()):
                if "node" in spoken and hop not in known["node"]:
                    raise InvalidInput(f"{item.where}: {field}: there is no node {hop!r} in {file}")
