"""Signed heads of the log, in the format of https://c2sp.org/tlog-checkpoint: origin, size, root. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from coxswain.audit.note import BadNote, Signer, Verifier, open_note

__all__ = ["Checkpoint", "make_checkpoint", "open_checkpoint", "peek", "silence"]

_GRACE_S = 30.0
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log said it was.

    Attributes:
        origin: which log.
        size: number of records.
        root: of the Merkle tree over them.
        at: epoch seconds that the signer vouches for; None: it does not.
        note: the whole signed text.
    """

    origin: str
    size: int
    root: bytes
    at: int | None
    note: str

    @property
    def root_text(self) -> str:
        """As it stands in the note (RFC 4648 section 4)."""
        return base64.b64encode(self.root).decode()


def make_checkpoint(signer: Signer, size: int, root: bytes, at: float) -> Checkpoint:
    """Signs a head. The log's name is that of the key. ``at``: epoch seconds."""
    origin = signer.verifier.name
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    return Checkpoint(origin, size, root, int(at), signer.sign(text, at))


def open_checkpoint(note: str, known: Iterable[Verifier]) -> Checkpoint:
    """Checks the signature, then reads. Raises ``BadNote``."""
    opened = open_note(note, known)
    return _read(opened.text, opened.at, note)


def peek(note: str) -> Checkpoint:
    """Reads without checking any signature: for telling which log a checkpoint is of. Raises ``BadNote``."""
    return _read(note.partition("\n\n")[0] + "\n", None, note)


def _read(text: str, at: int | None, note: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise BadNote("it is no checkpoint: origin, size and root, a line each")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError:
        root = b""
    if len(root) != 32:
        raise BadNote("the third line of the checkpoint is no root hash")
    return Checkpoint(lines[0], int(lines[1]), root, at, note)


def silence(at: float, interval_s: float, now: float) -> str:
    """A sentence, if the next checkpoint is long overdue; empty if not.

    A log that somebody has stopped gives no sign but that none comes any more: whoever keeps checkpoints must miss them.

    Args:
        at: of the newest checkpoint, epoch seconds.
        interval_s: seconds after which the next one is due.
        now: epoch seconds.
    """
    silent = now - at
    if silent <= 2 * interval_s + _GRACE_S:
        return ""
    return f"the newest checkpoint is {silent:.0f} s old, and one is due every {interval_s:g} s: the log was stopped"
