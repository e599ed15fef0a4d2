"""Errors as RFC 9457 problem documents that also carry ``error``, the sentence alone (management-plane.md 3.1)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import falcon

from coxswain.errors import CoxswainError, NotFound, StaleVersion, Throttled, Unauthenticated, door_of
from coxswain.web.refusal import is_page, show_error

__all__ = ["dumps", "handle_errors", "write_problem"]

_log = logging.getLogger(__name__)

dumps: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""Compact JSON, the form of every answer."""


def handle_errors(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Every error that leaves a handler becomes a problem document."""
    app.set_error_serializer(_no_serializer)
    app.add_error_handler(Exception, _on_unexpected)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(CoxswainError, _on_error)


def write_problem(response: falcon.Response, status: int, title: str, detail: str, **more: Any) -> None:
    """Makes ``response`` a problem document. ``more``: further members."""
    response.status = falcon.code_to_http_status(status)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail} | more
    response.text = dumps(body)
    response.content_type = "application/problem+json"


def _no_serializer(_request: falcon.Request, _response: falcon.Response, _error: falcon.HTTPError) -> None:
    """Error handlers below write all bodies."""


def _on_error(request: falcon.Request, response: falcon.Response, error: CoxswainError, _params: Any) -> None:
    if is_page(request):
        show_error(request, response, error)
        return
    door = door_of(error)
    more: dict[str, Any] = {"exit_code": door.exit_code}
    if error.remedy:
        more["remedy"] = error.remedy
    if isinstance(error, StaleVersion):
        more["current"] = error.current
    if isinstance(error, Throttled):
        response.set_header("Retry-After", str(max(1, math.ceil(error.retry_after))))
    if isinstance(error, Unauthenticated):
        response.set_header("WWW-Authenticate", 'Bearer realm="coxswain"')
    write_problem(response, door.http, type(error).__name__, str(error), **more)


def _on_http_error(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError, _params: Any) -> None:
    status = falcon.http_status_to_code(error.status)
    response.set_headers(error.headers or {})
    sentences = {
        404: f"there is nothing at {request.path[:200]!a}",
        405: f"{request.method} is not for {request.path[:200]!a}",
    }
    sentence = sentences.get(status) or error.description or error.title or "error"
    if is_page(request) and status == 404:
        show_error(request, response, NotFound(sentence))
        return
    exit_code = {404: 4}.get(status, 2 if status < 500 else 1)
    write_problem(response, status, error.title or "error", sentence, exit_code=exit_code)


def _on_unexpected(request: falcon.Request, response: falcon.Response, error: Exception, _params: Any) -> None:
    _log.error("a request failed unexpectedly", exc_info=error)
    if is_page(request):
        show_error(request, response, CoxswainError("the daemon failed on this page; its log tells why"))
        return
    write_problem(response, 500, "InternalError", "the daemon failed on this request; its log tells why", exit_code=1)
