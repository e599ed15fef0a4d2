"""``cox nodes endpoints``: the addresses and ports at which clients reach a node."""

from __future__ import annotations

from typing import Any

import click

from coxswain.cli.output import client, config_option, facts, json_option, node_path, print_json

__all__ = ["endpoints", "ports_of"]


@click.command("endpoints")
@config_option
@json_option
@click.argument("node")
@click.argument("addresses", metavar="[IP,IP]", required=False)
@click.option("--ports", metavar="[A-B]", help='UDP ports that AmneziaWG clients may dial besides 443; "": none.')
def endpoints(config: str | None, node: str, addresses: str | None, ports: str | None, *, as_json: bool) -> None:
    """Show a node's endpoint pool, or set it; "" leaves its public address. The addresses must lead to the node already.

    Clients choose any of --ports, once its agent says that it maps them; existing agents do not.
    """
    api = client(config)
    found = api.get(node_path(node))
    change: dict[str, Any] = {}
    if addresses is not None:
        change["endpoint_ips"] = [address.strip() for address in addresses.split(",") if address.strip()]
    if ports is not None:
        change["endpoint_ports"] = ports
    if change:
        found = api.call("PATCH", node_path(node), {"version": found["version"]} | change)
    if as_json:
        keys = ("id", "name", "public_ip", "endpoint_ips", "endpoint_ports", "mapped_ports", "version")
        print_json({key: found[key] for key in keys})
        return
    pool = " ".join(found["endpoint_ips"])
    facts([("public address", found["public_ip"]), ("pool", pool), ("ports", ports_of(found))])


def ports_of(node: dict[str, Any]) -> str:
    """At which UDP ports clients are told to dial it."""
    wanted, mapped = node["endpoint_ports"], node["mapped_ports"]
    if wanted == mapped:
        return wanted or "443"
    return f"443; its agent does not map {wanted} yet" if wanted else "443"
