"""The configuration in force, what of the file waits for the next start, and reading it again."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Route, Scope
from coxswain.api.schema import STAMP, TEXT, array, nullable, obj, shape
from coxswain.config.live import Change, Reloaded
from coxswain.messages import configuration as m

__all__ = ["ROUTES"]

_ANY = {"description": "text, a number, true or false, or a list of texts; a secret is masked"}
_CHANGE = obj({"key": TEXT, "in_force": _ANY, "in_file": _ANY, "where": TEXT})
_DIFFERENCE = {"reloadable": array(_CHANGE), "pending": array(_CHANGE)}
CONFIG = shape(
    "Config",
    obj(
        {
            "path": TEXT,
            "values": {"type": "object", "additionalProperties": obj({"value": _ANY, "from": TEXT})},
            "problem": TEXT,
            "warnings": array(TEXT),
            "loaded_at": nullable(STAMP),
            **_DIFFERENCE,
        }
    ),
)
RELOADED = shape("ConfigReloaded", obj({"taken": array(_CHANGE), "pending": array(_CHANGE)}))


def _show(call: Call) -> Any:
    view: m.ConfigView = call.ask("configuration", m.DescribeConfig())
    return {
        "path": view.path,
        "values": {name: {"value": value, "from": where} for name, (value, where) in view.values.items()},
        "reloadable": _changes(view.difference.taken),
        "pending": _changes(view.difference.pending),
        "problem": view.problem,
        "warnings": list(view.warnings),
        "loaded_at": views.stamp(view.loaded_at),
    }


def _reload(call: Call) -> Any:
    done: Reloaded = call.change("configuration", m.ReloadConfig(call.caller))
    return {"taken": _changes(done.taken), "pending": _changes(done.pending)}


def _changes(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    return [{"key": c.name, "in_force": c.in_force, "in_file": c.in_file, "where": c.where} for c in changes]


ROUTES = (
    Route("GET", "/api/config", Scope.ADMIN, "What is in force, and what waits for the next start.", _show, returns=CONFIG),
    Route(
        "POST", "/api/config/reload", Scope.ADMIN, "Reads the configuration file again.", _reload,
        audit="config.reload", target="config", returns=RELOADED, body=obj(),
    ),
)  # fmt: skip
