"""``cox relays``: relays on machines."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from coxswain.cli.client import Client
from coxswain.cli.machines import Login, login_options, own_option, reached
from coxswain.cli.operations import begin, check_binary, source_body, source_options, wait_option
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
from coxswain.errors import AlreadyExists, InvalidInput

__all__ = ["relays"]


@click.group(cls=Group)
def relays() -> None:
    """Onboard, list, upgrade and remove relays."""


@relays.command("add")
@config_option
@json_option
@click.argument("host", default="")
@click.option("--server", default="", metavar="SERVER", help="The machine (cox servers list).")
@click.option("--name", default="", help="Its name; default: made from its id.")
@click.option("--region", default="", help="Free text; default: that of the machine.")
@click.option("--endpoint", default="", metavar="HOST:PORT", help="The tunnel that the controller dials; port 8444.")
@click.option("--hostname", default="", help="The name in its certificate; default: the machine's address.")
@click.option("--egress", is_flag=True, help="Also a hop of the control path.")
@click.option("--egress-port", default=8456, show_default=True, type=click.IntRange(1, 65_535))
@click.option("--egress-hop", default=0, type=click.IntRange(0, 100), help="Its place among the hops; 0: the last.")
@click.option("--onion", is_flag=True, help="Also an onion hop; needs --egress.")
@click.option("--onion-port", default=8457, show_default=True, type=click.IntRange(1, 65_535))
@click.option("--no-ingress", is_flag=True, help="No tunnel for clients; needs --egress.")
@click.option("--via", default="", metavar="RELAYS", help="Names or ids of relays for this SSH connection, comma-separated.")
@login_options
@source_options
@own_option
@wait_option
def add(  # noqa: PLR0917
    config: str | None, host: str, server: str, name: str, region: str, endpoint: str, hostname: str, egress_port: int,
    egress_hop: int, onion_port: int, via: str, user: str, port: int, host_key: str, binary: str, url: str, sha256: str, *,
    accept_new_host_key: bool, egress: bool, onion: bool, no_ingress: bool, yes: bool, wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Onboard a relay on a machine over SSH."""
    login = Login(user, port, host_key, accept_new_host_key)
    key = reached(
        config,
        host,
        server,
        login,
        region=region,
        via=via,
        yes=yes,
        as_json=as_json,
        check_new=lambda asking: _check_new(asking, name, binary),
    )
    body: dict[str, Any] = {
        "role": "relay",
        "name": name,
        "region": region,
        "endpoint": endpoint,
        "hostname": hostname,
        "egress": egress,
        "egress_port": egress_port,
        "egress_hop": egress_hop,
        "onion": onion,
        "onion_port": onion_port,
        "no_ingress": no_ingress,
    } | source_body(binary, url, sha256)
    if via:
        body["route"] = [relay.strip() for relay in via.split(",")]
    body = {k: v for k, v in body.items() if v not in ("", False)}
    done = begin(config, f"/api/servers/{quote(key, safe='')}/deploy", body, wait=wait, as_json=as_json)
    found = client(config).get(f"/api/relays/{done['data']['relay_id']}")
    if as_json:
        print_json(found)
        return
    click.echo()
    facts(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("tunnel", found["endpoint"]),
            ("egress", _egress(found)),
            ("onion", found["onion_endpoint"]),
            ("certificate", f"{done['params']['hostname']}, serial {done['data'].get('serial', '')}"),
            ("version", found["version_display"] or found["agent_version"]),
            ("status", paint(found["status"])),
        ]
    )


def _check_new(asking: Client, name: str, binary: str) -> None:
    """Before a machine is taken in for a relay that would be refused then; the daemon looks again."""
    from coxswain.inventory import check_name  # noqa: PLC0415

    check_binary(asking, binary)
    name = name and check_name(name)
    if name and any(other["name"] == name for other in asking.get("/api/relays")):
        raise AlreadyExists(f"name: a relay named {name!r} exists already; choose another name")


@relays.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All relays."""
    found = client(config).get("/api/relays")
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no relays yet. Onboard one with: cox relays add --server SERVER")
        return
    rows = [
        [
            *(r[key] for key in ("id", "name", "kind", "status", "endpoint")),
            _tunnel(r),
            _egress(r),
            r["onion_endpoint"],
            r["version_display"],
        ]
        for r in found
    ]
    head = ["ID", "NAME", "KIND", "STATUS", "ENDPOINT", "TUNNEL", "EGRESS", "ONION", "VERSION"]
    table(head, rows, styles={3: paint})


@relays.command("set-egress")
@config_option
@json_option
@click.argument("relay")
@click.option("--hop", type=click.IntRange(1, 100), help="Its place among the hops.")
@click.option("--disable", is_flag=True, help="No egress hop any more.")
def set_egress(config: str | None, relay: str, hop: int | None, *, disable: bool, as_json: bool) -> None:
    """Change a relay's place among the egress hops."""
    if (hop is None) == (not disable):
        raise InvalidInput("hop, disable: exactly one of them is needed")
    body = {"disable": True} if disable else {"hop": hop}
    found = client(config).post(_path(relay, "egress"), body)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{clean(found['name'])}: {_egress(found) or 'no egress'}")


@relays.command("update")
@config_option
@json_option
@click.argument("relay")
@source_options
@click.option("--force", is_flag=True, help="Also the very same one, which is restarted.")
@wait_option
def update(
    config: str | None, relay: str, binary: str, url: str, sha256: str, *, force: bool, wait: bool, as_json: bool
) -> None:
    """Upgrade a relay over SSH. The previous one comes back if it does not start."""
    body = source_body(binary, url, sha256) | ({"force": True} if force else {})  # a daemon from before refuses the key
    begin(config, _path(relay, "update-agent"), body, wait=wait, as_json=as_json)
    found = client(config).get(_path(relay))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{clean(found['name'])}: {found['version_display'] or found['agent_version']}")


@relays.command("renew")
@config_option
@json_option
@click.argument("relay")
@wait_option
def renew(config: str | None, relay: str, *, wait: bool, as_json: bool) -> None:
    """Give a relay a new certificate over SSH, and restart it. At two thirds of its life it happens by itself."""
    begin(config, _path(relay, "renew"), {}, wait=wait, as_json=as_json)
    found = client(config).get(_path(relay))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{clean(found['name'])}: has a new certificate")


@relays.command("remove")
@config_option
@json_option
@click.argument("relay")
@yes_option
@click.option("--forget", is_flag=True, help="Only from the inventory: the host is gone, or is to be left as it is.")
@wait_option
def remove(config: str | None, relay: str, *, yes: bool, forget: bool, wait: bool, as_json: bool) -> None:
    """Stop a relay, and remove it from its host and from the inventory."""
    asking = client(config)
    found = asking.get(_path(relay))
    if not yes:
        confirm(f"Remove {found['name']}?", scripts_may=True)
    if found["server_id"] and not forget:
        begin(config, _path(relay, "remove"), {}, wait=wait, as_json=as_json)
    else:
        asking.call("DELETE", f"/api/relays/{found['id']}?version={found['version']}")
    if as_json:
        print_json({"removed": found["id"]})
    else:
        click.echo(f"{clean(found['name'])}: removed")


def _tunnel(r: dict[str, Any]) -> str:
    """How it stands, and why it does not."""
    return f"{r['tunnel']}: {r['tunnel_error']}" if r["tunnel_error"] else str(r["tunnel"])


def _egress(r: dict[str, Any]) -> str:
    return f"{r['egress_endpoint']} (hop {r['egress_hop']})" if r["egress_endpoint"] else ""


def _path(relay: str, action: str = "") -> str:
    return f"/api/relays/{quote(relay, safe='')}" + (f"/{action}" if action else "")
