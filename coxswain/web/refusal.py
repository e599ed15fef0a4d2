"""What somebody with a browser sees instead of a problem document: the login page, or a page that says what went wrong."""

from __future__ import annotations

from urllib.parse import quote

import falcon

from coxswain.errors import CoxswainError, Unauthenticated, door_of
from coxswain.web.render import render

__all__ = ["is_page", "safe_next", "show_error"]

_NOT_PAGES = ("/api/", "/ui/", "/ws/", "/static/")


def is_page(request: falcon.Request) -> bool:
    """A person looks at a page, and no program or script of a page asks for something."""
    wanted = request.get_header("Accept") or ""
    return request.method in ("GET", "HEAD") and "text/html" in wanted and not request.path.startswith(_NOT_PAGES)


def show_error(request: falcon.Request, response: falcon.Response, error: CoxswainError) -> None:
    """Whoever is not signed in is asked to, and comes back to where they wanted to go."""
    if isinstance(error, Unauthenticated):
        wanted = request.path + (f"?{request.query_string}" if request.query_string else "")
        response.status = falcon.HTTP_303
        response.set_header("Location", "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}")
        return
    door = door_of(error)
    response.status = falcon.code_to_http_status(door.http)
    response.content_type = "text/html; charset=utf-8"
    response.data = render("error.html", {"status": door.http, "text": str(error), "remedy": error.remedy})


def safe_next(wanted: str | None) -> str:
    """Where to go after the login: a path of ours, never another host.

    To a browser two slashes, either way round, begin the name of a host.
    """
    if not wanted or not wanted.startswith("/") or wanted[1:2] in ("/", "\\") or not wanted.isprintable():
        return "/"
    return wanted
