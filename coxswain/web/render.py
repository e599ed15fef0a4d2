"""Templates: where they are, and how values look in them."""

from __future__ import annotations

import datetime as dt
import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from coxswain.clock import rfc3339
from coxswain.web.machine import machine_facts
from coxswain.words import counted, ended

__all__ = ["Gone", "duration", "human_bytes", "in_words", "render", "tone"]

_UNKNOWN = "\N{EN DASH}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

_TONES = {
    "good": {"active", "live", "running", "ok", "done", "applied", "open", "up", "valid", "connected", "listening"},
    "warn": {"pending", "provisioning", "enrolling", "degraded", "backing_off", "connecting", "syncing", "starting",
             "restarting", "suspended", "waiting", "interrupted", "undoing", "warning"},
    "bad": {"error", "unreachable", "failed", "revoked", "hung", "dead", "refused", "crashed", "gave_up",
            "down", "critical"},
    "quiet": {"stopped", "disabled", "expired", "closed", "undone", "cancelled", "idle", "used"},
}  # fmt: skip


class Gone(str):
    """What something was called before it was removed: it has no page any more."""

    __slots__ = ()


def tone(word: str | None) -> str:
    """Which colour a state has; states that nobody knows are information."""
    return next((tone for tone, words in _TONES.items() if word in words), "info")


def human_bytes(count: int | None) -> str:
    """``1.2 GB``, in powers of 1000; unknown is a dash, never 0."""
    if count is None:
        return _UNKNOWN
    size = float(count)
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def duration(seconds: float | None) -> str:
    """``3 d 4 h``, ``12 min``, ``8 s``."""
    if seconds is None:
        return _UNKNOWN
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"


def _time(stamp: str | None, absent: str = "never") -> Markup:
    """An RFC 3339 time; the browser shows how long ago that is."""
    if not stamp:
        return escape(absent)
    return Markup('<time datetime="{}" data-ago class="nowrap">{}</time>').format(stamp, stamp[:19].replace("T", " "))


_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _times(text: str) -> str:
    """A sentence with RFC 3339 times in it, as people write these; one that is nothing else, as ``_time`` shows it."""
    if _STAMP.fullmatch(text):
        return _time(text)
    return _STAMP.sub(lambda stamp: stamp[0][:19].replace("T", " ") + " UTC", text)


_IS_TIME = re.compile("not_after|not_before|.+_(at|until)")
_YEAR_10000 = 253_402_300_800


def _recorded(value: Any, key: str) -> Any:
    """One value of an audit record's detail, as people write it; times are in it as RFC 3339 or as epoch seconds."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float() if _IS_TIME.fullmatch(key) and 0 < value < _YEAR_10000:
            return _time(rfc3339(value))
        case str():
            return _times(value)
    return value


@cache
def _badge(word: str | None) -> Markup:
    text = (word or "unknown").replace("_", " ")
    return Markup('<span class="badge {}">{}</span>').format(tone(word), text)


_OPERATION = re.compile(r"\bop_[a-z2-7]{16}\b")


def _linked(text: str) -> Markup:
    """A sentence in which the operations that it names lead to their pages."""
    found, at = Markup(), 0
    for named in _OPERATION.finditer(text):
        found += escape(text[at : named.start()]) + Markup('<a href="/operations/{0}">{0}</a>').format(named[0])
        at = named.end()
    return found + escape(text[at:])


def _protocol(word: str) -> str:
    return {"amneziawg": "AmneziaWG", "xray-reality": "XRay/REALITY"}.get(word, word)


_KINDS = {
    "server.add": "Take a machine in",
    "node.add": "Set up a node",
    "node.update": "Upgrade a node's agent",
    "node.renew": "Renew a node's certificate",
    "node.rollback": "Put a node's previous agent back",
    "node.guard": "Limit who reaches a node",
    "node.start": "Start a node's agent",
    "node.stop": "Stop a node's agent",
    "node.remove": "Remove a node",
    "relay.add": "Set up a relay",
    "relay.update": "Upgrade a relay",
    "relay.renew": "Renew a relay's certificate",
    "relay.remove": "Remove a relay",
    "rollout": "Upgrade many nodes",
    "path.add": "Build a path",
    "path.provision": "Set a path up again",
    "path.exit": "Have a path leave elsewhere",
    "path.switch": "Move a device's traffic",
    "geoip.update": "Fetch a GeoIP database",
}


def in_words(kind: str) -> str:
    """What an operation of that kind does; the kind itself where nobody has said it."""
    return _KINDS.get(kind, kind)


def _between(opened: str | None, closed: str | None) -> str:
    if not opened:
        return _UNKNOWN
    start = dt.datetime.fromisoformat(opened)
    end = dt.datetime.fromisoformat(closed) if closed else dt.datetime.now(dt.UTC)
    return duration((end - start).total_seconds())


_PAGES = {
    "nod": "/nodes/",
    "dev": "/devices/",
    "usr": "/users/",
    "rly": "/relays/",
    "op": "/operations/",
    "srv": "/servers#",
    "pth": "/paths",
    "cpath": "/relays",
}


def _page_of(key: str) -> str:
    """Where there is more about what has that id; empty: nowhere."""
    kind, _, rest = str(key).partition("_")
    page = _PAGES.get(kind, "") if rest else ""
    return page + key if page.endswith(("/", "#")) else page


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("coxswain.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
    )
    made.filters |= {"bytes": human_bytes, "duration": duration, "time": _time, "badge": _badge, "tone": tone}
    made.tests |= {"gone": lambda name: isinstance(name, Gone)}
    made.filters |= {"protocol": _protocol, "times": _times, "recorded": _recorded, "counted": counted, "in_words": in_words}
    made.filters |= {"ended": ended, "linked": _linked, "machine_facts": machine_facts}
    made.globals |= {"between": _between, "page_of": _page_of}
    return made


def render(template: str, context: Any) -> bytes:
    """Fills a template. Whatever comes from a value is escaped."""
    text: str = _environment().get_template(template).render(context)
    return text.encode()
