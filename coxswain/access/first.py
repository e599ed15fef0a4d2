"""The first password: what ``cox init`` gives the built-in admin."""

from __future__ import annotations

import dataclasses

from coxswain.access.passwords import hash_password, new_password
from coxswain.audit import record
from coxswain.messages.audit import Caller
from coxswain.store.access import BUILT_IN, Account, insert_account, list_accounts, update_account
from coxswain.store.api import Tx

__all__ = ["give_first_password"]


def give_first_password(tx: Tx, caller: Caller, *, now: float) -> str | None:
    """A fresh password, to be shown once; None: the built-in admin has one already, which is kept.

    Args:
        tx: a writing transaction.
        caller: for the audit log.
        now: epoch seconds.
    """
    present = next((account for account in list_accounts(tx) if account.id == BUILT_IN), None)
    if present is not None and present.password_hash:
        return None
    password = new_password()
    if present is None:
        insert_account(tx, Account(BUILT_IN, "admin", "admin", password_hash=hash_password(password), created_at=now))
    else:
        account = dataclasses.replace(present, password_hash=hash_password(password), version=present.version + 1)
        update_account(tx, account, now=now)
    record(tx, caller, "admin.password", ("user", BUILT_IN), {"email": "admin"}, now=now)
    return password
