"""The live view, as a pure function from a picture of the fleet to something that rich can draw."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coxswain.cli.output import clean

__all__ = ["Picture", "render"]

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
    "session.opened": "green",
    "session.closed": "bright_black",
    "node.link": "cyan",
    "node.status": "magenta",
    "tree.crashed": "bold red",
    "tree.hung": "bold red",
    "tree.restarted": "yellow",
    "chaos": "bold yellow",
}


@dataclass
class Picture:
    """What the view shows. ``feed`` holds (time, kind, text), newest last."""

    status: dict[str, Any]
    nodes: Sequence[dict[str, Any]]
    feed: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=200))
    events_per_s: float = 0.0
    title: str = "coxswain"
    rows: int = 12
    feed_rows: int = 10

    def take_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Adds events of the API to the feed, with names instead of ids."""
        names = {n["id"]: n["name"] for n in self.nodes}
        for event in events:
            text = _tell(event, names)
            if text:
                self.feed.append(((event.get("at") or " " * 19)[11:19], event["kind"], clean(text)))


def render(picture: Picture) -> RenderableType:
    """Draws one frame."""
    return Group(_header(picture), _nodes(picture), _feed(picture))


def _header(picture: Picture) -> RenderableType:
    fleet, sessions = picture.status["fleet"], picture.status["sessions"]
    line = Text()
    line.append(f" {fleet['nodes']} nodes", "bold")
    for state, count in fleet["by_link_state"].items():
        line.append(f"   {count} {state.replace('_', ' ')}", _STYLES.get(state, ""))
    line.append(f"   {fleet['in_sync']} in sync", "bold green" if fleet["in_sync"] == fleet["nodes"] else "bold yellow")
    line.append(f"   {sessions['active']} sessions", "bold")
    line.append(f"   {picture.events_per_s:.0f} events/s", "")
    restarts = picture.status["restarts"]
    line.append(f"   {restarts} service restart{'' if restarts == 1 else 's'}", "yellow" if restarts else "")
    return Panel(line, title=Text(clean(picture.title)), title_align="left", border_style="blue")


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
        table.add_row(Text(f"and {hidden} more: {', '.join(f'{c} {s}' for s, c in rest.items())}", "bright_black"))
    return Panel(table, border_style="bright_black")


def _feed(picture: Picture) -> RenderableType:
    lines = Text()
    for at, kind, text in list(picture.feed)[-picture.feed_rows :]:
        lines.append(f"{at}  ", "bright_black")
        lines.append(f"{kind:<16}", _KIND_STYLES.get(kind, ""))
        lines.append(f"{text}\n")
    return Panel(lines, title="events", title_align="left", border_style="bright_black", height=picture.feed_rows + 2)


def _tell(event: dict[str, Any], names: dict[str, str]) -> str:
    node = names.get(event.get("node_id", ""), event.get("name") or event.get("node_id", ""))
    match event["kind"]:
        case "session.opened" | "session.closed" if "more" in event:
            return f"and {event['more']} more"
        case "session.opened":
            return f"{event['device_id'] or event['peer_key'][:8]} from {event['endpoint'] or '?'} on {node}"
        case "session.closed":
            return f"{event['device_id'] or event['peer_key'][:8]} on {node}: {event['reason']}"
        case "node.link":
            return f"{node}: {event['link_state'].replace('_', ' ')}{': ' + event['reason'] if event['reason'] else ''}"
        case "node.status":
            return f"{node}: {event['was']} → {event['status']}"
        case "missed":
            return f"{event['count']} events came faster than they were read"
        case "node.changed":
            return f"{node} was changed"
        case kind if kind.startswith("tree."):
            return f"{event['actor']}{': ' + event['reason'] if event['reason'] else ''}"
        case _:
            return ""
