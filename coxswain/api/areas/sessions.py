"""Sessions: who was connected where, when, and how much went through (management-plane.md 6)."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.messages import sessions

__all__ = ["ROUTES"]

SESSION = shape(
    "Session",
    obj(
        {
            "id": INT,
            "node_id": TEXT,
            "protocol": choice("amneziawg", "xray-reality"),
            "peer_key": TEXT,
            "device_id": nullable(TEXT),
            "user_id": nullable(TEXT),
            "opened_at": nullable(STAMP),
            "closed_at": nullable(STAMP),
            "endpoint": TEXT,
            "rx_bytes": nullable(INT),
            "tx_bytes": nullable(INT),
            "reason": TEXT,
        }
    ),
)


def _list(call: Call) -> Any:
    active, node = call.flag("active"), call.word("node")
    limit = call.limit()
    query = sessions.ListSessions(
        active,
        None if node is None else call.node(node).id,
        call.word("device"),
        call.word("user"),
        limit + 1,
        call.number("after"),
    )
    found = call.ask("session_tracker", query)
    page = [views.session(view) for view in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


ROUTES = (
    Route(
        "GET",
        "/api/sessions",
        Scope.MONITOR,
        "Sessions, newest first.",
        _list,
        returns=array(SESSION),
        also=(404,),
        query=(
            Param("active", "only those that are open, or only those that are not", BOOL),
            Param("node", "id or name of the node"),
            Param("device", "id of the device"),
            Param("user", "id of the user"),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
            Param("after", "the cursor of the page before", limited(0, 2**53 - 1)),
        ),
    ),
)
