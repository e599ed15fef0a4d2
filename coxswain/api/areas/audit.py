"""The audit log (management-plane.md 9): records, checkpoints, verification, proofs, export. See docs/audit.md."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from coxswain.api import audit_views
from coxswain.api.call import CHANGE_S, Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, NUMBER, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.errors import InvalidInput
from coxswain.messages import audit

__all__ = ["ROUTES"]

AUDIT_RECORD = shape(
    "AuditRecord",
    obj(
        {
            "seq": INT,
            "id": TEXT,
            "at": STAMP,
            "actor": TEXT,
            "actor_kind": TEXT,
            "action": TEXT,
            "target_type": TEXT,
            "target_id": TEXT,
            "source_ip": TEXT,
            "result": choice("ok", "error"),
        },
        {"detail": {"type": "object"}, "error": TEXT},
    ),
)
AUDIT_HEAD = shape(
    "AuditHead",
    obj(
        {
            "size": INT | {"description": "records, those without payload included"},
            "row_hash": TEXT | {"description": "of the newest record, hex"},
            "root": TEXT | {"description": "of the Merkle tree, base64; empty: the log is damaged"},
            "origin": TEXT | {"description": "name of the log"},
            "public_key": TEXT | {"description": "name+id+key, as c2sp.org/signed-note has it"},
            "checkpoint": TEXT
            | {"description": "the newest signed head, as c2sp.org/tlog-checkpoint has it; empty: none yet"},
            "checkpoint_size": INT,
            "checkpoint_at": nullable(STAMP),
            "checkpoint_interval_s": NUMBER | {"description": "the next one comes after so many seconds at the latest"},
            "purged": INT | {"description": "payloads of records 1 to this one are gone, by retention"},
            "findings": array(TEXT) | {"description": "what is wrong with the log; normally nothing"},
        }
    ),
)
AUDIT_REPORT = shape(
    "AuditReport",
    obj(
        {
            "ok": BOOL,
            "records": INT | {"description": "that are good, from the first on"},
            "size": INT,
            "purged": INT,
            "root": TEXT,
            "first_bad": nullable(INT)
            | {"description": "the first record that is not what it was, as narrowly as can be told"},
            "reason": nullable(TEXT),
            "findings": array(TEXT),
            "checkpoints": INT | {"description": "that were compared"},
            "newest_checkpoint": nullable(TEXT),
            "newest_checkpoint_at": nullable(STAMP),
            "notes": array(TEXT) | {"description": "what is not wrong, but should be known"},
        }
    ),
)
PROOF = shape(
    "AuditProof",
    obj(
        {
            "type": choice("coxswain-audit-inclusion", "coxswain-audit-consistency"),
            "version": INT,
            "public_key": TEXT,
            "path": array(TEXT) | {"description": "hashes, base64, from the leaf upwards (RFC 6962)"},
            "checkpoint": TEXT,
        },
        {
            "seq": INT,
            "leaf": TEXT,
            "record": {"type": "object"},
            "old": INT,
            "old_root": TEXT,
            "old_checkpoint": nullable(TEXT),
        },
    ),
)
EXPORT = shape("AuditExport", obj({"lines": array(TEXT), "next": nullable(INT)}))

_SEQ = limited(0, 2**53 - 1)
_VERIFY_S = 1_800.0
_FILTERS = ("actor", "actor_kind", "action", "target_type", "target_id", "source_ip", "result")
_MOST_CHECKPOINTS = 20
_LONGEST_CHECKPOINT = 32_768


def _list(call: Call) -> Any:
    limit = call.limit()
    words = {name: call.word(name) for name in _FILTERS}
    if words["result"] not in (None, "ok", "error"):
        raise InvalidInput(f"result: {words['result'][:40]!r} is not ok or error")
    chosen = audit.AuditFilter(**words, since=call.instant("since"), until=call.instant("until"), above=call.number("above"))
    found = call.ask("audit_reader", audit.ListAudit(limit + 1, call.number("after"), chosen))
    page = [audit_views.record(seq, entry) for seq, entry in found[:limit]]
    return Reply(page, after=page[-1]["seq"] if len(found) > limit else None)


def _head(call: Call) -> Any:
    return audit_views.state(call.ask("audit_writer", audit.DescribeAudit()))


def _verify(call: Call) -> Any:
    given = call.query.get("against", [])
    notes = [_note(text) for text in (given if isinstance(given, list) else [given])]
    if len(notes) > _MOST_CHECKPOINTS:
        raise InvalidInput(f"against: {len(notes)} checkpoints are too many; at most {_MOST_CHECKPOINTS}")
    return audit_views.report(call.ask("audit_reader", audit.VerifyAudit(tuple(notes)), _VERIFY_S))


def _note(text: str) -> str:
    """A checkpoint out of the query string: base64, of either alphabet, because it has lines."""
    if len(text) > _LONGEST_CHECKPOINT:
        raise InvalidInput(f"against: {len(text)} characters are too many for a checkpoint")
    try:
        raw = text.strip().replace(" ", "+").replace("-", "+").replace("_", "/")
        return base64.b64decode(raw + "=" * (-len(raw) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidInput("against: is not a checkpoint in base64") from None


def _inclusion(call: Call) -> Any:
    return call.ask("audit_reader", audit.ProveInclusion(_number_in_path(call, "seq")), CHANGE_S)


def _consistency(call: Call) -> Any:
    return call.ask("audit_reader", audit.ProveConsistency(_number_in_path(call, "old")), CHANGE_S)


def _number_in_path(call: Call, name: str) -> int:
    text = call.path[name]
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidInput(f"{name}: {text[:40]!r} is not a whole number")
    return int(text)


def _export(call: Call) -> Any:
    first = call.number("after", 1, low=1) or 1
    page: audit.ExportPage = call.ask("audit_reader", audit.ExportAudit(first, call.limit(5_000, 10_000)), CHANGE_S)
    return Reply({"lines": list(page.lines), "next": page.next}, after=page.next)


def _accept(call: Call) -> Any:
    reason = call.body.need("reason", str)
    call.body.done()
    if not reason.strip():
        raise InvalidInput("reason: is empty; say why the log does not extend its checkpoints")
    seq = call.ask("audit_writer", audit.AcceptBreak(call.caller, reason[:500]), CHANGE_S)
    call.recorded = True  # the record is what the writer made
    return {"seq": seq}


ROUTES = (
    Route(
        "GET",
        "/api/audit",
        Scope.ADMIN,
        "Records of the audit log, newest first.",
        _list,
        returns=array(AUDIT_RECORD),
        query=(
            *(Param(name, "exactly this") for name in _FILTERS if name != "result"),
            Param("result", "exactly this", choice("ok", "error")),
            Param("since", "not older", STAMP),
            Param("until", "not younger", STAMP),
            Param("above", "only records with a larger number: what came since", _SEQ),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
            Param("after", "the cursor of the page before", _SEQ),
        ),
    ),
    Route(
        "GET",
        "/api/audit/head",
        Scope.READONLY,
        "How long the log is, its root, its newest signed checkpoint, and whether anything is wrong with it.",
        _head,
        returns=AUDIT_HEAD,
    ),
    Route(
        "GET",
        "/api/audit/verify",
        Scope.MONITOR,
        "Walks the whole log, and compares it with every checkpoint there is.",
        _verify,
        returns=AUDIT_REPORT,
        query=(Param("against", "a checkpoint that was kept elsewhere, in base64; may be repeated"),),
    ),
    Route(
        "GET",
        "/api/audit/proof/inclusion/{seq}",
        Scope.ADMIN,
        "A proof that a record is in the log.",
        _inclusion,
        returns=PROOF,
    ),
    Route(
        "GET",
        "/api/audit/proof/consistency/{old}",
        Scope.READONLY,
        "A proof that the log begins with its first records as they were.",
        _consistency,
        returns=PROOF,
    ),
    Route(
        "GET",
        "/api/audit/export",
        Scope.ADMIN,
        "The log as lines of JSON, in pages; the last one ends with the checkpoints.",
        _export,
        returns=EXPORT,
        query=(
            Param("limit", "how many records at most; 0 or absent: 5000", limited(0, 10_000)),
            Param("after", "the cursor of the page before", limited(1, 2**53 - 1)),
        ),
    ),
    Route(
        "POST",
        "/api/audit/accept",
        Scope.ADMIN,
        "Lets a log that does not extend its checkpoints go on under a new name.",
        _accept,
        audit="audit.restart",
        target="audit",
        returns=obj({"seq": INT}),
        also=(409,),
        body=obj({"reason": TEXT}),
    ),
)
