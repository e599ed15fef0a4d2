"""Whether those who were granted a stream may still have it: asked of ``access``, on the thread of the actor that looks."""

from __future__ import annotations

from actors.supervision import Context
from coxswain.errors import CoxswainError, Refused, Unauthenticated
from coxswain.messages.access import WhoHolds

__all__ = ["Due", "check"]

_UNKNOWN_S = 300.0
"""For so long a stream lives on while nobody can say whether it may."""

_ASK_S = 5.0
_AT_ONCE = 50
"""Credentials that are looked at in one go; the others wait for the next look."""

_MONITOR = frozenset({"monitor", "admin"})


class Due:
    """To itself, from the loop: credentials that have to be looked at, and when each last was, by the monotonic clock."""

    def __init__(self, found: dict[WhoHolds, float], now: float) -> None:
        self.found = found
        self.now = now


def check(context: Context, due: Due, recheck_s: float) -> tuple[list[WhoHolds], list[WhoHolds]]:
    """Those that are good, and those whose streams end."""
    oldest_first = sorted(due.found.items(), key=lambda item: item[1])[:_AT_ONCE]
    good: list[WhoHolds] = []
    ended: list[WhoHolds] = []
    for credential, checked_at in oldest_first:
        try:
            found = context.ask("access", credential, deadline=_ASK_S)
        except (Unauthenticated, Refused):
            ended.append(credential)
        except CoxswainError as error:
            if due.now - checked_at > recheck_s + _UNKNOWN_S:
                ended.append(credential)
            context.log.warning("the credential of a stream cannot be looked at just now: %s", error)
            break  # the others would have to wait as long, for the same answer
        else:
            (good if found.scope in _MONITOR else ended).append(credential)
    return good, ended
