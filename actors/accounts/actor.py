"""The actor: invitations, the calls of AccountSync, and forgetting what is over."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

from actors.accounts import invites, issuing, sync
from actors.accounts.server import SyncCall, SyncServer
from actors.accounts.state import AccountsState
from actors.supervision import Actor, Context, Pending
from coxswain.errors import CoxswainError, StoreUnavailable, Unavailable
from coxswain.keyring import Keyring
from coxswain.messages import enrolment as m
from coxswain.messages.ca import GetGrpcCredentials, GrpcCredentials, GrpcCredentialsRenewed
from coxswain.provisioning.offer import Settings
from coxswain.store import Durability, Store
from coxswain.store import identities as identity_rows
from coxswain.store import tickets as ticket_rows

__all__ = ["Accounts"]

_PURGE_EVERY_S = 60.0
_PURGE_ROWS = 1_000
_KEEP_TICKETS_S = 7 * 86_400.0
"""After they expired, so that an operator can still see what became of them."""


_CA_S = 5.0
_TRY_AGAIN_S = 5.0


class _Purge:
    """To itself: forget what is over."""


class _Serve:
    """To itself: AccountSync is not served as it should be. There is one of them at most."""


class _Served:
    """From the loop: what came of it. ``error`` None: it is served."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Accounts(Actor):
    """See the package. Everything that matters is in the store; after a crash nothing has to be made up for."""

    mailbox_capacity = 2_000

    def __init__(self, context: Context, *, store: Store, keyring: Keyring, settings: Settings, server: SyncServer) -> None:
        super().__init__(context)
        self._state = AccountsState(context, store, keyring, settings)
        self._server = server
        self._again = Pending(context)

    def started(self) -> None:
        self.context.after(_PURGE_EVERY_S / 10, _Purge())
        self._serve()

    def stopping(self) -> None:
        try:
            self._server.halt().result(2.0)
        except (CoxswainError, TimeoutError, CancelledError) as error:
            self.context.log.warning("AccountSync did not end in an orderly way: %s", error)

    def receive(self, message: Any) -> Any:
        match message:
            case SyncCall():
                self._answer(message)
            case m.IssueInvite():
                return invites.issue(self._state, message)
            case m.ListInvites():
                return invites.list_(self._state, message)
            case m.RevokeInvite():
                return invites.revoke(self._state, message)
            case m.IssueIdentity():
                return issuing.issue(self._state, message)
            case GrpcCredentialsRenewed() | _Serve():
                self._serve()
            case _Served():
                self._served(message.error)
            case _Purge():
                self._purge()
                self.context.after(_PURGE_EVERY_S, message)
        return None

    # -- AccountSync

    def _serve(self) -> None:
        """Has it served, or tries again later: invites work without it."""
        self._again.cancel()
        if not self._state.settings["accounts.sync"]:
            return
        try:
            credentials: GrpcCredentials = self.context.ask("certificate_authority", GetGrpcCredentials(), deadline=_CA_S)
            begun = self._server.serve(credentials, self.context.tell_self, self._tell_fell)
        except CoxswainError as error:
            self._served(error)
            return
        begun.add_done_callback(self._tell_served)

    def _tell_served(self, begun: Future[None]) -> None:
        """On the loop's thread."""
        ended = Unavailable("the I/O loop ended")  # perhaps before the server knew what it would go on with on the next one
        self.context.tell_self_surely(_Served(ended if begun.cancelled() else begun.exception()))

    def _tell_fell(self, error: BaseException) -> None:
        """On the loop's thread: a new loop could not go on with it."""
        self.context.tell_self_surely(_Served(error))

    def _served(self, error: BaseException | None) -> None:
        if error is not None:
            self.context.log.error("AccountSync is not served: %s", error)
            self._again.after(_TRY_AGAIN_S, _Serve())

    def _answer(self, call: SyncCall) -> None:
        """Whatever happens, the caller hears of it; what is not expected ends this incarnation as everywhere."""
        try:
            call.answer(sync.answer(self._state, call))
        except CoxswainError as error:
            call.answer(error)
        except Exception:
            call.answer(Unavailable("it failed"))
            raise

    # -- forgetting

    def _purge(self) -> None:
        """A database that is away has nothing forgotten, this time."""
        now = self._state.now()
        try:
            with self._state.store.write(Durability.BATCHED) as tx:
                ticket_rows.purge_tickets(tx, now - _KEEP_TICKETS_S, _PURGE_ROWS)
                identity_rows.purge_sessions(tx, now, _PURGE_ROWS)
        except StoreUnavailable as error:
            self.context.log.warning("old invites and sessions stay for now: %s", error)
