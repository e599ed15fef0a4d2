"""Reading request bodies and query strings: strict, bounded, with errors that name the field."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import falcon

from coxswain.errors import InvalidInput, NotFound, TooLarge
from coxswain.model import Device, NetworkPolicy, Peer, Protocol, User
from coxswain.words import counted

__all__ = [
    "MOST_BODY_BYTES",
    "Body",
    "instant",
    "integer",
    "naming",
    "one_line",
    "peer_change",
    "policy",
    "policy_change",
    "read_body",
    "skim_body",
    "word",
]

MOST_BODY_BYTES = 32 * 1024 * 1024
"""A change of peers for a whole fleet comes in one body; other routes take far less (``Route.max_body``)."""

_MAX_LINE = 500
"""Characters of a text in one line: names, keys, reasons."""

_MAX_SECRET = 1_000

_MAX_INTEGER = 2**53 - 1
"""What every JSON reader can hold exactly (RFC 8259, section 6); stores hold more."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Not in texts of one line. Surrogates come from JSON escapes; no encoding has them, and no store takes them."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_INSTANT = re.compile(r"[0-9]{4}(-[0-9]{2}){2}[Tt ][0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,9})?([Zz]|[+ -][0-9]{2}:[0-9]{2})")
"""RFC 3339, section 5.6; and a space for the plus of an offset, which is what a plus that nobody escaped arrives as."""

_NEVER = re.compile(r"[\x00\ud800-\udfff]")

_WORDS: dict[type[Any], str] = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


class Body:
    """One JSON object, read key by key. Keys that are not ``declared``, in any case of their letters, are refused at once;
    where nothing is declared, ``done`` refuses what nobody asked for.
    """

    def __init__(self, value: Any, where: str = "", declared: frozenset[str] | None = None) -> None:
        if not isinstance(value, dict):
            raise InvalidInput(f"{where or 'body'}: a JSON object is needed")
        self._value: dict[str, Any] = value if declared is None else _folded(value, declared)
        self._where = f"{where}." if where else ""
        self._asked: set[str] = set()
        self._declared = declared
        if declared is not None:
            self._refuse_others(declared)

    def __contains__(self, name: str) -> bool:
        """Whether the key was given at all, be it as null."""
        return name in self._value

    def need(self, name: str, kind: type[Any]) -> Any:
        """Like ``get``, but it has to be there."""
        value = self.get(name, kind)
        if value is None:
            raise InvalidInput(f"{self._where}{name}: is missing; {_WORDS[kind]} is needed")
        return value

    def get(self, name: str, kind: type[Any]) -> Any:
        """The value of a key, of that type; None if it is absent or null. Texts are one line, numbers are whole ones."""
        value = self._typed(name, kind)
        if kind is str and value is not None:
            return one_line(f"{self._where}{name}", value)
        if kind is int and value is not None and abs(value) > _MAX_INTEGER:
            raise InvalidInput(f"{self._where}{name}: is out of range")
        return value

    def text(self, name: str) -> str:
        """A text of any number of lines, which has to be there."""
        value = self._typed(name, str)
        if value is None:
            raise InvalidInput(f"{self._where}{name}: is missing; text is needed")
        if _NEVER.search(value):
            raise InvalidInput(f"{self._where}{name}: holds characters that are none (NUL or half of a surrogate pair)")
        return str(value)

    def secret(self, name: str) -> str | None:
        """A text that no error shows: a password, a code. None if it is absent. It is not stored as it is."""
        self._asking(name)
        value = self._value.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"{self._where}{name}: this is not text")
        if value is not None and len(value) > _MAX_SECRET:
            raise InvalidInput(f"{self._where}{name}: {len(value)} characters are too many; at most {_MAX_SECRET}")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self._typed(name, list)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value):
            raise InvalidInput(f"{self._where}{name}: a list of texts is needed")
        return tuple(one_line(f"{self._where}{name}[{i}]", item) for i, item in enumerate(value))

    def _asking(self, name: str) -> None:
        if self._declared is not None and name not in self._declared:
            raise LookupError(f"the route's body schema does not declare {name!r}")
        self._asked.add(name)

    def _typed(self, name: str, kind: type[Any]) -> Any:
        self._asking(name)
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidInput(f"{self._where}{name}: {_short(value)} is not {_WORDS[kind]}")
        return value

    def objects(self, name: str) -> list[Body]:
        return [Body(item, f"{self._where}{name}[{i}]") for i, item in enumerate(self.get(name, list) or [])]

    def object(self, name: str) -> Body | None:
        value = self.get(name, dict)
        return None if value is None else Body(value, f"{self._where}{name}")

    def done(self) -> None:
        self._refuse_others(self._asked)

    def _refuse_others(self, known: Iterable[str]) -> None:
        unknown = sorted(set(self._value).difference(known))
        if unknown:
            accepted = ", ".join(sorted(known))
            name = unknown[0] if re.fullmatch(r"[\w.-]{1,80}", unknown[0]) else _short(unknown[0])
            raise InvalidInput(f"{self._where}{name}: unknown key; accepted are {accepted or 'none'}")


def one_line(name: str, value: str) -> str:
    """Returns ``value``; raises ``InvalidInput`` if it is long, or holds what a line of text does not."""
    if len(value) > _MAX_LINE:
        raise InvalidInput(f"{name}: {len(value)} characters are too many; at most {_MAX_LINE}")
    if _CONTROL.search(value):
        raise InvalidInput(f"{name}: {_short(value)} holds control characters")
    return value


def _short(value: Any) -> str:
    """For error sentences. Only texts and numbers are shown, as the others may hold anything."""
    if isinstance(value, str):
        return ascii(value[:80]) if _CONTROL.search(value) else repr(value[:80])
    return str(value)[:80] if isinstance(value, (int, float)) else f"a value of type {type(value).__name__}"


def _folded(value: dict[str, Any], declared: frozenset[str]) -> dict[str, Any]:
    """``{"Name": …}`` is ``name`` to the existing controller, whose callers send it so (accounts-profiles.md 4.3)."""
    return _object([(key if key in declared or key.lower() not in declared else key.lower(), v) for key, v in value.items()])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise InvalidInput(f"{_short(key)}: stands twice in one object")
        value[key] = item
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_LENIENT = json.JSONDecoder()
_NAMED = re.compile(rb'([a-z_]+)"?[ \t\r\n]*[:=]')
"""What a text that is no JSON seems to give a value to: the rest of an object, a form."""


def read_body(request: falcon.Request, declared: frozenset[str] | None = None, *, most: int = MOST_BODY_BYTES) -> Body:
    """The JSON object of a request; an absent body, and null, are an empty object.

    Args:
        request: whose body is read.
        declared: the keys that it may have; None: whoever reads it says ``Body.done``.
        most: bytes.
    """
    raw = _read(request, most)
    value = _first_value(raw) if raw else None
    return Body({} if value is None else value, declared=declared)


def skim_body(request: falcon.Request, *, most: int) -> frozenset[str]:
    """What the body of a request that takes none gives values to, in small letters, whatever it is written in. Raises
    ``TooLarge``.
    """
    raw = _read(request, most)
    if not raw:
        return frozenset()
    try:
        value = _first_value(raw, _LENIENT)
    except InvalidInput:
        return frozenset(name.decode() for name in _NAMED.findall(raw.lower()))
    return frozenset(key.lower() for key in value) if isinstance(value, dict) else frozenset()


def _read(request: falcon.Request, most: int) -> bytes:
    length = request.content_length or 0
    if length > most:
        raise TooLarge(f"body: {length} bytes are too many; at most {most}")
    raw: bytes = request.bounded_stream.read(most + 1)
    if len(raw) > most:  # sent in chunks, so without a length
        raise TooLarge(f"body: more than {most} bytes are too many")
    return raw


def _first_value(raw: bytes, decoder: json.JSONDecoder = _DECODER) -> Any:
    """The JSON value that the bytes begin with; what follows goes unheeded, whatever it is (management-plane.md 3.1)."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    encoding = json.detect_encoding(raw)
    try:
        try:
            text = raw.decode(encoding, "surrogatepass")
        except UnicodeDecodeError as error:
            text = raw[: error.start].decode(encoding, "surrogatepass")
        return decoder.raw_decode(text.lstrip(" \t\r\n"))[0]
    except (ValueError, RecursionError):
        raise InvalidInput("body: this is not JSON") from None


@contextlib.contextmanager
def naming(field: str) -> Iterator[None]:
    """What a body names and is not there is a bad body (400), not an address with nothing behind it (404)."""
    try:
        yield
    except NotFound as error:
        raise InvalidInput(f"{field}: {error}", remedy=error.remedy) from None


def integer(
    query: Mapping[str, Any], name: str, default: int | None, *, low: int = 0, high: int = _MAX_INTEGER
) -> int | None:
    """A whole number of the query string."""
    text = query.get(name)
    if text is None:
        return default
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
        raise InvalidInput(f"{name}: {_short(text)} is not a whole number from {low} to {high}")
    return int(text)


def word(query: Mapping[str, Any], name: str) -> str | None:
    """A text of the query string; None if it is absent."""
    value = query.get(name)
    if isinstance(value, list):
        raise InvalidInput(f"{name}: stands {counted(len(value), 'time')}")
    return None if value is None else one_line(name, value)


def instant(query: Mapping[str, Any], name: str) -> int | None:
    """An RFC 3339 time of the query string, as epoch microseconds; None if it is absent."""
    text = word(query, name)
    if text is None:
        return None
    try:
        plain = _INSTANT.fullmatch(text) and text[:11].upper() + text[11:].upper().replace(" ", "+")
        at = dt.datetime.fromisoformat(plain or "").astimezone(dt.UTC)  # of the first and the last day, not all are in UTC
        return (at - _EPOCH) // dt.timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{name}: {_short(text)} is not an RFC 3339 time, like 2026-01-02T03:04:05Z or 2026-01-02T03:04:05.5+01:00"
        ) from None


def policy(body: Body | None) -> NetworkPolicy | None:
    """``{forwarding, masquerade, isolation}``; what is left out takes the default."""
    if body is None:
        return None
    default = NetworkPolicy()
    found = NetworkPolicy(
        forwarding=_either(body.get("forwarding", bool), default.forwarding),
        masquerade=_either(body.get("masquerade", bool), default.masquerade),
        isolation=_either(body.get("isolation", bool), default.isolation),
    )
    body.done()
    return found


def policy_change(body: Body, present: NetworkPolicy) -> NetworkPolicy | None:
    """``forwarding``, ``masquerade``, ``isolation`` as keys of the body itself: ``present`` with what is given of them."""
    given = {name: body.get(name, bool) for name in ("forwarding", "masquerade", "isolation")}
    changed = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(present, **changed) if changed else None


def _either(value: bool | None, default: bool) -> bool:  # noqa: FBT001
    return default if value is None else value


def peer_change(
    body: Body,
) -> tuple[tuple[User, ...], tuple[Device, ...], tuple[Peer, ...], tuple[tuple[str, Protocol, str], ...]]:
    """``{users, devices, add, remove}`` of a change of peers."""
    users = tuple(_user(b) for b in body.objects("users"))
    devices = tuple(_device(b) for b in body.objects("devices"))
    add = tuple(_peer(b) for b in body.objects("add"))
    remove = tuple(_removal(b) for b in body.objects("remove"))
    body.done()
    return users, devices, add, remove


def _user(body: Body) -> User:
    user = User(body.need("id", str), body.get("name", str) or "", body.get("email", str) or "")
    body.done()
    return user


def _device(body: Body) -> Device:
    device = Device(
        body.need("id", str), body.need("user_id", str), body.get("name", str) or "", body.get("platform", str) or ""
    )
    body.done()
    return device


def _peer(body: Body) -> Peer:
    peer = Peer(
        id=body.need("id", str),
        node_id=body.need("node_id", str),
        device_id=body.need("device_id", str),
        protocol=_protocol(body.get("protocol", str) or "amneziawg"),
        public_key=body.need("public_key", str),
        allowed_ips=body.texts("allowed_ips") or (),
        preshared_key=body.get("preshared_key", str) or "",
        flow=body.get("flow", str) or "",
    )
    body.done()
    return peer


def _removal(body: Body) -> tuple[str, Protocol, str]:
    removal = (
        body.need("node_id", str),
        _protocol(body.get("protocol", str) or "amneziawg"),
        body.need("public_key", str),
    )
    body.done()
    return removal


def _protocol(name: str) -> Protocol:
    match name:
        case "amneziawg":
            return Protocol.AMNEZIAWG
        case "xray-reality":
            return Protocol.XRAY_REALITY
        case _:
            raise InvalidInput(f"protocol: {_short(name)} is not a protocol; amneziawg or xray-reality")
