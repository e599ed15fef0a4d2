"""``cox devices``: devices of users, and what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coxswain.cli.accounts import changes, device_id_of, every, place, say_arrival, user_key_of, wait_option, with_query
from coxswain.cli.client import Client
from coxswain.cli.files import check_free, file_stem, write_private
from coxswain.cli.output import (
    Group,
    ago,
    clean,
    client,
    config_option,
    confirm,
    facts,
    json_option,
    paint,
    print_json,
    table,
    yes_option,
)

__all__ = ["devices"]


@click.group(cls=Group)
def devices() -> None:
    """Add, show, edit, provision, suspend, resume, revoke and remove devices."""


@devices.command("add")
@config_option
@json_option
@click.argument("user")
@click.argument("name")
@click.option("--platform", default="", help="What it runs, e.g. android.")
def add(config: str | None, user: str, name: str, platform: str, *, as_json: bool) -> None:
    """Add a device of a user (an id, an e-mail address or a name)."""
    api = client(config)
    body = {"name": name, "platform": platform, "unique": True}
    device = api.post(place("users", user_key_of(api, user), "devices"), body)
    if as_json:
        print_json(device)
        return
    facts([("id", device["id"]), ("name", device["name"]), ("user", device["user_id"])])
    click.echo(f"\nNext, for all nodes: cox devices provision {device['id']}")
    click.echo(f"Or for one node:     cox profiles create NAME --device {device['id']} --node NODE")


@devices.command("issue")
@config_option
@json_option
@wait_option
@click.argument("user")
@click.option("--name", default="caravel device", show_default=True)
@click.option("--path", metavar="PATH", help="With a profile over this path: name or id.")
@click.option("--relay", metavar="HOST:PORT", help="Where it finds a relay; default: relay.public_endpoint.")
@click.option("--server-name", metavar="NAME", help="The name in the relay's certificate; default: the relay's host.")
@click.option("--out", metavar="FILE", help="Where to write it, 0600; default: USER.pharosid, here.")
def issue(config: str | None, user: str, wait: int, *, as_json: bool, **given: str | None) -> None:
    """Make a device of a user, and a file with all that it needs to sync. Whoever has the file is that device.

    For devices that cannot use a link (cox enroll), whose keys never leave them; these are made here.
    """
    path = Path(given["out"] or f"{file_stem(user)}.pharosid")
    if not as_json:
        check_free(path)
    api = client(config)
    body = {"name": given["name"], "relay": given["relay"], "server_name": given["server_name"]}
    body["path_id"] = api.get(place("paths", given["path"]))["id"] if given["path"] else None
    made = api.post(with_query(place("users", user_key_of(api, user), "devices/issue"), wait=wait), body)
    if as_json:
        print_json(made)
        return
    write_private(path, made["text"])
    facts(
        [
            ("device", made["device_id"]),
            ("file", f"{path} (mode 0600; it holds private keys)"),
            ("relay", made["relay"]),
            ("address", _addresses(made)),
            ("peers", made["peer_count"]),
            ("revision", made["profile_revision"]),
        ]
    )
    say_arrival(api, made)


@devices.command("list")
@config_option
@json_option
@click.option("--user", help="Only of this user: id, e-mail address or name.")
def list_(config: str | None, user: str | None, *, as_json: bool) -> None:
    """All devices."""
    api = client(config)
    found = list(every(api, "/api/devices", user=user_key_of(api, user) if user else user))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no devices yet. Add one with: cox devices add USER NAME")
        return
    rows = [[d["id"], d["name"], d["user_id"], d["platform"], d["status"], ago(d["created_at"])] for d in found]
    table(["ID", "NAME", "USER", "PLATFORM", "STATUS", "AGE"], rows, styles={4: paint})


@devices.command("show")
@config_option
@json_option
@click.argument("device")
def show(config: str | None, device: str, *, as_json: bool) -> None:
    """One device, with its addresses and public keys."""
    api = client(config)
    found = api.get(place("devices", device_id_of(api, device)))
    if as_json:
        print_json(found)
        return
    facts(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("user", f"{api.get(place('users', found['user_id']))['name']} {found['user_id']}"),
            ("platform", found["platform"]),
            ("status", paint(found["status"])),
            ("peers", found["peer_count"]),
            ("bound to path", _path_of(api, found["id"])),
            ("profile revision", found["profile_revision"]),
            *_identity(found["identity"]),
        ]
    )
    if found["credentials"]:
        names = {p["id"]: p["name"] for p in every(api, "/api/profiles", device=found["id"])}
        click.echo()
        rows = [[names.get(c["profile_id"], "all nodes"), _addresses(c), c["wg_public_key"]] for c in found["credentials"]]
        table(["PROFILE", "ADDRESS", "PUBLIC KEY"], rows)


def _path_of(api: Client, device_id: str) -> str:
    """What it sends to the entry of a path goes over that, and where to if it is on its way; empty: over none."""
    bound = api.get(place("devices", device_id, "bind"))
    if not (bound["path_id"] or bound["next_path_id"]):
        return ""
    names = {path["id"]: path["name"] for path in api.get("/api/paths")}
    now, to = (names.get(bound[key], bound[key]) or "none" for key in ("path_id", "next_path_id"))
    return now if bound["phase"] == "settled" else f"{now}, on its way to {to}"


def _addresses(shown: dict[str, Any]) -> str:
    return ", ".join(filter(None, (shown["tunnel_ip"], shown["tunnel_ip_v6"])))


@devices.command("edit")
@config_option
@json_option
@click.argument("device")
@click.option("--name")
@click.option("--platform", help="What it runs, e.g. android; empty takes it away.")
def edit(config: str | None, device: str, *, as_json: bool, **given: str | None) -> None:
    """Change what is given of a device; its keys, and what it is given, stay."""
    body = changes(given)
    api = client(config)
    device = device_id_of(api, device)
    changed = api.call("PATCH", place("devices", device), body | {"version": api.get(place("devices", device))["version"]})
    if as_json:
        print_json(changed)
        return
    shown = [("id", "id"), ("name", "name"), ("user", "user_id"), ("platform", "platform")]
    facts([(title, changed[key]) for title, key in shown])


@devices.command("provision")
@config_option
@json_option
@wait_option
@click.argument("device")
@click.option("--rotate", is_flag=True, help="New keys at the same addresses; tunnels are cut until the device has them.")
def provision(config: str | None, device: str, wait: int, *, rotate: bool, as_json: bool) -> None:
    """Make a device's peers what its profiles say; keys that it has are kept."""
    api = client(config)
    device = device_id_of(api, device)
    result = api.post(with_query(place("devices", device, "provision"), wait=wait), {"rotate": rotate})
    if as_json:
        print_json(result)
        return
    facts([("address", _addresses(result)), ("peers", result["peer_count"])])
    say_arrival(api, result)
    if not result["peer_count"]:
        click.echo("no node is ready for it yet; it gets onto one by itself when that connects: cox nodes list", err=True)
    found = api.get(place("devices", device))
    if found["status"] == "active":
        _say_if_suspended(api, found)
    else:
        says = f"but it is {found['status']}: it is on no node before: cox devices resume {found['id']}"
        click.echo(clean(says), err=True)


@devices.command("suspend")
@config_option
@json_option
@wait_option
@click.argument("device")
def suspend(config: str | None, device: str, wait: int, *, as_json: bool) -> None:
    """Take a device from all nodes; its keys are kept."""
    _set_status(config, device, "suspend", wait, as_json=as_json)


@devices.command("resume")
@config_option
@json_option
@wait_option
@click.argument("device")
def resume(config: str | None, device: str, wait: int, *, as_json: bool) -> None:
    """Bring a device back, with the keys it had."""
    _set_status(config, device, "resume", wait, as_json=as_json)


@devices.command("revoke")
@config_option
@json_option
@wait_option
@yes_option
@click.argument("device")
def revoke(config: str | None, device: str, wait: int, *, yes: bool, as_json: bool) -> None:
    """Take a device from all nodes and destroy its keys, for good."""
    api = client(config)
    found = api.get(place("devices", device_id_of(api, device)))
    if not yes:
        confirm(f"Revoke {found['name']} ({found['id']})? Its keys are destroyed; it can only be removed after that.")
    _set_status(config, found["id"], "revoke", wait, as_json=as_json)


@devices.command("remove")
@config_option
@json_option
@wait_option
@yes_option
@click.argument("device")
def remove(config: str | None, device: str, wait: int, *, yes: bool, as_json: bool) -> None:
    """Remove a device with its profiles and keys, from all nodes."""
    api = client(config)
    found = api.get(place("devices", device_id_of(api, device)))
    if not yes:
        confirm(f"Remove {found['name']} ({found['id']})?")
    api.call("DELETE", with_query(place("devices", found["id"]), version=found["version"], wait=wait))
    print_json({"removed": found["id"]}) if as_json else click.echo(clean(f"{found['name']} is removed"))


def _identity(known: dict[str, Any] | None) -> list[tuple[str, Any]]:
    if known is None:
        return [("enrolled", "never")]
    fetched = (
        f"revision {known['last_sync_revision']}, {ago(known['last_sync_at'])} ago"
        if known["last_sync_at"]
        else "nothing yet"
    )
    if known["stale"]:
        fetched += "; stale: something has changed since, and its next sync brings it"
    return [("enrolled", known["enrolled_at"]), ("certificate until", known["not_after"]), ("fetched", fetched)]


def _set_status(config: str | None, device: str, action: str, wait: int, *, as_json: bool) -> None:
    asking = client(config)
    changed = asking.post(with_query(place("devices", device_id_of(asking, device), action), wait=wait))
    if as_json:
        print_json(changed)
        return
    click.echo(clean(f"{changed['name']} is {changed['status']}"))
    say_arrival(asking, changed)
    if changed["status"] == "active":
        _say_if_suspended(asking, changed)


def _say_if_suspended(api: Client, device: dict[str, Any]) -> None:
    """An active device of somebody who is not is on no node."""
    user = api.get(place("users", device["user_id"]))
    if user["status"] != "active":
        known_as = user["email"] or user["id"]
        says = f"but its user {user['name']} is {user['status']}: it is on no node before: cox users resume {known_as}"
        click.echo(clean(says), err=True)
