"""``cox serve`` on the command line."""

from __future__ import annotations

import gc
import os
import sys

import click

from coxswain.cli.client import config_path
from coxswain.cli.output import config_option

__all__ = ["serve_command"]


@click.command("serve")
@config_option
@click.option("--allow-chaos", is_flag=True, help="Let actors be harmed through the API: for demonstrations and tests.")
def serve_command(config: str | None, *, allow_chaos: bool) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    # grpc's C core tells every refused handshake on stderr, three lines each (node-contract.md 11.5); it reads this when it
    # is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Without the event engine, which hands each read from thread to thread, an event costs half (docs/performance.md).
    # Releases of grpc that know no other way ignore this.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
    gc.disable()  # PERF: what is imported stays; looking for garbage in it meanwhile was a tenth of the start
    try:
        from actors.serve import serve  # noqa: PLC0415 - everything is imported only here
        from coxswain.config import load  # noqa: PLC0415
    finally:
        gc.enable()

    sys.exit(serve(load(config_path(config)), allow_chaos=allow_chaos))
