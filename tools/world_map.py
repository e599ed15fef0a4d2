"""Makes ``static/world.svg`` from a TopoJSON of Natural Earth countries (public domain).

    tools/world_map.py countries-110m.json    # of npm's world-atlas, which ships Natural Earth as TopoJSON

Equirectangular, so that a place on the map is two multiplications (``coxswain/web/worldmap.py`` has the same numbers).
One path for every country, so that borders are strokes; whole numbers, each relative to the last, because that is a third
of the size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coxswain.web.worldmap import HEIGHT, NORTH, SOUTH, WIDTH, place

_LEAST_STEP = 9
"""Points closer to the last one than this (of 10,000) are left out: a third of a degree cannot be seen."""

Point = tuple[int, int]


def arcs_of(topology: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """The arcs in degrees: TopoJSON quantises and delta-encodes them."""
    (scale_x, scale_y), (move_x, move_y) = topology["transform"]["scale"], topology["transform"]["translate"]
    found = []
    for arc in topology["arcs"]:
        x = y = 0
        line = []
        for step_x, step_y in arc:
            x, y = x + step_x, y + step_y
            line.append((x * scale_x + move_x, y * scale_y + move_y))
        found.append(line)
    return found


def rings(geometry: dict[str, Any], arcs: list[list[tuple[float, float]]]) -> Iterator[list[tuple[float, float]]]:
    """Each ring of a Polygon or MultiPolygon, in degrees."""
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry.get("arcs", [])
    for polygon in polygons:
        for ring in polygon:
            points: list[tuple[float, float]] = []
            for index in ring:
                line = arcs[index] if index >= 0 else arcs[~index][::-1]
                points += line[1:] if points else line
            yield from over_the_edge(points)


def over_the_edge(ring: list[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """A ring across the antimeridian jumps from edge to edge of the map: it is drawn beyond the edge, at both."""
    unwound, turn, last = [], 0.0, ring[0][0]
    for longitude, latitude in ring:
        turn -= 360.0 * round((longitude - last) / 360.0)
        last = longitude
        unwound.append((longitude + turn, latitude))
    yield unwound
    for shift in (-360.0, 360.0):
        moved = [(longitude + shift, latitude) for longitude, latitude in unwound]
        if any(-180.0 < longitude < 180.0 for longitude, _ in moved):
            yield moved


def thinned(ring: list[tuple[float, float]]) -> list[Point]:
    """On the map, without points that cannot be told apart."""
    kept: list[Point] = []
    for longitude, latitude in ring:
        at = place(latitude, longitude)
        if not kept or max(abs(at[0] - kept[-1][0]), abs(at[1] - kept[-1][1])) >= _LEAST_STEP:
            kept.append(at)
    return kept


def path_of(ring: list[Point]) -> str:
    (x, y), *rest = ring
    text = f"M{x} {y}l"
    for next_x, next_y in rest:
        step_x, step_y = next_x - x, next_y - y
        text += f"{'' if text.endswith('l') or step_x < 0 else ' '}{step_x}{'' if step_y < 0 else ' '}{step_y}"
        x, y = next_x, next_y
    return text + "z"


def main(source: str) -> None:
    topology = json.loads(Path(source).read_text(encoding="utf-8"))
    arcs = arcs_of(topology)
    drawn = []
    for country in topology["objects"]["countries"]["geometries"]:
        parts = [thinned(ring) for ring in rings(country, arcs) if max(lat for _, lat in ring) > SOUTH]
        drawn.append("".join(path_of(part) for part in parts if len(part) > 2))
    paths = "".join(f'<path d="{d}"/>' for d in drawn if d)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"<!-- Natural Earth, public domain; {NORTH} N to {-SOUTH} S; made by tools/world_map.py -->"
        f'<g id="land">{paths}</g></svg>\n'
    )
    target = Path(__file__).resolve().parent.parent / "static/world.svg"
    target.write_text(svg, encoding="utf-8")
    print(f"{target.name}: {len(svg)} bytes, {len(drawn)} countries")


if __name__ == "__main__":
    main(sys.argv[1])
