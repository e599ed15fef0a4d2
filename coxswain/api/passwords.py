"""Passwords at the door: hashed on its threads, so many at once, between two questions to ``access``."""

from __future__ import annotations

from collections.abc import Iterable

from coxswain.access.passwords import HashingGate, check_hash, check_new, hash_password
from coxswain.accounts.container import read_container, write_password
from coxswain.accounts.primitives import compact
from coxswain.api.call import Call
from coxswain.api.schema import TEXT
from coxswain.errors import InvalidInput
from coxswain.messages import access as m

__all__ = ["NEW_PASSWORD", "ask_again", "challenge", "new_hash", "new_password", "sealed_under"]

NEW_PASSWORD = TEXT | {"description": "at least admin.password_min_length characters, at most 512"}
"""The schema of one in a body."""

_GATE = HashingGate()
"""Of the whole process: what it saves is the machine's memory."""


def challenge(call: Call, username: str, password: str) -> tuple[m.LoginChallenge, bool]:
    """Whether ``password`` is that account's. Counts as a failed attempt until ``access`` is told how it ended.

    Raises ``Throttled``.
    """
    with _GATE.turn():
        found: m.LoginChallenge = call.ask("access", m.BeginLogin(username, call.address))
        return found, check_hash(password, found.password_hash)


def ask_again(call: Call) -> m.LoginChallenge | None:
    """Before something that somebody with a stolen session must not do: the body's ``your_password`` is asked for.

    Returns None for callers who have none: the control socket and tokens. Raises ``InvalidInput``, ``Unauthenticated``.
    """
    user_id, given = call.who.user_id, call.body.secret("your_password")
    if not user_id:
        return None
    if given is None:
        raise InvalidInput("your_password: is missing; changes to who may log in ask for your password again")
    admin: m.Admin = call.ask("access", m.GetAdmin(user_id))
    found, right = challenge(call, admin.email, given)
    call.ask("access", m.PasswordChecked(found, call.address, right))
    return found


def new_hash(call: Call, name: str = "password", *, of: Iterable[str]) -> str:
    """The hash of a new password in the body. ``of``: what its owner is called. Raises ``InvalidInput``, ``Throttled``."""
    given = new_password(call, name, of=of)
    if given is None:
        raise InvalidInput(f"{name}: is missing; text is needed")
    with _GATE.turn():
        return hash_password(given)


def new_password(call: Call, name: str = "password", *, of: Iterable[str] = ()) -> str | None:
    """A new password in the body, or None if there is none. Raises ``InvalidInput``: it may not be used."""
    given = call.body.secret(name)
    if given is not None:
        check_new(given, name, of=of, shortest=int(call.services.setting("admin.password_min_length")))
    return given


def sealed_under(password: str, plain: str) -> str:
    """A ``.pharos`` file in the clear as one that only the password opens. Raises ``Throttled``."""
    document = compact(read_container(plain).document()).encode()
    with _GATE.turn():
        return write_password(document, password)
