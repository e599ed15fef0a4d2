"""Every action of every page, read from the templates, so that no button can be added that no browser test presses.

An action is what the browser does when somebody acts: ``POST /api/nodes/*/push`` of a form or button, ``GET /audit`` of a
filter, ``COPY #secret``, ``CLICK #theme``. A test that carries one out says so with ``@acts(page, action, …)``, and fails
unless the browser did just that on that page (``Recorder``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Request

import coxswain.web

__all__ = ["Action", "Recorder", "acts", "all_actions", "carried_out_by"]

_WEB = Path(coxswain.web.__file__).parent
_TEMPLATES = _WEB / "templates"

EVERYWHERE = "*"
"""The page of what stands around all pages."""

_PAGE = re.compile(r"page\(\s*\"(/[^\"]*)\",\s*\"([\w.]+)\"")
_INCLUDE = re.compile(r"{% (?:include|from) \"([\w.]+)\"")
_BY_API = re.compile(r"data-(?:api|fetch)=\"(\w+) ([^\"]+)\"")
_BY_POST = re.compile(r"data-(?:plan|preview)=\"([^\"]+)\"")
_BY_LOAD = re.compile(r"data-load=\"([^\"]+)\"")
_BY_COPY = re.compile(r"data-copy=\"([^\"]+)\"")
_BY_FILTER = re.compile(r"<form[^>]* method=\"get\" action=\"([^\"]+)\"")
_BY_ID = re.compile(r"<button type=\"button\" id=\"(\w+)\"(?![^>]*data-)")

_REPORT_CLICKS = """addEventListener("click", (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) return void window.acted(`COPY ${copy.dataset.copy}`);
  const button = event.target.closest("button[id]");
  if (button) window.acted(`CLICK #${button.id}`);
}, true)"""


class Action(NamedTuple):
    """``page``: the route's path, or ``EVERYWHERE``."""

    page: str
    what: str


def all_actions() -> set[Action]:
    """What can be done on which page."""
    found = {Action(page, what) for page, template in _pages() for what in _of(_text(template))}
    return found | {Action(EVERYWHERE, what) for what in _of(_text("base.html"))}


def _pages() -> Iterator[tuple[str, str]]:
    yield "/login", "login.html"
    for module in sorted((_WEB / "pages").glob("*.py")):
        yield from _PAGE.findall(module.read_text())


def _text(template: str) -> str:
    """A template with all that it includes, and what it fills in left open."""
    text = (_TEMPLATES / template).read_text()
    included = "".join(_text(name) for name in _INCLUDE.findall(text))
    return re.sub(r"{{.*?}}", "*", text) + included


def _of(text: str) -> Iterator[str]:
    for method, path in _BY_API.findall(text):
        yield f"{method} {_pattern(path)}"
    for path in _BY_POST.findall(text):
        yield f"POST {_pattern(path)}"
    for path in (*_BY_LOAD.findall(text), *_BY_FILTER.findall(text)):
        yield f"GET {_pattern(path)}"
    yield from (f"COPY {selector}" for selector in _BY_COPY.findall(text))
    yield from (f"CLICK #{name}" for name in _BY_ID.findall(text))


def _pattern(path: str) -> str:
    return re.sub(r"{\w+}", "*", re.split("[?#]", path)[0])


def acts(page: str, *what: str) -> pytest.MarkDecorator:
    """Of a test that does these on that page."""
    return pytest.mark.acts(page, *what)


def carried_out_by(marks: Iterable[pytest.Mark]) -> Iterator[Action]:
    """What a test's marks say."""
    for mark in marks:
        if mark.name == "acts":
            yield from (Action(mark.args[0], what) for what in mark.args[1:])


class Recorder:
    """What the browsers of a test did, and on which page."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def watch(self, context: BrowserContext) -> None:
        context.on("request", self._request)
        context.expose_binding("acted", lambda source, what: self._seen.add((urlsplit(source["page"].url).path, what)))
        context.add_init_script(_REPORT_CLICKS)

    def _request(self, request: Request) -> None:
        if not request.service_worker:
            self._seen.add((urlsplit(request.frame.url).path, f"{request.method} {urlsplit(request.url).path}"))

    def did(self, action: Action) -> bool:
        where, what = _regex(re.sub(r"{\w+}", "*", action.page)), _regex(action.what)
        return any(
            what.fullmatch(done) and (action.page == EVERYWHERE or where.fullmatch(page)) for page, done in self._seen
        )


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
