"""The map of the fleet: places that are near each other share a pin, paths are arcs between pins."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from coxswain.web.render import tone
from coxswain.web.worldmap import project

__all__ = ["Arc", "Map", "Pin", "fleet_map", "path_color"]

_NEAR = 230
"""Map units of 10,000: closer pins would cover each other at 1280 px."""

_PALETTE = ("#0e8a82", "#b7791f", "#c2447c", "#2c7fb8", "#5f9231", "#d1603d")
"""Of paths without a colour of their own; each can be told from land and sea in both themes."""

_WORST_FIRST = ("bad", "warn", "info", "good", "quiet")
_NAMED = 6


@dataclass(slots=True)
class Pin:
    """One place. ``nodes`` and ``relays``: what lies there; ``tone``: of the one in most need. ``is_wide``: some are near
    ``city`` and not in it.
    """

    x: int
    y: int
    city: str
    nodes: list[Mapping[str, Any]] = field(default_factory=list)
    is_wide: bool = False
    relays: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def tone(self) -> str:
        tones = {tone(status) for status in Counter(one["status"] for one in (*self.nodes, *self.relays))}
        return next(name for name in _WORST_FIRST if name in tones)

    @property
    def radius(self) -> int:
        return 75 if len(self.nodes) < 2 else min(160, 95 + 10 * int(math.log2(len(self.nodes))))

    @property
    def words(self) -> str:
        """For the tooltip and for those who hear the map instead of seeing it. Nodes that need attention are named first."""
        there = [*self.nodes, *({**relay, "name": f"relay {relay['name']}"} for relay in self.relays)]
        ranked = sorted(there, key=lambda one: _WORST_FIRST.index(tone(one["status"])))
        shown = ", ".join(f"{one['name']} {one['status']}" for one in ranked[:_NAMED])
        more = len(there) - _NAMED
        around = " and around" if self.is_wide else ""
        return f"{self.city}{around}: {shown}{f' and {more} more' if more > 0 else ''}"

    @property
    def href(self) -> str:
        """Its node, or the list of all nodes of its regions; the whole list, where none of them has a region. Relays alone:
        the relay, or the list of all.
        """
        if not self.nodes:
            return f"/relays/{self.relays[0]['id']}" if len(self.relays) == 1 else "/relays"
        if len(self.nodes) == 1:
            return f"/nodes/{self.nodes[0]['id']}"
        regions = sorted({node["region"] for node in self.nodes})
        return f"/?region={quote(','.join(regions))}#nodes-title" if any(regions) else "#nodes-title"


@dataclass(frozen=True, slots=True)
class Arc:
    """A path between two pins, as SVG path data. ``is_control``: not of clients, but of the controller."""

    line: str
    words: str
    color: str = ""
    is_control: bool = False


@dataclass(frozen=True, slots=True)
class Map:
    """``elsewhere``: how many nodes there are of which nobody knows where. ``controller``: its own pin, if it is known."""

    pins: list[Pin]
    arcs: list[Arc]
    elsewhere: int
    controller: Pin | None
    credit: Mapping[str, str] | None

    @property
    def has_relays(self) -> bool:
        """Some pin has nothing but relays."""
        return any(not pin.nodes for pin in self.pins)

    @property
    def has_control(self) -> bool:
        return any(arc.is_control for arc in self.arcs)


def fleet_map(
    found: Mapping[str, Any], paths: Iterable[Mapping[str, Any]] = (), control: Mapping[str, Any] | None = None
) -> Map:
    """From what ``GET /api/map`` and ``/api/paths`` answer. ``control``: the active one of ``/api/control-paths``."""
    pins: list[Pin] = []
    pin_of: dict[str, Pin] = {}
    for place in found["places"]:
        pin = _pin(pins, place)
        pin.nodes += place["nodes"]
        pin_of |= {node["id"]: pin for node in place["nodes"]}
    for relay in found["relays"]:
        pin_of[relay["id"]] = pin = _pin(pins, relay)
        pin.relays.append(relay)
    arcs = []
    for number, path in enumerate(paths):
        route = (*path["hops"][:-1], path["exit"]["node_id"])
        hops = [pin_of[node_id] for node_id in route if node_id in pin_of]
        arcs += [Arc(_arc(a, b), f"path {path['name']}", path_color(path, number)) for a, b in pairwise(hops) if a is not b]
    own = found["controller"]
    controller = Pin(*project(own["latitude"], own["longitude"]), own["city"]) if own else None
    if control is not None:
        chain = ([controller] if controller else []) + [pin_of[hop] for hop in control["hops"] if hop in pin_of]
        words = f"control path {control['name']}"
        arcs += [Arc(_arc(a, b), words, is_control=True) for a, b in pairwise(chain) if (a.x, a.y) != (b.x, b.y)]
    return Map(pins, arcs, len(found["elsewhere"]), controller, found["credit"])


def _pin(pins: list[Pin], place: Mapping[str, Any]) -> Pin:
    """The pin that is near a place already, or another one."""
    x, y = project(place["latitude"], place["longitude"])
    pin = next((p for p in pins if math.hypot(p.x - x, p.y - y) < _NEAR), None)
    if pin is None:
        pins.append(pin := Pin(x, y, place["city"]))
    pin.is_wide = pin.is_wide or pin.city != place["city"]
    return pin


def path_color(path: Mapping[str, Any], number: int) -> str:
    """Its own, or one for the path of that place in the list."""
    return path["color"] or _PALETTE[number % len(_PALETTE)]


def _arc(a: Pin, b: Pin) -> str:
    """Lifted by a quarter of the distance, so that there and back can be told apart."""
    lift = min(0.24 * math.hypot(a.x - b.x, a.y - b.y), 1_300)
    return f"M{a.x} {a.y}Q{(a.x + b.x) // 2} {round((a.y + b.y) / 2 - lift)} {b.x} {b.y}"
