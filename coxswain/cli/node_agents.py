"""``cox nodes update``, ``rollback``, ``renew``, ``guard``, ``start``, ``stop``: what is done to a node's agent over SSH."""

from __future__ import annotations

from typing import Any

import click

from coxswain.cli.operations import begin, source_body, source_options, wait_option
from coxswain.cli.output import clean, client, config_option, json_option, node_path, paint, print_json

__all__ = ["OF_AGENTS"]


@click.command("update")
@config_option
@json_option
@click.argument("node")
@source_options
@click.option("--force", is_flag=True, help="Also if it is not newer, or the very same one, which is restarted.")
@wait_option
def update(
    config: str | None, node: str, binary: str, url: str, sha256: str, *, force: bool, wait: bool, as_json: bool
) -> None:
    """Upgrade the agent over SSH. The previous one comes back if its link does not come up."""
    _operate(config, node, "update-agent", source_body(binary, url, sha256) | {"force": force}, wait=wait, as_json=as_json)


@click.command("rollback")
@config_option
@json_option
@click.argument("node")
@wait_option
def rollback(config: str | None, node: str, *, wait: bool, as_json: bool) -> None:
    """Put the agent back that the last upgrade replaced."""
    _operate(config, node, "rollback", {}, wait=wait, as_json=as_json)


@click.command("renew")
@config_option
@json_option
@click.argument("node")
@wait_option
def renew(config: str | None, node: str, *, wait: bool, as_json: bool) -> None:
    """Issue and push a new certificate over SSH. The daemon does it by itself at two thirds of its life."""
    _operate(config, node, "renew", {}, wait=wait, as_json=as_json)


@click.command("guard")
@config_option
@json_option
@click.argument("node")
@wait_option
def guard(config: str | None, node: str, *, wait: bool, as_json: bool) -> None:
    """Limit who reaches a node's control port to what node.control_from says. Taken back if this controller does not."""
    _operate(config, node, "guard", {}, wait=wait, as_json=as_json)


@click.command("start")
@config_option
@json_option
@click.argument("node")
@wait_option
def start(config: str | None, node: str, *, wait: bool, as_json: bool) -> None:
    """Start the agent's service over SSH, and hold a link to it."""
    _operate(config, node, "start", {}, wait=wait, as_json=as_json)


@click.command("stop")
@config_option
@json_option
@click.argument("node")
@wait_option
def stop(config: str | None, node: str, *, wait: bool, as_json: bool) -> None:
    """Close the link to a node, and stop the agent's service over SSH."""
    _operate(config, node, "stop", {}, wait=wait, as_json=as_json)


_PROVE = ("update-agent", "rollback", "renew")
"""They end with a link to the agent that they started."""

_UP = ("live", "degraded", "syncing")


def _warn_without_link(n: dict[str, Any]) -> None:
    """Says before it is begun what will be waited for: an address that is wrong is not mended by another agent."""
    if n["link_state"] in _UP:
        return
    name, why = clean(n["name"]), f": {clean(n['link_reason'])}" if n["link_reason"] else ""
    click.echo(f"! {name} is not reached at {n['control_addr']} now{why}", err=True)
    click.echo("  A link to the agent is what this waits for in the end. If that address is wrong, mend it first:", err=True)
    at = f" (its machine is at {clean(n['ssh_host'])})" if n["ssh_host"] else ""
    click.echo(f"  cox nodes edit {name} --addr HOST[:PORT]{at}", err=True)


def _operate(config: str | None, node: str, action: str, body: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if action in _PROVE:
        _warn_without_link(client(config).get(node_path(node)))
    begin(config, node_path(node, action), body, wait=wait, as_json=as_json)
    found = client(config).get(node_path(node))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['name']}: {paint(found['status'])}, agent {found['agent_version'] or '-'}")


OF_AGENTS = (update, rollback, renew, guard, start, stop)
"""For ``cox nodes``."""
