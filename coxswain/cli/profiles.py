"""``cox profiles``: what devices can connect to, and handing it to them by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from coxswain.cli.accounts import (
    changes,
    device_of,
    every,
    place,
    profile_id_of,
    say_arrival,
    user_key_of,
    wait_option,
    with_query,
)
from coxswain.cli.client import Client
from coxswain.cli.files import check_free, file_stem, write_private
from coxswain.cli.names import Names
from coxswain.cli.output import (
    Group,
    clean,
    client,
    config_option,
    confirm,
    facts,
    json_option,
    node_path,
    print_json,
    table,
    yes_option,
)
from coxswain.errors import InvalidInput

__all__ = ["profile", "profiles"]

_PROTOCOLS = click.Choice(["amneziawg", "xray-reality", "both"])


@click.group(cls=Group)
def profiles() -> None:
    """Create, list, edit, remove and export profiles of devices."""


@profiles.command("create")
@config_option
@json_option
@wait_option
@click.argument("name")
@click.option("--device", default="", help="Id or name. A user's only device needs none.")
@click.option("--user", help="Id, e-mail address or name.")
@click.option("--node", help="The node where the traffic leaves: name or id.")
@click.option("--path", help="Or the path that it takes: name or id.")
@click.option("--entry-ips", default="", metavar="IP,IP", help="Only these endpoints of the entry; default: all.")
@click.option("--protocol", type=_PROTOCOLS, default="amneziawg", show_default=True)
def create(config: str | None, name: str, wait: int, *, as_json: bool, **given: Any) -> None:
    """Add a profile of a device, and provision it."""
    api = client(config)
    device = device_of(api, given["device"], given["user"])
    is_first = not list(every(api, "/api/profiles", device=device["id"]))
    had_all = is_first and bool(api.get(place("devices", device["id"]))["peer_count"])
    body = {
        "device_id": device["id"],
        "user_id": device["user_id"],
        "name": name,
        "protocol": given["protocol"],
        "entry_ips": [ip for ip in given["entry_ips"].split(",") if ip.strip()],
        "path_id": api.get(place("paths", given["path"]))["id"] if given["path"] else None,
        "node_id": api.get(node_path(given["node"]))["id"] if given["node"] else None,
    }
    _say(api, api.post(with_query("/api/profiles", wait=wait), body), as_json=as_json)
    if had_all and not as_json:
        click.echo("This is the device's first profile: it had every node until now, and has what its profiles say.")


@profiles.command("list")
@config_option
@json_option
@click.option("--user", help="Only of this user: id, e-mail address or name.")
@click.option("--device", help="Only of this device: id or name.")
def list_(config: str | None, user: str | None, device: str | None, *, as_json: bool) -> None:
    """Profiles, oldest first."""
    api = client(config)
    if device:  # of one that there is not there are none, either
        device = device_of(api, device, user)["id"]
    found = list(every(api, "/api/profiles", user=user_key_of(api, user) if user else user, device=device))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no profiles. A device without any is given every node. Add one with: cox profiles create NAME")
        return
    nodes = {n["id"]: n["name"] for n in api.get("/api/nodes")}
    paths = {p["id"]: p["name"] for p in api.get("/api/paths")} if any("path_id" in p for p in found) else {}
    rows = [
        [
            p["id"],
            p["name"],
            p["user_id"],
            p["device_id"],
            f"path {paths.get(p['path_id'], p['path_id'])}"
            if "path_id" in p
            else f"node {nodes.get(p['node_id'], p['node_id'])}",
            p["protocol"],
            " ".join(p.get("entry_ips", [])),
        ]
        for p in found
    ]
    table(["ID", "NAME", "USER", "DEVICE", "EGRESS", "PROTOCOL", "ENTRY"], rows)


@profiles.command("edit")
@config_option
@json_option
@wait_option
@click.argument("profile")
@click.option("--name")
@click.option("--node", help="Lead it to this node: name or id.")
@click.option("--path", help="Or over this path: name or id.")
@click.option("--entry-ips", metavar="IP,IP", help="Only these endpoints of the entry; empty: all.")
@click.option("--protocol", type=_PROTOCOLS)
def edit(config: str | None, profile: str, wait: int, *, as_json: bool, **given: Any) -> None:
    """Change what is given of a profile, and provision its device; its keys are kept."""
    for option in ("node", "path"):
        if changes(given).get(option) == "":  # as of a variable that is not set
            raise InvalidInput(f"{option}: is empty", remedy="Say which one is meant, or leave it out.")
    api = client(config)
    profile = profile_id_of(api, profile)
    body: dict[str, Any] = {"version": api.get(place("profiles", profile))["version"]}
    body |= {key: given[key] for key in ("name", "protocol") if given[key] is not None}
    if given["entry_ips"] is not None:
        body["entry_ips"] = [ip for ip in given["entry_ips"].split(",") if ip.strip()]
    if given["path"]:
        body["path_id"] = api.get(place("paths", given["path"]))["id"]
    if given["node"]:
        body["node_id"] = api.get(node_path(given["node"]))["id"]
    _say(api, api.call("PATCH", with_query(place("profiles", profile), wait=wait), body), as_json=as_json)


@profiles.command("remove")
@config_option
@json_option
@wait_option
@yes_option
@click.argument("profile")
def remove(config: str | None, profile: str, wait: int, *, yes: bool, as_json: bool) -> None:
    """Remove a profile with its keys, and provision its device."""
    api = client(config)
    found = api.get(place("profiles", profile_id_of(api, profile)))
    last = len(list(every(api, "/api/profiles", device=found["device_id"]))) == 1
    if not yes:
        more = " It is its device's last one: without any, it is given every node." if last else ""
        confirm(f"Remove the profile {found['name']} ({found['id']})?{more}", scripts_may=True)
    api.call("DELETE", with_query(place("profiles", found["id"]), version=found["version"], wait=wait))
    if as_json:
        print_json({"removed": found["id"]})
        return
    click.echo(clean(f"{found['name']} is removed"))
    if last:
        click.echo(
            "its device has no profile now, and is given every node; to take it from all of them: "
            f"cox devices suspend {found['device_id']}",
            err=True,
        )


@profiles.command("export")
@config_option
@json_option
@click.argument("device")
@click.option("--user", help="Whose device DEVICE names.")
@click.option("--profile", default="", help="Name or id; default: the first.")
@click.option("--node", default="", help="Which node, where there are several: name or id.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["conf", "pharos", "vless", "sealed"]),
    default="conf",
    show_default=True,
    help="For AmneziaWG clients, PharosVPN clients, XRay clients; sealed: only that device can open it.",
)
@click.option("--password", "asked", is_flag=True, help="Ask for a password, without which nobody opens a pharos file.")
@click.option("--out", metavar="FILE", help="Where to write it, 0600; default: named after the device, here.")
def export(config: str | None, device: str, *, as_json: bool, **given: Any) -> None:
    """Write a device's keys to a file for its client. Whoever has the file, and its password, is that device."""
    if given["out"] and not as_json:
        check_free(Path(given["out"]))
    api = client(config)
    found = device_of(api, device, given["user"])
    body = {"profile": given["profile"], "node": given["node"], "format": given["kind"]}
    if given["asked"]:
        body["password"] = _password()
    exported = api.post(place("devices", found["id"], "export"), body)
    if as_json:
        print_json(exported)
        return
    path = Path(given["out"] or exported["name"])
    write_private(path, exported["text"])
    click.echo(clean(f"{path} (mode 0600; it holds private keys{', under the password' if given['asked'] else ''})"))
    for note in exported.get("notes", []):
        click.echo(f"! {clean(note)}")
    if exported.get("also"):
        click.echo(clean(f"It enters by one node; for another one: --node {' | '.join(exported['also'])}"))


def _password() -> str:
    """Asked for; piped in where nobody can be asked."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    found: str = click.prompt("Password of the file", hide_input=True, confirmation_prompt=True, err=True)
    return found


def _say(api: Client, changed: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(changed)
        return
    egress = str(changed.get("path_id") or changed.get("node_id"))
    names = Names(api)
    names.learn([egress])
    leads = f"{'path' if changed.get('path_id') else 'node'} {names.of(egress)}"
    facts([("id", changed["id"]), ("name", changed["name"]), ("egress", leads), ("protocol", changed["protocol"])])
    say_arrival(api, changed)


@click.group(cls=Group)
def profile() -> None:
    """Export what a user's device is given, sealed; cox profiles has the rest."""


@profile.command("export")
@config_option
@json_option
@click.argument("user")
@click.option("--device", default="", help="Id or name; a user's only device needs none.")
@click.option("--out", metavar="FILE", help="Where to write it, 0600; default: USER.pharos, here.")
def export_sealed(config: str | None, user: str, device: str, out: str | None, *, as_json: bool) -> None:
    """Write what a user's device is given to a file that only this device, once it has enrolled, can open."""
    path = Path(out or f"{file_stem(user)}.pharos")
    if not as_json:
        check_free(path)
    api = client(config)
    found = device_of(api, device, user)
    exported = api.post(place("devices", found["id"], "export"), {"format": "sealed"})
    if as_json:
        print_json(exported)
        return
    write_private(path, exported["text"])
    facts([("revision", exported["revision"]), ("user", found["user_id"]), ("file", f"{path} (mode 0600)")])
