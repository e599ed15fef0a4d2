"""What all parts of ``access`` share: memory, transactions, doubt. Only the thread of the actor touches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.supervision import Context
from coxswain.access.refusals import Refusals
from coxswain.access.throttle import Limits, Throttle
from coxswain.errors import NotFound, StaleVersion, StoreUnavailable
from coxswain.keyring import Keyring
from coxswain.messages.access import Admin
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.store import Durability, Store, Tx
from coxswain.store import access as rows

__all__ = ["AccessState", "Handler", "Rules"]

T = TypeVar("T")

_PER_ADDRESS = Limits(free=10, first_s=1.0, longest_s=300.0)
_PER_ACCOUNT = Limits(free=5, first_s=1.0, longest_s=30.0)
"""An account's pause is short, or whoever does not know the password could keep out the one who does."""

_PER_FACTOR = Limits(free=5, first_s=5.0, longest_s=900.0, forget_s=86_400.0)
"""Wrong codes after a right password; a million codes are few."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says.

    Attributes:
        password: of the built-in account, or empty.
        password_hash: the same as a hash, or empty. With both empty, what the store has counts.
        session_s: how long a login is good, used or not.
        idle_s: how long it is good without being used.
    """

    password: str = ""
    password_hash: str = ""
    session_s: float = 43_200.0
    idle_s: float = 7_200.0

    def __repr__(self) -> str:
        return f"Rules(session_s={self.session_s}, idle_s={self.idle_s})"

    @property
    def say_password(self) -> bool:
        return bool(self.password or self.password_hash)


class AccessState:
    """Memory, which the store repeats in full.

    Attributes:
        accounts: admins by id.
        logins: sessions by digest.
        tokens: by digest.
        factors: second factors by account.
        token_stamps, login_stamps: when those were last used whose last use is not written yet, by id.
    """

    def __init__(self, context: Context, store: Store, keyring: Keyring, rules: Rules) -> None:
        self.context = context
        self.store = store
        self.keyring = keyring
        self.rules = rules
        self.accounts: dict[str, rows.Account] = {}
        self.logins: dict[str, rows.LoginRow] = {}
        self.tokens: dict[str, rows.TokenRow] = {}
        self.factors: dict[str, rows.FactorRow] = {}
        self.login_stamps: dict[str, float] = {}
        self.token_stamps: dict[str, float] = {}
        self.by_address = Throttle(_PER_ADDRESS)
        self.by_account = Throttle(_PER_ACCOUNT)
        self.by_factor = Throttle(_PER_FACTOR)
        self.refusals = Refusals()
        self._in_doubt = False

    def now(self) -> float:
        return self.context.clock.now()

    def load(self) -> None:
        """Reads everything again. Raises ``StoreUnavailable``."""
        with self.store.read() as tx:
            self.accounts = {a.id: a for a in rows.list_accounts(tx)}
            self.logins = {login.digest: login for login in rows.list_logins(tx, now=self.now())}
            self.tokens = {t.digest: t for t in rows.list_tokens(tx)}
            self.factors = {f.user_id: f for f in rows.list_factors(tx)}
        self._in_doubt = False

    def settle_doubt(self) -> None:
        """Before anything that goes by memory: after a commit whose answer was lost, nobody knows whether it was made."""
        if self._in_doubt:
            self.load()

    @contextmanager
    def changing(self) -> Iterator[Tx]:
        """A transaction. Memory is changed after it."""
        try:
            with self.store.write(Durability.ACKNOWLEDGED) as tx:
                yield tx
        except StoreUnavailable:
            self._in_doubt = True
            raise

    def committed(self, value: T, outbox_id: int) -> Committed[T]:
        self.context.tell("audit_writer", OutboxGrew())
        return Committed(value, outbox_id)

    # -- finding

    def account(self, key: str) -> rows.Account:
        """By id or e-mail. Raises ``NotFound``."""
        found = self.accounts.get(key) or self.named(key)
        if found is None:
            raise NotFound(f"admin: there is no admin with the id or e-mail {key[:80]!r}", remedy="See: cox admins list")
        return found

    def named(self, email: str) -> rows.Account | None:
        """By e-mail; case does not matter."""
        wanted = email.casefold()
        return next((a for a in self.accounts.values() if a.email.casefold() == wanted), None)

    def checked(self, key: str, version: int | None) -> rows.Account:
        """By id or e-mail, and as its author saw it. Raises ``NotFound``, ``StaleVersion``."""
        account = self.account(key)
        if version is not None and version != account.version:
            raise StaleVersion.of(f"admin {account.email}", version, account.version)
        return account

    def view(self, account: rows.Account) -> Admin:
        factor = self.factors.get(account.id)
        return Admin(
            id=account.id,
            name=account.name,
            email=account.email,
            phone=account.phone,
            status=account.status,
            version=account.version,
            totp=factor is not None and factor.confirmed,
            built_in=account.id == rows.BUILT_IN,
            can_log_in=self.can_log_in(account),
            created_at=account.created_at,
        )

    @staticmethod
    def can_log_in(account: rows.Account) -> bool:
        return account.status == "active" and bool(account.password_hash)

    def forget_logins_of(self, user_id: str, *, but: str = "") -> None:
        """In memory, after they were ended in the store."""
        ended = [d for d, login in self.logins.items() if login.user_id == user_id and login.id != but]
        for digest in ended:
            del self.logins[digest]


Handler = Callable[[AccessState, Any], Any]
"""Answers one kind of message."""
