"""``cox-relay``: the relay's command line, with the commands, flags, output and exit codes of relay-contract.md 7.1.

Installed as ``relay`` on hosts, where it takes the place of an existing relay program or gives it back without any change of
units or files. Heavy imports wait until they are needed: ``version`` is run by every enrolment and has to be quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import coxswain
from coxswain.errors import CoxswainError

if TYPE_CHECKING:
    import logging

__all__ = ["cli", "main"]

_config_dir = click.option(
    "--config-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc/relay"),
    show_default=True,
    help="Where keys and certificates are.",
)
_allow = click.option(
    "--allow",
    multiple=True,
    metavar="TARGET",
    help="Connect to this and nothing else, whatever the controller says: host, address, network or *, each with :port or "
    "without. May be repeated.",
)
_allow_any = click.option(
    "--allow-any", is_flag=True, help="Connect anywhere but to loopback, link-local and metadata addresses."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(coxswain.__version__, prog_name="relay", message="%(prog)s version %(version)s")
def cli() -> None:
    """VPN relay: carries devices to their controller, and a controller to its nodes, unseen."""


@cli.command("gen-csr")
@_config_dir
def gen_csr(config_dir: Path) -> None:
    """Make the relay's key, or use the one that is there, and print a certificate request."""
    from coxswain.relay.keys import load_or_create_relay_key, new_csr  # noqa: PLC0415 - see the module

    path = config_dir / "relay.key"
    key, made = load_or_create_relay_key(path)
    click.echo(f"relay: {'generated' if made else 'reusing existing'} relay key at {path}", err=True)
    click.echo(new_csr(key).decode("ascii"), nl=False)


@cli.command()
@click.option("--client-addr", default=":8443", show_default=True, help="Where devices connect.")
@click.option("--tunnel-addr", default=":8444", show_default=True, help="Where the controller's tunnel connects.")
@_config_dir
def run(client_addr: str, tunnel_addr: str, config_dir: Path) -> None:
    """Carry devices to the controller, until SIGTERM or SIGINT."""
    import asyncio  # noqa: PLC0415

    from coxswain.relay.programs import run_ingress  # noqa: PLC0415

    asyncio.run(run_ingress(config_dir, client_addr, tunnel_addr, _log_to_stderr()))


@cli.command()
@click.option("--tunnel-addr", default=":8456", show_default=True, help="Where the controller, or the hop before, connects.")
@_allow
@_allow_any
@_config_dir
def egress(tunnel_addr: str, allow: tuple[str, ...], *, allow_any: bool, config_dir: Path) -> None:
    """Be a hop of the controller's way to its nodes, until SIGTERM or SIGINT.

    It connects to what the controller's policy says (targets.policy beside its certificate), or what --allow says; with
    neither, wherever it is asked to.
    """
    import asyncio  # noqa: PLC0415

    from coxswain.relay.programs import run_egress  # noqa: PLC0415

    asyncio.run(run_egress(config_dir, tunnel_addr, allow, _log_to_stderr(), anywhere=allow_any))


@cli.command("onion-key")
@_config_dir
def onion_key(config_dir: Path) -> None:
    """Make the onion key, or use the one that is there, and print its public half."""
    from coxswain.relay.keys import load_or_create_onion_key  # noqa: PLC0415
    from coxswain.relay.onion_layers import encode_key  # noqa: PLC0415

    path = config_dir / "onion.key"
    key, made = load_or_create_onion_key(path)
    click.echo(f"relay: {'generated' if made else 'reusing existing'} onion key at {path}", err=True)
    click.echo(encode_key(key.public_key().public_bytes_raw()))


@cli.command()
@click.option("--listen", default=":8457", show_default=True, help="Where the hop before connects.")
@_allow
@_allow_any
@_config_dir
def onion(listen: str, allow: tuple[str, ...], *, allow_any: bool, config_dir: Path) -> None:
    """Be an onion hop, until SIGTERM or SIGINT.

    It connects to what the controller's policy says (targets.policy beside its certificate), or what --allow says; with
    neither, wherever it is asked to.
    """
    import asyncio  # noqa: PLC0415

    from coxswain.relay.programs import run_onion  # noqa: PLC0415

    asyncio.run(run_onion(config_dir, listen, allow, _log_to_stderr(), anywhere=allow_any))


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(coxswain.__version__)


def _log_to_stderr() -> logging.Logger:
    import logging  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr, level="INFO", format="%(asctime)s %(message)s", datefmt="%Y/%m/%d %H:%M:%S")
    return logging.getLogger("relay")


def main() -> None:
    """Entry point: 0 on success, 1 with one line on standard error on any failure."""
    try:
        code = cli.main(prog_name="relay", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except click.ClickException as error:
        _die(error.format_message())
    except CoxswainError as error:
        _die(str(error))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _die(f"{error.strerror or error}{where}")
    except (click.Abort, KeyboardInterrupt):
        _die("interrupted")
    sys.exit(int(code or 0))


def _die(text: str) -> None:
    click.echo(f"relay: {text}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
