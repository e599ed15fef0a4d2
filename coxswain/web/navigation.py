"""What stands in the navigation: the pages that there are, in the order in which an operator looks for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Group", "navigation"]

_ORDER: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("", (("/", "Fleet"), ("/paths", "Paths"), ("/profiles", "Profiles"), ("/servers", "Servers"), ("/relays", "Relays"))),
    ("People", (("/users", "Users and devices"), ("/admins", "Admins"))),
    (
        "Watch",
        (
            ("/sessions", "Sessions"),
            ("/alerts", "Alerts"),
            ("/audit", "Audit log"),
            ("/operations", "Operations"),
            ("/system", "System"),
        ),
    ),
    ("Access", (("/tokens", "API tokens"), ("/account", "My account"))),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Pages that belong together. ``links``: path and label of each."""

    title: str
    links: tuple[tuple[str, str], ...]


def navigation(paths: Iterable[str]) -> tuple[Group, ...]:
    """Those of ``paths`` that stand in the navigation, in groups."""
    there = set(paths)
    groups = (Group(title, tuple(link for link in links if link[0] in there)) for title, links in _ORDER)
    return tuple(group for group in groups if group.links)
