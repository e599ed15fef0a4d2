"""``siem_stream``: says who may have the SIEM stream, and whether they still may; its sockets are on the I/O loop.

There only when ``siem.listen`` is set. When it falls, streams live on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from actors.io_loop import IoLoop
from actors.live.recheck import Due, check
from actors.siem.server import Admit, Admitted, MonitorServer, Page
from actors.supervision import Actor, Context
from coxswain.errors import CoxswainError, Refused, Unauthenticated, Unavailable, door_of
from coxswain.messages.access import Authenticated, RecordAction, RecordRefusal
from coxswain.messages.audit import AwaitAudited, Caller, Committed
from coxswain.messages.sessions import LastRecord, RecordsAfter
from coxswain.messages.siem import GetSiemCounts

__all__ = ["SiemStream"]

_LOOK_S = 2.0
_RECHECK_S = 60.0
_ASK_S = 4.0
_CLOSE_S = 6.0
_MONITOR = frozenset({"monitor", "admin"})
_ROUTE = "pharos.monitor.v1.MonitorStream/Subscribe"
_ACTION = "siem.subscribe"


class _Look:
    """To itself: does it listen, and whose token has to be looked at again?"""


class SiemStream(Actor):
    """Nothing here has to outlive it.

    Args:
        context: its place in the system.
        io: the loop.
        server: of the stream.
        recheck_s: after how many seconds a token is looked at again.
    """

    mailbox_capacity = 1_000

    def __init__(self, context: Context, *, io: IoLoop, server: MonitorServer, recheck_s: float = _RECHECK_S) -> None:
        super().__init__(context)
        self._io = io
        self._server = server
        self._recheck_s = recheck_s
        self._look_s = min(_LOOK_S, recheck_s / 3)

    def started(self) -> None:
        self._server.open(self.context.tell_self)
        self.context.after(self._look_s, _Look())

    def receive(self, message: Any) -> Any:
        match message:
            case Admit():
                _answer(message.reply, lambda: self._admit(message))
            case Page(seq, limit, reply):
                _answer(reply, lambda: self.context.ask("session_archive", RecordsAfter(seq, limit), deadline=_ASK_S))
            case _Look():
                self._io.call(self._tend)
                self.context.after(self._look_s, message)
            case Due():
                good, ended = check(self.context, message, self._recheck_s)
                self._io.call(lambda: self._server.settle(good, ended))
            case GetSiemCounts():
                return self._server.counts()
        return None

    def stopping(self) -> None:
        try:
            closed: Future[None] = self._io.submit(self._server.close())
            closed.result(_CLOSE_S)
        except (Unavailable, CancelledError, FutureTimeoutError):
            self.context.log.warning("the SIEM stream's server did not stop in time; it goes with the process")

    def _tend(self) -> None:
        """On the loop."""
        self._server.tend()
        now = self._server.now()
        found = self._server.due(now - self._recheck_s, self._server.wall())
        if found:
            self.context.tell_self(Due(found, now))

    # -- who comes in

    def _admit(self, wish: Admit) -> Admitted:
        """Raises ``CoxswainError``. Whatever it comes to is in the audit log before the consumer hears of it."""
        who: Authenticated | None = None
        try:
            who = self._authenticate(wish)
            return self._grant(wish, who)
        except Refused as error:
            self._record_refusal(wish, who, error)
            raise

    def _authenticate(self, wish: Admit) -> Authenticated:
        if wish.credential is None:
            raise Unauthenticated("authorization: a bearer token of this controller is needed")
        try:
            found: Authenticated = self.context.ask("access", wish.credential, deadline=_ASK_S)
        except Unauthenticated:
            # Which of unknown, revoked and expired it was is not for somebody who has no good one.
            raise Unauthenticated("the token is not good (any more)") from None
        return found

    def _grant(self, wish: Admit, who: Authenticated) -> Admitted:
        if who.scope not in _MONITOR:
            raise Refused(f"the stream needs the scope monitor, and this token has {who.scope}")
        if wish.wanted.for_admins and who.scope != "admin":
            names = ", ".join(sorted(wish.wanted.for_admins))
            raise Refused(f"kinds: {names} need the scope admin, and this token has {who.scope}")
        if wish.problem:
            return Admitted(who, 0)
        record: int = self.context.ask("session_archive", LastRecord(), deadline=_ASK_S)
        detail = {"kinds": sorted(wish.wanted.kinds), "resumes": wish.resumes}
        caller = Caller(who.name, who.kind, wish.address)
        done: Committed[None] = self.context.ask(
            "access", RecordAction(caller, _ACTION, ("siem", ""), detail), deadline=_ASK_S
        )
        self.context.ask("audit_writer", AwaitAudited(done.outbox_id), deadline=_ASK_S)
        return Admitted(who, record)

    def _record_refusal(self, wish: Admit, who: Authenticated | None, error: Refused) -> None:
        caller = None if who is None else Caller(who.name, who.kind, wish.address)
        message = RecordRefusal(caller, wish.address, _ROUTE, _ACTION, ("siem", ""), door_of(error).http, str(error))
        try:
            done: Committed[None] | None = self.context.ask("access", message, deadline=_ASK_S)
            if done is not None:
                self.context.ask("audit_writer", AwaitAudited(done.outbox_id), deadline=_ASK_S)
        except CoxswainError as failure:
            self.context.log.warning("a refused SIEM consumer is in no audit record yet: %s", failure)


def _answer(reply: Callable[[Any], None], work: Callable[[], Any]) -> None:
    try:
        reply(work())
    except CoxswainError as error:
        reply(error)
