"""Where a place is on the world map: equirectangular, so two multiplications.

``static/world.svg`` is drawn with the same numbers by ``tools/world_map.py``.
"""

from __future__ import annotations

__all__ = ["HEIGHT", "NORTH", "SOUTH", "WIDTH", "place", "project"]

WIDTH = 10_000
NORTH, SOUTH = 84.0, -58.0
"""Degrees of latitude at the edges: nobody rents machines in Antarctica."""

_PER_DEGREE = WIDTH / 360
HEIGHT = round((NORTH - SOUTH) * _PER_DEGREE)


def place(latitude: float, longitude: float) -> tuple[int, int]:
    """Degrees to map units; may lie beyond an edge."""
    return round((longitude + 180.0) * _PER_DEGREE), round((NORTH - latitude) * _PER_DEGREE)


def project(latitude: float, longitude: float) -> tuple[int, int]:
    """The same, held to the map."""
    return place(min(NORTH, max(SOUTH, latitude)), min(180.0, max(-180.0, longitude)))
