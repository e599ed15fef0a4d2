"""Messages to ``access``: who may do what. Asked by doors; secrets travel as digests wherever that will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coxswain.messages.audit import Caller

__all__ = [
    "AddAdmin",
    "Admin",
    "Authenticated",
    "BeginLogin",
    "BeginSecondFactor",
    "ChangePassword",
    "ConfirmSecondFactor",
    "CreateToken",
    "CreatedToken",
    "EditAdmin",
    "FinishLogin",
    "GetAdmin",
    "ListAdmins",
    "ListLogins",
    "ListTokens",
    "LoggedIn",
    "Login",
    "LoginChallenge",
    "Logout",
    "PasswordChecked",
    "RecordAction",
    "RecordRefusal",
    "RemoveAdmin",
    "RemoveSecondFactor",
    "RevokeLogin",
    "RevokeToken",
    "SecondFactor",
    "Token",
    "TokenPage",
    "WhoHolds",
]


@dataclass(frozen=True, slots=True)
class WhoHolds:
    """Whose credential this is. Reply: ``Authenticated``.

    Attributes:
        digest: ``coxswain.access.secrets.digest`` of the secret.
        cookie: it came in a session cookie; else as a bearer token.
        touch: it counts as use: stamps the token, keeps the session from idling out. Not for the re-check of a live stream.

    Raises ``Unauthenticated`` (unknown, expired, revoked), ``Refused`` (an account that is disabled, or no admin any more).
    """

    digest: str
    cookie: bool
    touch: bool = True


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Somebody whose credential is good. ``kind``: ``token`` or ``session``; ``user_id`` empty for tokens. ``expires_at``:
    epoch seconds; None: never.
    """

    kind: str
    id: str
    name: str
    scope: str
    user_id: str = ""
    expires_at: float | None = None


# -- admins


@dataclass(frozen=True, slots=True)
class Admin:
    """An account that may log in. ``totp``: its second factor is confirmed. ``built_in``: the one of the configuration."""

    id: str
    name: str
    email: str
    phone: str
    status: str
    version: int
    totp: bool
    built_in: bool
    can_log_in: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class ListAdmins:
    """Reply: list of ``Admin`` by e-mail, at most ``limit`` after the one with the id ``after``. Raises ``NotFound``."""

    after: str = ""
    limit: int = 1_000


@dataclass(frozen=True, slots=True)
class GetAdmin:
    """``key``: id or e-mail. Reply: ``Admin``. Raises ``NotFound``."""

    key: str


@dataclass(frozen=True, slots=True)
class AddAdmin:
    """Reply: ``Committed[Admin]``. Raises ``AlreadyExists`` (the e-mail is taken)."""

    caller: Caller
    email: str
    password_hash: str = field(repr=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class EditAdmin:
    """Changes what is not None. A disabled account's sessions end. Reply: ``Committed[Admin]``.

    Raises ``NotFound``, ``StaleVersion``, ``Conflict`` (the last admin that can log in, the caller's own account).
    """

    caller: Caller
    id: str
    version: int
    by_user: str = ""
    email: str | None = None
    name: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveAdmin:
    """Reply: ``Committed[Admin]``. Raises ``NotFound``, ``StaleVersion``, ``Refused`` (the built-in account), ``Conflict``
    (the caller's own, the last one that can log in). ``by_user``: the caller's account, if it has one.
    """

    caller: Caller
    id: str
    by_user: str = ""
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Ends the account's sessions but ``keep_session``. Reply: ``Committed[Admin]``. ``version`` None: whatever it is now.

    ``expected_hash``: the hash that the old password was checked against, which must still be the stored one; None: nobody
    asked for the old one. Raises ``NotFound``, ``StaleVersion``, ``Conflict`` (it changed meanwhile; the configuration says
    what it is).
    """

    caller: Caller
    id: str
    password_hash: str = field(repr=False)
    expected_hash: str | None = field(default=None, repr=False)
    keep_session: str = ""
    version: int | None = None


# -- logging in


@dataclass(frozen=True, slots=True)
class BeginLogin:
    """The first half of a login or of asking for a password again: may they try, and what is the password compared with?

    It counts as a failed attempt until ``FinishLogin`` or ``PasswordChecked`` say otherwise. Reply: ``LoginChallenge``, for
    unknown accounts too. Raises ``Throttled``.
    """

    username: str
    address: str


@dataclass(frozen=True, slots=True)
class LoginChallenge:
    """``password_hash`` empty: no password fits. ``user_id`` empty: there is no such account."""

    username: str
    user_id: str
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FinishLogin:
    """The second half. Reply: ``Committed[LoggedIn]``; a refusal is recorded, and raises ``Unauthenticated``.

    ``code``: of the second factor, or a recovery code; empty: none was given.
    """

    challenge: LoginChallenge
    address: str
    password_ok: bool
    code: str = field(default="", repr=False)
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """``secret`` goes into the cookie, and nowhere else. ``lifetime_s``: seconds."""

    admin: Admin
    session_id: str
    secret: str = field(repr=False)
    lifetime_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PasswordChecked:
    """Asked after a password was asked for again. Reply: None. Raises ``Unauthenticated`` if it was wrong."""

    challenge: LoginChallenge
    address: str
    password_ok: bool


@dataclass(frozen=True, slots=True)
class Logout:
    """Reply: ``Committed[None]``. Raises ``Unauthenticated`` if the session is gone already."""

    caller: Caller
    session_id: str


@dataclass(frozen=True, slots=True)
class Login:
    """One login session. ``user``: its account's e-mail."""

    id: str
    user_id: str
    user: str
    source_ip: str
    user_agent: str
    created_at: float
    seen_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class ListLogins:
    """Sessions that are good now, newest first. ``user_id`` empty: of all admins. Reply: list of ``Login``."""

    user_id: str = ""
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class RevokeLogin:
    """Ends a session. Reply: ``Committed[None]``. Raises ``NotFound``."""

    caller: Caller
    session_id: str


# -- the second factor


@dataclass(frozen=True, slots=True)
class BeginSecondFactor:
    """Makes a secret, which counts when it is confirmed. Reply: ``Committed[SecondFactor]``. Raises ``Conflict`` if a
    confirmed one is there, ``NotFound``, ``StaleVersion``.
    """

    caller: Caller
    user_id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """``secret`` (base32) and ``url`` (``otpauth://``) are shown once."""

    secret: str = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConfirmSecondFactor:
    """Reply: ``Committed[tuple[str, ...]]``: recovery codes, shown once. Raises ``InvalidInput`` (a wrong code),
    ``Conflict`` (nothing to confirm), ``StaleVersion``.
    """

    caller: Caller
    user_id: str
    code: str = field(repr=False)
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveSecondFactor:
    """Reply: ``Committed[None]``. Raises ``NotFound`` if there is none, ``StaleVersion``."""

    caller: Caller
    user_id: str
    version: int | None = None


# -- tokens


@dataclass(frozen=True, slots=True)
class Token:
    """An API token, without its secret. Times are epoch seconds; None: never.

    All that ever changes of it is that it is revoked, so there are two versions of it.
    """

    id: str
    name: str
    scope: str
    prefix: str
    created_by: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None

    @property
    def version(self) -> int:
        return 1 if self.revoked_at is None else 2


@dataclass(frozen=True, slots=True)
class ListTokens:
    """Newest first, those after the id ``after``. Reply: ``TokenPage``. Raises ``NotFound`` for an unknown ``after``."""

    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class TokenPage:
    tokens: tuple[Token, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class CreateToken:
    """``lifetime_s`` None: it does not expire. Reply: ``Committed[CreatedToken]``. Raises ``InvalidInput``."""

    caller: Caller
    name: str
    scope: str
    lifetime_s: float | None = None


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """``secret`` is shown once."""

    token: Token
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Reply: ``Committed[Token]``, or ``Token`` if it was revoked already. Raises ``NotFound``, ``StaleVersion``."""

    caller: Caller
    id: str
    version: int | None = None


# -- what belongs to nobody's records


@dataclass(frozen=True, slots=True)
class RecordAction:
    """Asked by doors for an action that changes none of our records and is in the audit log all the same, such as harming a
    part on purpose. Reply: ``Committed[None]``.

    Attributes:
        target: type and id.
        detail: plain JSON values, no secrets.
    """

    caller: Caller
    action: str
    target: tuple[str, str]
    detail: Mapping[str, Any] = field(default_factory=dict)


# -- refusals


@dataclass(frozen=True, slots=True)
class RecordRefusal:
    """Asked by dispatchers for every answer of 401, 403, 409 and 429, and for changes that failed inside.

    Reply: ``Committed[None]``, or None where it is only counted (``coxswain.access.refusals``).

    Attributes:
        caller: None: nobody whose credential was good.
        route: method and path as the table has them, so that there are only so many.
        target: type and id.
    """

    caller: Caller | None
    address: str
    route: str
    action: str
    target: tuple[str, str]
    status: int
    error: str
