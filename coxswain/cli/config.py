"""``cox config``, ``cox version``, ``cox completion``."""

from __future__ import annotations

import click

from coxswain import __version__
from coxswain.cli.client import config_path
from coxswain.cli.output import clean, config_option, facts, json_option, print_json

__all__ = ["completion", "config", "version"]


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command("check")
@config_option
@json_option
def check(config: str | None, *, as_json: bool) -> None:
    """Say everything that is wrong with the configuration, or that nothing is."""
    from coxswain.config import ConfigProblems, load  # noqa: PLC0415
    from coxswain.errors import CoxswainError, door_of  # noqa: PLC0415

    path = config_path(config)
    problems: list[str] = []
    code = 0
    try:
        load(path)
    except ConfigProblems as found:
        problems, code = found.problems, door_of(found).exit_code
    except CoxswainError as error:
        if not as_json:
            raise
        problems, code = [str(error)], door_of(error).exit_code
    if as_json:
        print_json({"path": str(path), "ok": not problems, "problems": problems})
    elif problems:
        click.echo(f"cox: {path} has {len(problems)} problem{'s'[: len(problems) > 1]}:", err=True)
        for problem in problems:
            click.echo(f"  {clean(problem)}", err=True)
    else:
        click.echo(f"{path}: fine")
    raise SystemExit(code)


@config.command("show")
@config_option
@json_option
def show(config: str | None, *, as_json: bool) -> None:
    """Every key with its effective value; secrets are masked."""
    from coxswain.config import load  # noqa: PLC0415

    shown = load(config_path(config)).shown()
    if as_json:
        print_json(shown)
    else:
        facts(shown.items())


@click.command()
@json_option
def version(*, as_json: bool) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        click.echo(__version__)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script, e.g. for bash: source <(cox completion bash)."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from coxswain.cli.main import cli  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(found(cli, {}, "cox", "_COX_COMPLETE").source())
