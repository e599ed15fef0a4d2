"""The entry point of ``cox``: the library's commands, and ``serve``, which needs the actors.

Under the name ``cox-node``, or ``node``, as which it is installed on hosts (node-contract.md 3.1), the same program is the
node agent; under ``cox-relay`` or ``relay`` (relay-contract.md 7.2) it is the relay. So one file serves all ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from coxswain.cli.main import cli

__all__ = ["main"]

cli.lazy = {"init": cli.lazy["init"], "serve": ("actors.serve_command:serve_command", "Run the daemon."), **cli.lazy}

_AGENT = ("cox-node", "node")
_RELAY = ("cox-relay", "relay")


def main() -> None:
    """Runs ``cox``, or the node agent or the relay when called by its name."""
    name = Path(sys.argv[0]).name.removesuffix(".pyz").removesuffix(".new")
    if name in _RELAY:
        from coxswain.relay.main import main as relay  # noqa: PLC0415 - another program

        relay()
        return
    if name in _AGENT:
        from coxswain.agent.main import main as agent  # noqa: PLC0415 - the other program

        agent()
        return
    cli(prog_name="cox")


if __name__ == "__main__":
    main()
