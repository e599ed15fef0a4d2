"""``cox config``, ``cox version``, ``cox completion``."""

from __future__ import annotations

import json
from typing import Any

import click

from coxswain import __version__
from coxswain.cli.client import config_path
from coxswain.cli.output import clean, client, config_option, json_option, print_json, table
from coxswain.words import counted

__all__ = ["completion", "config", "version"]


@click.group()
def config() -> None:
    """Check, show and reload the configuration."""


@config.command("check")
@config_option
@json_option
def check(config: str | None, *, as_json: bool) -> None:
    """Say everything that is wrong with the configuration, or that nothing is, and what has no effect in this release."""
    from coxswain.config import ConfigProblems, load  # noqa: PLC0415
    from coxswain.errors import CoxswainError, door_of  # noqa: PLC0415

    path = config_path(config)
    problems: list[str] = []
    warnings: list[str] = []
    code = 0
    try:
        warnings = load(path).warnings()
    except ConfigProblems as found:
        problems, code = found.problems, door_of(found).exit_code
    except CoxswainError as error:
        if not as_json:
            raise
        problems, code = [str(error)], door_of(error).exit_code
    if as_json:
        print_json({"path": str(path), "ok": not problems, "problems": problems, "warnings": warnings})
    elif problems:
        click.echo(f"cox: {path} has {counted(len(problems), 'problem')}:", err=True)
        for problem in problems:
            click.echo(f"  {clean(problem)}", err=True)
    else:
        for warning in warnings:
            click.echo(f"! {clean(warning)}")
        click.echo(f"{path}: fine")
    raise SystemExit(code)


@config.command("show")
@config_option
@json_option
@click.option("--pending", is_flag=True, help="Only what the running daemon does not follow yet; asks the daemon.")
@click.option("--running", is_flag=True, help="What is in force in the running daemon; asks the daemon.")
@click.option("--changed", is_flag=True, help="Only what is another value than the default or preset.")
def show(config: str | None, *, as_json: bool, pending: bool, running: bool, changed: bool) -> None:
    """Every key with its effective value and where it comes from; secrets are masked."""
    if pending:
        _show_pending(client(config).get("/api/config"), as_json=as_json)
        return
    if running:
        values: dict[str, dict[str, Any]] = client(config).get("/api/config")["values"]
    else:
        from coxswain.config import KEYS, load  # noqa: PLC0415

        loaded = load(config_path(config))
        values = {k.name: {"value": loaded.shown_value(k.name), "from": loaded.origin(k.name).where} for k in KEYS}
    if changed:
        values = _changed(values)
    if as_json:
        print_json(values)
    else:
        table(["KEY", "VALUE", "FROM"], [[key, _shown(v["value"]), v["from"]] for key, v in values.items()])


def _changed(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without those that have the value of their preset or default: ``cox init`` writes presets into the file."""
    from coxswain.config import KEYS  # noqa: PLC0415

    posture = values["posture"]["value"]
    without = {key.name: key.preset(posture) for key in KEYS}
    return {name: v for name, v in values.items() if name not in without or v["value"] != without[name]}


def _show_pending(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({key: found[key] for key in ("path", "reloadable", "pending", "problem")})
        return
    if found["problem"]:
        click.echo(f"! the file is not sound, so nothing of it counts: {clean(found['problem'])}")
        return
    rows = [[c["key"], _shown(c["in_force"]), _shown(c["in_file"]), "cox config reload"] for c in found["reloadable"]]
    rows += [[c["key"], _shown(c["in_force"]), _shown(c["in_file"]), "the next start"] for c in found["pending"]]
    if rows:
        table(["KEY", "IN FORCE", "IN THE FILE", "COUNTS AFTER"], rows)
    else:
        click.echo(f"nothing waits: the daemon follows {found['path']}")


@config.command("reload")
@config_option
@json_option
def reload(config: str | None, *, as_json: bool) -> None:
    """Let the running daemon read its file again, as SIGHUP does."""
    done = client(config).post("/api/config/reload")
    if as_json:
        print_json(done)
        return
    for change in done["taken"]:
        click.echo(f"{change['key']}: {_shown(change['in_force'])} -> {_shown(change['in_file'])}")
    for change in done["pending"]:
        click.echo(f"! {change['key']}: {_shown(change['in_file'])} counts after the next start")
    if not done["taken"] and not done["pending"]:
        click.echo("nothing has changed")


def _shown(value: Any) -> str:
    return clean(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@click.command()
@config_option
@json_option
@click.option("--daemon", is_flag=True, help="Of the running daemon, too.")
def version(config: str | None, *, as_json: bool, daemon: bool) -> None:
    """Print the version."""
    versions = {"version": __version__}
    if daemon:
        versions["daemon"] = client(config).get("/api/version")["version"]
    if as_json:
        print_json(versions)
    elif daemon:
        click.echo(f"cox {__version__}, daemon {clean(versions['daemon'])}")
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
