"""Checks what the controller exported, with the export and the public key alone: no database, no daemon, no network.

``cox audit check-proof`` runs it; so does ``python3 -m coxswain.audit.offline KEY FILE [CHECKPOINT…]`` on a machine that has
nothing but this package.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coxswain.audit.checkpoint import Checkpoint, open_checkpoint
from coxswain.audit.merkle import CompactRange
from coxswain.audit.note import BadNote, Verifier
from coxswain.audit.proofs import is_consistent, root_from_inclusion
from coxswain.audit.record import leaf_hash, row_hash
from coxswain.audit.statements import PURGE, RESTART, Purged, open_purge, open_restart, statement_in
from coxswain.errors import InvalidInput
from coxswain.messages.audit import AuditEntry

__all__ = ["Checked", "check", "check_export", "check_proof", "main"]

_ENTRY_FIELDS = (
    "id", "at", "actor", "actor_kind", "action", "target_type", "target_id", "source_ip", "detail", "result", "error",
)  # fmt: skip


@dataclass(slots=True)
class Checked:
    """What a good export or proof shows.

    Attributes:
        what: in one sentence.
        head: the checkpoint that it leads to.
        records: how many records were hashed anew.
        purged: how many have no payload any more, as a signed record in the log says.
    """

    what: str
    head: Checkpoint
    records: int = 0
    purged: int = 0
    notes: list[str] = field(default_factory=list)


def check(text: str, key: Verifier, against: Sequence[str] = ()) -> Checked:
    """Checks an export or a proof, whichever it is. ``against``: checkpoints that were kept elsewhere.

    Raises:
        BadNote: it does not hold; the message names the first thing that does not.
        InvalidInput: it is neither.
    """
    first = _object(text.partition("\n")[0]) or _object(text) or {}
    if first.get("type") == "coxswain-audit-export":
        return check_export(text.splitlines(), key, against)
    whole = _object(text)
    if whole is None:
        raise InvalidInput("the file is neither an export of the audit log nor a proof")
    return check_proof(whole, key, against)


def check_proof(proof: dict[str, Any], key: Verifier, against: Sequence[str] = ()) -> Checked:
    """See ``check``."""
    head = open_checkpoint(_text(proof, "checkpoint"), [key])
    nodes = proof.get("path")
    if not isinstance(nodes, list):
        raise BadNote("the proof has no path")
    path = [_raw(node) for node in nodes]
    match proof.get("type"):
        case "coxswain-audit-inclusion":
            found = _check_inclusion(proof, head, path)
        case "coxswain-audit-consistency":
            found = _check_consistency(proof, head, path, key)
        case other:
            raise InvalidInput(f"type: {str(other)[:60]!r} is no proof of coxswain")
    _compare(against, key, {head.size: head.root} | _old_root(proof), head.size)
    return found


def _check_inclusion(proof: dict[str, Any], head: Checkpoint, path: list[bytes]) -> Checked:
    record, seq = proof.get("record"), _number(proof, "seq")
    if not isinstance(record, dict) or record.get("seq") != seq:
        raise BadNote("the proof is not about its record")
    leaf = leaf_hash(seq, _digest(record))
    if root_from_inclusion(leaf, seq - 1, head.size, path) != head.root:
        raise BadNote(f"record {seq} is not in the log of this checkpoint")
    return Checked(f"record {seq} is in the log of {head.size} records", head, records=int("id" in record))


def _check_consistency(proof: dict[str, Any], head: Checkpoint, path: list[bytes], key: Verifier) -> Checked:
    old, root = _number(proof, "old"), _raw(proof.get("old_root"))
    if not is_consistent(old, root, head.size, head.root, path):
        raise BadNote(f"the log of {head.size} records does not begin with the one of {old} records")
    note = proof.get("old_checkpoint")
    if note is not None:
        earlier = open_checkpoint(str(note), [key])
        if (earlier.size, earlier.root) != (old, root):
            raise BadNote(f"the checkpoint in the proof is not that of the log of {old} records")
    return Checked(f"the log of {head.size} records begins with the {old} that were there before", head)


def _old_root(proof: dict[str, Any]) -> dict[int, bytes]:
    return {_number(proof, "old"): _raw(proof.get("old_root"))} if "old_root" in proof else {}


def _compare(against: Sequence[str], key: Verifier, roots: dict[int, bytes], size: int) -> None:
    for note in against:
        kept = open_checkpoint(note, [key])
        if kept.size > size:
            raise BadNote(f"the checkpoint that was kept has {kept.size} records, and the log {size}: records were cut off")
        if kept.size not in roots:
            raise BadNote(f"the checkpoint that was kept has {kept.size} records; ask for a proof from {kept.size}")
        if roots[kept.size] != kept.root:
            raise BadNote(f"the checkpoint of {kept.size} records that was kept is of another history: the log was forked")


def check_export(lines: Iterable[str], key: Verifier, against: Sequence[str] = ()) -> Checked:
    """Hashes every record anew, and compares the tree with every checkpoint in the export and in ``against``."""
    seq, previous, purged, tree = 0, "", 0, CompactRange()
    wanted: dict[int, bytes] = {0: tree.root()}
    notes: list[str] = []
    told: Purged | None = None
    statements: list[tuple[int, AuditEntry]] = []
    for number, line in enumerate(lines, 1):
        item = _object(line)
        kind = None if item is None else item.get("type")
        if item is None:
            raise BadNote(f"line {number} is no JSON object: the export is damaged or cut short")
        if kind == "checkpoint":
            notes.append(_text(item, "note"))
        elif kind in ("record", "purged"):
            seq += 1
            if item.get("seq") != seq:
                raise BadNote(f"record {seq} is missing (line {number})")
            digest = _digest(item)
            if kind == "purged":
                purged += 1
                if purged != seq:
                    raise BadNote(f"the payload of record {seq} is gone, and those before it are there")
            elif item.get("prev_hash") != previous:
                raise BadNote(f"record {seq} does not follow the record before it")
            elif item["action"] in (PURGE, *RESTART) and item["result"] == "ok":
                statements.append((seq, _entry(item)))
            tree.append(leaf_hash(seq, digest))
            wanted[seq] = tree.root()
            previous = digest
        elif kind != "coxswain-audit-export" or number != 1:
            raise BadNote(f"line {number} is of an unknown kind")
    if not notes:
        raise BadNote("the export has no checkpoint at its end: it was cut short")
    keys, told = _statements(statements, key)
    if purged and (told is None or told.last != purged or told.root != wanted[purged]):
        raise BadNote(f"the payloads of records 1 to {purged} are gone, and no signed record of retention says so")
    head = _all_agree(notes, against, keys, wanted, seq)
    return Checked(f"{seq} records are what they were when they were written", head, seq - purged, purged)


def _statements(found: list[tuple[int, AuditEntry]], key: Verifier) -> tuple[list[Verifier], Purged | None]:
    keys, told = [key], None
    for seq, entry in reversed(found):
        try:
            if entry.action == PURGE:
                told = told or open_purge(statement_in(entry), keys)
            else:
                keys.append(open_restart(statement_in(entry), keys[-1:]).previous)
        except BadNote as error:
            raise BadNote(f"record {seq} ({entry.action}) is not signed for what it says: {error}") from None
    return keys, told


def _all_agree(
    notes: list[str], against: Sequence[str], keys: list[Verifier], roots: dict[int, bytes], size: int
) -> Checkpoint:
    head = open_checkpoint(notes[-1], keys)
    if head.size != size:
        raise BadNote(f"the export has {size} records, and its checkpoint is of {head.size}")
    for kept_elsewhere, note in [*((False, n) for n in notes), *((True, n) for n in against)]:
        checkpoint = open_checkpoint(note, keys)
        if checkpoint.size > size:
            raise BadNote(f"a checkpoint is of {checkpoint.size} records, and the export has {size}: records were cut off")
        if roots[checkpoint.size] != checkpoint.root:
            where = "that was kept elsewhere" if kept_elsewhere else "in the export"
            raise BadNote(f"records 1 to {checkpoint.size} are not those of the checkpoint of that size {where}")
    return head


def _digest(item: dict[str, Any]) -> str:
    """The row hash, computed anew where the payload is there."""
    seq, claimed = item.get("seq"), item.get("row_hash")
    if item.get("type") == "purged":
        if not isinstance(claimed, str) or len(claimed) != 64 or set(claimed) - set("0123456789abcdef"):
            raise BadNote(f"record {seq} has no row hash")
        return claimed
    previous, entry = _text(item, "prev_hash"), _entry(item)
    try:
        digest = row_hash(previous, entry)
    except (ValueError, struct.error):  # a number beyond 64 bits, a text that no encoding has
        raise BadNote(f"record {seq} cannot be read") from None
    if digest != claimed:
        raise BadNote(f"record {seq} was changed")
    return digest


def _entry(item: dict[str, Any]) -> AuditEntry:
    values: list[Any] = [item.get(name) for name in _ENTRY_FIELDS]
    if any(not isinstance(v, int if name == "at" else str) for name, v in zip(_ENTRY_FIELDS, values, strict=True)):
        raise BadNote(f"record {item.get('seq')} cannot be read")
    return AuditEntry(*values)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(item: dict[str, Any], name: str) -> str:
    found = item.get(name)
    if not isinstance(found, str):
        raise BadNote(f"{name} is missing")
    return found


def _number(item: dict[str, Any], name: str) -> int:
    found = item.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 2**62:
        raise BadNote(f"{name} is no number")
    return found


def _raw(text: Any) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        found = b""
    if len(found) != 32:
        raise BadNote("a hash in the proof cannot be read")
    return found


def main(arguments: Sequence[str]) -> int:
    """``KEY FILE [CHECKPOINT…]``: the key as text, the others as files. Returns 0 if it holds, 1 if not, 2 for wrong use."""
    if len(arguments) < 2:
        print("usage: python3 -m coxswain.audit.offline KEY FILE [CHECKPOINT...]", file=sys.stderr)  # noqa: T201
        return 2
    key, file, *kept = arguments
    try:
        against = [Path(name).read_text(encoding="utf-8") for name in kept]
        found = check(Path(file).read_text(encoding="utf-8"), Verifier.parse(key), against)
    except (InvalidInput, OSError, UnicodeDecodeError) as error:
        print(f"not good: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"good: {found.what}; checkpoint of {found.head.size} records by {found.head.origin}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
