"""Makes ``docs/api.md`` from the route table; see ``tools/api-docs``."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from coxswain.api.route import Route
from coxswain.api.schema import COMPONENTS
from coxswain.api.table import ROUTES

PAGE = Path(__file__).resolve().parent.parent / "docs/api.md"

HEAD = """\
# The REST API

<!-- made by tools/api-docs from the route table in coxswain/api: change it there -->

JSON over HTTP, through more than one door. On the control socket (`control.sock` in the state directory, mode 0600)
whoever may open it may do everything, and the kernel says who they are, which is the `actor` in the audit log.

```console
$ curl --unix-socket state/control.sock http://x/api/status
$ curl --unix-socket state/control.sock http://x/api/nodes -d '{"name": "ams-1", "control_addr": "203.0.113.7"}'
```

- **Times** are RFC 3339 in UTC; `null` is never, or unknown. **Ids** are `<prefix>_` and 16 characters. `{key}` is a name
  or an id.
- **Bodies** are one JSON object, read strictly: an unknown or repeated key, a wrong type, a control character in a name
  is a 400 that names the field. Keys of the object itself may come in any case of their
  letters; what follows the object goes unheeded, and so
  does the body of a route that takes none. What a script with a token calls it (`Content-Type`) does not matter.
- **Query**: a parameter that means nothing (`?_=1700000000`, `pretty=1`) goes unheeded, and the header
  `Cox-Ignored-Parameters` names it. What looks meant is a 400: a near miss of what the route takes (`stauts`), a parameter
  of another route, a credential, a repeated filter. An empty filter of a `GET` (`?since=&until=`) is an absent one.
- **`HEAD`** is `GET` without the body, on every route whose answer ends. A trailing slash does not matter.
- **Lists** are JSON arrays. `limit` says how long a page may be; where there is a next one, the header `Link: <…>;
  rel="next"` has its address.
- **Changes** are answered when they are durable and their audit record is in the log. Where a `version` is given, a
  record that somebody else changed since is left alone (409, with its `current` version).
- **Operations**: what takes several steps is answered when it is over; with the header `Prefer: respond-async` at once, with
  202, the operation, and its address in `Location`. It goes on by itself either way.
- **Errors** are RFC 9457 problem documents: `type`, `title` (the kind of error), `status`, `detail`; and `error` (the
  sentence again), `exit_code` ([of `cox`](cli.md#exit-codes)), and, where there is one, `remedy`: what to do next.
- **Scopes** go from `none` (no credential is asked for) over `readonly` and `monitor` to `admin`; each includes those
  before it.

| status | when |
|---|---|
| 400 | input that cannot be accepted |
| 401 | no credential, or one that is not good (any more) |
| 403 | refused |
| 404 | no such thing |
| 409 | it conflicts with what is there |
| 413 | the body is too large |
| 415 | the body is not `application/json` |
| 429 | too many attempts; `Retry-After` says when to try again |
| 500 | a failure of the daemon; its log tells more |
| 502 | a node failed |
| 503, 504 | a part of the daemon is not available, or not in time |

At most ten requests at once may wait for nodes; the eleventh is a 503.

The same as an OpenAPI 3.1 document: `GET /api/openapi.json`.

## Routes
"""


def page() -> str:
    parts = [HEAD]
    for area, routes in groupby(ROUTES, key=lambda route: route.handler.__module__.rpartition(".")[2]):
        parts.append(f"\n### {area.replace('_', ' ').capitalize()}\n\n")
        parts.append("| route | scope | takes | answers | audit |\n|---|---|---|---|---|\n")
        parts += [row(route) for route in routes]
    parts.append("\n## Shapes\n\n`?` marks a key that may be absent.\n")
    for name, schema in sorted(COMPONENTS.items()):
        parts.append(f"\n**{name}**: {keys(schema)}\n")
    return "".join(parts)


def row(route: Route) -> str:
    takes = []
    if route.body:
        takes.append(keys(route.body))
    if route.query:
        takes.append("; ".join(f"`?{param.name}=` {param.summary}" for param in route.query))
    gives = f"{route.status}"
    if route.returns:
        gives += f": {kind(route.returns)}"
    elif route.media_type != "application/json":
        gives += f": {route.media_type}"
    answers = f"{route.summary} {gives}"
    audit = f"`{route.audit}`" if route.audit else ""
    return f"| {route.method} `{route.path}` | {route.scope.word} | {'; '.join(takes)} | {answers} | {audit} |\n".replace(
        "||", "\\|"
    )


def keys(schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        return kind(schema)
    required = schema.get("required", ())
    return ", ".join(
        f"`{name}`{'' if name in required else '?'}{detail(value)}" for name, value in schema["properties"].items()
    )


def detail(schema: dict[str, Any]) -> str:
    """What is worth saying of a key: not that it is text or a number."""
    said = kind(schema)
    note = schema.get("description", "")
    more = ", ".join(part for part in ("" if said in ("text", "number", "true or false") else said, note) if part)
    return f" ({more})" if more else ""


def kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "oneOf" in schema:
        return " or ".join(kind(part) for part in schema["oneOf"])
    if "items" in schema:
        return f"list of {kind(schema['items'])}"
    if "properties" in schema:
        return f"object: {keys(schema)}"
    if "additionalProperties" in schema and schema["additionalProperties"] is not False:
        return "object"
    found = schema.get("type", "any")
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false", "null": "null"}
    kinds = [found] if isinstance(found, str) else found
    return " or ".join("time" if schema.get("format") == "date-time" and k == "string" else names.get(k, k) for k in kinds)


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/api.md is not what the route table in coxswain/api says; run tools/api-docs")
    else:
        print("up to date")
