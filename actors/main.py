"""The entry point of ``cox``: the library's commands, and ``serve``, which needs the actors.

Under the name ``cox-node``, or ``node``, as which it is installed on hosts (node-contract.md 3.1), the same program is the
node agent, so that one file serves both ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from coxswain.cli.main import cli

__all__ = ["main"]

cli.lazy = {"init": cli.lazy["init"], "serve": ("actors.serve_command:serve_command", "Run the daemon."), **cli.lazy}

_AGENT = ("cox-node", "node")


def main() -> None:
    """Runs ``cox``, or the node agent when called by its name."""
    if Path(sys.argv[0]).name.removesuffix(".pyz").removesuffix(".new") in _AGENT:
        from coxswain.agent.main import main as agent  # noqa: PLC0415 - the other program

        agent()
        return
    cli(prog_name="cox")


if __name__ == "__main__":
    main()
