"""The audit log, to JSON: its records, how it stands, and what checking it found."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

from coxswain.api.views import stamp
from coxswain.audit.verify import Report
from coxswain.messages.audit import AuditEntry, AuditState

__all__ = ["record", "report", "state"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def record(seq: int, entry: AuditEntry) -> dict[str, Any]:
    """management-plane.md 3.3, AuditRecord, with its sequence number; ``detail`` and ``error`` only where there are any."""
    found = {
        "seq": seq,
        "id": entry.id,
        "at": (_EPOCH + dt.timedelta(microseconds=entry.at)).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "action": entry.action,
        "target_type": entry.target_type,
        "target_id": entry.target_id,
        "source_ip": entry.source_ip,
        "result": entry.result,
    }
    if entry.detail:
        found["detail"] = _detail(entry.detail)
    if entry.error:
        found["error"] = entry.error
    return found


def _detail(text: str) -> dict[str, Any]:
    """Whoever can write the database can write anything there; the log must be readable all the same."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": text[:200]}


def state(log: AuditState) -> dict[str, Any]:
    return {
        "size": log.size,
        "row_hash": log.row_hash,
        "root": log.root,
        "origin": log.origin,
        "public_key": log.public_key,
        "checkpoint": log.checkpoint,
        "checkpoint_size": log.checkpoint_size,
        "checkpoint_at": stamp(log.checkpoint_at),
        "checkpoint_interval_s": log.interval_s,
        "purged": log.purged,
        "findings": list(log.findings),
    }


def report(found: Report) -> dict[str, Any]:
    broken, newest = found.broken, found.newest
    return {
        "ok": found.ok,
        "records": found.good,
        "size": found.size,
        "purged": found.purged,
        "root": base64.b64encode(found.root).decode(),
        "first_bad": found.first_bad,
        "reason": broken.why if broken else found.findings[0].why if found.findings else None,
        "findings": [*([broken.why] if broken else []), *(finding.why for finding in found.findings)],
        "checkpoints": found.checked,
        "newest_checkpoint": newest.note if newest else None,
        "newest_checkpoint_at": stamp(newest.at) if newest else None,
        "notes": list(found.notes),
    }
