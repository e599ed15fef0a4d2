"""Who may do what: admins, their logins and second factors, API tokens. Every door asks here whose credential it was shown.

Passwords are not hashed here, as that takes a tenth of a second: doors do it on their threads, between two questions.
"""

from __future__ import annotations

from typing import Any

from actors.access import admins, credentials, factors, logins, refusals, tokens
from actors.access.state import AccessState, Handler, Rules
from actors.supervision import Actor, Context
from coxswain.keyring import Keyring
from coxswain.store import Store

__all__ = ["Access"]

_STAMPS_S = 5.0
_SUMMARIES_S = 5.0
_PURGE_S = 300.0

_CONCERNS = (credentials, logins, admins, factors, tokens, refusals)
_HANDLERS: dict[type, Handler] = {kind: handler for concern in _CONCERNS for kind, handler in concern.HANDLERS.items()}


class _WriteStamps:
    """To itself: write last uses."""


class _WriteSummaries:
    """To itself: write what was only counted."""


class _Purge:
    """To itself: take expired sessions away."""


class Access(Actor):
    """See the module; what it does is in the modules beside this one."""

    mailbox_capacity = 10_000

    def __init__(self, context: Context, *, store: Store, keyring: Keyring, rules: Rules) -> None:
        super().__init__(context)
        self._access = AccessState(context, store, keyring, rules)

    def started(self) -> None:
        access = self._access
        access.load()
        admins.ensure_built_in(access)
        if not any(access.can_log_in(account) for account in access.accounts.values()):
            self.context.log.warning(
                "nobody can log in to the dashboard yet; give a password with: cox admins password admin"
            )
        self.context.after(_STAMPS_S, _WriteStamps())
        self.context.after(_SUMMARIES_S, _WriteSummaries())
        self.context.after(_PURGE_S, _Purge())

    def stopping(self) -> None:
        credentials.write_stamps(self._access)
        refusals.write_summaries(self._access, all_of_them=True)

    def receive(self, message: Any) -> Any:
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            self._access.settle_doubt()
            return handler(self._access, message)
        match message:
            case _WriteStamps():
                credentials.write_stamps(self._access)
                self.context.after(_STAMPS_S, message)
            case _WriteSummaries():
                refusals.write_summaries(self._access)
                self.context.after(_SUMMARIES_S, message)
            case _Purge():
                credentials.purge(self._access)
                self.context.after(_PURGE_S, message)
        return None
