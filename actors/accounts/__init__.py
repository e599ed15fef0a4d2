"""The actor ``accounts``: how devices join the fleet, and what they fetch.

| module | what it does |
|---|---|
| ``actor`` | the actor: life, timers, which module answers which message |
| ``state`` | what all modules share |
| ``invites`` | invitations |
| ``issuing`` | identities that are handed out as files |
| ``server`` | AccountSync on the I/O loop; decides nothing |
| ``sync`` | what its calls do |
"""

from actors.accounts.actor import Accounts
from actors.accounts.server import SyncServer

__all__ = ["Accounts", "SyncServer"]
