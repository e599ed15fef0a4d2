"""The append-only file of checkpoints beside the state: what the log was, told to somebody who is not the database.

Notes one after the other, an empty line between them. Nothing in it is ever changed. A note that a crash cut short is
skipped by readers; the next one is whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CheckpointFile", "split_notes"]

_TAIL = 64 * 1024
_CUT_SHORT = "\n~ cut short\n\n"
"""Behind what a crash left: whatever that looks like, it is no note."""

_NOTE = re.compile(r"(?:[^\n]+\n)+\n(?:\N{EM DASH} [^\n]+\n)+(?=\n|\Z)")


class CheckpointFile:
    """One writer at a time: whoever holds the state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, note: str) -> None:
        """Adds a note and syncs it. Raises ``OSError``."""
        descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            whole = end == 0 or os.pread(descriptor, 2, max(0, end - 2)) == b"\n\n"
            raw = (("" if whole else _CUT_SHORT) + note + "\n").encode()
            written = os.write(descriptor, raw)
            if written != len(raw):  # the disk is full; the rest would not fit either
                raise OSError(28, "no space left for the checkpoint", str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def newest(self) -> str | None:
        """The last whole note."""
        return next(iter(list(split_notes(self._read(_TAIL)))[-1:]), None)

    def notes(self) -> Iterator[str]:
        """All of them, oldest first."""
        return split_notes(self._read(None))

    def _read(self, tail: int | None) -> str:
        try:
            with self.path.open("rb") as file:
                if tail is not None:
                    file.seek(0, os.SEEK_END)
                    file.seek(max(0, file.tell() - tail))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


def split_notes(text: str) -> Iterator[str]:
    """The whole notes in a text; what stands between them is skipped."""
    position = 0
    while True:
        found = _NOTE.search(text, position)
        if found is None:
            return
        yield found[0]
        position = found.end()
