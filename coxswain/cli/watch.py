"""``cox watch``: the fleet, live."""

from __future__ import annotations

import json
import signal
import sys
import time

import click

from coxswain.cli.client import Client
from coxswain.cli.output import client, config_option
from coxswain.errors import CoxswainError, InvalidInput

__all__ = ["Watcher", "watch"]

_EVERY_S = 0.5
_PAGE = 1_000
_PAGES = 11
"""The hub keeps 10,000 events; whoever reads all of them is up to date."""

_SHARE = 4.0
"""Pauses are at least this many times as long as looking took, so that watching thousands of nodes stays cheap."""


class Watcher:
    """Follows a daemon: status, nodes, and the events since the last look."""

    def __init__(self, asking: Client) -> None:
        self._asking = asking
        self._after = 0
        self._events = 0
        self._at = 0.0

    def look(self) -> tuple[dict[str, object], list[dict[str, object]], list[dict[str, object]], float]:
        """Returns status, nodes, new events, and node events per second since the last look."""
        status = self._asking.get("/api/status")
        nodes = self._asking.get("/api/nodes")
        events = self.events()
        now, seen = time.monotonic(), status["sessions"]["events"]
        rate = (seen - self._events) / (now - self._at) if self._at else 0.0
        self._events, self._at = seen, now
        return status, nodes, events, max(0.0, rate)

    def events(self) -> list[dict[str, object]]:
        """The events since the last call, oldest first."""
        found: list[dict[str, object]] = []
        for _ in range(_PAGES):
            page = self._asking.get(f"/api/events/recent?after={self._after}&limit={_PAGE}")
            self._after = page["last_seq"]
            if page["dropped"] != 0 and self._after:
                found.append({"type": "dropped", "count": page["dropped"]})
            found += page["events"]
            if len(page["events"]) < _PAGE:
                break
        return found


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop after this long.")
def watch(config: str | None, *, as_json: bool, seconds: float | None) -> None:
    """The fleet, live: links, revisions, sessions, and what happens. Ctrl-C ends it."""
    watcher = Watcher(client(config))
    end = None if seconds is None else time.monotonic() + seconds
    try:
        if as_json:
            _stream(watcher, end)
        else:
            _view(watcher, end)
    except KeyboardInterrupt:
        return


def _stream(watcher: Watcher, end: float | None) -> None:
    while end is None or time.monotonic() < end:
        for event in watcher.events():
            click.echo(json.dumps(event, ensure_ascii=False))
        sys.stdout.flush()
        time.sleep(_EVERY_S if end is None else min(_EVERY_S, max(0.0, end - time.monotonic())))


def _view(watcher: Watcher, end: float | None) -> None:
    from rich.live import Live  # noqa: PLC0415 - only this view draws

    from coxswain.cli.live import Picture, render  # noqa: PLC0415

    if not sys.stdout.isatty():
        raise InvalidInput("watch: this is no terminal", remedy="Use: cox watch --json")
    # The default would end the process before it has given the screen back.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    status, nodes, events, _ = watcher.look()
    picture = Picture(status, nodes, title="coxswain · Ctrl-C ends")
    picture.take_events(events)
    pause = _EVERY_S
    with Live(render(picture), refresh_per_second=4, screen=True) as live:
        while end is None or time.monotonic() < end:
            time.sleep(pause if end is None else min(pause, max(0.0, end - time.monotonic())))
            started = time.monotonic()
            height = live.console.size.height
            picture.rows, picture.feed_rows = max(3, (height - 9) // 2), max(3, (height - 9) // 2)
            try:
                picture.status, picture.nodes, events, picture.events_per_s = watcher.look()
                picture.title = "coxswain · Ctrl-C ends"
                picture.take_events(events)
            except CoxswainError as error:
                picture.title = f"coxswain · {error}"
            live.update(render(picture))
            pause = max(_EVERY_S, _SHARE * (time.monotonic() - started))
