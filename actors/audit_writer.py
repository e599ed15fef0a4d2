"""``audit_writer``: the only writer of the audit log. It moves records from the outbox to the end of the chain."""

from __future__ import annotations

from typing import Any

from actors.supervision import Actor, Context
from coxswain.audit import append_outbox, head, list_entries, seq_of, waiting
from coxswain.errors import NotFound, StoreUnavailable
from coxswain.messages.audit import AwaitAudited, GetAuditHead, ListAudit, OutboxGrew
from coxswain.store import Durability, Store

__all__ = ["AuditWriter"]

_SWEEP_S = 2.0
"""A hint that was lost (a full mailbox, a crash of the sender, a database that was away) is made up for after this."""

_MOST = 1_000


class _Sweep:
    """To itself."""


class AuditWriter(Actor):
    """What was in the outbox when it starts (after a crash, say) is appended first.

    Every question is answered from a log that has all that was committed before it. A database that is away does not stop
    the actor: whoever asks is told, and the outbox waits.
    """

    mailbox_capacity = 100_000

    def __init__(self, context: Context, *, store: Store) -> None:
        super().__init__(context)
        self._store = store
        self._away = False

    def started(self) -> None:
        self._drain_if_there()
        self.context.after(_SWEEP_S, _Sweep())

    def stopping(self) -> None:
        self._drain_if_there()

    def receive(self, message: Any) -> Any:
        match message:
            case OutboxGrew():
                if self.mailbox.empty():  # whoever waits behind this one drains as well
                    self._drain_if_there()
            case _Sweep():
                self._drain_if_there()
                self.context.after(_SWEEP_S, message)
            case AwaitAudited(outbox_id):
                return self._await(outbox_id)
            case GetAuditHead():
                self._drain()
                with self._store.read() as tx:
                    return head(tx)
            case ListAudit(limit, before):
                self._drain()
                with self._store.read() as tx:
                    return list_entries(tx, limit=max(0, min(limit, _MOST)), before=before)
        return None

    def _await(self, outbox_id: int) -> int:
        self._drain()
        with self._store.read() as tx:
            if seq_of(tx, outbox_id) is None:
                raise NotFound(f"audit: no record was committed as {outbox_id}")
            return head(tx).size

    def _drain_if_there(self) -> None:
        try:
            self._drain()
        except StoreUnavailable as error:
            if not self._away:
                self.context.log.warning("the audit log cannot be written now; the outbox waits: %s", error)
            self._away = True

    def _drain(self) -> None:
        while True:
            with self._store.read() as tx:
                if not waiting(tx):
                    break
            with self._store.write(Durability.ACKNOWLEDGED) as tx:
                append_outbox(tx)
        self._away = False
