"""The API: thin Falcon resources that parse, ask the owning actor, and render.

Every mutation is answered only when its audit record is in the log. Errors are RFC 9457 problem documents that also carry
``error``, the sentence alone (management-plane.md 3.1).
"""

from __future__ import annotations

import json
import logging
import pwd
import threading
import time
from collections.abc import Callable
from typing import Any

import falcon

from coxswain.api import views
from coxswain.api.bodies import Body, integer, one_line, peer_change, policy, read_body, word
from coxswain.api.services import Services
from coxswain.errors import CoxswainError, InvalidInput, StaleVersion, Unavailable, door_of
from coxswain.messages import audit, ca, fleet, hub, links, sessions
from coxswain.messages.audit import Caller, Committed
from coxswain.model import Node

__all__ = ["PEER_UID", "create_app"]

PEER_UID = "uid="
"""What REMOTE_ADDR begins with on the control socket, before the uid at its other end."""

_READ_S = 5.0
_CHANGE_S = 30.0
_NODE_S = 100.0
"""A push may take as long as the contract lets it (node-contract.md 4.1)."""

_WAITING_FOR_NODES = 10
"""Requests at once that wait for a node, which may take its time; each of them holds a worker of the server."""

_log = logging.getLogger(__name__)


def create_app(services: Services) -> falcon.App[falcon.Request, falcon.Response]:
    """Builds the WSGI application."""
    app = falcon.App()
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=_dumps)
    app.set_error_serializer(_no_serializer)
    app.add_error_handler(Exception, _on_unexpected)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(CoxswainError, _on_error)
    app.add_route("/healthz", _Health())
    app.add_route("/readyz", _Ready(services))
    app.add_route("/api/version", _Version(services))
    app.add_route("/api/status", _Status(services))
    app.add_route("/api/tree", _Tree(services))
    app.add_route("/api/nodes", _Nodes(services))
    app.add_route("/api/nodes/{key}", _Node(services))
    waiting = threading.BoundedSemaphore(_WAITING_FOR_NODES)
    for action in ("enable", "disable", "enroll", "revoke", "push", "plan", "look", "status"):
        app.add_route(f"/api/nodes/{{key}}/{action}", _NodeAction(services, waiting), suffix=action)
    app.add_route("/api/peers", _Peers(services))
    app.add_route("/api/sessions", _Sessions(services))
    app.add_route("/api/events", _Events(services))
    app.add_route("/api/ca", _Ca(services))
    app.add_route("/api/audit", _Audit(services))
    app.add_route("/api/audit/head", _AuditHead(services))
    app.add_route("/api/chaos", _Chaos(services))
    return app


class _Resource:
    def __init__(self, services: Services) -> None:
        self._services = services

    def _ask(self, name: str, message: Any, deadline: float = _READ_S) -> Any:
        return self._services.ask(name, message, deadline=deadline)

    def _active_sessions(self) -> dict[str, int] | None:
        try:
            found: dict[str, int] = self._ask("session_tracker", sessions.GetActiveSessions())
        except Unavailable:  # it is restarting; nodes can be told of without it
            return None
        return found

    def _change(self, name: str, message: Any) -> Any:
        """Asks for a change, and returns its value when its audit record is in the log."""
        committed: Committed[Any] = self._ask(name, message, _CHANGE_S)
        try:
            self._ask("audit_writer", audit.AwaitAudited(committed.outbox_id), _CHANGE_S)
        except Unavailable as error:
            # Both are in the store by now; a caller who does it again would do it twice.
            raise type(error)(
                f"the change is made and kept, but its audit record is not in the log yet: {error}",
                remedy="Do not repeat it. The record follows by itself; see: cox audit",
            ) from None
        return committed.value

    def _view(self, key: str) -> fleet.NodeView:
        view: fleet.NodeView = self._ask("fleet", fleet.GetNode(one_line("node", key)))
        return view

    def _node(self, key: str) -> Node:
        return self._view(key).node


class _Health:
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.status = falcon.HTTP_200


class _Ready(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        down = _down(self._services.tree())
        response.status = falcon.HTTP_503 if down else falcon.HTTP_200
        response.media = {"ready": not down, "down": down}


def _down(tree: dict[str, Any]) -> list[str]:
    return [c["id"] for c in _workers(tree) if c["state"] != "running"]


def _workers(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """All but the links, whose troubles are ordinary life."""
    if tree["id"] == "node_links":
        return [tree]
    return [tree, *(found for child in tree["children"] for found in _workers(child))]


class _Version(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.media = {"version": self._services.identity.version}


class _Status(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        identity = self._services.identity
        head: audit.AuditHead = self._ask("audit_writer", audit.GetAuditHead())
        tree = self._services.tree()
        response.media = {
            "version": identity.version,
            "pid": identity.pid,
            "store": identity.store,
            "state_dir": identity.state_dir,
            "uptime_seconds": int(time.time() - identity.started_at),
            "fleet": views.summary(self._ask("fleet", fleet.GetSummary())),
            "sessions": views.session_counts(self._ask("session_tracker", sessions.GetSessionCounts())),
            "audit": {"size": head.size, "row_hash": head.row_hash},
            "restarts": sum(c["restarts"] for c in _workers(tree)),
            "down": _down(tree),
        }


class _Tree(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.media = self._services.tree()


class _Nodes(_Resource):
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        limit = integer(request.params, "limit", None, low=1, high=10_000)
        found = self._ask("fleet", fleet.ListNodes(word(request.params, "after") or "", limit))
        active = self._active_sessions()
        response.media = [views.node(view, active) for view in found]

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        body = read_body(request)
        message = fleet.AddNode(
            _caller(request),
            body.need("name", str),
            body.need("control_addr", str),
            body.get("region", str) or "",
            body.get("public_ip", str) or "",
            policy(body.object("policy")),
        )
        body.done()
        response.media = views.node_brief(self._change("fleet", message))
        response.status = falcon.HTTP_201


class _Node(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response, key: str) -> None:
        response.media = views.node(self._view(key), self._active_sessions())

    def on_patch(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        body = read_body(request)
        message = fleet.EditNode(
            _caller(request),
            self._node(key).id,
            body.need("version", int),
            body.get("name", str),
            body.get("region", str),
            body.get("control_addr", str),
            body.texts("endpoint_ips"),
            policy(body.object("policy")),
        )
        body.done()
        response.media = views.node_brief(self._change("fleet", message))

    def on_delete(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        version = integer(request.params, "version", None)
        self._change("fleet", fleet.RemoveNode(_caller(request), self._node(key).id, version))
        response.status = falcon.HTTP_204


class _NodeAction(_Resource):
    def __init__(self, services: Services, waiting: threading.BoundedSemaphore) -> None:
        super().__init__(services)
        self._waiting = waiting

    def _ask_link(self, node: Node, message: Any) -> Any:
        if not self._waiting.acquire(blocking=False):
            raise Unavailable(
                f"{_WAITING_FOR_NODES} requests wait for nodes already", remedy="Try again when they have come back."
            )
        try:
            return self._ask(f"node_link:{node.id}", message, _NODE_S)
        finally:
            self._waiting.release()

    def on_post_enable(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        self._set_enabled(request, response, key, enabled=True)

    def on_post_disable(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        self._set_enabled(request, response, key, enabled=False)

    def _set_enabled(self, request: falcon.Request, response: falcon.Response, key: str, *, enabled: bool) -> None:
        body = read_body(request)
        message = fleet.SetNodeEnabled(_caller(request), self._node(key).id, enabled, body.get("version", int))
        body.done()
        response.media = views.node_brief(self._change("fleet", message))

    def on_post_enroll(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        body = read_body(request)
        csr = body.text("csr")
        body.done()
        message = ca.IssueNodeCertificate(_caller(request), self._node(key).id, csr.encode())
        response.media = views.issued(self._change("certificate_authority", message))
        response.status = falcon.HTTP_201

    def on_post_revoke(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        body = read_body(request)
        serial, reason = body.get("serial", str), body.get("reason", str) or ""
        body.done()
        message = ca.RevokeNodeCertificates(_caller(request), self._node(key).id, serial, reason[:200])
        response.media = {"revoked": list(self._change("certificate_authority", message))}

    def on_post_push(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        read_body(request).done()
        node = self._node(key)
        try:
            outcome: links.PushOutcome = self._ask_link(node, links.PushNow())
        except CoxswainError as error:
            # It may have reached the node, or still will: that somebody asked for it is in the log in any case.
            self._change("fleet", fleet.RecordPush(_caller(request), node.id, None, str(error)))
            raise
        self._change("fleet", fleet.RecordPush(_caller(request), node.id, outcome.pushed_revision))
        response.media = views.push_outcome(outcome)

    def on_post_look(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        read_body(request).done()
        self._ask(f"node_link:{self._node(key).id}", links.Look(links.LookReason.OPERATOR))
        response.status = falcon.HTTP_202

    def on_get_plan(self, _request: falcon.Request, response: falcon.Response, key: str) -> None:
        response.media = views.plan(self._ask_link(self._node(key), links.PreviewPlan()))

    def on_get_status(self, _request: falcon.Request, response: falcon.Response, key: str) -> None:
        """The node asked now, and then how it is known."""
        node = self._node(key)
        plan = self._ask_link(node, links.PreviewPlan())
        response.media = views.node(self._view(node.id), self._active_sessions()) | {"plan": views.plan(plan)}


class _Peers(_Resource):
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        users, devices, add, remove = peer_change(read_body(request))
        message = fleet.ApplyPeers(_caller(request), users, devices, add, remove)
        response.media = {"revisions": self._change("fleet", message)}


class _Sessions(_Resource):
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        active = word(request.params, "active")
        if active not in (None, "true", "false"):
            raise InvalidInput(f"active: {active[:40]!r} is not true or false")
        node = word(request.params, "node")
        query = sessions.ListSessions(
            None if active is None else active == "true",
            None if node is None else self._node(node).id,
            word(request.params, "device"),
            word(request.params, "user"),
            integer(request.params, "limit", 100, low=1, high=1_000) or 100,
            integer(request.params, "before", None),
        )
        response.media = [views.session(view) for view in self._ask("session_tracker", query)]


class _Events(_Resource):
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        after = integer(request.params, "after", 0) or 0
        limit = integer(request.params, "limit", 500, low=1, high=5_000) or 500
        response.media = views.events(self._ask("event_hub", hub.EventsAfter(after, limit)))


class _Ca(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.media = views.ca(self._ask("certificate_authority", ca.DescribeCa()))


class _Audit(_Resource):
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        limit = integer(request.params, "limit", 100, low=1, high=1_000) or 100
        found = self._ask("audit_writer", audit.ListAudit(limit, integer(request.params, "before", None)))
        response.media = [views.audit_entry(seq, entry) for seq, entry in found]


class _AuditHead(_Resource):
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        head: audit.AuditHead = self._ask("audit_writer", audit.GetAuditHead())
        response.media = {"size": head.size, "row_hash": head.row_hash}


class _Chaos(_Resource):
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        body: Body = read_body(request)
        actor, how = body.need("actor", str), body.need("how", str)
        seconds = body.get("seconds", int) or 3600
        body.done()
        self._services.harm(actor, how, float(seconds))
        response.status = falcon.HTTP_204


def _caller(request: falcon.Request) -> Caller:
    """Who is at the other end of the control socket: file permissions let them in, the kernel names them."""
    marker, _, uid = request.env.get("REMOTE_ADDR", "").partition(PEER_UID)
    if marker or not uid.isdigit():
        return Caller("cli", "cli")
    try:
        return Caller(pwd.getpwuid(int(uid)).pw_name, "cli")
    except KeyError:
        return Caller(f"uid {uid}", "cli")


_dumps: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _no_serializer(_request: falcon.Request, _response: falcon.Response, _error: falcon.HTTPError) -> None:
    """Error handlers below write all bodies."""


def _problem(response: falcon.Response, status: int, title: str, detail: str, **more: Any) -> None:
    response.status = falcon.code_to_http_status(status)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail} | more
    response.text = _dumps(body)
    response.content_type = "application/problem+json"


def _on_error(_request: falcon.Request, response: falcon.Response, error: CoxswainError, _params: Any) -> None:
    door = door_of(error)
    more: dict[str, Any] = {"exit_code": door.exit_code}
    if error.remedy:
        more["remedy"] = error.remedy
    if isinstance(error, StaleVersion):
        more["current"] = error.current
    _problem(response, door.http, type(error).__name__, str(error), **more)


def _on_http_error(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError, _params: Any) -> None:
    status = falcon.http_status_to_code(error.status)
    response.set_headers(error.headers or {})
    sentences = {
        404: f"there is nothing at {request.path[:200]!a}",
        405: f"{request.method} is not for {request.path[:200]!a}",
    }
    sentence = sentences.get(status) or error.description or error.title or "error"
    _problem(response, status, error.title or "error", sentence, exit_code={404: 4}.get(status, 2 if status < 500 else 1))


def _on_unexpected(_request: falcon.Request, response: falcon.Response, error: Exception, _params: Any) -> None:
    _log.error("a request failed unexpectedly", exc_info=error)
    _problem(response, 500, "InternalError", "the daemon failed on this request; its log tells why", exit_code=1)
