"""All pages and their fragments. A new page is a module in ``coxswain/web/pages`` and its line here."""

from __future__ import annotations

from coxswain.api.route import Route
from coxswain.web.pages import fleet, login, node, operations, system

__all__ = ["PAGES"]

PAGES: tuple[Route, ...] = (
    *login.PAGES,
    *fleet.PAGES,
    *node.PAGES,
    *operations.PAGES,
    *system.PAGES,
)
