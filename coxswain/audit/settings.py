"""How often the log is signed, where that is kept, and for how long payloads are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["AuditPaths", "AuditSettings"]


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """See ``audit.*`` and ``retention.audit_days`` in docs/configuration.md.

    Attributes:
        checkpoint_records: a checkpoint is due after so many new records,
        checkpoint_s: and after so many seconds in any case: a silence is how one notices that somebody stopped the log.
        retention_days: payloads of older records go; 0: they are kept for ever.
    """

    checkpoint_records: int = 1_000
    checkpoint_s: float = 300.0
    retention_days: int = 0


@dataclass(frozen=True, slots=True)
class AuditPaths:
    """Files of the log that are not in the database.

    Attributes:
        key: signs.
        checkpoints: what it has signed.
        revocations: what was revoked, for restores (``coxswain.backup.revocations``).
    """

    key: Path
    checkpoints: Path
    revocations: Path

    @classmethod
    def in_state(cls, state_dir: Path) -> AuditPaths:
        """Where they are if the configuration does not say otherwise."""
        return cls(state_dir / "audit.key", state_dir / "audit-checkpoints", state_dir / "revocations.log")
