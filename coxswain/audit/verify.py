"""Is the log what it was? Every record against its hashes, the tree against every checkpoint that is known.

The records are checked in chunks (``coxswain.audit.chunks``), which are put together again (``conclude``). ``verify`` does
both in one transaction; ``coxswain.audit.verify_process`` does it in several processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from coxswain.audit.checkpoint import Checkpoint, open_checkpoint, peek
from coxswain.audit.chunks import BLOCK, CHUNK, BrokenAt, Chunk, check_chunk, strays
from coxswain.audit.merkle import STORED_LEVEL, CompactRange, hash_children
from coxswain.audit.note import BadNote, Verifier
from coxswain.audit.statements import PURGE, RESTART, Purged, Restarted, open_purge, open_restart, statement_in
from coxswain.audit.tree import head, purged_upto
from coxswain.messages.audit import AuditEntry
from coxswain.store.api import Tx
from coxswain.words import counted

__all__ = ["Finding", "Known", "Report", "conclude", "known_of", "marks_of", "trusted", "verify"]

_ENTRY = "id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, result, error"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. ``seq``: the first record it may concern; None: no particular one."""

    why: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a log besides its records, read in one transaction.

    Attributes:
        size: records.
        purged: the last one without payload; 0: none.
        nodes: inner nodes as they are stored.
        keys: public keys of this log, by name; the present one first.
        restarts: sequence number of the record, and what it says, newest first.
        purges: the newest statement of retention and the number of the record that has it.
        problems: what already is wrong.
        checkpoints: those in the database, notes.
    """

    size: int
    purged: int
    nodes: dict[tuple[int, int], bytes]
    keys: tuple[Verifier, ...]
    restarts: tuple[tuple[int, Restarted], ...]
    purges: tuple[int, Purged] | None
    problems: tuple[Finding, ...]
    checkpoints: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """How it went.

    Attributes:
        good: how many records at the beginning are what they were.
        broken: the first one that is not; None: all are.
        findings: what else is wrong.
        size: records in the log.
        root: of the whole tree; empty if the log is broken.
        purged: records without payload, as the log says itself.
        checked: checkpoints that were compared.
        newest: the newest of them.
        notes: what is not wrong, but should be known.
    """

    good: int = 0
    broken: BrokenAt | None = None
    findings: list[Finding] = field(default_factory=list)
    size: int = 0
    root: bytes = b""
    purged: int = 0
    checked: int = 0
    newest: Checkpoint | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.broken is None and not self.findings

    @property
    def first_bad(self) -> int | None:
        """The first bad record, as narrowly as it can be told."""
        found = [f.seq for f in self.findings if f.seq is not None] + ([self.broken.seq] if self.broken else [])
        return min(found, default=None)


def known_of(tx: Tx, verifier: Verifier | None) -> Known:
    """Reads what the log says about itself. ``verifier``: its public key; None: nothing signed is believed."""
    keys, restarts, problems = trusted(tx, verifier)
    purges = None
    for seq, entry in _by_action(tx, (PURGE,)):
        try:
            purges = (seq, open_purge(statement_in(entry), keys))
        except BadNote as error:
            problems.append(Finding(f"record {seq} says what was purged, and is not signed for it: {error}", seq))
            continue
        break
    nodes = {(row[0], row[1]): row[2] for row in tx.execute("SELECT level, idx, hash FROM audit_node")}
    checkpoints = tuple(row[0] for row in tx.execute("SELECT note FROM audit_checkpoint ORDER BY number"))
    return Known(
        head(tx).size, purged_upto(tx), nodes, tuple(keys), tuple(restarts), purges, tuple(problems[::-1]), checkpoints
    )


def trusted(tx: Tx, verifier: Verifier | None) -> tuple[list[Verifier], list[tuple[int, Restarted]], list[Finding]]:
    """The key and its predecessors, each vouched for by the next; the restarts between them, newest first; what is wrong."""
    keys = [] if verifier is None else [verifier]
    restarts: list[tuple[int, Restarted]] = []
    problems: list[Finding] = []
    for seq, entry in _by_action(tx, RESTART):
        try:
            restarted = open_restart(statement_in(entry), keys[-1:])
        except BadNote as error:
            problems.append(Finding(f"record {seq} says that the log was restarted, and is not signed for it: {error}", seq))
            continue
        restarts.append((seq, restarted))
        keys.append(restarted.previous)
    return keys, restarts, problems


def _by_action(tx: Tx, actions: Sequence[str]) -> list[tuple[int, AuditEntry]]:
    """Newest first."""
    found = []
    for action in actions:
        rows = tx.execute(
            f"SELECT seq, {_ENTRY} FROM audit_log WHERE action = ? AND result = ? ORDER BY seq DESC",  # noqa: S608
            (action, "ok"),
        )
        found += [(row[0], AuditEntry(*row[1:])) for row in rows]
    return sorted(found, key=lambda item: -item[0])


def marks_of(notes: Iterable[str], known: Known) -> set[int]:
    """The sizes whose roots ``conclude`` will want."""
    marks = {known.purges[1].last} if known.purges else set()
    for note in notes:
        try:
            marks.add(peek(note).size)
        except BadNote:
            continue
    return {m for m in marks if 0 < m <= known.size}


def conclude(known: Known, chunks: Sequence[Chunk], ours: Sequence[str], against: Sequence[str] = ()) -> Report:
    """Puts checked chunks together.

    Args:
        known: read before the chunks.
        chunks: in order, from record 1.
        ours: checkpoints that the controller has kept: from its database and its file. Notes.
        against: checkpoints that somebody else has kept.
    """
    report = Report(size=known.size, findings=list(known.problems), purged=known.purged)
    tree = CompactRange()
    roots: dict[int, bytes] = {0: tree.root()}
    previous = ""
    for chunk in chunks:
        if chunk.previous is not None and chunk.previous != previous and chunk.last >= chunk.first:
            report.broken = BrokenAt(chunk.first, f"record {chunk.first} does not follow the record before it")
            break
        _grow(tree, chunk, roots, known, report)
        report.good = chunk.last
        previous = chunk.row_hash
        if chunk.broken is not None:
            report.broken = chunk.broken
            break
    if report.broken is None:
        report.root = roots[report.good]
        if report.good < known.size:
            report.broken = BrokenAt(report.good + 1, f"record {report.good + 1} is missing")
    _check_purges(known, roots, report)
    _check_checkpoints(known, roots, ours, against, report)
    return report


def _grow(tree: CompactRange, chunk: Chunk, roots: dict[int, bytes], known: Known, report: Report) -> None:
    """Adds a chunk's blocks to the tree of blocks, and notes the roots that are wanted."""
    tails = sorted(chunk.tails.items())
    for block in (*chunk.blocks, None):
        size = tree.size * BLOCK
        while tails and tails[0][0] < size + BLOCK:
            mark, leaves = tails.pop(0)
            if len(leaves) == mark - size:
                roots[mark] = _root_with(tree, leaves)
        if block is None:
            return
        number = tree.size
        stored = known.nodes.get((STORED_LEVEL, number))
        _check_node(stored, block, STORED_LEVEL, number, report)
        _append_block(tree, block, known, report)
        roots[tree.size * BLOCK] = tree.root()


def _append_block(tree: CompactRange, block: bytes, known: Known, report: Report) -> None:
    size, level = tree.size, STORED_LEVEL
    before = list(tree.subtrees)
    tree.append(block)
    carried = block
    while size & 1:
        carried = hash_children(before.pop(), carried)
        size >>= 1
        level += 1
        _check_node(known.nodes.get((level, size)), carried, level, size, report)


def _check_node(stored: bytes | None, found: bytes, level: int, index: int, report: Report) -> None:
    if stored is not None and stored != found and not any("inner node" in f.why for f in report.findings):
        first, last = (index << level) + 1, (index + 1) << level
        why = f"records {first} to {last} are not those that were appended: an inner node of the tree says otherwise"
        report.findings.append(Finding(why, first))


def _root_with(tree: CompactRange, leaves: Sequence[bytes]) -> bytes:
    """The root of the tree of blocks with some more leaves behind it."""
    tail = CompactRange()
    for leaf in leaves:
        tail.append(leaf)
    if not tree.size:
        return tail.root()
    found = tail.root()
    for subtree in reversed(tree.subtrees):
        found = hash_children(subtree, found)
    return found


def _check_purges(known: Known, roots: dict[int, bytes], report: Report) -> None:
    told = known.purges[1] if known.purges else None
    if not known.purged and told is None:
        return
    first = (told.last if told else 0) + 1
    if known.purged >= first:
        why = f"the payloads of records {first} to {known.purged} are gone, and no signed record of retention says so"
        report.findings.append(Finding(why, first))
    elif told is not None and known.purged < told.last:
        why = f"retention took the payloads of records 1 to {told.last}, and some of them are there again"
        report.findings.append(Finding(why, known.purged + 1))
    elif told is not None and told.last in roots and roots[told.last] != told.root:
        why = f"records 1 to {told.last}, whose payloads are gone, are not those that retention left"
        report.findings.append(Finding(why, 1))


def _check_checkpoints(
    known: Known, roots: dict[int, bytes], ours: Sequence[str], against: Sequence[str], report: Report
) -> None:
    foreign = 0
    mine: list[Checkpoint] = []
    theirs: list[Checkpoint] = []
    # A quiet log is signed again and again; of the same text, the newest is enough.
    for note in {note.partition("\n\n")[0]: note for note in ours}.values():
        try:
            mine.append(open_checkpoint(note, known.keys))
        except BadNote as error:
            if _is_of(note, known):
                report.findings.append(Finding(f"a checkpoint that was kept here is not genuine: {error}"))
            else:
                foreign += 1
    for note in against:
        try:
            theirs.append(open_checkpoint(note, known.keys))
        except BadNote as error:
            report.findings.append(Finding(f"the given checkpoint is not one of this log: {error}"))
    if foreign:
        report.notes.append(f"{foreign} checkpoints kept here are of another log, and were not compared")
    # Those kept here may be forged with a stolen key: they do not narrow down what those kept elsewhere find.
    good = _compare(theirs, known, roots, report, good=0, whose="one that was kept elsewhere")
    _compare(mine, known, roots, report, good=good, whose="one of its own")


def _compare(
    checkpoints: Sequence[Checkpoint], known: Known, roots: dict[int, bytes], report: Report, *, good: int, whose: str
) -> int:
    """Returns the size of the largest one that agrees, at least ``good``; stops at the first that does not."""
    for checkpoint in sorted(checkpoints, key=lambda c: (c.size, c.at or 0)):
        size = checkpoint.size
        report.checked += 1
        abandoned = _abandoned_at(checkpoint, known)
        if abandoned is not None:
            if whose == "one of its own":
                continue
            why = (
                f"the checkpoint of {counted(size, 'record')} is of {checkpoint.origin}, from before the log was restarted "
                f"by record {abandoned}; what it had beyond is not in this log"
            )
            report.findings.append(Finding(why, abandoned))
        elif size > known.size:
            why = (
                f"the log has {counted(known.size, 'record')}, and a checkpoint, {whose}, says that it had {size}: the "
                f"newest {size - known.size} were cut off, or an older copy was put in its place"
            )
            report.findings.append(Finding(why, known.size + 1))
            break
        elif size in roots and roots[size] != checkpoint.root:  # otherwise it breaks before; that is said already
            first = min(good + 1, size)
            span = f"record {first} is" if first == size else f"records {first} to {size} are"
            why = f"{span} not what a checkpoint of {counted(size, 'record')}, {whose}, says: the log was rewritten"
            report.findings.append(Finding(why, first))
            break
        elif size in roots:
            good = max(good, size)
            if report.newest is None or (size, checkpoint.at or 0) >= (report.newest.size, report.newest.at or 0):
                report.newest = checkpoint
    return good


def _is_of(note: str, known: Known) -> bool:
    """Whether a checkpoint claims to be of this log."""
    try:
        return peek(note).origin in {key.name for key in known.keys}
    except BadNote:
        return True


def _abandoned_at(checkpoint: Checkpoint, known: Known) -> int | None:
    """The record by which the log was restarted with fewer records than this checkpoint of an earlier name has."""
    for seq, restarted in known.restarts:
        if restarted.previous.name == checkpoint.origin and checkpoint.size > restarted.kept:
            return seq
    return None


def verify(
    tx: Tx,
    verifier: Verifier | None = None,
    ours: Sequence[str] = (),
    against: Sequence[str] = (),
) -> Report:
    """All of it in one transaction. ``ours``: checkpoints from the file; those in the database are added."""
    known = known_of(tx, verifier)
    notes = (*known.checkpoints, *ours)
    marks = marks_of((*notes, *against), known)
    chunks: list[Chunk] = []
    stray = strays(tx)
    for first in range(1, known.size + 1, CHUNK):
        chunks.append(check_chunk(tx, first, min(first + CHUNK - 1, known.size), marks))
        if chunks[-1].broken is not None:
            break
    report = conclude(known, chunks, notes if verifier else (), against)
    if stray is not None:
        report.good, report.broken = 0, stray
    return report
