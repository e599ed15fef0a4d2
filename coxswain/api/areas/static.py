"""Files for browsers: styles, scripts, icons."""

from __future__ import annotations

from functools import cache
from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Reply, Route, Scope
from coxswain.api.static import StaticFiles
from coxswain.errors import NotFound

__all__ = ["ROUTES"]


@cache
def _files() -> StaticFiles:
    return StaticFiles.of_package()


def _file(call: Call) -> Any:
    file = _files().get(call.path["path"])
    if file is None:
        raise NotFound(f"there is nothing at {call.request.path[:200]!a}")
    headers = (("ETag", file.etag), ("Cache-Control", "no-cache"))
    if file.etag in (call.request.get_header("If-None-Match") or ""):
        return Reply(status=304, headers=headers)
    return Reply(raw=file.content, media_type=file.media_type, headers=headers)


ROUTES = (
    Route(
        "GET", "/static/{path:path}", Scope.NONE, "A file for browsers.", _file, media_type="*/*", also=(304, 403, 404),
    ),
)  # fmt: skip
