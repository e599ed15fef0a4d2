"""Behind ``tools/bench``: runs scenarios, prints a table, writes JSON."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import time
import traceback
from pathlib import Path

import click
from benches.api import api
from benches.audit import audit
from benches.backup import backup
from benches.changes import change, kills
from benches.commands import commands
from benches.control_paths import control_paths
from benches.dashboard import dashboard
from benches.events import events
from benches.faults import faults
from benches.figures import Report, machine
from benches.fleet import FULL, QUICK, Bench
from benches.history import history
from benches.links import idle, many, restart, start
from benches.live import live
from benches.onboarding import onboarding
from benches.provisioning import provisioning
from rig import RigError, end_at_sigterm

SCENARIOS = {
    f.__name__: f
    for f in (
        start,
        restart,
        idle,
        change,
        faults,
        events,
        live,
        dashboard,
        commands,
        api,
        audit,
        backup,
        history,
        many,
        kills,
        provisioning,
        onboarding,
        control_paths,
    )
}
"""In the order in which they run: those that share a fleet first."""

_HELP = "Measure a controller.\n\n\b\nScenarios:\n" + "\n".join(
    f"  {name:<10}{(scenario.__doc__ or '').splitlines()[0]}" for name, scenario in SCENARIOS.items()
)


@click.command(help=_HELP)
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)), metavar="[SCENARIO]…")
@click.option("--quick", is_flag=True, help="100 nodes, few repetitions; its times say little.")
@click.option("--runs", type=click.IntRange(1), help="How often each thing is measured; the median is told.")
@click.option("--kills", "kill_count", type=click.IntRange(1), help="How many SIGKILLs in the scenario kills.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there.")
@click.option("--seed", type=int, default=7, show_default=True)
def main(
    *, scenarios: tuple[str, ...], quick: bool, runs: int | None, kill_count: int | None, json_file: Path | None, seed: int
) -> None:
    """Measure a controller."""
    scale = QUICK if quick else FULL
    scale = dataclasses.replace(scale, runs=runs or scale.runs, kills=kill_count or scale.kills)
    end_at_sigterm()
    report = Report()
    bench = Bench(scale, report, lambda text: click.echo(f"   {text}", err=True), random.Random(seed))  # noqa: S311
    short = "; a short run, whose times say little" if quick else ""
    click.echo(f"{machine()}\n{scale.nodes} nodes unless it says otherwise{short}\n")
    failed = []
    try:
        for name in [n for n in SCENARIOS if not scenarios or n in scenarios]:
            click.echo(f"== {name}", err=True)
            began = time.monotonic()
            try:
                SCENARIOS[name](bench)
            except Exception as error:  # a scenario that cannot be run must not cost the others' figures
                failed.append(f"{name}: {error}")
                if not isinstance(error, RigError):
                    traceback.print_exc()
                bench.drop_fleet()
            click.echo(f"   {time.monotonic() - began:.0f} s", err=True)
    finally:
        bench.drop_fleet()
    click.echo(report.table())
    if json_file is not None:
        json_file.write_text(json.dumps(report.results(), indent=1) + "\n", encoding="utf-8")
    failed += [f"missed: {figure}" for figure in report.went_wrong()]
    for reason in failed:
        click.echo(f"FAILED {reason}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
