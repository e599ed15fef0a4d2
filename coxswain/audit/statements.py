"""What the audit key says besides checkpoints: that retention took payloads, and that a log goes on under another name.

Both are signed notes, carried in the detail of an audit record. They are what makes a missing payload, or a new name,
the work of this controller and not of somebody who can write its database. Pure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coxswain.audit.note import BadNote, OpenedNote, Signer, Verifier, open_note
from coxswain.errors import InvalidInput
from coxswain.messages.audit import AuditEntry

__all__ = [
    "PURGE",
    "RESTART",
    "Purged",
    "Restarted",
    "open_purge",
    "open_restart",
    "sign_purge",
    "sign_restart",
    "statement_in",
]

PURGE = "audit.purge"
"""Action of the record that says what retention took."""

RESTART = ("backup.restore", "audit.restart")
"""Actions of records after which the log has a new name."""

_PURGE_HEAD = "coxswain audit purge v1"
_RESTART_HEAD = "coxswain audit restart v1"


@dataclass(frozen=True, slots=True)
class Purged:
    """The payloads of records 1 to ``last`` are gone. ``row_hash`` is that of record ``last``, ``root`` that of the
    tree then.
    """

    last: int
    row_hash: str
    root: bytes


@dataclass(frozen=True, slots=True)
class Restarted:
    """The log goes on under another name.

    Attributes:
        previous: the key that signed it before.
        kept: how many records it has from there; checkpoints of the old name over more than these are given up.
        abandoned: the newest checkpoint of the old name that is known (its whole note), or empty.
    """

    previous: Verifier
    kept: int
    abandoned: str


def sign_purge(signer: Signer, purged: Purged, at: float) -> str:
    """Returns the note."""
    root = base64.b64encode(purged.root).decode()
    return signer.sign(f"{_PURGE_HEAD}\n{signer.verifier.name}\n{purged.last}\n{purged.row_hash}\n{root}\n", at)


def open_purge(note: str, known: Iterable[Verifier]) -> Purged:
    """Raises ``BadNote``."""
    lines = _lines(open_note(note, known), _PURGE_HEAD, 5)
    try:
        return Purged(int(lines[2]), lines[3], base64.b64decode(lines[4], validate=True))
    except ValueError:
        raise BadNote("the statement of what was purged cannot be read") from None


def sign_restart(signer: Signer, restarted: Restarted, at: float) -> str:
    """Signed by the *new* key: whoever trusts it learns which one was there before."""
    abandoned = base64.b64encode(restarted.abandoned.encode()).decode() or "-"
    text = f"{_RESTART_HEAD}\n{signer.verifier.name}\n{restarted.previous}\n{restarted.kept}\n{abandoned}\n"
    return signer.sign(text, at)


def open_restart(note: str, known: Iterable[Verifier]) -> Restarted:
    """Raises ``BadNote``."""
    lines = _lines(open_note(note, known), _RESTART_HEAD, 5)
    try:
        abandoned = "" if lines[4] == "-" else base64.b64decode(lines[4], validate=True).decode()
        return Restarted(Verifier.parse(lines[2]), int(lines[3]), abandoned)
    except (ValueError, InvalidInput):
        raise BadNote("the statement of the restart cannot be read") from None


def statement_in(entry: AuditEntry) -> str:
    """The note in the detail of a record; raises ``BadNote`` if there is none."""
    try:
        detail: Any = json.loads(entry.detail)
    except ValueError:
        detail = None
    note = detail.get("statement") if isinstance(detail, dict) else None
    if not isinstance(note, str):
        raise BadNote(f"the record {entry.id} carries no signed statement")
    return note


def _lines(opened: OpenedNote, head: str, count: int) -> list[str]:
    lines = opened.text[:-1].split("\n")
    if lines[0] != head or len(lines) != count:
        raise BadNote(f"it is not a statement of the kind {head!r}")
    return lines
