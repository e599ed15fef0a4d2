"""Routes as data: what the API consists of. ``table`` collects them, ``dispatch`` serves, ``openapi`` describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from coxswain.api.schema import Json

if TYPE_CHECKING:
    from coxswain.api.call import Call

__all__ = ["MAX_BODY_BYTES", "Param", "Reply", "Route", "Scope"]

MAX_BODY_BYTES = 1024 * 1024
"""Of a request, where a route does not say otherwise (management-plane.md 13.4)."""


class Scope(IntEnum):
    """What a credential must at least allow (management-plane.md 3.1). ``NONE``: nobody is asked who they are."""

    NONE = -1
    READONLY = 0
    MONITOR = 1
    ADMIN = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the query string, read with ``Call.word`` or ``Call.number``.

    ``empty_counts``: an empty one says something, as a list without items does; others are as good as absent on reads.
    """

    name: str
    summary: str
    schema: Json = field(default_factory=lambda: {"type": "string"})
    empty_counts: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler returns when the value alone does not say it all.

    Attributes:
        after: the cursor of the next page, for ``Link: <…>; rel="next"``; None: this was the last one.
        raw: bytes to send as they are, of type ``media_type``, instead of ``value`` as JSON.
    """

    value: Any = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    after: str | int | None = None
    raw: bytes | None = None
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    Attributes:
        path: with ``{key}`` for each part that varies; handlers find it in ``Call.path``.
        scope: what a credential must at least allow.
        summary: one sentence, for the OpenAPI document.
        handler: gets the ``Call`` and returns a JSON value, or a ``Reply``. Expected failures are ``CoxswainError``s.
        audit: the action in the audit log (management-plane.md 9.7); empty for what changes nothing. The handler's owning
            actor writes the record of a success; the dispatcher writes that of a refusal.
        target: the type of what is acted on, for records of refusals.
        refused: the action of records of refusals, where it is another one.
        returns: JSON schema of the answer; None: no body.
        status: of success.
        also: further statuses, beside those that every route may answer (``coxswain.api.openapi``).
        body: JSON schema (``schema.obj``) of the request's body, of which other keys are refused; None: whatever comes goes
            unheeded.
        query: the parameters of the query string; ``coxswain.api.query`` says what becomes of others.
        media_type: of the answer, if not JSON.
        waits_for_node: it may take as long as a node does; only so many of these run at once.
        max_body: bytes.
        from_own_pages: a foreign page must not ask for it, though it changes nothing: a WebSocket, which the rules that keep
            pages from reading each other's answers do not hold for.
    """

    method: str
    path: str
    scope: Scope
    summary: str
    handler: Callable[[Call], Any]
    audit: str = ""
    target: str = ""
    returns: Json | None = None
    status: int = 200
    also: tuple[int, ...] = ()
    body: Json | None = None
    query: tuple[Param, ...] = ()
    media_type: str = "application/json"
    waits_for_node: bool = False
    max_body: int = MAX_BODY_BYTES
    refused: str = ""
    from_own_pages: bool = False

    @property
    def unsafe(self) -> bool:
        """Whether it may change something (RFC 9110, section 9.2.1)."""
        return self.method not in ("GET", "HEAD")

    @property
    def ends(self) -> bool:
        """Whether its answer does; that of a live stream does not."""
        return self.status != 101 and self.media_type != "text/event-stream"
