"""All pages and their fragments. A new page is a module in ``coxswain/web/pages`` and its line here."""

from __future__ import annotations

from coxswain.api.route import Route
from coxswain.web.pages import (
    access,
    alerts,
    audit,
    charts,
    choices,
    fleet,
    login,
    node,
    operations,
    palette,
    paths,
    profiles,
    relays,
    servers,
    sessions,
    system,
    users,
)

__all__ = ["PAGES"]

PAGES: tuple[Route, ...] = (
    *login.PAGES,
    *fleet.PAGES,
    *charts.PAGES,
    *choices.PAGES,
    *node.PAGES,
    *paths.PAGES,
    *profiles.PAGES,
    *servers.PAGES,
    *relays.PAGES,
    *users.PAGES,
    *sessions.PAGES,
    *alerts.PAGES,
    *audit.PAGES,
    *access.PAGES,
    *operations.PAGES,
    *system.PAGES,
    *palette.PAGES,
)
