"""What commands print: tables, facts, JSON. Colours only on a terminal."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import click

from coxswain.cli.client import Client, RemoteError, config_path, socket_path
from coxswain.errors import CoxswainError, InvalidInput, door_of

__all__ = [
    "Group",
    "Painted",
    "ago",
    "as_json_text",
    "clean",
    "client",
    "colour",
    "columns",
    "config_option",
    "confirm",
    "duration",
    "facts",
    "fail",
    "json_option",
    "node_path",
    "only_here",
    "paint",
    "print_json",
    "size",
    "table",
    "yes_option",
]

_COLOURS = {
    "live": "green",
    "active": "green",
    "running": "green",
    "connecting": "cyan",
    "syncing": "cyan",
    "pending": "cyan",
    "starting": "cyan",
    "degraded": "yellow",
    "backing_off": "yellow",
    "stopping": "yellow",
    "unreachable": "red",
    "error": "red",
    "failed": "red",
    "warning": "yellow",
    "critical": "red",
    "open": "red",
    "acknowledged": "yellow",
    "resolved": "green",
    "disabled": "bright_black",
    "stopped": "bright_black",
}

_REMOVING = ("rm", "remove", "delete")


class Group(click.Group):
    """A group of commands, of which the one that removes has several names, as in existing controllers (management-plane.md
    2). The one that it is listed under is the group's own.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in _REMOVING:
            return next((self.commands[name] for name in _REMOVING if name in self.commands), None)
        return found


config_option = click.option(
    "--config", "config", metavar="PATH", help="Configuration file (default: $COX_CONFIG, or cox.yaml here)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def node_path(node: str, action: str = "") -> str:
    """The place of a node, by name or id, in the API."""
    return f"/api/nodes/{quote(node, safe='')}" + (f"/{action}" if action else "")


def client(config: str | None, *, timeout: float = 120.0) -> Client:
    """A client for the daemon that is meant: the one at ``--url``, that of ``--config``, the one at ``COX_URL``, or that of
    the configuration here; whatever is said first.
    """
    remote = click.get_current_context().find_root().obj
    if (remote is not None and remote.url) or (config is None and os.environ.get("COX_URL")):
        from coxswain.cli.remote import Remote, web_place  # noqa: PLC0415 - TLS takes time to import

        return Client(web_place(remote or Remote(), os.environ), timeout)
    return Client(socket_path(config_path(config)), timeout)


def only_here(what: str) -> None:
    """For commands that work on the daemon's own machine. Raises ``InvalidInput`` with ``--url``."""
    remote = click.get_current_context().find_root().obj
    if remote is not None and remote.url:
        raise InvalidInput(
            f"{what} works on the files of the daemon, not over --url", remedy="Run it on the daemon's machine."
        )


def print_json(value: Any) -> None:
    click.echo(as_json_text(value, indent=2))


def as_json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which what a terminal would obey is escaped, as JSON may: it stands for the same."""
    text = json.dumps(value, indent=indent, ensure_ascii=not _encodable())
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def clean(text: str) -> str:
    """What a terminal may be given: names, versions and reasons come from nodes, and could hold its control sequences.

    Lines, as of what a host printed, are put one after the other.
    """
    if text.isprintable():
        return text
    text = " | ".join(line for line in text.splitlines() if line.strip())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Painted(str):
    """Text that was cleaned, and may have got colours since."""

    __slots__ = ()


def paint(word: str) -> Painted:
    """A state in its colour, if colours are wanted."""
    colour = _COLOURS.get(word)
    shown = clean(word.replace("_", " "))
    return Painted(click.style(shown, fg=colour) if colour and _colours() else shown)


def colour(text: str, shade: str) -> Painted:
    """In that colour, if colours are wanted."""
    return Painted(click.style(text, fg=shade) if _colours() else text)


def confirm(question: str, *, scripts_may: bool = False) -> None:
    """Asks before something is done for good. Raises ``InvalidInput`` where nobody answers, as in a script.

    ``scripts_may``: there it is done all the same, and nothing is read. Of commands that the existing controller has, which
    asks nobody: its scripts know no ``--yes``, and what they read themselves is not for us.
    """
    if sys.stdin.isatty():
        click.confirm(clean(question), abort=True, err=True)  # what is printed may go into a file
        return
    if scripts_may:
        return
    answer = sys.stdin.readline()  # of `yes | cox …`
    if not answer:
        raise InvalidInput(f"there is nobody to ask: {question}", remedy="Say --yes to do it without being asked.")
    if answer.strip().casefold() not in ("y", "yes"):
        raise click.Abort


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, styles: dict[int, Callable[[str], str]] | None = None
) -> None:
    """Space-aligned columns with a gap of two; absent values print ``-``. ``styles`` colour columns, width unchanged."""
    plain = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(h), *(columns(row[i]) for row in plain)]) for i, h in enumerate(headings)]
    click.echo("  ".join(h.ljust(w) for h, w in zip(headings, widths, strict=True)).rstrip())
    for row in plain:
        cells = []
        for i, cell in enumerate(row):
            style = (styles or {}).get(i)
            shown = style(cell) if style else cell
            cells.append(shown + " " * (widths[i] - columns(cell)))
        click.echo("  ".join(cells).rstrip())


def columns(text: str) -> int:
    """How wide a terminal shows it: what is Chinese, Japanese, Korean or an emoji takes two, an accent of its own none."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - most names do without

    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line, values aligned."""
    shown = [(name, value if isinstance(value, Painted) else _cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def _cell(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return clean(", ".join(str(item) for item in value))
    return clean(str(value))


def ago(stamp: str | None) -> str:
    """How long ago an RFC 3339 time was."""
    if not stamp:
        return "-"
    seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(stamp)).total_seconds()
    return duration(seconds)


def duration(seconds: float) -> str:
    """A length of time, in its two largest units."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def size(count: int | None) -> str:
    """Bytes for people; ``-`` for unknown."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{int(value)} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def fail(error: CoxswainError) -> NoReturn:
    """One line with what went wrong, one with the way out, and the exit code of its kind (docs/cli.md)."""
    click.echo(f"cox: {clean(str(error))}", err=True)
    if error.remedy:
        click.echo(f"     {clean(error.remedy)}", err=True)
    sys.exit(error.exit_code if isinstance(error, RemoteError) else door_of(error).exit_code)


def _colours() -> bool:
    """no-color.org: any value but an empty one says no."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _encodable() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
