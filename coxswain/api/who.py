"""Somebody whose credential was good."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.api.route import Scope
from coxswain.messages.audit import Caller

__all__ = ["Who"]


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody whose credential was good.

    Attributes:
        caller: how they appear in the audit log.
        scope: what they may do.
        kind: ``cli``, ``token`` or ``session``.
        id: of the token or login session; empty at the control socket.
        user_id: of the admin whose session it is; empty for others.
        expires_at: epoch seconds; None: never.
    """

    caller: Caller
    scope: Scope
    kind: str
    id: str = ""
    user_id: str = ""
    expires_at: float | None = None
