"""The audit log (management-plane.md 9)."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.messages import audit

__all__ = ["ROUTES"]

AUDIT_RECORD = shape(
    "AuditRecord",
    obj(
        {
            "seq": INT,
            "id": TEXT,
            "at": nullable(STAMP),
            "actor": TEXT,
            "actor_kind": TEXT,
            "action": TEXT,
            "target_type": TEXT,
            "target_id": TEXT,
            "source_ip": TEXT,
            "detail": nullable({"type": "object"}),
            "result": choice("ok", "error"),
            "error": TEXT,
        }
    ),
)
AUDIT_HEAD = shape("AuditHead", obj({"size": INT, "row_hash": TEXT}))


def _list(call: Call) -> Any:
    limit = call.limit()
    found = call.ask("audit_writer", audit.ListAudit(limit + 1, call.number("after")))
    page = [views.audit_entry(seq, entry) for seq, entry in found[:limit]]
    return Reply(page, after=page[-1]["seq"] if len(found) > limit else None)


def _head(call: Call) -> Any:
    head: audit.AuditHead = call.ask("audit_writer", audit.GetAuditHead())
    return {"size": head.size, "row_hash": head.row_hash}


ROUTES = (
    Route(
        "GET",
        "/api/audit",
        Scope.ADMIN,
        "Records of the audit log, newest first.",
        _list,
        returns=array(AUDIT_RECORD),
        query=(
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
            Param("after", "the cursor of the page before", limited(0, 2**53 - 1)),
        ),
    ),
    Route("GET", "/api/audit/head", Scope.READONLY, "How long the log is, and its newest hash.", _head, returns=AUDIT_HEAD),
)
