"""The actor ``access``: admins, their sessions and second factors, API tokens, and what was refused to whom.

| module | what it does |
|---|---|
| ``actor`` | the actor: life, timers, which module answers which message |
| ``state`` | what all modules share: memory, transactions, doubt |
| ``credentials`` | whose credential is this? and when was it last used |
| ``logins`` | logging in and out; the throttle |
| ``admins`` | changes to accounts; the built-in one and the configuration |
| ``factors`` | second factors |
| ``tokens`` | API tokens |
| ``refusals`` | audit records of what was refused |

Each of them is functions ``(access: AccessState, message) -> reply`` with a table ``HANDLERS`` at its end.
"""

from actors.access.actor import Access

__all__ = ["Access"]
