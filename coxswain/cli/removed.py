"""``cox removed``: what users, devices and nodes were called that are gone."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from coxswain.cli.accounts import every, place
from coxswain.cli.output import client, config_option, confirm, json_option, print_json, table, yes_option
from coxswain.words import counted

__all__ = ["removed"]


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.option("--kind", type=click.Choice(["user", "device", "node"]), help="Only of this kind.")
@click.option("--find", "q", metavar="TEXT", help="Only with this in the name, or removed by somebody with this in theirs.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.pass_context
def removed(ctx: click.Context, /, config: str | None, limit: int, *, as_json: bool, **query: str | None) -> None:
    """Users, devices and nodes that were removed, the last ones first, while history has their ids."""
    if ctx.invoked_subcommand is not None:
        return
    found: list[dict[str, Any]] = list(islice(every(client(config), "/api/removed", **query), limit))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are none.")
        return
    rows = [
        [r["id"], r["kind"], r["name"], r["user_name"] or r["user_id"], r["removed_at"][:19], r["removed_by"]] for r in found
    ]
    table(["ID", "KIND", "NAME", "OF", "REMOVED (UTC)", "BY"], rows)


@removed.command("forget")
@config_option
@json_option
@click.argument("key", metavar="ID")
@yes_option
def forget(config: str | None, key: str, *, as_json: bool, yes: bool) -> None:
    """Forget the name of what was removed, and of a user those of its devices. The audit log keeps what it has."""
    asking = client(config)
    if not yes:
        confirm(f"Forget the name that {key} had?")
    found = asking.call("DELETE", place("removed", key))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{key}: {counted(found['forgotten'], 'name')} forgotten")
