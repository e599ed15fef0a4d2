"""What must hold for a request from the network before anybody looks at it, and whose credential it carries.

Loopback is not trusted by itself: a web page in the operator's browser can send requests there too. So the Host must be a
known one (against DNS rebinding), and whatever may change something must come from our own pages (against cross-site
requests), or show a bearer token, which no foreign page has.

Works on a ``Head``, so that the same rules hold for requests to the API, and for WebSockets, which never become one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from coxswain.access.secrets import digest
from coxswain.api.route import Scope
from coxswain.api.who import Who
from coxswain.errors import Refused, Unauthenticated, UnknownMediaType
from coxswain.messages.access import Authenticated, WhoHolds
from coxswain.messages.audit import Caller

__all__ = ["Gate", "Head", "check_json", "cookie_name", "names_of_listener", "set_cookie"]

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_TOKEN = re.compile(r"cox_[A-Za-z0-9_-]{1,128}")
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")
_ASK_S = 5.0
_REMEDY = "Make one there with: cox tokens create NAME"

Ask = Callable[..., Any]
"""``Services.ask``."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head.

    Attributes:
        headers: by lower-case name.
        address: the TCP peer, without port.
        tls: the connection itself is encrypted.
    """

    method: str
    headers: Mapping[str, str] = field(repr=False)
    address: str
    tls: bool = False


@dataclass(frozen=True)
class Gate:
    """The rules of one listener. Thread-safe: it never changes.

    Attributes:
        hosts: names under which it is reached, beside loopback names and the address it listens on; with a port or without.
        origins: of pages, beside its own, that may change things.
        behind_tls_proxy: X-Forwarded-Proto is believed (management-plane.md 10.4).
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    behind_tls_proxy: bool = False

    def secure(self, head: Head) -> bool:
        """Whether what the browser sees is https."""
        forwarded = head.headers.get("x-forwarded-proto", "")
        return head.tls or (self.behind_tls_proxy and forwarded.strip().lower() == "https")

    def admit(self, head: Head, *, unsafe: bool) -> None:
        """Raises ``Refused`` for a foreign Host or Origin. ``unsafe``: it may change something, or is a WebSocket."""
        self._check_host(head.headers.get("host", ""))
        if unsafe:
            self._check_origin(head)

    def _check_host(self, host: str) -> None:
        match = _HOST.fullmatch(host)
        name = match[1].lower().removesuffix(".") if match else ""
        if not match or not (_is_loopback(name) or name in self.hosts or host.lower() in self.hosts):
            raise Refused(
                f"Host: {host[:80]!a} is not a name of this controller",
                remedy="Use its address, or add the name to ui.allowed_hosts.",
            )

    def _check_origin(self, head: Head) -> None:
        """Browsers say where a request that changes something comes from; a page cannot make them lie. Who says neither is
        none: a script, which may well have logged in and keep the cookie (management-plane.md 10.3).
        """
        origin, site = head.headers.get("origin"), head.headers.get("sec-fetch-site")
        if origin is not None:
            scheme = "https" if self.secure(head) else "http"
            own = f"{scheme}://{head.headers.get('host', '')}".lower()
            if origin.lower() != own and origin not in self.origins:
                raise Refused(
                    f"Origin: {origin[:80]!a} is foreign", remedy="If it is a page of yours, add it to ui.allowed_origins."
                )
        elif site is not None and site != "same-origin":
            raise Refused("Sec-Fetch-Site: the request comes from another site's page")

    def identify(self, ask: Ask, head: Head, *, touch: bool = True) -> Who:
        """Who a request comes from. A bearer credential that is not good is never passed over for a cookie.

        Args:
            ask: ``Services.ask``.
            head: of the request.
            touch: it counts as use of the credential.

        Raises:
            Unauthenticated: no credential, or no good one.
            Refused: the account may not be used.
        """
        return self._who(ask, self.holds(head, touch=touch), head.address)

    def holds(self, head: Head, *, touch: bool) -> WhoHolds:
        """The credential that a request carries, as one asks ``access`` about it. Raises ``Unauthenticated``: none."""
        bearer = head.headers.get("authorization")
        if bearer is not None:
            scheme, _, secret = bearer.partition(" ")
            secret = secret.strip(" ")
            if scheme.lower() != "bearer" or not _TOKEN.fullmatch(secret):
                raise Unauthenticated(
                    "Authorization: this is no bearer token of this controller",
                    remedy=_REMEDY,
                )
            return WhoHolds(digest(secret), cookie=False, touch=touch)
        secret = _cookie(head, cookie_name(secure=self.secure(head)))
        if not _COOKIE.fullmatch(secret):
            raise Unauthenticated("a bearer token or a login is needed")
        return WhoHolds(digest(secret), cookie=True, touch=touch)

    @staticmethod
    def _who(ask: Ask, message: WhoHolds, address: str) -> Who:
        try:
            found: Authenticated = ask("access", message, deadline=_ASK_S)
        except Unauthenticated:
            # Which of unknown, revoked and expired it was is not for somebody who has no good one.
            remedy = "" if message.cookie else _REMEDY
            raise Unauthenticated("the credential is not good (any more)", remedy=remedy) from None
        caller = Caller(found.name, found.kind, address)
        return Who(caller, Scope[found.scope.upper()], found.kind, found.id, found.user_id, found.expires_at)


_OF_PAGES = ("origin", "sec-fetch-site", "cookie")


def check_json(head: Head) -> None:
    """What a page may have sent has to be called JSON, which no form of a foreign page can say. What a script with a token
    calls it does not matter (management-plane.md 3.1): ``curl -d`` calls everything a form.

    Raises ``UnknownMediaType``.
    """
    if not any(name in head.headers for name in _OF_PAGES):
        return
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnknownMediaType(f"Content-Type: {kind[:80]!a} is not application/json")


def cookie_name(*, secure: bool) -> str:
    """With the prefix, browsers take it only over https, for this host alone (RFC 6265bis, section 4.1.3.2)."""
    return "__Host-cox_session" if secure else "cox_session"


def set_cookie(secret: str, lifetime_s: float, *, secure: bool) -> str:
    """The ``Set-Cookie`` of a login; with an empty secret, of a logout."""
    age = int(lifetime_s) if secret else 0
    cookie = f"{cookie_name(secure=secure)}={secret}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict"
    return cookie + "; Secure" if secure else cookie


def _cookie(head: Head, name: str) -> str:
    """The value of one cookie; empty: there is none, or more than one. What others of this host have set does not matter,
    which a parser of all cookies cannot say of itself.
    """
    pairs = (part.strip().partition("=") for part in head.headers.get("cookie", "").split(";"))
    found = [value for key, _, value in pairs if key == name]
    return found[0] if len(found) == 1 else ""


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3: never looked up
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def names_of_listener(listen: str) -> frozenset[str]:
    """What ``ui.listen`` adds to the names: its host, if it is not a wildcard."""
    host = urlsplit(f"//{listen}").hostname or ""
    wild = host in ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
    return frozenset() if wild else frozenset({f"[{host}]" if ":" in host else host})
