"""The companion of the audit log: what was revoked, in an append-only file that no database keeps.

An older copy of the state does not know what was revoked after it was made. This file does: the audit writer appends each
record of a revoking action to it before the change is acknowledged (``RevocationLog.catch_up``), and a restore applies, in
order, those that the restored audit log does not hold (``coxswain.backup.replay``).

One JSON object a line; ``prev`` is the SHA-256 of the line before it (without its newline), so that a line that was changed
or taken out is noticed. A cut tail is not: keep a copy of the file elsewhere, as of the checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coxswain.clock import to_micros
from coxswain.errors import Refused
from coxswain.store.api import Tx

__all__ = ["FILE", "Entry", "RevocationLog", "end_of", "is_revoking", "read_file"]

FILE = "revocations.log"
"""In the state directory."""

_REVOKING = (
    "revoke", "rm", "remove", "suspend", "resume", "password", "disable", "enable", "totp_enable", "totp_remove",
    "recovery_code", "claim",
)  # fmt: skip
"""The last words of the actions that take something away, use it up, or give it back."""

_BY_DETAIL = ("admin.update", "user.update", "device.provision", "server.trust")
"""Say in their detail whether they did: an account was disabled, keys were made anew, another host key is trusted."""

_FORGETTING = ("removed.forget",)
"""A name that was to be nowhere any more must not come back with a backup."""

_ISSUING = ("node.enroll", "relay.enroll")
"""Give something; in the file all the same. Without them nobody would know of a certificate that was issued after the
backup, and with that, whether it is still good or was revoked later.
"""

_BATCH = 1_000
_SEEN_EVERY = 10_000
"""Records with nothing for the file, after which it notes how far it is, so that a start need not look at all of them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One audit record of such an action. ``at``: epoch microseconds."""

    seq: int
    id: str
    at: int
    action: str
    target_type: str
    target_id: str
    detail: dict[str, Any]


def is_revoking(action: str) -> bool:
    """Whether records of this action are in the file."""
    return action.rpartition(".")[2] in _REVOKING or action in (*_BY_DETAIL, *_FORGETTING, *_ISSUING)


class RevocationLog:
    """The file as the audit writer sees it. For one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail: tuple[int, str] | None = None
        self.set_aside: Path | None = None
        """Where a file lies now that somebody had changed, if there was one."""

    def catch_up(self, tx: Tx) -> int:
        """Appends, durably, what the audit log has and the file has not. Returns how many entries.

        A file that was changed is set aside, and a new one begun with all that the audit log still tells.

        Raises:
            OSError: the file cannot be written; the next call tries again.
        """
        if self._tail is None:
            self._tail = self._find_end()
        seen, previous = self._tail
        lines: list[str] = []
        head = tx.execute("SELECT seq FROM audit_log ORDER BY seq DESC LIMIT 1")
        size = head[0][0] if head else 0
        if size < seen:  # an older copy of the database was put in its place
            lines.append(_line({"mark": "restored", "seq": size, "prev": previous}))
            seen, previous = size, _digest(lines[0])
        noted = newest = seen
        for entry in _revoking(tx, seen):
            text = _line({"seq": entry.seq, **_fields(entry), "prev": previous})
            lines.append(text)
            previous = _digest(text)
            noted = newest = entry.seq
        newest = max(newest, size)
        count = sum('"mark"' not in line for line in lines)
        if newest - noted >= _SEEN_EVERY:
            text = _line({"mark": "seen", "seq": newest, "prev": previous})
            lines.append(text)
            previous = _digest(text)
        if lines:
            _append(self._path, lines)
        self._tail = newest, previous
        return count

    def _find_end(self) -> tuple[int, str]:
        try:
            return _end_of(self._path)
        except Refused:
            aside = self._path.with_name(f"{self._path.name}.changed-{os.urandom(4).hex()}")
            self._path.replace(aside)
            self.set_aside = aside
            return 0, ""

    def mark_restored(self, seq: int, backup: str, now: float) -> None:
        """From here on the audit log goes on after record ``seq``, because a backup was put back."""
        _, previous = _end_of(self._path)
        text = _line({"mark": "restored", "seq": seq, "backup": backup, "at": to_micros(now), "prev": previous})
        _append(self._path, [text])
        self._tail = seq, _digest(text)


def read_file(path: Path) -> list[Entry]:
    """All entries, in order. A last line without its end is one that was never acknowledged, and is left out.

    Raises:
        Refused: a line was changed or taken out.
        OSError: it cannot be read.
    """
    return [_entry(value) for _, value in _lines(path) if "mark" not in value]


def end_of(path: Path) -> int:
    """Up to which record of the audit log the file is complete; 0: there is none. Raises as ``read_file`` does."""
    return _end_of(path)[0]


# -- the file


def _revoking(tx: Tx, after: int) -> Iterator[Entry]:
    patterns = (*(f"%.{word}" for word in _REVOKING), *_BY_DETAIL, *_ISSUING)
    named = " OR ".join("action LIKE ?" for _ in patterns)
    while True:
        rows = tx.execute(
            "SELECT seq, id, at, action, target_type, target_id, detail FROM audit_log "  # noqa: S608 - placeholders
            f"WHERE seq > ? AND result = 'ok' AND ({named}) ORDER BY seq LIMIT ?",
            (after, *patterns, _BATCH),
        )
        for row in rows:
            yield Entry(row[0], row[1], row[2], row[3], row[4], row[5], _detail(row[6]))
            after = row[0]
        if len(rows) < _BATCH:
            return


def _detail(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at,
        "action": entry.action,
        "type": entry.target_type,
        "target": entry.target_id,
        "detail": entry.detail,
    }


def _entry(value: dict[str, Any]) -> Entry:
    fields = ("seq", "id", "at", "action", "type", "target", "detail")
    return Entry(*(value[name] for name in fields))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each whole line, checked against the one before it. One at a time: the file only ever grows."""
    previous = ""
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith("\n"):
                return  # a crash while it was written
            line = text[:-1]
            value = _value(line)
            if value is None:
                raise Refused(f"{path}, line {number}: cannot be read", remedy=_REMEDY)
            if value.get("prev") != previous:
                raise Refused(f"{path}, line {number}: a line before it was changed or taken out", remedy=_REMEDY)
            previous = _digest(line)
            yield line, value


_REMEDY = "Take the copy that you keep elsewhere. Without it, revoke again what was revoked since the backup."


def _value(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    sound = isinstance(found, dict) and type(found.get("seq")) is int and isinstance(found.get("prev"), str)
    if sound and "mark" not in found:
        texts = all(isinstance(found.get(name), str) for name in ("id", "action", "type", "target"))
        sound = texts and type(found.get("at")) is int and isinstance(found.get("detail"), dict)
    return found if sound else None


def _end_of(path: Path) -> tuple[int, str]:
    """How far the file is, and the digest of its last line."""
    seq, digest = 0, ""
    try:
        for line, value in _lines(path):
            seq, digest = value["seq"], _digest(line)
    except FileNotFoundError:
        pass
    return seq, digest


def _append(path: Path, lines: list[str]) -> None:
    """On disk when it returns. What a crash left of a line is cut off first; it was never acknowledged."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        keep = _whole_lines(descriptor, end)
        if keep != end:
            os.ftruncate(descriptor, keep)
        os.lseek(descriptor, keep, os.SEEK_SET)
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole_lines(descriptor: int, end: int) -> int:
    """Where the last whole line ends."""
    while end > 0:
        start = max(0, end - 65_536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
