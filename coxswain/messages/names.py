"""What users, devices and nodes are, or were, called.

Questions are for ``session_archive``: it is history that has ids of what is gone. ``fleet`` forgets a name when it is told
to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coxswain.messages.audit import Caller

__all__ = ["FindNamed", "ForgetName", "Kind", "ListRemoved", "Named", "NamesOf"]

Kind = Literal["user", "device", "node"]


@dataclass(frozen=True, slots=True)
class Named:
    """``user_id``: whose device it is or was; empty for others. ``removed_at`` (epoch seconds) 0: it is there."""

    id: str
    kind: Kind
    name: str
    user_id: str = ""
    removed_at: float = 0.0
    removed_by: str = ""


@dataclass(frozen=True, slots=True)
class NamesOf:
    """Asked by doors. Reply: dictionary of ``Named`` by id; an id that nobody knows is not in it."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FindNamed:
    """Asked by doors: which user, device or node a filter of history means, by ``key``: an id, a name or, ``by_contact``, a
    user's e-mail address. Reply: its id.

    What is there goes before what was removed. A text that begins like an id is taken for one, whether or not anybody
    knows it: history may be older than what is remembered. ``user_id``: only devices of this user. Raises ``NotFound``, and
    ``InvalidInput`` when several have the name.
    """

    kind: Kind
    key: str
    user_id: str = ""
    by_contact: bool = False


@dataclass(frozen=True, slots=True)
class ListRemoved:
    """Asked by doors. Reply: list of ``Named``, what was removed last first. Empty: any.

    ``wanted``: a part of the name or, ``by_actor``, of who removed it, or an id. ``after``: the id of the last one of the
    page before. Raises ``NotFound`` if that is gone.
    """

    kind: str = ""
    wanted: str = ""
    limit: int = 100
    after: str = ""
    by_actor: bool = False


@dataclass(frozen=True, slots=True)
class ForgetName:
    """Told to ``fleet`` by doors: the name of what was removed, and of a user those of its devices, is nowhere any more but
    in the audit log. Reply: ``Committed[int]``: how many were forgotten. Raises ``NotFound``.
    """

    caller: Caller
    id: str
