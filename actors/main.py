"""The entry point of ``cox``: the library's commands, and ``serve``, which needs the actors.

Under the name ``cox-node``, or ``node``, as which it is installed on hosts (node-contract.md 3.1), the same program is the
node agent; under ``cox-relay`` or ``relay`` (relay-contract.md 7.2) it is the relay. So one file serves all ends.
"""

from __future__ import annotations

import os.path
import sys
from typing import TYPE_CHECKING

from coxswain import __version__

if TYPE_CHECKING:
    from coxswain.cli.main import LazyGroup

__all__ = ["main"]

_AGENT = ("cox-node", "node")
_RELAY = ("cox-relay", "relay")


def __getattr__(name: str) -> LazyGroup:
    """``cli``: the whole command line."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _command_line()


def _command_line() -> LazyGroup:
    from coxswain.cli.main import cli  # noqa: PLC0415 - two thirds of what ``--version`` would take

    if "serve" not in cli.lazy:
        serve = ("actors.serve_command:serve_command", "Run the daemon.")
        cli.lazy = {"init": cli.lazy["init"], "serve": serve, **cli.lazy}
    return cli


def _standard_streams() -> None:
    """All three are there, so that no file or socket is taken for one of them; and what they cannot encode is escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        elif mode == "w" and stream.encoding != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Runs ``cox``, or the node agent or the relay when called by its name."""
    _standard_streams()
    name = os.path.basename(sys.argv[0]).removesuffix(".pyz").removesuffix(".new")  # noqa: PTH119 - as above
    if name in _RELAY:
        from coxswain.relay.main import main as relay  # noqa: PLC0415 - another program

        relay()
    elif name in _AGENT:
        from coxswain.agent.main import main as agent  # noqa: PLC0415 - the other program

        agent()
    elif sys.argv[1:] == ["--version"]:  # what installers and monitors ask
        _version()
    else:
        _command_line()(prog_name="cox")


def _version() -> None:
    try:
        print(__version__, flush=True)  # noqa: T201
    except OSError as error:
        from coxswain.cli.files import explained, give_up_output  # noqa: PLC0415
        from coxswain.cli.output import fail  # noqa: PLC0415

        give_up_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(1)  # as click does it
        fail(explained(error))


if __name__ == "__main__":
    main()
