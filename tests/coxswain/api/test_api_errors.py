"""What a door says when the system behind it fails: a stand-in, as no real one fails in these ways on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import falcon.testing
import pytest

from coxswain.api.app import create_app
from coxswain.api.doors import ControlDoor
from coxswain.api.services import Identity
from coxswain.errors import (
    CoxswainError,
    DeadlineExceeded,
    InvalidInput,
    KeyUnavailable,
    NodeUnreachable,
    NotFound,
    Refused,
    StaleVersion,
    Unavailable,
    door_of,
)
from coxswain.messages.access import RecordRefusal
from coxswain.messages.audit import AwaitAudited, Committed, GetAuditFindings
from coxswain.messages.fleet import GetNode, NodeView, RemoveNode
from coxswain.messages.geo import Locate
from coxswain.messages.operations import ListOperations, OperationsPage
from coxswain.messages.sessions import GetActiveSessions
from coxswain.model import LinkState, Node
from tests.support import eventually

NODE = Node("nod_aaaaaaaaaaaaaaaa", "a")


class Stand:
    """Answers from a table of functions, by type of message."""

    identity = Identity("1.2.3", 4, 0.0, "sqlite", "/state")

    def __init__(self, answers: dict[type[Any], Callable[[], Any]]) -> None:
        views: dict[type[Any], Callable[[], Any]] = {
            GetNode: lambda: NodeView(NODE, LinkState.LIVE),
            GetActiveSessions: dict,
            RecordRefusal: lambda: None,
            GetAuditFindings: tuple,
            Locate: dict,
            ListOperations: lambda: OperationsPage(()),
        }
        self.answers = views | answers
        self.asked: list[Any] = []

    def ask(self, name: str, message: Any, *, deadline: float) -> Any:
        assert deadline > 0
        self.asked.append((name, message))
        return self.answers[type(message)]()

    def tree(self, *, links: bool = True) -> dict[str, Any]:
        link = {"id": "node_link:x", "state": "backing_off", "restarts": 7, "children": []}
        holder = {"id": "node_links", "state": "running", "restarts": 0, "children": [link] if links else []}
        fleet = {"id": "fleet", "state": "restarting", "restarts": 1, "children": []}
        return {"id": "root", "state": "running", "restarts": 0, "children": [holder, fleet]}

    def setting(self, name: str) -> Any:
        return ""

    def see_host_key(self, host: str, port: int, route: Any = ()) -> str:
        raise NodeUnreachable(f"{host} port {port} by {route}: nobody answers")

    def check_harm(self, name: str, how: str) -> None:
        raise Refused("no")

    def harm(self, name: str, how: str, seconds: float) -> None:
        raise Refused("no")


def client(answers: dict[type[Any], Callable[[], Any]]) -> falcon.testing.TestClient:
    return falcon.testing.TestClient(create_app(Stand(answers), ControlDoor()))


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("name: no"),
        NotFound("no node"),
        StaleVersion("changed", current=7),
        Refused("no"),
        KeyUnavailable("no key", remedy="Give it."),
        Unavailable("not now"),
        DeadlineExceeded("too late"),
        NodeUnreachable("gone"),
        CoxswainError("other"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_each_error_is_a_problem_document(error: CoxswainError) -> None:
    answer = client({GetNode: raising(error)}).simulate_get("/api/nodes/a")
    assert answer.status_code == door_of(error).http
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == "about:blank"
    assert problem["title"] == type(error).__name__
    assert problem["status"] == answer.status_code
    assert problem["detail"] == problem["error"] == str(error)
    assert problem["exit_code"] == door_of(error).exit_code
    assert problem.get("remedy", "") == error.remedy
    assert problem.get("current") == (7 if isinstance(error, StaleVersion) else None)


def test_an_unexpected_failure_tells_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    answer = client({GetNode: raising(ValueError("hunter2"))}).simulate_get("/api/nodes/a")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text and "ValueError" not in answer.text
    assert answer.json["exit_code"] == 1
    assert "hunter2" in caplog.text, "the log has it"


@pytest.mark.parametrize(("method", "path", "status", "code"), [("GET", "/api/nope", 404, 4), ("PUT", "/api/nodes", 405, 2)])
def test_unknown_places_and_methods_are_problems_too(method: str, path: str, status: int, code: int) -> None:
    answer = client({}).simulate_request(method, path)
    assert answer.status_code == status
    assert path in answer.json["error"] and answer.json["exit_code"] == code


def test_a_change_whose_record_is_late_says_that_it_was_made() -> None:
    answers = {RemoveNode: lambda: Committed(NODE, 5), AwaitAudited: raising(DeadlineExceeded("audit_writer was silent"))}
    answer = client(answers).simulate_delete("/api/nodes/a")
    assert answer.status_code == 504
    assert "the change is made and kept, but its audit record is not in the log yet: audit_writer" in answer.json["error"]
    assert "Do not repeat it" in answer.json["remedy"]


def test_a_change_is_answered_after_its_record() -> None:
    stand = Stand({RemoveNode: lambda: Committed(NODE, 5), AwaitAudited: lambda: 9})
    answer = falcon.testing.TestClient(create_app(stand, ControlDoor())).simulate_delete("/api/nodes/a?version=3")
    assert answer.status_code == 204
    assert stand.asked[-1] == ("audit_writer", AwaitAudited(5))
    name, message = stand.asked[-2]
    assert name == "fleet" and (message.id, message.version) == (NODE.id, 3)


def test_readiness_names_what_is_down_but_not_the_links() -> None:
    answer = client({}).simulate_get("/readyz")
    assert answer.status_code == 503
    assert (answer.json["ready"], answer.json["down"]) == (False, ["fleet"])
    assert client({}).simulate_get("/healthz").status_code == 200


def test_slow_nodes_do_not_take_every_worker() -> None:
    from coxswain.messages.links import PreviewPlan  # noqa: PLC0415

    go = threading.Event()

    def slow() -> Any:
        assert go.wait(30)
        raise NodeUnreachable("after a while")

    stand = Stand({PreviewPlan: slow})
    app = falcon.testing.TestClient(create_app(stand, ControlDoor()))
    waiting = [threading.Thread(target=app.simulate_get, args=("/api/nodes/a/plan",)) for _ in range(10)]
    for thread in waiting:
        thread.start()
    try:
        eventually(lambda: sum(isinstance(m, PreviewPlan) for _, m in stand.asked) == 10)
        refused = app.simulate_get("/api/nodes/a/status")
        assert refused.status_code == 503 and "wait for nodes already" in refused.json["error"]
        assert app.simulate_get("/api/nodes/a").status_code == 200, "queries go on"
    finally:
        go.set()
        for thread in waiting:
            thread.join()
    assert app.simulate_get("/api/nodes/a/plan").status_code == 502, "and then there is room again"
