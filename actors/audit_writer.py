"""``audit_writer``: the only writer of the audit log, and the only holder of the audit key.

It moves records from the outbox to the end of the chain, signs checkpoints, and takes payloads when retention says so.
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from actors.supervision import Actor, Context
from coxswain.audit import CompactRange, append_outbox, head, load_tree, record, seq_of, waiting
from coxswain.audit.anchor import newest_stored, not_extended, save_checkpoint
from coxswain.audit.checkpoint import Checkpoint, make_checkpoint, open_checkpoint
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import ensure_audit_key, new_signer, replace_audit_key
from coxswain.audit.log import Appended
from coxswain.audit.note import BadNote, Signer
from coxswain.audit.purge import purge
from coxswain.audit.restart import restart
from coxswain.audit.settings import AuditPaths, AuditSettings
from coxswain.audit.tree import fill_nodes, purged_upto, root_at
from coxswain.backup.revocations import RevocationLog, is_revoking
from coxswain.errors import Conflict, NotFound, Refused, StoreUnavailable
from coxswain.messages.audit import (
    AcceptBreak,
    AuditHead,
    AuditState,
    AwaitAudited,
    Caller,
    DescribeAudit,
    GetAuditFindings,
    GetAuditHead,
    OutboxGrew,
    SignNow,
    WalkDone,
)
from coxswain.messages.hub import Publish, PublishAll
from coxswain.store import Durability, Store, Tx
from coxswain.words import counted

__all__ = ["AuditWriter"]

_SWEEP_S = 2.0
"""A hint that was lost (a full mailbox, a crash of the sender, a database that was away) is made up for after this."""

_RETAIN_FIRST_S = 60.0
_RETAIN_S = 3_600.0
_PURGE_AT_ONCE = 5_000
"""Payloads taken in one transaction: some 50 ms."""

_APPEND_AT_ONCE = 2_000
_REMEMBERED = 10_000
_ITSELF = Caller("audit", "system")


class _Sweep:
    """To itself."""


class _Due:
    """To itself: a checkpoint is due."""


class _Retain:
    """To itself."""


class AuditWriter(Actor):
    """What was in the outbox when it starts (after a crash, say) is appended first.

    Every question is answered from a log that has all that was committed before it. A database that is away does not
    stop the actor: whoever asks is told, and the outbox waits. A log that does not extend its checkpoints does not
    stop it either, because what happens from now on must be recorded all the more; but it is said everywhere
    (``AuditState.findings``), and nothing is signed any more until an operator has said why (``AcceptBreak``).
    """

    mailbox_capacity = 100_000

    def __init__(
        self, context: Context, *, store: Store, paths: AuditPaths, settings: Callable[[], AuditSettings] = AuditSettings
    ) -> None:
        super().__init__(context)
        self._store = store
        self._paths = paths
        self._settings = settings
        self._file = CheckpointFile(paths.checkpoints)
        self._away = False
        self._tree: CompactRange | None = None
        self._damaged = False
        self._head = AuditHead(0, "")
        self._newest: Checkpoint | None = None
        self._findings: dict[str, None] = {}
        self._walked: tuple[str, ...] = ()
        self._appended: OrderedDict[int, int] = OrderedDict()
        self._revocations = RevocationLog(paths.revocations)
        self._revocations_wait = True

    def started(self) -> None:
        signer, self._key_is_new = ensure_audit_key(self._paths.key)
        self._signer: Signer = signer
        self._if_there(self._drain)
        self._if_there(self._note_revocations)
        self._if_there(self._checkpoint_if_grown)
        self.context.after(_SWEEP_S, _Sweep())
        self.context.after(self._settings().checkpoint_s, _Due())
        self.context.after(min(_RETAIN_FIRST_S, self._settings().checkpoint_s), _Retain())

    def stopping(self) -> None:
        self._if_there(self._drain)
        self._if_there(self._checkpoint)

    def receive(self, message: Any) -> Any:
        match message:
            case OutboxGrew():
                if self.mailbox.empty():  # whoever waits behind this one drains as well
                    self._if_there(self._drain)
            case AwaitAudited(outbox_id):
                return self._await(outbox_id)
            case GetAuditHead():
                self._drain()
                return self._head
            case DescribeAudit():
                return self._describe()
            case SignNow():
                return self._fresh()
            case GetAuditFindings():
                return self._all_findings()
            case WalkDone(findings):
                self._walked = findings
                for sentence in findings:
                    self._cry(sentence)
            case AcceptBreak(caller, reason):
                return self._accept(caller, reason)
            case _:
                self._on_timer(message)
        return None

    def _on_timer(self, message: Any) -> None:
        match message:
            case _Sweep():
                self._if_there(self._drain)
                self._if_there(self._note_revocations)
                self.context.after(_SWEEP_S, message)
            case _Due():
                self._if_there(self._checkpoint)
                self.context.after(self._settings().checkpoint_s, message)
            case _Retain():
                more = self._if_there(self._retain)
                self.context.after(0.0 if more else _RETAIN_S, message)

    # -- appending

    def _await(self, outbox_id: int) -> int:
        if outbox_id not in self._appended:
            self._drain(expected=True)
        if outbox_id not in self._appended:
            with self._store.read() as tx:
                if seq_of(tx, outbox_id) is None:
                    raise NotFound(f"audit: no record was committed as {outbox_id}")
        return self._head.size

    def _drain(self, *, expected: bool = False) -> None:
        """Appends what is in the outbox. Raises ``StoreUnavailable``.

        All that has gathered goes in one commit, and so do the records of those who wait behind this message: under load
        they share the sync, and a lone one does not wait for company. ``expected``: there is something, no need to look.
        """
        if self._tree is None:
            self._load()
        if expected or self._is_waiting():
            while len(self._write()) == _APPEND_AT_ONCE:
                pass
        self._away = False
        if self._head.size - (self._newest.size if self._newest else 0) >= self._settings().checkpoint_records:
            self._checkpoint()

    def _is_waiting(self) -> bool:
        with self._store.read() as tx:
            return waiting(tx)

    def _write(self, first: Callable[[Tx], object] | None = None) -> list[Appended]:
        """One transaction that moves the outbox; memory follows only when it is committed.

        With ``first``: does that before, and moves all of the outbox, so that the record that it enqueues is in the log with
        what it did. Without: at most ``_APPEND_AT_ONCE`` records, so that others get their turn.
        """
        try:
            with self._store.write(Durability.ACKNOWLEDGED) as tx:
                if head(tx) != self._head:
                    self._look_behind(tx)
                tree = None if self._tree is None else self._tree.copy()
                if first is not None:
                    first(tx)
                appended = append_outbox(tx, tree, limit=_APPEND_AT_ONCE, damaged=self._damaged)
                while first is not None and (more := append_outbox(tx, tree, damaged=self._damaged)):
                    appended += more
        except BaseException:
            self._tree = None  # whether it was committed is not known: read it again
            raise
        self._follow(tree, appended)
        return appended

    def _look_behind(self, tx: Tx) -> None:
        """The log does not end where we left it. An incarnation before us, fenced off and awake again, may have
        appended; then it has only grown.
        """
        before, tree = self._head, self._tree
        self._load_from(tx)
        try:
            grown = tree is not None and before.size < self._head.size and root_at(tx, before.size) == tree.root()
        except Refused:
            grown = False
        if not grown:
            self._find(
                f"the log was changed behind the back of its writer: it had {counted(before.size, 'record')} a moment ago"
            )

    def _follow(self, tree: CompactRange | None, appended: list[Appended]) -> None:
        self._tree = tree
        if not appended:
            return
        self._head = AuditHead(appended[-1].seq, appended[-1].row_hash)
        for one in appended:
            self._appended[one.outbox_id] = one.seq
        while len(self._appended) > _REMEMBERED:
            self._appended.popitem(last=False)
        self._tell(appended)
        if any(is_revoking(one.entry.action) for one in appended):
            self._revocations_wait = True
            self._note_revocations()

    def _note_revocations(self) -> None:
        """What was revoked is in a file beside the database before anybody is told that it was: an older copy of the
        database, put back one day, must not revive it. A file that cannot be written is tried again with each sweep.
        """
        if not self._revocations_wait:
            return
        try:
            with self._store.read() as tx:
                self._revocations.catch_up(tx)
        except OSError as error:
            self.context.log.error("what was revoked could not be written to %s: %s", self._paths.revocations, error)  # noqa: TRY400
            return
        self._revocations_wait = False
        if self._revocations.set_aside is not None:
            self._cry(f"{self._paths.revocations} was changed by somebody; it is {self._revocations.set_aside.name} now")
            self._revocations.set_aside = None

    def _tell(self, appended: list[Appended]) -> None:
        events = []
        for one in appended:
            entry = one.entry
            data = {
                "record": one.seq,
                "actor": entry.actor,
                "actor_kind": entry.actor_kind,
                "action": entry.action,
                "target_type": entry.target_type,
                "target_id": entry.target_id,
                "result": entry.result,
            }
            more = {"source_ip": entry.source_ip, "error": entry.error}
            log = self.context.log.warning if entry.error else self.context.log.info
            log("audit %s", json.dumps(data | {k: v for k, v in more.items() if v}, separators=(",", ":")))
            events.append(Publish("audit", entry.at / 1e6, data))
        self.context.tell("event_hub", PublishAll(tuple(events)))

    def _if_there(self, work: Any) -> Any:
        try:
            return work()
        except StoreUnavailable as error:
            if not self._away:
                self.context.log.warning("the audit log cannot be written now; the outbox waits: %s", error)
            self._away = True
            return None

    # -- the tree, and whether it is what was signed

    def _load(self) -> None:
        """Reads where the log ends, and looks whether it extends what was signed. Raises ``StoreUnavailable``."""
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            if not self._damaged:
                try:
                    fill_nodes(tx)
                except Refused as error:
                    self._find(str(error))
            self._load_from(tx)

    def _load_from(self, tx: Tx) -> None:
        self._head = head(tx)
        try:
            self._tree, self._damaged = load_tree(tx), False
        except Refused as error:
            self._tree, self._damaged = CompactRange(), True
            self._find(str(error))
        stored, filed = newest_stored(tx), self._file.newest()
        if stored is not None and filed is None:
            self.context.log.warning("the file %s is gone: only the database says what was signed", self._file.path)
        notes = [note for note in (stored, filed) if note is not None]
        for sentence in not_extended(tx, self._signer.verifier, notes):
            self._find(sentence)
        for note in notes:
            try:
                self._newest = open_checkpoint(note, [self._signer.verifier])
            except BadNote:
                continue
        if self._key_is_new and self._head.size:
            self._key_is_new = False
            detail = {"public_key": str(self._signer.verifier)}
            target = ("audit", self._signer.verifier.name)
            record(tx, _ITSELF, "audit.key", target, detail, now=self.context.clock.now())

    def _find(self, sentence: str) -> None:
        if sentence in self._findings:
            return
        self._findings[sentence] = None
        self._cry(sentence)

    def _cry(self, sentence: str) -> None:
        self.context.log.error("AUDIT: %s. See: cox audit verify", sentence)
        self.context.tell("event_hub", Publish("audit.broken", self.context.clock.now(), {"finding": sentence}))

    # -- checkpoints

    def _checkpoint_if_grown(self) -> None:
        if self._newest is None or self._newest.size < self._head.size:
            self._checkpoint()

    def _checkpoint(self) -> Checkpoint | None:
        """Signs the log as it is, and says so everywhere. None: it is not fit to be signed."""
        for sentence in self._findings:
            self._cry(sentence)
        if self._findings or self._tree is None or self._damaged:
            return None
        now = self.context.clock.now()
        made = make_checkpoint(self._signer, self._tree.size, self._tree.root(), now)
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            save_checkpoint(tx, made)
        self._newest = made
        try:
            self._file.append(made.note)
        except OSError as error:
            self.context.log.error("the checkpoint could not be written to %s: %s", self._file.path, error)  # noqa: TRY400
        self.context.log.info("audit checkpoint: %s", json.dumps(made.note, ensure_ascii=False))
        data = {"origin": made.origin, "size": made.size, "root": made.root_text, "note": made.note}
        self.context.tell("event_hub", Publish("audit.checkpoint", now, data))
        return made

    def _fresh(self) -> Checkpoint:
        """A checkpoint of the log as it is now. Raises ``Conflict`` if it is not fit to be signed."""
        self._drain()
        if self._newest is not None and self._newest.size == self._head.size and not self._findings:
            return self._newest
        made = self._checkpoint()
        if made is None:
            raise Conflict(
                "the log does not extend what was signed before, so nothing is signed now",
                remedy="See: cox audit head, and docs/audit.md",
            )
        return made

    def _describe(self) -> AuditState:
        self._drain()
        with self._store.read() as tx:
            purged = purged_upto(tx)
        whole = self._tree is not None and not self._damaged
        root = base64.b64encode(self._tree.root()).decode() if whole and self._tree is not None else ""
        newest = self._newest
        return AuditState(
            self._head.size,
            self._head.row_hash,
            root,
            self._signer.verifier.name,
            str(self._signer.verifier),
            newest.note if newest else "",
            float(newest.at or 0) if newest else 0.0,
            newest.size if newest else 0,
            self._settings().checkpoint_s,
            purged,
            self._all_findings(),
            tuple(self._findings),
        )

    def _all_findings(self) -> tuple[str, ...]:
        """What the last walk over the log found does not keep it from being signed: the tree still extends the old one."""
        return tuple(dict.fromkeys((*self._findings, *self._walked)))

    # -- what changes the log

    def _retain(self) -> bool:
        """Takes some of the payloads that are old enough. Returns whether there may be more."""
        days = self._settings().retention_days
        if days <= 0 or self._findings:
            return False
        now = self.context.clock.now()
        self._drain()

        taken: list[int] = []
        self._write(
            lambda tx: taken.append(purge(tx, self._signer, before=now - days * 86_400, now=now, most=_PURGE_AT_ONCE))
        )
        return taken[-1] >= _PURGE_AT_ONCE

    def _accept(self, caller: Caller, reason: str) -> int:
        self._drain()
        if not self._findings:
            raise Conflict("the log extends what was signed before; there is nothing to accept")
        old, new = self._signer, new_signer()
        now, signed = self.context.clock.now(), list(self._file.notes())
        detail = {"reason": reason, "findings": list(self._findings)}
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            appended = restart(tx, (old, new), caller, "audit.restart", detail, signed=signed, now=now)
            replace_audit_key(self._paths.key, new)
        self._signer = new
        self._findings.clear()
        self._newest, self._tree, self._damaged = None, None, False
        self._load()
        self._tell(appended)
        self._checkpoint()
        return appended[-1].seq
