"""What a file may not say of the fleet that is there: found before anything is done."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from coxswain.declare.items import Item, Key, led_to, told_apart
from coxswain.declare.schema import FIELDS
from coxswain.errors import Conflict, InvalidInput
from coxswain.inventory import check_dialable, check_policy, host_of, parse_control_addr
from coxswain.model import NetworkPolicy

__all__ = ["addr_of", "address_of", "check_file", "replaced"]


def check_file(wanted: Sequence[Item], spoken: frozenset[str], present: Sequence[Item], *, prune: bool) -> None:
    """Raises ``Conflict`` or ``InvalidInput``, with file and line. Arguments as of ``compare``."""
    there = {(item.kind, item.key): item for item in present}
    named = {(item.kind, item.key) for item in wanted}
    told_apart(present, [*named, *(("server", (i.fields["server"],)) for i in wanted if i.fields.get("server"))])
    _references(wanted, present)
    going = {i.key for i in present if i.kind == "node" and prune and "node" in spoken and ("node", i.key) not in named}
    staying = [item for item in present if item.kind != "node" or item.key not in going]
    _one_of_each_machine(wanted, staying, there)
    _one_of_each_addr(wanted, staying)
    _dialable(wanted, there)
    will = _will_be(wanted, there)
    _policies(wanted, will)
    _jointed(wanted, there, will)
    _entries(wanted, there, will)
    _all_nodes_or_profiles(wanted, present, named, prune=prune)
    _one_of_each_phone(wanted, present, prune=prune and "user" in spoken)
    if prune:
        _unused(spoken, present, {(item.kind, item.key): item for item in wanted})


def _references(wanted: Sequence[Item], present: Sequence[Item]) -> None:
    known = {(item.kind, item.key[0]) for item in (*wanted, *present)}
    for item in wanted:
        for field_name, kind, name in led_to(item.fields):
            if (kind, name) not in known:
                raise InvalidInput(f"{item.where}: {item.title}: {field_name}: there is no {kind} {name!r}")


def _one_of_each_machine(wanted: Sequence[Item], present: Sequence[Item], there: Mapping[tuple[str, Key], Item]) -> None:
    """A machine, by its address, is there once; and one node is on it. Neither is renamed by a file, nor becomes another
    machine when it moves: it is known by its host key. ``present``: without nodes that go, whose machines are free then.
    """
    will = {item.key: address_of(item, there.get((item.kind, item.key))) for item in wanted if item.kind == "server"}
    first = dict[tuple[Any, Any], Item]()
    for item in (i for i in wanted if i.kind == "server"):
        other = first.setdefault(will[item.key], item)
        if other is not item:
            host, port = will[item.key]
            raise InvalidInput(f"{item.where}: {item.title}: ssh_host: {host} port {port} is {other.title}'s already")
    at = {address_of(item): item for item in present if item.kind == "server"}
    at = {address: item for address, item in at.items() if will.get(item.key, address) == address}  # others move away
    on = {item.fields["server"]: item for item in present if item.kind == "node" and item.fields["server"]}
    for item in wanted:
        if item.kind == "server":
            _known_by_its_key(item, there.get((item.kind, item.key)))
            other = at.get(will[item.key], item)
            what, how = f"{item.fields['ssh_host']} is {other.title}", f"cox servers edit {other.key[0]} --name"
            if (item.kind, item.key) not in there and other is item and not item.fields.get("host_key"):
                raise InvalidInput(
                    f"{item.where}: {item.title}: host_key: is needed of a machine that is not known yet",
                    remedy="On its console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
                )
        elif item.kind == "node":
            _on_its_machine(item, there.get((item.kind, item.key)), will, there)
            other = on.get(item.fields.get("server"), item)
            what, how = f"{other.title} is on its server", f"cox nodes edit {other.key[0]} --name"
        else:
            continue
        if other.key != item.key:
            remedy = f"Keep that name, or change it first: {how}" + _or_prune(other, wanted)
            raise Conflict(f"{item.where}: {item.title}: {what} already", remedy=remedy)


def _or_prune(other: Item, wanted: Sequence[Item]) -> str:
    """What else can be done about a node in whose place another one is to come."""
    is_kept = other.kind != "node" or any(item.kind == "node" and item.key == other.key for item in wanted)
    return "" if is_kept else f". With --prune, {other.title} is removed first"


def _on_its_machine(
    item: Item, before: Item | None, will: Mapping[Key, tuple[Any, Any]], there: Mapping[tuple[str, Key], Item]
) -> None:
    """A node that was set up by hand gets the machine at whose address it is reached."""
    server = item.fields.get("server", "")
    if not server or before is None or before.fields["server"]:
        return
    host, _ = will.get((server,)) or address_of(there["server", (server,)])
    reached = host_of(item.fields.get("control_addr") or before.fields["control_addr"])
    if host not in (reached, before.fields["public_ip"]):
        raise Conflict(
            f"{item.where}: {item.title}: server: it is reached at {reached}, and server {server} is at {host}",
            remedy="If they are one machine, say one address of it for both: in control_addr and ssh_host.",
        )


def _known_by_its_key(item: Item, before: Item | None) -> None:
    said, has = item.fields.get("host_key"), before.fields["host_key"] if before is not None else ""
    if before is not None and said and has and said != has and address_of(item, before) != address_of(before):
        raise Conflict(
            f"{item.where}: {item.title}: host_key: it has {has} and keeps it where it moves, not {said}",
            remedy="Another machine needs another name. Of the same one say the key that is known; see: cox servers trust",
        )


def address_of(server: Item, before: Item | None = None) -> tuple[Any, Any]:
    """Where it is reached; what is not said of the port is as ``before``."""
    port = before.fields["ssh_port"] if before is not None else FIELDS["server"]["ssh_port"].default
    return server.fields["ssh_host"], server.fields.get("ssh_port", port)


def addr_of(node: Item) -> str:
    """Where its agent is reached, as it is compared; empty: nothing is said of that."""
    return str(node.fields.get("control_addr") or "").lower()


def _one_of_each_addr(wanted: Sequence[Item], present: Sequence[Item]) -> None:
    """An agent is one node. Two that had one address before there was a check keep it; who is not in the file keeps its own,
    unless it goes (``present`` is without those).
    """
    has = {item.key: (addr_of(item), item) for item in present if item.kind == "node"}
    gets = _addrs(wanted, present)
    will = has | {item.key: (addr, item) for item, addr in gets}
    moved = [item for item, addr in gets if addr != has.get(item.key, ("", item))[0]]
    at: dict[str, list[Item]] = {}
    for addr, item in will.values():
        at.setdefault(addr, []).append(item)
    for item in moved:
        addr = will[item.key][0]
        other = next((o for o in at[addr] if o.key != item.key), None)
        if other is not None:
            raise Conflict(
                f"{item.where}: {item.title}: control_addr: {addr} is that of {other.title} already",
                remedy=f"An agent is one node. If it is to have another name: cox nodes edit {other.key[0]} --name"
                + _or_prune(other, wanted),
            )


def _addrs(wanted: Sequence[Item], present: Sequence[Item]) -> list[tuple[Item, str]]:
    """Where each node of the file will be reached; empty: that is known once it is set up."""
    hosts = {item.key: item.fields["ssh_host"] for item in (*present, *wanted) if item.kind == "server"}
    has = {item.key: addr_of(item) for item in present if item.kind == "node"}
    gets = []
    for item in (i for i in wanted if i.kind == "node"):
        host = hosts.get((item.fields.get("server", ""),))
        as_onboarded = parse_control_addr(host).lower() if item.key not in has and host else ""
        gets.append((item, as_onboarded or addr_of(item) or has.get(item.key, "")))
    return gets


def replaced(wanted: Sequence[Item], present: Sequence[Item], going: Collection[tuple[str, Key]]) -> dict[Key, Item]:
    """Nodes that have to go first, as another one of the file gets their address or their machine: which one.

    Raises:
        Conflict: something leads to one of them that can only be led elsewhere once that other one is there.
    """
    gone = {item.key: item for item in present if item.kind == "node" and ("node", item.key) in going}
    at = {addr_of(item): key for key, item in gone.items()}
    on = {item.fields["server"]: key for key, item in gone.items() if item.fields["server"]}
    has = {item.key: item for item in present if item.kind == "node"}
    found = dict[Key, Item]()
    for item, addr in _addrs(wanted, present):
        before = has.get(item.key)
        server = item.fields.get("server", "")
        for key in (
            at.get(addr) if before is None or addr_of(before) != addr else None,
            on.get(server) if before is None or before.fields["server"] != server else None,
        ):
            if key is not None:
                found.setdefault(key, item)
    _leads_to_none(found, present, going)
    return found


def _leads_to_none(nodes: Mapping[Key, Item], present: Sequence[Item], going: Collection[tuple[str, Key]]) -> None:
    """Nothing that stays leads to one of these nodes, nor to a path over it that goes as well."""
    over = {
        i.key: name
        for i in present
        if i.kind == "path" and ("path", i.key) in going
        for _, _, name in led_to(i.fields)
        if (name,) in nodes
    }
    for item in present:
        if (item.kind, item.key) in going:
            continue
        for _, kind, name in led_to(item.fields):
            node = name if kind == "node" else over.get((name,), "") if kind == "path" else ""
            new = nodes.get((node,))
            if new is not None:
                same = (
                    f"If it is that one under another name: cox nodes edit {node} --name {new.key[0]}, which keeps all of it"
                )
                is_new = all(other.kind != "node" or other.key != new.key for other in present)
                raise Conflict(
                    f"{new.where}: {new.title}: it takes the place of node {node}, to which {item.title} leads until then",
                    remedy=f"{same}. Else lead that elsewhere first." if is_new else "Lead that elsewhere first.",
                )


def _one_of_each_phone(wanted: Sequence[Item], present: Sequence[Item], *, prune: bool) -> None:
    """Somebody who is not in the file, or of whom it says nothing else, keeps a number; with ``prune`` they go first."""
    users = {item.key: item for item in wanted if item.kind == "user"}
    keep = {
        item.fields["phone"]: item
        for item in present
        if item.kind == "user" and item.fields["phone"] and (not prune or item.key in users)
    }
    for item in users.values():
        other = keep.get(item.fields.get("phone", ""), item)
        if other.key != item.key and not (other.key in users and "phone" in users[other.key].fields):
            raise Conflict(
                f"{item.where}: {item.title}: phone: {item.fields['phone']} is {other.title}'s already",
                remedy=f"Take it away there before: cox users edit {other.id} --phone ''",
            )


def _dialable(wanted: Sequence[Item], there: Mapping[tuple[str, Key], Item]) -> None:
    """A node keeps addresses that it has, whatever they are: the file may be an export of this fleet."""
    for item in wanted:
        if item.kind != "node":
            continue
        has = there[item.kind, item.key].fields if (item.kind, item.key) in there else {}
        known = [has.get("public_ip", ""), *has.get("endpoint_ips", [])]
        for name in ("public_ip", "endpoint_ips"):
            said = item.fields.get(name) or []
            try:
                check_dialable(name, [said] if isinstance(said, str) else said, known=known)
            except InvalidInput as error:
                raise InvalidInput(f"{item.where}: {item.title}: {error}", remedy=error.remedy) from None


Fields = Mapping[tuple[str, Key], Mapping[str, Any]]
"""What items will have, by kind and key."""


def _will_be(wanted: Sequence[Item], there: Mapping[tuple[str, Key], Item]) -> Fields:
    """What is not said stays; of something new it is what it is by default."""
    will: dict[tuple[str, Key], Mapping[str, Any]] = {(item.kind, item.key): item.fields for item in there.values()}
    for item in wanted:
        new = {name: field.default for name, field in FIELDS[item.kind].items()}
        will[item.kind, item.key] = {**will.get((item.kind, item.key), new), **item.fields}
    return will


def _policies(wanted: Sequence[Item], will: Fields) -> None:
    for item in (i for i in wanted if i.kind == "node"):
        said = {way: will[item.kind, item.key][way] for way in ("forwarding", "masquerade", "isolation")}
        try:
            check_policy(NetworkPolicy(**said))
        except InvalidInput as error:
            raise InvalidInput(f"{item.where}: {item.title}: {error}", remedy=error.remedy) from None


def _jointed(wanted: Sequence[Item], there: Mapping[tuple[str, Key], Item], will: Fields) -> None:
    """A path that is new, or gets other fallbacks: each node to which another one leads has an address for that."""
    for item in (i for i in wanted if i.kind == "path"):
        before = there[item.kind, item.key].fields if (item.kind, item.key) in there else {}
        hops = item.fields["hops"] if not before else []
        for name in (*hops[1:], *(f for f in item.fields.get("fallbacks", ()) if f not in before.get("fallbacks", ()))):
            if not _pool(name, there, will):
                raise InvalidInput(
                    f"{item.where}: {item.title}: node {name} has no address at which another node could dial it",
                    remedy="Say it in its endpoint_ips.",
                )


def _pool(node: str, there: Mapping[tuple[str, Key], Item], will: Fields) -> Sequence[str]:
    """Where it will be dialled. One that is onboarded gets the address of its machine, if that is called by one."""
    has = will.get(("node", (node,)), {})
    pool: Sequence[str] = has.get("endpoint_ips") or [ip for ip in [has.get("public_ip")] if ip]
    if pool or not has.get("server") or ("node", (node,)) in there:
        return pool
    host = str(will["server", (has["server"],)]["ssh_host"])
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        return []


def _entries(wanted: Sequence[Item], there: Mapping[tuple[str, Key], Item], will: Fields) -> None:
    """A profile is given no endpoint that its entry will not have; where it stays, it may keep what it has."""
    for item in wanted:
        said = item.fields.get("entry_ips", [])
        before = there[item.kind, item.key].fields if (item.kind, item.key) in there else {}
        stays = all(before.get(name, "") == item.fields.get(name, "") for name in ("node", "path"))
        if item.kind != "profile" or (stays and said == before.get("entry_ips", [])):
            continue
        hops = will.get(("path", (item.fields.get("path", ""),)), {}).get("hops", [])
        entry = item.fields.get("node") or next(iter(hops), "")
        node = will.get(("node", (entry,)), {})
        pool = node.get("endpoint_ips") or [ip for ip in [node.get("public_ip")] if ip]
        if not pool and node.get("server") and ("node", (entry,)) not in there:
            continue  # its address is known once it is set up
        for address in said:
            if address not in pool:
                raise InvalidInput(
                    f"{item.where}: {item.title}: entry_ips: {address} is not an endpoint of node {entry}; "
                    f"it has {', '.join(pool) or 'none yet'}"
                )


def _all_nodes_or_profiles(
    wanted: Sequence[Item], present: Sequence[Item], named: set[tuple[str, Any]], *, prune: bool
) -> None:
    having = {i.key[:-1]: i for i in present if i.kind == "profile" and not prune and (i.kind, i.key) not in named}
    for item in wanted:
        if item.kind == "device" and item.fields.get("all_nodes") and item.key in having:
            raise Conflict(
                f"{item.where}: {item.title}: all_nodes: it has {having[item.key].title}, so it is given what that says",
                remedy="Remove its profiles first, or say --prune, which removes those that are not in the file.",
            )


def _unused(spoken: frozenset[str], present: Sequence[Item], named: Mapping[tuple[str, Key], Item]) -> None:
    """To what goes nothing leads, and no device is bound, that stays because the file does not say otherwise."""
    going = {(i.kind, i.key) for i in present if i.kind in spoken and (i.kind, i.key) not in named}
    for item in present:
        said = item.fields
        if (item.kind, item.key) in going and said.get("bound") and "device" not in spoken:
            raise Conflict(
                f"{item.title}: is not in the file, and {said['bound']}",
                remedy="Unbind the devices (cox paths unbind) or bind them elsewhere first.",
            )
        if (item.kind, item.key) in going and said.get("relay"):
            raise Conflict(
                f"{item.title}: is not in the file, and relay {said['relay']} runs on it",
                remedy=f"Remove that first: cox relays remove {said['relay']}",
            )
        for name in said.get("routes", ()) if (item.kind, item.key) not in going else ():
            if ("path", (name,)) in going:
                raise Conflict(
                    f"path {name}: is not in the file, and {item.title} is bound to it",
                    remedy=f"Bind it elsewhere first (cox paths bind), or to nothing: cox paths unbind {item.id}",
                )
        kept = named.get((item.kind, item.key), item)
        for field_name, kind, name in led_to(said):
            unsaid = kept.where and field_name in ("server", "fallbacks") and field_name not in kept.fields
            if unsaid and (kind, (name,)) in going:
                raise Conflict(
                    f"{kept.where}: {item.title}: {field_name}: keeps {name}, which is not in the file",
                    remedy=f"Keep {kind} {name}{', or say its fallbacks without it' if kind == 'node' else ''}.",
                )
        for _, kind, name in led_to(said) if item.kind not in spoken else ():
            if (kind, (name,)) in going:
                raise Conflict(
                    f"{kind} {name}: is not in the file, and {item.title} leads to it, of which it says nothing",
                    remedy="Lead that elsewhere first, or remove it; or take the whole fleet into the file: cox export",
                )
