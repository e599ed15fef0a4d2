"""Every command either goes through the API, whose routes record what they do, or is in the table here: a new one that acts
without the daemon fails until it is, and until it leaves the record that the table names."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from actors.main import cli
from coxswain.config import load
from coxswain.store import open_store

READS_ONLY = ""

WITHOUT_DAEMON = {
    "cox init": "init",
    "cox backup create": "backup.create",
    "cox backup restore": "backup.restore",
    "cox backup verify": READS_ONLY,
    "cox config check": READS_ONLY,
    "cox audit check-proof": READS_ONLY,
    "cox doctor": READS_ONLY,
    "cox version": READS_ONLY,
    "cox completion": READS_ONLY,
    "cox serve": READS_ONLY,  # what it does is recorded by the daemon that it then is
}


def leaves(group: click.Group, path: str = "cox") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            found |= leaves(command, f"{path} {name}")
        if command is not None and (not isinstance(command, click.Group) or command.invoke_without_command):
            found[f"{path} {name}"] = command
    return found


def asks_the_daemon(function: Any) -> bool:
    """Whether a function, or one of the command line's own that it names, gets a client for the daemon."""
    seen: set[types.CodeType] = set()
    queue = [inspect.unwrap(function)]
    while queue:
        current = queue.pop()
        codes = [current.__code__]
        while codes:
            code = codes.pop()
            if code in seen:
                continue
            seen.add(code)
            codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
            for name in code.co_names:
                found = current.__globals__.get(name)
                if getattr(found, "__name__", "") == "client" and found.__module__ == "coxswain.cli.output":
                    return True
                if isinstance(found, types.FunctionType) and found.__module__.startswith("coxswain.cli"):
                    queue.append(found)
    return False


def test_every_command_goes_through_the_api_or_is_known_not_to() -> None:
    through_api = {path for path, command in leaves(cli).items() if asks_the_daemon(command.callback)}
    assert len(through_api) > 30
    without = set(leaves(cli)) - through_api
    assert without <= set(WITHOUT_DAEMON), "commands that act without the daemon: which record do they leave?"
    assert {path for path, action in WITHOUT_DAEMON.items() if action} <= set(leaves(cli))


def run(*arguments: str) -> None:
    result = CliRunner().invoke(cli, list(arguments), prog_name="cox")
    assert result.exit_code == 0, result.output


def test_those_that_act_leave_their_record(tmp_path: Path) -> None:
    config, key, backup = tmp_path / "cox.yaml", tmp_path / "backup.key", tmp_path / "b.coxbak"
    run("init", "--personal", "--config", str(config))
    run("backup", "create", "--config", str(config), "--key-file", str(key), "--make-key", "--out", str(backup))
    recorded = set(actions(config))
    run("backup", "restore", str(backup), "--config", str(config), "--key-file", str(key), "--force")
    recorded |= set(actions(config))
    assert recorded >= {action for action in WITHOUT_DAEMON.values() if action}


def actions(config: Path) -> list[str]:
    """In the log, or on their way to it."""
    store = open_store(load(config, {}).database)
    try:
        with store.read() as tx:
            rows = tx.execute("SELECT action FROM audit_log UNION ALL SELECT action FROM audit_outbox")
    finally:
        store.close()
    return [row[0] for row in rows]
