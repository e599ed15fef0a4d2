"""The OpenAPI 3.1 document, made from the route table."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coxswain.api.query import IGNORED
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import COMPONENTS, Json

__all__ = ["SENTENCES", "document", "statuses", "takes_version"]

SENTENCES = {
    400: "input that cannot be accepted",
    401: "no credential, or one that is not good (any more)",
    403: "refused: the credential's scope, the Host, the Origin",
    404: "no such thing",
    409: "it conflicts with what is there",
    413: "the body is too large",
    415: "the body of a page is not called application/json",
    429: "too many attempts; Retry-After says when to try again",
    500: "the daemon failed on this request; its log tells why",
    502: "a node failed",
    503: "a part of the daemon is not available",
    504: "a part of the daemon did not answer in time",
}
"""What each status means, wherever it comes."""

PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457, and `error`, the sentence alone.",
    "required": ["type", "title", "status", "detail", "error", "exit_code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "the kind of error"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string"},
        "exit_code": {"type": "integer", "description": "of cox"},
        "remedy": {"type": "string", "description": "what to do next"},
        "current": {"type": "integer", "description": "the version that the record has now"},
    },
}


def document(routes: Iterable[Route], version: str) -> Json:
    """The whole document as JSON values."""
    paths: dict[str, Json] = {}
    for route in routes:
        path = re.sub(r"\{(\w+)(:\w+)?\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "coxswain",
            "version": version,
            "summary": "The controller of a self-hosted VPN fleet",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": PROBLEM, **COMPONENTS},
            "headers": {"Ignored": _IGNORED},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API token: cox tokens create"},
                "session": {"type": "apiKey", "in": "cookie", "name": "cox_session", "description": "Set by a login"},
            },
        },
    }


def statuses(route: Route) -> list[int]:
    """Every status that a route may answer, in order."""
    found = {route.status, 400, 403, 500, 503, 504, *route.also}
    if route.scope is not Scope.NONE:
        found.add(401)
    if "{" in route.path:
        found.add(404)
    if route.unsafe:
        found |= {413, 415}
    if takes_version(route):
        found.add(409)
    return sorted(found)


def takes_version(route: Route) -> bool:
    """Whether it refuses to change what somebody else changed since its author looked."""
    return "version" in (route.body or {}).get("properties", ()) or any(param.name == "version" for param in route.query)


def _operation(route: Route) -> Json:
    operation: Json = {
        "operationId": operation_id(route),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "summary": route.summary,
        "x-scope": route.scope.word,
        "responses": {str(status): _response(route, status) for status in statuses(route)},
        "security": [] if route.scope is Scope.NONE else [{"bearer": []}, {"session": []}],
    }
    if route.audit:
        operation["x-audit-action"] = route.audit
    parameters = [_path_parameter(name) for name in re.findall(r"\{(\w+)(?::\w+)?\}", route.path)]
    parameters += [_query_parameter(param) for param in route.query]
    if _may_be_later(route):
        parameters.append(_PREFER)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": route.body}}
        operation["requestBody"] = {"required": "required" in route.body, "content": content}
    return operation


def operation_id(route: Route) -> str:
    """Unique, and fit to be a name in generated clients."""
    words = re.findall(r"\w+", route.path.removeprefix("/api/"))
    return "_".join([route.method.lower(), *(word for word in words if word != "path" or len(words) < 3)])


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameter(param: Param) -> Json:
    return {"name": param.name, "in": "query", "description": param.summary, "schema": param.schema}


_PREFER: Json = {
    "name": "Prefer",
    "in": "header",
    "description": "respond-async: answer 202 with the operation at once, and do not wait for its end (RFC 7240)",
    "schema": {"type": "string"},
}


def _may_be_later(route: Route) -> bool:
    """Whether it starts an operation, which is answered in place of its outcome if the client does not want to wait."""
    return 202 in route.also


def _response(route: Route, status: int) -> Json:
    if status == 304:
        return {"description": "not changed"}
    if status == 202 and _may_be_later(route):
        schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Operation"}}}
        location = {"description": "where the operation is", "schema": {"type": "string"}}
        return {"description": "under way", "content": schema, "headers": {"Location": location}}
    if status < 300:
        return _success(route)
    content: Json = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if status == 503 and route.returns is not None and 503 in route.also:
        content["application/json"] = {"schema": route.returns}
    return {"description": SENTENCES[status], "content": content}


_IGNORED: Json = {
    "description": "parameters of the query string that mean nothing here and went unheeded, percent-encoded",
    "schema": {"type": "string"},
}


def _success(route: Route) -> Json:
    found: Json = {"description": "done", "headers": {IGNORED: {"$ref": "#/components/headers/Ignored"}}}
    if route.returns is not None:
        found["content"] = {route.media_type: {"schema": route.returns}}
    elif route.media_type != "application/json":
        found["content"] = {route.media_type: {"schema": {"type": "string"}}}
    if route.returns is not None and route.returns.get("type") == "array":
        link = {"description": 'rel="next": the address of the next page', "schema": {"type": "string"}}
        found["headers"]["Link"] = link
    return found
