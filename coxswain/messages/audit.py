"""Messages to ``audit_writer``, and what every audited change carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["AuditEntry", "AuditHead", "AwaitAudited", "Caller", "Committed", "GetAuditHead", "ListAudit", "OutboxGrew"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for a change.

    Attributes:
        actor: OS user, token name or account (management-plane.md 9.1).
        kind: ``cli``, ``token``, ``session`` or ``system``.
        source_ip: TCP peer without port; empty on the control socket.
    """

    actor: str
    kind: str
    source_ip: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One management action. ``detail`` is compact JSON with sorted keys, or empty; never a secret.

    ``at`` is epoch microseconds; ``id`` is ``aud_…``.
    """

    id: str
    at: int
    actor: str
    actor_kind: str
    action: str
    target_type: str
    target_id: str
    source_ip: str = ""
    detail: str = ""
    result: str = "ok"
    error: str = ""


@dataclass(frozen=True, slots=True)
class Committed(Generic[T]):
    """The reply to every mutation: its value, and the outbox row that carries its audit record.

    The door answers its caller only after ``AwaitAudited(outbox_id)`` came back.
    """

    value: T
    outbox_id: int


@dataclass(frozen=True, slots=True)
class OutboxGrew:
    """Told by whoever committed a change: there is something to append. Repeats are harmless."""


@dataclass(frozen=True, slots=True)
class AwaitAudited:
    """Asked by a door: append the outbox up to and including ``outbox_id``. Reply: the log's size (int)."""

    outbox_id: int


@dataclass(frozen=True, slots=True)
class GetAuditHead:
    """Asked by doors. Reply: ``AuditHead``."""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Newest record of the log: its sequence number (records are numbered from 1 without gaps) and row hash."""

    size: int
    row_hash: str


@dataclass(frozen=True, slots=True)
class ListAudit:
    """Asked by doors. Reply: list of ``(seq, AuditEntry)``, newest first, at most ``limit``, older than ``before``."""

    limit: int = 100
    before: int | None = None
