"""``cox servers``: machines that the controller logs in to; ``cox ssh-key``."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from coxswain.cli.client import Client
from coxswain.cli.machines import COMPARE, Login, onboard
from coxswain.cli.operations import ask_password, wait_option
from coxswain.cli.output import (
    Group,
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
from coxswain.errors import InvalidInput, Refused

__all__ = ["servers", "ssh_key"]


@click.command("ssh-key")
@config_option
@json_option
def ssh_key(config: str | None, *, as_json: bool) -> None:
    """The controller's public SSH key, for authorized_keys."""
    found = client(config).get("/api/ssh-key")
    if as_json:
        print_json(found)
    else:
        click.echo(found["public_key"])


@click.group(cls=Group)
def servers() -> None:
    """Onboard, list, trust and remove machines."""


@servers.command("add", context_settings={"allow_extra_args": True})  # refused below, where they are not repeated
@config_option
@json_option
@click.argument("host")
@click.option("--key", is_flag=True, help="The controller's key (cox ssh-key) is on the host already.")
@click.option("--password", is_flag=True, help="Ask for a one-time password; from standard input if that is no terminal.")
@click.option("--name", default="", help="Its name; default: the address.")
@click.option("--region", default="", help="Free text, e.g. fra.")
@click.option("--user", default="", help="Who to log in as; default: node.ssh_user.")
@click.option("--port", default=0, type=click.IntRange(0, 65_535), help="SSH port; default: node.ssh_port.")
@click.option("--via", default="", metavar="RELAYS", help="Names or ids of relays for this connection, comma-separated.")
@click.option("--host-key", default="", metavar="SHA256:…", help="The fingerprint that the host must show.")
@click.option("--accept-new-host-key", is_flag=True, help="Trust whatever key the host shows, if none is known.")
@wait_option
def add(  # noqa: PLR0917
    config: str | None, host: str, name: str, region: str, user: str, port: int, via: str, host_key: str, *, key: bool,
    password: bool, accept_new_host_key: bool, wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Onboard a machine, with the controller's key or a one-time password. Its host key is shown and has to be confirmed
    before anything is sent.
    """
    if click.get_current_context().args:
        raise click.UsageError(
            "One HOST is taken, and no argument after it. A password is asked for, or read from standard input: "
            "who else is on this machine reads arguments."
        )
    if key and password:
        raise InvalidInput("key, password: one of them is enough")
    how = Login(user, port, host_key, accept_new_host_key)
    secret = ask_password if password else _ask_of_two if not key and sys.stdin.isatty() else None
    server = onboard(config, host, how, name=name, region=region, via=via, secret=secret, wait=wait, as_json=as_json)
    if as_json:
        print_json(server)
        return
    click.echo()
    _print(server)
    click.echo(f"\nNext: cox nodes add --server {server['name']}")


def _ask_of_two() -> str:
    """Of somebody at a terminal who said neither ``--password`` nor ``--key``."""
    click.echo("By the controller's key instead: put it (cox ssh-key) into authorized_keys there, and say --key.", err=True)
    return ask_password()


@servers.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All machines."""
    found = client(config).get("/api/servers")
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no machines yet. Onboard one with: cox servers add ADDRESS")
        return
    rows = [
        [
            s["id"],
            s["name"],
            s["region"],
            s["status"],
            f"{s['ssh_user']}@{s['ssh_host']}" + ("" if s["ssh_port"] == 22 else f":{s['ssh_port']}"),
            s["is_self"],
            s["facts"].get("os_name", ""),
            "host key changed: cox servers trust" if s["offered_host_key"] else "",
        ]
        for s in found
    ]
    table(["ID", "NAME", "REGION", "STATUS", "SSH-HOST", "SELF", "OS", "ATTENTION"], rows, styles={3: paint})


@servers.command("self")
@config_option
@json_option
@click.option("--host", default="", help="Its address; default: that of the interface that leads out.")
def self_(config: str | None, host: str, *, as_json: bool) -> None:
    """Register the controller's own machine."""
    found = client(config).post("/api/servers/self", {"host": host} if host else {})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['id']}: {clean(found['name'])} at {clean(found['ssh_host'])}")


@servers.command("trust")
@config_option
@json_option
@click.argument("server")
@click.option("--host-key", default="", metavar="SHA256:…", help="The fingerprint that is to be trusted; without: asks.")
def trust(config: str | None, server: str, host_key: str, *, as_json: bool) -> None:
    """Trust a machine's new host key, after it was reinstalled; or the known one again, if the other was not the host's."""
    asking = client(config)
    found = _found(asking, server)
    if found is not None and found["offered_host_key"] and not host_key:
        click.echo(f"known: {found['host_key']}\nshown: {found['offered_host_key']}", err=True)
        click.echo(COMPARE.format("*"), err=True)
        if not sys.stdin.isatty():
            raise Refused("trust: there is nobody to ask", remedy=f"Say --host-key {found['offered_host_key']}")
        if click.confirm("Is the shown one the host's?", err=True):
            host_key = found["offered_host_key"]
        else:
            click.confirm("Does the host have the known one, so that it may be connected to again?", abort=True, err=True)
            host_key = found["host_key"]
    changed = asking.post(f"/api/servers/{quote(server, safe='')}/trust", {"host_key": host_key or "none"})
    if as_json:
        print_json(changed)
    else:
        click.echo(f"{clean(changed['name'])}: {changed['host_key']} is trusted now")


@servers.command("edit")
@config_option
@json_option
@click.argument("server")
@click.option("--name", help="A new name.")
@click.option("--region", help="A new region.")
@click.option("--host", "ssh_host", metavar="ADDRESS", help="Where it is now; it has to show the host key that is known.")
@click.option("--port", "ssh_port", type=click.IntRange(1, 65_535), help="Its SSH port.")
@click.option("--user", "ssh_user", help="Who to log in as.")
def edit(config: str | None, server: str, *, as_json: bool, **said: str | int | None) -> None:
    """Change a machine's name or region, or where and as whom the controller logs in, as after a move. Links and clients
    keep their addresses: see cox nodes edit, cox nodes endpoints.
    """
    given = {key: value for key, value in said.items() if value is not None}
    if not given:
        raise InvalidInput("nothing to change: one of --name, --region, --host, --port, --user is needed")
    asking = client(config)
    found = _found(asking, server)
    path = f"/api/servers/{quote(server if found is None else found['id'], safe='')}"
    changed = asking.call("PATCH", path, given | {"version": 0 if found is None else found["version"]})
    if as_json:
        print_json(changed)
        return
    login = f"{changed['ssh_user']}@{changed['ssh_host']} port {changed['ssh_port']}"
    click.echo(f"{clean(changed['name'])}: changed; the controller logs in as {clean(login)}")


def _remove(config: str | None, server: str, *, yes: bool, as_json: bool) -> None:
    asking = client(config)
    if not yes and (found := _found(asking, server)) is not None:
        confirm(f"Remove {found['name']} ({found['ssh_host']}) from the inventory?", scripts_may=True)
    asking.call("DELETE", f"/api/servers/{quote(server, safe='')}?empty=true")
    if as_json:
        print_json({"removed": server})
    else:
        click.echo(f"{clean(server)}: removed")


@servers.command("rm")
@config_option
@json_option
@click.argument("server")
@yes_option
def remove(config: str | None, server: str, *, yes: bool, as_json: bool) -> None:
    """Take a machine out of the inventory. Fails while nodes or relays are on it."""
    _remove(config, server, yes=yes, as_json=as_json)


def _found(asking: Client, server: str) -> dict[str, Any] | None:
    """The machine of this id, name or address."""
    return next((s for s in asking.get("/api/servers") if server in (s["id"], s["name"], s["ssh_host"])), None)


def _print(s: dict[str, Any]) -> None:
    facts(
        [
            ("id", s["id"]),
            ("name", s["name"]),
            ("ssh", f"{s['ssh_user']}@{s['ssh_host']} port {s['ssh_port']}"),
            ("host key", s["host_key"]),
            ("region", s["region"]),
            ("system", f"{s['facts'].get('os_name', '')}, {s['facts'].get('arch', '')}".strip(", ")),
            ("status", paint(s["status"])),
        ]
    )
