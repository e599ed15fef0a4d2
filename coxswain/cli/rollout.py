"""``cox rollout``: an upgrade of many agents."""

from __future__ import annotations

from typing import Any

import click

from coxswain.cli.operations import begin, source_body, source_options, wait_option
from coxswain.cli.output import config_option, json_option, print_json

__all__ = ["rollout"]


@click.command()
@config_option
@json_option
@click.argument("nodes", nargs=-1)
@click.option("--canary", default=1, show_default=True, type=click.IntRange(0, 1_000), help="How many go first, alone.")
@click.option("--batch", default=5, show_default=True, type=click.IntRange(1, 1_000), help="How many at a time after that.")
@click.option("--force", is_flag=True, help="Also where it is not newer.")
@source_options
@wait_option
def rollout(  # noqa: PLR0917
    config: str | None, nodes: tuple[str, ...], canary: int, batch: int, binary: str, url: str, sha256: str, *, force: bool,
    wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Upgrade the agents of NODES (default: of all that the daemon can log in to). Stops at the first batch in which one
    fails; cancelling it (cox operations cancel) rolls back what it had upgraded.
    """
    body: dict[str, Any] = {"canary": canary, "batch": batch, "force": force} | source_body(binary, url, sha256)
    if nodes:
        body["nodes"] = list(nodes)
    over = begin(config, "/api/rollouts", body, wait=wait, as_json=as_json)
    if as_json:
        print_json(over)
    else:
        click.echo(f"{len(over['params']['nodes'])} upgraded")
