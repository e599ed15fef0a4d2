"""Reading the log: newest first, filtered, in pages."""

from __future__ import annotations

from coxswain.audit.tree import FAR
from coxswain.messages.audit import AuditEntry, AuditFilter
from coxswain.store.api import Tx, Value

__all__ = ["list_entries"]

_ENTRY = "id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, result, error"
_ALL = AuditFilter()
_EQUAL = ("actor", "actor_kind", "action", "target_type", "target_id", "source_ip", "result")


def list_entries(
    tx: Tx, *, limit: int, before: int | None = None, chosen: AuditFilter = _ALL
) -> list[tuple[int, AuditEntry]]:
    """Newest first, those older than sequence number ``before`` that ``chosen`` lets through.

    Records whose payload retention has taken are not among them.
    """
    terms = ["seq < ?"]
    values: list[Value] = [before if before is not None else FAR]
    for column in _EQUAL:
        wanted = getattr(chosen, column)
        if wanted is not None:
            terms.append(f"{column} = ?")
            values.append(wanted)
    for term, bound in (("at >= ?", chosen.since), ("at <= ?", chosen.until), ("seq > ?", chosen.above)):
        if bound is not None:
            terms.append(term)
            values.append(bound)
    rows = tx.execute(
        f"SELECT seq, {_ENTRY} FROM audit_log WHERE {' AND '.join(terms)} ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (*values, limit),
    )
    return [(row[0], AuditEntry(*row[1:])) for row in rows]
