"""The fleet as it is, read through the API, in the form of a fleet file's items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coxswain.declare.items import Item, Key
from coxswain.declare.schema import user_key
from coxswain.errors import Refused
from coxswain.model import MASKED, NodeStatus
from coxswain.words import counted

__all__ = ["Lister", "Present", "read_present", "with_login"]

_UNFINISHED = frozenset({NodeStatus.PROVISIONING.value, NodeStatus.ERROR.value})

Lister = Callable[[str], Iterator[dict[str, Any]]]
"""All entries of a list of the API, whatever its pages."""


@dataclass(frozen=True, slots=True)
class Present:
    """Items, what an operator should know of nodes that are not as they are intended, and what no file can say."""

    items: list[Item]
    drift: list[str]
    unsaid: list[str]


def read_present(every: Lister) -> Present:
    """Reads servers, nodes, paths, users, devices and profiles.

    Raises:
        CoxswainError: the API does not answer.
    """
    servers = list(every("/api/servers"))
    nodes = list(every("/api/nodes"))
    paths = list(every("/api/paths"))
    names = {thing["id"]: thing["name"] for thing in (*servers, *nodes, *paths)}
    relays = {r["server_id"]: r["name"] for r in every("/api/relays") if r.get("server_id")} if servers else {}
    items = [
        *(_server(s, relays.get(s["id"], "")) for s in servers if not s.get("is_self")),
        *(_node(n, names) for n in nodes),
        *(_path(p, names) for p in paths),
        *_people(every, names, _routes(every, names) if any(path["devices"] for path in paths) else {}),
    ]
    drift = [f"node {n['name']}: {_off(n)}" for n in nodes if n["enabled"] and not n["in_sync"]]
    unsaid = [f"{i.title}: {i.fields['bound']} (cox paths bind)" for i in items if i.fields.get("bound")]
    return Present(items, drift, unsaid)


def with_login(wanted: Sequence[Item], present: Sequence[Item], configured: Callable[[], Mapping[str, Any]]) -> list[Item]:
    """The items of a file, with what is configured where it does not say how to log in to a machine that is new.

    ``configured``: ``ssh_user`` and ``ssh_port``; asked only if there is such a machine.
    """
    there = {item.key for item in present if item.kind == "server"}
    new = {item.key for item in wanted if item.kind == "server"} - there
    if not new:
        return list(wanted)
    login = configured()
    return [replace(i, fields={**login, **i.fields}) if i.kind == "server" and i.key in new else i for i in wanted]


def _off(node: dict[str, Any]) -> str:
    state = node["link_state"].replace("_", " ")
    reason = f": {node['link_reason']}" if node["link_reason"] else ""
    return f"revision {node['applied_revision']} of {node['config_revision']}, {state}{reason}"


def _server(found: dict[str, Any], relay: str) -> Item:
    fields = {
        "name": found["name"],
        "ssh_host": found["ssh_host"],
        "ssh_user": found.get("ssh_user", "root"),
        "ssh_port": found.get("ssh_port", 22),
        "region": found["region"],
        "host_key": found.get("host_key", ""),
        "offered_host_key": found.get("offered_host_key", ""),
        "relay": relay,  # no file says what runs there besides a node
    }
    return Item("server", (found["name"],), fields, id=found["id"], version=found["version"])


def _node(found: dict[str, Any], names: dict[str, str]) -> Item:
    copied = ("name", "control_addr", "region", "public_ip", "endpoint_ips", "enabled", "forwarding", "masquerade")
    fields = {name: found[name] for name in (*copied, "isolation")} | {"endpoint_ports": found["endpoint_ports"]}
    fields["decoy_site"] = found["decoy_site"]
    fields["server"] = names.get(found.get("server_id", ""), "")
    # What no file says: what paths have to wait for, and that its onboarding failed or was interrupted.
    fields |= {name: found[name] for name in ("enrolled", "wg_public_key")}
    fields["unfinished"] = bool(fields["server"]) and not found["enabled"] and found["status"] in _UNFINISHED
    return Item("node", (found["name"],), fields, id=found["id"], version=found["version"])


def _path(found: dict[str, Any], names: dict[str, str]) -> Item:
    hops = [names.get(hop, hop) for hop in found["hops"]]
    fallbacks = [names.get(node, node) for node in found["fallbacks"]]
    fields = {"name": found["name"], "hops": hops, "color": found["color"], "fallbacks": fallbacks}
    fields["bound"] = f"{counted(found['devices'], 'device')} bound to it" if found["devices"] else ""  # no file says that
    return Item("path", (found["name"],), fields, id=found["id"], version=found["version"])


def _routes(every: Lister, names: dict[str, str]) -> dict[str, list[str]]:
    """The paths to which devices are bound, or being moved, by the ids of these."""
    return {
        bound["device_id"]: [names[path] for path in (bound["path_id"], bound["next_path_id"]) if path in names]
        for bound in every("/api/bindings")
    }


def _people(every: Lister, names: dict[str, str], routes: dict[str, list[str]]) -> Iterator[Item]:
    users = list(every("/api/users"))
    devices = [d for d in every("/api/devices") if d["status"] != "revoked"]
    profiles = list(every("/api/profiles"))
    keys: dict[str, Key] = {}
    with_profiles = {p["device_id"] for p in profiles}
    if any(MASKED in (user["email"], user["phone"]) for user in users):
        raise Refused(
            "users: this credential may not see their e-mail addresses and phone numbers, which are part of the fleet",
            remedy="Use a token of the scope admin.",
        )
    for user in users:
        fields = {name: user[name] for name in ("name", "email", "phone", "status")}
        keys[user["id"]] = (user_key(fields),)
        yield Item("user", keys[user["id"]], fields, id=user["id"], version=user["version"])
    for device in devices:
        if device["user_id"] not in keys:
            continue
        fields = {name: device[name] for name in ("name", "platform", "status")}
        fields["all_nodes"] = device["provisioned"] and device["id"] not in with_profiles
        fields["routes"] = routes.get(device["id"], [])
        keys[device["id"]] = (*keys[device["user_id"]], device["name"])
        yield Item("device", keys[device["id"]], fields, id=device["id"], version=device["version"])
    for profile in profiles:
        if profile["device_id"] not in keys:
            continue
        fields = {
            "name": profile["name"],
            "node": names.get(profile.get("node_id", ""), ""),
            "path": names.get(profile.get("path_id", ""), ""),
            "entry_ips": profile.get("entry_ips", []),
            "protocol": profile["protocol"],
        }
        key = (*keys[profile["device_id"]], profile["name"])
        yield Item("profile", key, fields, id=profile["id"], version=profile["version"])
