"""``cox doctor``: looks at everything, and says what to do."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from coxswain.cli.client import Client, config_path
from coxswain.cli.output import Painted, clean, client, colour, config_option, json_option, print_json

if TYPE_CHECKING:
    from coxswain.doctor import Finding

__all__ = ["doctor"]

_MARKS = {"ok": ("ok", "green"), "warn": ("!", "yellow"), "fail": ("FAIL", "red")}


@click.command()
@config_option
@json_option
@click.option("--quick", is_flag=True, help="Leave out what takes time with the size of the database.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
def doctor(config: str | None, *, as_json: bool, quick: bool, strict: bool) -> None:
    """Check an installation, running or stopped, and say what to do. Exits with 1 if something is wrong.

    With --url, only what the daemon tells through the API.
    """
    remote = click.get_current_context().find_root().obj
    elsewhere = bool((remote is not None and remote.url) or (config is None and os.environ.get("COX_URL")))
    findings = list(_elsewhere(client(config)) if elsewhere else _here(config, quick=quick))
    levels = [finding.level.value for finding in findings]
    bad = "fail" in levels or (strict and "warn" in levels)
    if as_json:
        print_json({"ok": not bad, "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        _print(findings)
    raise SystemExit(1 if bad else 0)


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, shade = _MARKS[finding.level.value]
        lead = f"{colour(mark.ljust(4), shade)}  {finding.check.ljust(width)}  "
        click.echo(Painted(lead) + clean(finding.text))
        if finding.remedy:
            click.echo(f"{' ' * (width + 8)}{clean(finding.remedy)}")
    levels = [finding.level.value for finding in findings]
    counts = [f"{levels.count('fail')} wrong", f"{levels.count('warn')} to look at", f"{levels.count('ok')} fine"]
    click.echo(f"\n{', '.join(counts)}")


def _here(config: str | None, *, quick: bool) -> Iterator[Finding]:
    from coxswain.config import ConfigProblems, load  # noqa: PLC0415 - the rest is only needed here
    from coxswain.doctor import extras, files  # noqa: PLC0415
    from coxswain.doctor.daemon import check_daemon  # noqa: PLC0415
    from coxswain.doctor.finding import fail  # noqa: PLC0415
    from coxswain.doctor.state import check_state  # noqa: PLC0415
    from coxswain.errors import CoxswainError  # noqa: PLC0415

    path = config_path(config)
    try:
        loaded = load(path)
    except ConfigProblems as error:
        for problem in error.problems:
            yield fail("configuration", f"{path}: {problem}", "See docs/configuration.md.")
        return
    except CoxswainError as error:
        yield fail("configuration", str(error), error.remedy)
        return
    yield from files.check_config(loaded)
    yield from files.check_permissions(loaded)
    yield from files.check_key(loaded, os.environ)
    yield from files.check_disk(loaded)
    yield from files.check_clock()
    yield from extras.check_siem(loaded, now=time.time())
    yield from extras.check_geoip(loaded, now=time.time())
    if loaded.state_dir.is_dir():
        yield from check_state(loaded, os.environ, now=time.time(), quick=quick)
    asking = Client(loaded.socket, timeout=20.0)
    yield from check_daemon(asking.get, may_be_stopped=True)
    try:
        status, tree = asking.get("/api/status"), asking.get("/api/tree?links=false")
    except CoxswainError:
        return  # it was told of
    yield from files.check_process(status["pid"], status["fleet"]["nodes"])
    if any(child["id"] == "web_server" for child in tree["children"]):
        yield from files.check_dashboard(status["pid"], loaded["ui.listen"])


def _elsewhere(asking: Client) -> Iterator[Finding]:
    from coxswain.doctor.daemon import check_daemon  # noqa: PLC0415
    from coxswain.errors import CoxswainError  # noqa: PLC0415

    try:
        scope = str(asking.get("/api/auth/me")["scope"])
    except CoxswainError:
        scope = "admin"  # why it does not say that, the first check tells
    yield from check_daemon(asking.get, may_be_stopped=False, scope=scope)
