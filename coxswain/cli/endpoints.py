"""``cox nodes endpoints``: the addresses at which clients reach a node."""

from __future__ import annotations

import click

from coxswain.cli.output import client, config_option, facts, json_option, node_path, print_json

__all__ = ["endpoints"]


@click.command("endpoints")
@config_option
@json_option
@click.argument("node")
@click.argument("addresses", metavar="[IP,IP]", required=False)
def endpoints(config: str | None, node: str, addresses: str | None, *, as_json: bool) -> None:
    """Show a node's endpoint pool, or set it; "" leaves its public address. The addresses must lead to the node already."""
    api = client(config)
    found = api.get(node_path(node))
    if addresses is not None:
        pool = [address.strip() for address in addresses.split(",") if address.strip()]
        found = api.call("PATCH", node_path(node), {"version": found["version"], "endpoint_ips": pool})
    if as_json:
        print_json({key: found[key] for key in ("id", "name", "public_ip", "endpoint_ips", "version")})
        return
    facts([("public address", found["public_ip"]), ("pool", " ".join(found["endpoint_ips"]))])
