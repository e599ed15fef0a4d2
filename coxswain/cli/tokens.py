"""``cox tokens``: credentials for scripts."""

from __future__ import annotations

import re
from typing import Any

import click

from coxswain.cli.accounts import every, place
from coxswain.cli.output import client, config_option, facts, json_option, print_json, table

__all__ = ["tokens"]

_DAYS = re.compile("[0-9]{1,6}d")


@click.group()
def tokens() -> None:
    """Create, list and revoke API tokens."""


@tokens.command("create")
@config_option
@json_option
@click.argument("name")
@click.option(
    "--scope", type=click.Choice(["readonly", "monitor", "admin"]), default="readonly", show_default=True,
    help="monitor adds sessions, events and metrics; admin may do everything.",
)  # fmt: skip
@click.option("--expires", default="", metavar="DURATION", help="E.g. 720h or 30d; default, or 0h: never.")
def create(config: str | None, name: str, scope: str, expires: str, *, as_json: bool) -> None:
    """Make a token. Its secret is shown this once. NAME is what the audit log calls its bearer."""
    if _DAYS.fullmatch(expires):  # the API takes durations as Go writes them, which know no days
        expires = f"{int(expires[:-1]) * 24}h"
    made = client(config).post("/api/tokens", {"name": name, "scope": scope, "expires": expires})
    if as_json:
        print_json(made)
        return
    facts(
        [
            ("id", made["id"]),
            ("scope", made["scope"]),
            ("expires", made.get("expires_at") or "never"),
            ("secret", made["secret"]),
        ]
    )
    click.echo("\nKeep the secret: it is not shown again.")


@tokens.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All tokens, newest first."""
    found: list[dict[str, Any]] = list(every(client(config), "/api/tokens"))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no tokens. Make one with: cox tokens create NAME")
        return
    rows = [
        [
            t["id"],
            t["name"],
            t["scope"],
            t["prefix"],
            t["created_at"],
            t.get("expires_at"),
            t.get("last_used_at"),
            t.get("revoked_at"),
        ]
        for t in found
    ]
    table(["ID", "NAME", "SCOPE", "PREFIX", "CREATED", "EXPIRES", "LAST-USED", "REVOKED"], rows)


@tokens.command("revoke")
@config_option
@json_option
@click.argument("token")
def revoke(config: str | None, token: str, *, as_json: bool) -> None:
    """Revoke a token, by its id. Its bearers are refused from then on."""
    client(config).call("DELETE", place("tokens", token))
    if as_json:
        print_json({"id": token, "revoked": True})
    else:
        click.echo(f"{token}: revoked")
