"""The live view, as a pure function from a picture of the fleet to something that rich can draw; and a terminal for it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coxswain.cli.names import Names
from coxswain.cli.output import clean
from coxswain.words import counted

__all__ = ["Picture", "on_screen", "render"]

_STYLES = {
    "live": "green",
    "active": "green",
    "connecting": "cyan",
    "syncing": "cyan",
    "degraded": "yellow",
    "backing_off": "yellow",
    "unreachable": "bold red",
    "error": "bold red",
    "disabled": "bright_black",
    "stopped": "bright_black",
}
_KIND_STYLES = {
    "PEER_CONNECTED": "green",
    "PEER_DISCONNECTED": "bright_black",
    "ERROR": "bold red",
    "alert": "bold red",
    "alert_updated": "yellow",
    "dropped": "yellow",
    "node.link": "cyan",
    "node.status": "magenta",
    "tree.crashed": "bold red",
    "tree.hung": "bold red",
    "tree.restarted": "yellow",
    "chaos": "bold yellow",
}

_NAMING = ("device_id", "user", "id", "target_id")
"""Where events have ids of what is no node."""


@dataclass
class Picture:
    """What the view shows. ``feed`` holds (time, kind, text), newest last. ``note``: a second line of the title, which must
    not be cut in a terminal of 80 columns.
    """

    status: dict[str, Any]
    nodes: Sequence[dict[str, Any]]
    feed: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=200))
    events_per_s: float = 0.0
    title: str = "coxswain"
    note: str = ""
    rows: int = 12
    feed_rows: int = 10
    names: Names | None = None

    def take_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Adds events of the API to the feed, with names instead of ids: ``names`` is asked for those that may be seen."""
        names = {n["id"]: n["name"] for n in self.nodes}
        if self.names is not None:
            shown = [event for event in events if _tell(event, names)][-self.feed_rows :]
            mentioned = (each.get(key) for event in shown for each in (event, event.get("alert") or {}) for key in _NAMING)
            self.names.learn(str(key) for key in mentioned if key and key not in names)
            names = self.names.known | names
        for event in events:
            text = _tell(event, names)
            if text:
                self.feed.append(((event.get("at") or " " * 19)[11:19], _kind(event), clean(text)))


def render(picture: Picture) -> RenderableType:
    """Draws one frame."""
    return Group(_header(picture), _nodes(picture), _feed(picture))


@contextmanager
def on_screen(picture: Picture) -> Iterator[Live]:
    """Takes the terminal for a picture, and gives it back however this ends. ``Live`` as a context manager draws for the
    first time before it is one: Ctrl-C in that moment left the terminal as it was then.
    """
    live = Live(render(picture), refresh_per_second=5, screen=True)
    try:
        live.start()
        live.refresh()
        yield live
    finally:
        live.stop()


def _header(picture: Picture) -> RenderableType:
    fleet, sessions = picture.status["fleet"], picture.status["sessions"]
    line = Text()
    line.append(f" {counted(fleet['nodes'], 'node')}", "bold")
    for state, count in fleet["by_link_state"].items():
        line.append(f"   {count} {state.replace('_', ' ')}", _STYLES.get(state, ""))
    line.append(f"   {fleet['in_sync']} in sync", "bold green" if fleet["in_sync"] == fleet["nodes"] else "bold yellow")
    line.append(f"   {counted(sessions['active'], 'session')}", "bold")
    line.append(f"   {picture.events_per_s:.0f} events/s", "")
    restarts = picture.status["restarts"]
    line.append(f"   {counted(restarts, 'service restart')}", "yellow" if restarts else "")
    note = Text(clean(picture.note)) if picture.note else None
    title = Text(clean(picture.title))
    return Panel(line, title=title, title_align="left", subtitle=note, subtitle_align="left", border_style="blue")


def _nodes(picture: Picture) -> RenderableType:
    table = Table(expand=True, box=None, header_style="bright_black", pad_edge=False)
    for heading in ("NODE", "REGION", "STATUS", "LINK", "REVISION", "ONLINE", "REASON"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=3 if heading == "REASON" else None)
    troubled = sorted(picture.nodes, key=lambda n: (n["link_state"] == "live", n["name"]))
    for n in troubled[: picture.rows]:
        table.add_row(
            Text(clean(n["name"])),
            Text(clean(n["region"])),
            Text(n["status"], _STYLES.get(n["status"], "")),
            Text(n["link_state"].replace("_", " "), _STYLES.get(n["link_state"], "")),
            f"{n['applied_revision']}/{n['config_revision']}",
            f"{n['peers_online']}/{n['peers_configured']}",
            Text(clean(n["link_reason"] or (n["findings"] or [""])[0]), "bright_black"),
        )
    hidden = len(picture.nodes) - picture.rows
    if hidden > 0:
        rest = Counter(n["link_state"] for n in troubled[picture.rows :])
        more = Text(f"and {hidden} more: {', '.join(f'{c} {s}' for s, c in rest.items())}", "bright_black")
        return Panel(Group(table, more), border_style="bright_black")  # not a row: it would be the widest name
    return Panel(table, border_style="bright_black")


def _feed(picture: Picture) -> RenderableType:
    lines = Text()
    for at, kind, text in list(picture.feed)[-picture.feed_rows :]:
        lines.append(f"{at}  ", "bright_black")
        lines.append(f"{kind:<17} ", _KIND_STYLES.get(kind, ""))
        lines.append(f"{text}\n")
    return Panel(lines, title="events", title_align="left", border_style="bright_black", height=picture.feed_rows + 2)


def _kind(event: dict[str, Any]) -> str:
    return str(event.get("kind") or event["type"])


def _alert_state(alert: dict[str, Any]) -> str:
    status = str(alert.get("status", ""))
    return f"{alert.get('severity', '')}, {status}" if status == "open" else status


def _tell(event: dict[str, Any], names: dict[str, str]) -> str:
    node = names.get(event.get("node_id", ""), event.get("name") or event.get("node_id", ""))
    who = _who(event, names)
    match _kind(event):
        case "PEER_CONNECTED":
            return f"{who} from {event.get('source_endpoint') or '?'} on {node}"
        case "PEER_DISCONNECTED":
            return f"{who} on {node}: {event.get('reason') or 'disconnect'}"
        case "ERROR":
            return f"{node}: {event.get('message') or 'error'}"
        case "alert" | "alert_updated":
            alert = event.get("alert") or {}
            device = alert.get("device_id", "")
            about = names.get(alert.get("node_id", "")) or names.get(device, device)
            return f"{alert.get('title') or alert.get('kind', '')}{about and ': ' + about}, {_alert_state(alert)}"
        case "node.link":
            return f"{node}: {event['link_state'].replace('_', ' ')}{': ' + event['reason'] if event['reason'] else ''}"
        case "node.status":
            return f"{node}: {event['was']} → {event['status']}"
        case "node.changed":
            return f"{node} was changed"
        case "dropped":
            return _missed(event)
        case "inventory":
            return f"{event.get('action')}: {event.get('object')} {names.get(event.get('id', ''), event.get('id', ''))}"
        case "audit":
            target = event.get("target_id", "")
            return f"{event.get('actor')}: {event.get('action')} {names.get(target, target)} {event.get('result')}"
        case kind if kind.startswith("tree."):
            return f"{_actor(event['actor'], names)}{': ' + event['reason'] if event['reason'] else ''}"
        case _:
            return ""


def _who(event: dict[str, Any], names: dict[str, str]) -> str:
    """A device with its user, as everybody may call one ``phone``; a peer that is no device's by its key."""
    device, user = str(event.get("device_id", "")), event.get("user", "")
    if not device:
        return str(event.get("peer_id", ""))[:8]
    return names.get(device, device) + (f" ({names[user]})" if names.get(user, user) != user else "")


def _actor(name: str, names: dict[str, str]) -> str:
    """A link by its node's name; other actors by their own."""
    prefix, _, node_id = name.partition(":")
    return f"link of {names[node_id]}" if prefix == "node_link" and node_id in names else name


def _missed(event: dict[str, Any]) -> str:
    if event.get("count") is None:
        return "some events may be missing"
    return f"{counted(event['count'], 'event')} came faster than they were told"
