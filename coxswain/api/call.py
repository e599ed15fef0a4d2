"""What a handler gets: one request, already authenticated and parsed, and the running system to ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import falcon

from coxswain.api.bodies import Body, instant, integer, one_line, word
from coxswain.api.doors import Door
from coxswain.api.route import Scope
from coxswain.api.services import Services
from coxswain.api.who import Who
from coxswain.errors import InvalidInput, StaleVersion, Unavailable
from coxswain.messages import accounts, audit, fleet, sessions
from coxswain.messages.audit import Caller, Committed
from coxswain.messages.geo import Locate
from coxswain.messages.names import FindNamed, Kind, Named, NamesOf
from coxswain.messages.versions import Seen
from coxswain.model import Node, User

if TYPE_CHECKING:
    from coxswain.geoip import Location

__all__ = ["ALL", "CHANGE_S", "LONGEST_SEARCH", "NODE_S", "READ_S", "Call"]

ALL = 100_000
"""How long the page is of a list that existing callers read in one piece, without looking for a next page."""

READ_S = 5.0
CHANGE_S = 30.0
_NAMES_S = 2.0
LONGEST_SEARCH = 100
NODE_S = 100.0
"""A push may take as long as the contract lets it (node-contract.md 4.1)."""


class Call:
    """One request, for one handler, on one worker thread of a server.

    Attributes:
        services: the running system.
        request: for what nothing below gives.
        path: the parts of the path that vary.
        body: the JSON object that came; empty where the route takes none.
        query: the parameters of the query string, of those that the route takes.
        recorded: what was done is in the audit log; or a handler says that nothing had to be done.
    """

    def __init__(self, services: Services, door: Door, request: falcon.Request, path: dict[str, str], body: Body) -> None:
        self.services = services
        self.door = door
        self.request = request
        self.path = path
        self.body = body
        self.query: Mapping[str, Any] = request.params
        self.recorded = False

    @cached_property
    def who(self) -> Who:
        """Who asks. The dispatcher has called it already, except on routes of scope ``NONE``; may raise there."""
        return self.door.identify(self.request)

    @property
    def known(self) -> Who | None:
        """Who asks, as far as anybody has found out."""
        found: Who | None = self.__dict__.get("who")
        return found

    @property
    def caller(self) -> Caller:
        """For messages that change something."""
        return self.who.caller

    @property
    def address(self) -> str:
        """Where the request comes from; empty for the control socket."""
        return self.door.address(self.request)

    # -- the query string

    def word(self, name: str) -> str | None:
        """A text; None if it is absent."""
        return word(self.query, name)

    def number(self, name: str, default: int | None = None, *, low: int = 0, high: int = 2**53 - 1) -> int | None:
        """A whole number; ``default`` if it is absent."""
        return integer(self.query, name, default, low=low, high=high)

    def instant(self, name: str) -> int | None:
        """An RFC 3339 time as epoch microseconds; None if it is absent."""
        return instant(self.query, name)

    def limit(self, default: int = 100, high: int = 1_000) -> int:
        """How long a page may be: 0 and nothing mean ``default``, more than ``high`` is that (management-plane.md 3.2)."""
        return min(self.number("limit", 0) or default, high)

    def wanted(self) -> str:
        """What is looked for, with ``q``; empty: everything."""
        text = (self.word("q") or "").strip()
        if len(text) > LONGEST_SEARCH:
            raise InvalidInput(f"q: {len(text)} characters; it takes at most {LONGEST_SEARCH}")
        return text

    def flag(self, name: str) -> bool | None:
        """``true`` or ``false``; None if it is absent."""
        text = self.word(name)
        if text not in (None, "true", "false"):
            raise InvalidInput(f"{name}: {text[:40]!r} is not true or false")
        return None if text is None else text == "true"

    # -- the running system

    def ask(self, name: str, message: Any, deadline: float = READ_S) -> Any:
        """Asks an actor. Raises ``CoxswainError``."""
        answer = self.services.ask(name, message, deadline=deadline)
        self.recorded = self.recorded or isinstance(message, audit.AwaitAudited)
        return answer

    def change(self, name: str, message: Any, deadline: float = CHANGE_S) -> Any:
        """Asks for a change, and returns its value when its audit record is in the log."""
        return self.committed(self.ask(name, message, deadline))

    def committed(self, committed: Committed[Any]) -> Any:
        """Waits until the audit record of a change is in the log; returns the change's value."""
        try:
            self.ask("audit_writer", audit.AwaitAudited(committed.outbox_id), CHANGE_S)
        except Unavailable as error:
            # Both are in the store by now; a caller who does it again would do it twice.
            late = type(error)(
                f"the change is made and kept, but its audit record is not in the log yet: {error}",
                remedy="Do not repeat it. The record follows by itself; see: cox audit",
            )
            late.audited = 0
            raise late from None
        return committed.value

    # -- what many handlers need

    def view(self, key: str | None = None) -> fleet.NodeView:
        """A node by id or name; None: the one that the path names with ``{key}``."""
        found: fleet.NodeView = self.ask("fleet", fleet.GetNode(one_line("node", self.path["key"] if key is None else key)))
        return found

    def node(self, key: str | None = None) -> Node:
        return self.view(key).node

    @property
    def sees_contacts(self) -> bool:
        """Whether who asks may know users' e-mail addresses and phone numbers: they are no business of a script that watches
        (management-plane.md 13.4).
        """
        return self.who.scope >= Scope.ADMIN

    def user(self, key: str | None = None) -> User:
        """A user by id or, for whoever may know those, by e-mail address; None: the one that the path names with ``{key}``.

        Raises ``NotFound``.
        """
        wanted = self.path["key"] if key is None else key
        found: User = self.ask("fleet", accounts.GetUser(wanted, self.sees_contacts))
        return found

    def names(self, ids: Iterable[str | None]) -> dict[str, Named]:
        """What users, devices and nodes with these ids are called, or were before they were removed. Nothing while
        ``session_archive`` does not answer: whoever shows names can do without.
        """
        wanted = tuple({each for each in ids if each})
        if not wanted:
            return {}
        try:
            found: dict[str, Named] = self.ask("session_archive", NamesOf(wanted), _NAMES_S)
        except Unavailable:
            return {}
        return found

    def meant(self, kind: Kind, user_id: str | None = None) -> str | None:
        """The id of the user, device or node that the filter ``kind`` of history names, by id or name; None: it is absent.

        ``user_id``: whose device it has to be, if it is given by name. Raises ``NotFound``, ``InvalidInput``.
        """
        key = self.word(kind)
        if key is None:
            return None
        found: str = self.ask("session_archive", FindNamed(kind, key, user_id or "", self.sees_contacts))
        return found

    def seen(self, kind: str, record_id: str, name: str) -> Seen | None:
        """For changes that are about a record and do not go through its row: ``version``, in the body or the query, is the
        one that its author saw. It is compared in the transaction of the change. None: whatever it is.
        """
        version = self._version()
        return None if version is None else Seen(kind, record_id, version, name)

    def check_version(self, what: str, present: int) -> None:
        """Early, before something that takes long; the change compares it again. Raises ``StaleVersion``."""
        version = self._version()
        if version is not None and version != present:
            raise StaleVersion.of(what, version, present)

    def _version(self) -> int | None:
        return self.number("version") if self.request.method == "DELETE" else self.body.get("version", int)

    def active_sessions(self) -> dict[str, int] | None:
        """Node id to its open sessions; None: not known just now, as the tracker restarts."""
        try:
            found: dict[str, int] = self.ask("session_tracker", sessions.GetActiveSessions())
        except Unavailable:
            return None
        return found

    def locate(self, hosts: Iterable[str]) -> dict[str, Location]:
        """Where hosts are, of those of which the GeoIP database knows it; nothing while it is being opened anew."""
        wanted = tuple(hosts)
        if not wanted:
            return {}
        try:
            found: dict[str, Location] = self.ask("geo_locator", Locate(wanted))
        except Unavailable:
            return {}
        return found
