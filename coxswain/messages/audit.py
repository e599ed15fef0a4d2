"""Messages to ``audit_writer`` and ``audit_reader``, and what every audited change carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = [
    "AcceptBreak",
    "AuditEntry",
    "AuditFilter",
    "AuditHead",
    "AuditState",
    "AwaitAudited",
    "Caller",
    "Committed",
    "DescribeAudit",
    "ExportAudit",
    "ExportPage",
    "GetAuditFindings",
    "GetAuditHead",
    "ListAudit",
    "OutboxGrew",
    "ProveConsistency",
    "ProveInclusion",
    "SignNow",
    "VerifyAudit",
    "WalkDone",
]

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
class AuditFilter:
    """What a listing is cut down to; None lets everything through, texts must be equal.

    Attributes:
        since: epoch microseconds; not older.
        until: epoch microseconds; not younger.
        above: only records with a larger sequence number: what came since the last look.
    """

    actor: str | None = None
    actor_kind: str | None = None
    action: str | None = None
    target_type: str | None = None
    target_id: str | None = None
    source_ip: str | None = None
    result: str | None = None
    since: int | None = None
    until: int | None = None
    above: int | None = None


@dataclass(frozen=True, slots=True)
class ListAudit:
    """Asked by doors of ``audit_reader``. Reply: list of ``(seq, AuditEntry)``, newest first, at most ``limit``, older
    than ``before``.
    """

    limit: int = 100
    before: int | None = None
    chosen: AuditFilter = AuditFilter()


@dataclass(frozen=True, slots=True)
class DescribeAudit:
    """Asked by doors. Reply: ``AuditState``."""


@dataclass(frozen=True, slots=True)
class GetAuditFindings:
    """Asked by doors, as often as they like. Reply: ``AuditState.findings``, without a look at the store."""


@dataclass(frozen=True, slots=True)
class AuditState:
    """How the log is.

    Attributes:
        size: records, those without payload included.
        row_hash: of the newest.
        root: of the tree over all of them, base64; empty: it cannot be told (see ``findings``).
        origin: name of the log.
        public_key: ``name+id+key``, which checks its checkpoints.
        checkpoint: the newest one, the whole note; empty: none yet.
        checkpoint_at: epoch seconds.
        checkpoint_size: records in it.
        interval_s: at the latest so many seconds after it, the next one is made.
        purged: the payloads of records 1 to this one are gone, by retention.
        findings: sentences about what is wrong.
        unsigned: those of them for which no checkpoint is signed: the log does not extend what was signed before.
    """

    size: int
    row_hash: str
    root: str
    origin: str
    public_key: str
    checkpoint: str
    checkpoint_at: float
    checkpoint_size: int
    interval_s: float
    purged: int
    findings: tuple[str, ...]
    unsigned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyAudit:
    """Asked by doors of ``audit_reader``. ``against`` are checkpoints (notes) that were kept elsewhere. Reply:
    ``coxswain.audit.verify.Report``, after as long as it takes (a second for each 200,000 records or so); the writer
    goes on meanwhile.
    """

    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignNow:
    """Asked by ``audit_reader``. Reply: a ``Checkpoint`` of the log as it is.

    Raises:
        Conflict: the log does not extend what was signed before.
    """


@dataclass(frozen=True, slots=True)
class WalkDone:
    """Told by ``audit_reader`` to ``audit_writer``: what a walk over the whole log found; nothing, if all is well."""

    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProveInclusion:
    """Asked by doors of ``audit_reader``: that record ``seq`` is in the log of a fresh checkpoint. Reply: the proof, a
    dict of JSON values.

    Raises:
        NotFound: there is no such record.
    """

    seq: int


@dataclass(frozen=True, slots=True)
class ProveConsistency:
    """Asked by doors of ``audit_reader``: that the log of a fresh checkpoint begins with its first ``old`` records as
    they were. Reply:
    the proof, a dict of JSON values.

    Raises:
        NotFound: the log never had so many records.
    """

    old: int


@dataclass(frozen=True, slots=True)
class ExportAudit:
    """Asked by doors of ``audit_reader``: the log as lines of JSON, from record ``first``, at most ``limit`` records.
    Reply: ``ExportPage``.
    """

    first: int = 1
    limit: int = 5_000


@dataclass(frozen=True, slots=True)
class ExportPage:
    """``next`` is where the next page begins; None: this was the last one, and ends with the checkpoints."""

    lines: tuple[str, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class AcceptBreak:
    """Asked by doors, for an operator who knows why the log does not extend its checkpoints (a database put back by
    hand, say):
    from here on it goes on under a new name, and the log says so. Reply: its sequence number (int).

    Raises:
        Conflict: nothing is wrong with it.
    """

    caller: Caller
    reason: str
