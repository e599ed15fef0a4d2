"""``cox watch``: the fleet, live."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from typing import Any

import click

from coxswain.cli.client import Client
from coxswain.cli.names import Names
from coxswain.cli.output import as_json_text, clean, client, config_option
from coxswain.cli.stream import Follower, follow
from coxswain.errors import CoxswainError, InvalidInput

__all__ = ["Watcher", "watch"]

_EVERY_S = 0.5
_SHARE = 4.0
"""Pauses are at least this many times as long as looking took, so that watching thousands of nodes stays cheap."""


class Watcher:
    """Looks at a daemon: status and nodes."""

    def __init__(self, asking: Client) -> None:
        self._asking = asking
        self._events = 0
        self._at = 0.0

    def look(self) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
        """Returns status, nodes, and node events per second since the last look."""
        status = self._asking.get("/api/status")
        nodes = self._asking.get("/api/nodes")
        now, seen = time.monotonic(), status["sessions"]["events"]
        rate = (seen - self._events) / (now - self._at) if self._at else 0.0
        self._events, self._at = seen, now
        return status, nodes, max(0.0, rate)


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line.")
@click.option("--class", "classes", metavar="NAMES", default="", help="With --json: only these, such as session,alert.")
@click.option("--after", type=click.IntRange(min=0), help="With --json: after this event (its seq); default: all there is.")
@click.option("--new", is_flag=True, help="With --json: only what happens from now on.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop after this long.")
def watch(config: str | None, *, as_json: bool, classes: str, after: int | None, new: bool, seconds: float | None) -> None:
    """The fleet, live: links, revisions, sessions, and what happens. Ctrl-C ends it."""
    if (classes or new or after is not None) and not as_json:
        raise InvalidInput("watch: --class, --after and --new are for --json")
    asking = client(config)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        if as_json:
            _stream(asking, end, classes, None if new else after or 0)
        else:
            _view(asking, end)
    except KeyboardInterrupt:
        return


def _stream(asking: Client, end: float | None, classes: str, after: int | None) -> None:
    if end is not None:
        # Reading waits for what comes, so somebody else has to look at the clock.
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, end - time.monotonic()))
    for event in follow(asking, classes=classes, after=after, lost=_complain):
        click.echo(as_json_text(event))
        sys.stdout.flush()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _complain(why: str) -> None:
    click.echo(f"cox: {clean(why)}; trying again", err=True)


def _view(asking: Client, end: float | None) -> None:
    from coxswain.cli.live import Picture, on_screen, render  # noqa: PLC0415 - only this view draws

    if not sys.stdout.isatty():
        raise InvalidInput("watch: this is no terminal", remedy="Use: cox watch --json")
    # The default would end the process before it has given the screen back.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    watcher = Watcher(asking)
    status, nodes, _ = watcher.look()
    picture = Picture(status, nodes, title="coxswain · Ctrl-C ends", names=Names(asking))
    follower = Follower(asking)
    pause = _EVERY_S
    with closing(follower), on_screen(picture) as live:
        while end is None or time.monotonic() < end:
            time.sleep(pause if end is None else min(pause, max(0.0, end - time.monotonic())))
            started = time.monotonic()
            height = live.console.size.height
            picture.rows, picture.feed_rows = max(3, (height - 9) // 2), max(3, (height - 9) // 2)
            try:
                picture.status, picture.nodes, picture.events_per_s = watcher.look()
                picture.title = "coxswain · Ctrl-C ends"
            except CoxswainError as error:
                picture.title = f"coxswain · {error}"
            picture.take_events(follower.take())
            live.update(render(picture))
            pause = max(_EVERY_S, _SHARE * (time.monotonic() - started))
