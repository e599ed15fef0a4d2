"""How often the log is signed, and for how long it keeps payloads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AuditSettings"]


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """See ``audit.*`` and ``retention.audit_days`` in docs/configuration.md.

    Attributes:
        checkpoint_records: a checkpoint is due after so many new records,
        checkpoint_s: and after so many seconds in any case: a silence is how one notices that somebody stopped the log.
        retention_days: payloads of older records go; 0: they are kept for ever.
    """

    checkpoint_records: int = 1_000
    checkpoint_s: float = 600.0
    retention_days: int = 0
