"""Signing in: the one page that nobody has to be signed in for."""

from __future__ import annotations

from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.web.page import HTML
from coxswain.web.refusal import safe_next
from coxswain.web.render import render

__all__ = ["PAGES"]


def _show(call: Call) -> Reply:
    return Reply(raw=render("login.html", {"next": safe_next(call.word("next"))}), media_type=HTML)


PAGES = (
    Route(
        "GET", "/login", Scope.NONE, "Page: sign in.", _show, query=(Param("next", "where to go then"),), media_type=HTML
    ),
)  # fmt: skip
