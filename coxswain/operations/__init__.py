"""Changes of several steps that outlive a crash: their records, their kinds, and what happens next. Pure.

``actors/operations`` runs them; ``coxswain/store/operations.py`` is their journal.
"""

from coxswain.operations.kinds import Kind, NeedsSecret, OnFailure, Recovery, Step, Work
from coxswain.operations.model import (
    Direction,
    Operation,
    OperationState,
    Secrets,
    StepRecord,
    StepState,
)

__all__ = [
    "Direction",
    "Kind",
    "NeedsSecret",
    "OnFailure",
    "Operation",
    "OperationState",
    "Recovery",
    "Secrets",
    "Step",
    "StepRecord",
    "StepState",
    "Work",
]
