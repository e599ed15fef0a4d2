"""The API as a WSGI application: the route table behind one door.

A request goes: door (may it come in, who is it) → dispatcher (may they do that, is it well formed) → handler (ask the owning
actor) → answer. Every mutation is answered only when its audit record is in the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import groupby

import falcon

from coxswain.api.dispatch import Dispatcher, Place
from coxswain.api.doors import Door
from coxswain.api.headers import SecurityHeaders
from coxswain.api.problems import dumps, handle_errors
from coxswain.api.query import meaningful
from coxswain.api.route import Route
from coxswain.api.services import Services
from coxswain.api.table import ROUTES

__all__ = ["create_app"]


def create_app(services: Services, door: Door, pages: Iterable[Route] = ()) -> falcon.App[falcon.Request, falcon.Response]:
    """Builds the WSGI application of one door. ``pages``: what it shows to people, beside the API."""
    app = falcon.App(middleware=[SecurityHeaders()])
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=dumps)
    handle_errors(app)
    dispatcher = Dispatcher(services, door, meaningful(ROUTES))
    by_path = sorted((*ROUTES, *pages), key=lambda route: route.path)
    for path, routes in groupby(by_path, key=lambda route: route.path):
        app.add_route(path, Place(dispatcher, list(routes)))
    app.add_sink(partial(_nothing, door), "/")
    return app


def _nothing(door: Door, request: falcon.Request, _response: falcon.Response) -> None:
    """Where there is no route, the rules of the door hold all the same."""
    door.admit(request, unsafe=False)
    raise falcon.HTTPRouteNotFound
