"""``cox-node``: the node agent's command line, with the output and exit codes of node-contract.md 3.1 and 3.2.

Installed as ``node`` by the enrolment, and its messages say so. Heavy imports wait until they are needed: ``version`` is
run by every enrolment and has to be quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import coxswain
from coxswain.errors import CoxswainError

if TYPE_CHECKING:
    from coxswain.agent.config import AgentConfig
    from coxswain.agent.dataplane import DataPlane
    from coxswain.agent.identity import AwgIdentity

__all__ = ["cli", "main"]

_config_dir = click.option(
    "--config-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc/node"),
    show_default=True,
    help="Where keys, certificates and state are.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(coxswain.__version__, prog_name="node", message="%(prog)s version %(version)s")
def cli() -> None:
    """VPN node agent: configures this host's tunnels as its controller says."""


@cli.command("gen-csr")
@_config_dir
def gen_csr(config_dir: Path) -> None:
    """Make the node's key, or use the one that is there, and print a certificate request."""
    from coxswain.agent.identity import load_or_create_node_key, new_csr  # noqa: PLC0415 - see the module
    from coxswain.agent.state import DirectoryFiles  # noqa: PLC0415

    key, made = load_or_create_node_key(DirectoryFiles(config_dir))
    click.echo(f"{'made a new key' if made else 'using the existing key'}: {config_dir / 'node.key'}", err=True)
    click.echo(new_csr(key).decode("ascii"), nl=False)


@cli.command()
@_config_dir
@click.option(
    "--data-plane",
    type=click.Choice(["auto", "wireguard", "simulated"]),
    default="auto",
    show_default=True,
    help="auto is wireguard; simulated makes up clients and touches nothing.",
)
def run(config_dir: Path, data_plane: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    import asyncio  # noqa: PLC0415

    from coxswain.agent.config import load_config  # noqa: PLC0415

    config = load_config(config_dir, os.environ)
    _log_to_stderr(config.log_level)
    asyncio.run(_run(config_dir, config, data_plane))


@cli.command("help")
@click.argument("command", required=False)
@click.pass_context
def show_help(context: click.Context, command: str | None) -> None:
    """Show help, of a command or of all."""
    root = context.find_root()
    found = cli.get_command(root, command) if command else cli
    if found is None:
        raise click.UsageError(f"no such command: {command}")
    with click.Context(found, info_name=command or root.info_name, parent=root if command else None) as about:
        click.echo(found.get_help(about))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete this program's commands."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(cli, {}, "node", "_NODE_COMPLETE").source())


@cli.command("runs-as")
def runs_as() -> None:
    """Print the system user that "run" is made for. Agents that do not know this command want root."""
    from coxswain.inventory import NODE_ACCOUNT  # noqa: PLC0415

    click.echo(NODE_ACCOUNT)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(coxswain.__version__)


async def _run(directory: Path, config: AgentConfig, data_plane: str) -> None:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from coxswain.agent.node import Agent  # noqa: PLC0415

    def open_plane(identity: AwgIdentity) -> DataPlane:
        if data_plane == "simulated":
            from coxswain.agent.simulated import Behaviour, SimulatedPlane  # noqa: PLC0415
            from coxswain.agent.state import DirectoryFiles  # noqa: PLC0415
            from coxswain.clock import SystemClock  # noqa: PLC0415

            seed = int.from_bytes(identity.private_key[:8], "big")
            return SimulatedPlane(SystemClock(), seed=seed, behaviour=Behaviour(), files=DirectoryFiles(directory))
        from coxswain.agent.wireguard.plane import open_plane as open_wireguard  # noqa: PLC0415

        return open_wireguard(identity, config.wireguard)

    agent = Agent(directory, config, open_plane, poll_s=config.poll_interval_s)
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    await agent.start()
    await over.wait()
    await agent.stop()


def _log_to_stderr(level: str) -> None:
    import logging  # noqa: PLC0415

    logging.basicConfig(
        stream=sys.stderr,
        level={"warn": "WARNING"}.get(level, level.upper()),
        format="time=%(asctime)s level=%(levelname)s logger=%(name)s msg=%(message)s",
    )


def main() -> None:
    """Entry point: 0 on success, 1 with one line on standard error on any failure."""
    # Refused handshakes would print three lines each (node-contract.md 11.5). gRPC reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except click.ClickException as error:
        _die(error.format_message())
    except click.Abort:
        _die("interrupted")
    except CoxswainError as error:
        _die(f"{error}. {error.remedy}" if error.remedy else str(error))
    except OSError as error:
        _die(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _die(sentence: str) -> None:
    click.echo(f"node: {' '.join(sentence.split())}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
