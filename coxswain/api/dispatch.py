"""The dispatcher: from a route and a request to an answer. Authenticate, authorise, parse, call, render."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import falcon

from coxswain.api import query
from coxswain.api.bodies import Body, read_body, skim_body
from coxswain.api.call import Call
from coxswain.api.doors import Door
from coxswain.api.metrics import count_request
from coxswain.api.problems import dumps
from coxswain.api.refusals import record_failure
from coxswain.api.route import Reply, Route, Scope
from coxswain.api.services import Services
from coxswain.errors import CoxswainError, Refused, Unavailable, door_of

__all__ = ["Dispatcher", "Place"]

_log = logging.getLogger(__name__)

_WAITING_FOR_NODES = 10
"""Requests at once that wait for a node, which may take its time; each of them holds a worker of the server."""


class Dispatcher:
    """Serves routes through one door. Thread-safe.

    ``meaningful``: the query parameters that some route takes (``coxswain.api.query``).
    """

    def __init__(self, services: Services, door: Door, meaningful: frozenset[str] = frozenset()) -> None:
        self._services = services
        self._door = door
        self._meaningful = meaningful
        self._waiting = threading.BoundedSemaphore(_WAITING_FOR_NODES)

    def serve(self, route: Route, request: falcon.Request, response: falcon.Response, path: dict[str, str]) -> None:
        """Answers one request. Raises ``CoxswainError`` (``coxswain.api.problems`` makes answers of them)."""
        call = Call(self._services, self._door, request, path, Body({}))
        status, began = 500, time.perf_counter()
        try:
            value = self._answer(route, call, response)
            if route.audit and not call.recorded:
                unaudited(route)
            render(request, response, route, value)
            status = falcon.http_status_to_code(response.status)
        except CoxswainError as error:
            status = door_of(error).http
            record_failure(route, call, status, error)
            raise
        except Exception:
            record_failure(route, call, 500, CoxswainError("the daemon failed on this request; its log tells why"))
            raise
        finally:
            count_request(route.method, route.path, status, time.perf_counter() - began)

    def _answer(self, route: Route, call: Call, response: falcon.Response) -> Any:
        request = call.request
        self._door.admit(request, unsafe=route.unsafe or route.from_own_pages)
        if route.scope is not Scope.NONE and call.who.scope < route.scope:
            raise Refused(
                f"{route.method} {route.path}: needs the scope {route.scope.word}, and this credential has "
                f"{call.who.scope.word}",
                remedy="Use a credential of a higher scope; see: cox tokens create --help",
            )
        if request.params:
            if ignored := query.beside(route, request.params, self._meaningful):
                response.set_header(query.IGNORED, query.names(ignored))
            call.query = query.given(route, request.params)
        if route.body is not None:
            call.body = read_body(request, frozenset(route.body.get("properties", ())), most=route.max_body)
        elif route.unsafe:
            query.refuse_in_body(route, skim_body(request, most=route.max_body))
        return self._call(route, call)

    def _call(self, route: Route, call: Call) -> Any:
        if not route.waits_for_node:
            return route.handler(call)
        if not self._waiting.acquire(blocking=False):
            raise Unavailable(
                f"{_WAITING_FOR_NODES} requests wait for nodes already", remedy="Try again when they have come back."
            )
        try:
            return route.handler(call)
        finally:
            self._waiting.release()


def unaudited(route: Route) -> None:
    """A change was answered that is in no audit record: a mistake of the route's handler, and a test fails for it."""
    _log.error("%s %s was done and is in no audit record", route.method, route.path)


def render(request: falcon.Request, response: falcon.Response, route: Route, value: Any) -> None:
    """Writes what a handler returned."""
    reply = value if isinstance(value, Reply) else Reply(value)
    response.status = falcon.code_to_http_status(reply.status or route.status)
    for name, header in reply.headers:
        response.append_header(name, header)
    if reply.raw is not None:
        response.data, response.content_type = reply.raw, reply.media_type
    elif route.returns is not None:
        response.text, response.content_type = dumps(reply.value), "application/json"
    if reply.after is not None:
        taken = {param.name: request.params[param.name] for param in route.query if param.name in request.params}
        next_page = urlencode({**taken, "after": str(reply.after)})
        response.append_header("Link", f'<{request.path}?{next_page}>; rel="next"')


class Place:
    """All methods on one path, as Falcon wants to see them."""

    def __init__(self, dispatcher: Dispatcher, routes: list[Route]) -> None:
        allowed = [route.method for route in routes]
        for route in routes:
            setattr(self, f"on_{route.method.lower()}", _responder(dispatcher, route))
            if route.method == "GET" and route.ends:  # Falcon leaves the body out
                self.on_head = _responder(dispatcher, route)
                allowed.append("HEAD")
        if "OPTIONS" not in allowed:
            self.on_options = _refuse_method(allowed)


def _responder(dispatcher: Dispatcher, route: Route) -> Callable[..., None]:
    def respond(request: falcon.Request, response: falcon.Response, **path: str) -> None:
        dispatcher.serve(route, request, response, path)

    return respond


def _refuse_method(allowed: list[str]) -> Callable[..., None]:
    def refuse(_request: falcon.Request, _response: falcon.Response, **_path: str) -> None:
        raise falcon.HTTPMethodNotAllowed(allowed)

    return refuse
