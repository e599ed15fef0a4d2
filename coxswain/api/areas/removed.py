"""What users, devices and nodes were called that were removed: history has their ids."""

from __future__ import annotations

from typing import Any, get_args

from coxswain.api.bodies import one_line
from coxswain.api.call import Call
from coxswain.api.paging import search
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import stamp
from coxswain.errors import InvalidInput
from coxswain.messages.names import ForgetName, Kind, ListRemoved, Named
from coxswain.model import MASKED

__all__ = ["ROUTES"]

_KINDS: tuple[Kind, ...] = get_args(Kind)
_MOST_IDS = 20

REMOVED = shape(
    "Removed",
    obj(
        {
            "id": TEXT,
            "kind": choice(*_KINDS),
            "name": TEXT,
            "user_id": nullable(TEXT),
            "user_name": nullable(TEXT),
            "removed_at": STAMP,
            "removed_by": TEXT,
        }
    ),
)
FORGOTTEN = shape("ForgottenNames", obj({"forgotten": INT}))


def _list(call: Call) -> Any:
    ids = call.word("ids")
    if ids is not None:
        return _some(call, ids.split(","))
    limit, kind = call.limit(), call.word("kind") or ""
    if kind and kind not in _KINDS:
        raise InvalidInput(f"kind: {kind[:40]!r} is none of {', '.join(_KINDS)}")
    query = ListRemoved(kind, call.wanted(), limit + 1, call.word("after") or "", by_actor=call.sees_contacts)
    found: list[Named] = call.ask("session_archive", query)
    page = found[:limit]
    return Reply(_views(call, page), after=page[-1].id if len(found) > limit else None)


def _some(call: Call, ids: list[str]) -> Any:
    if len(ids) > _MOST_IDS:
        raise InvalidInput(f"ids: {len(ids)} of them; it takes at most {_MOST_IDS}")
    names = call.names(ids)
    return _views(call, [names[each] for each in sorted(names) if names[each].removed_at])


def _views(call: Call, found: list[Named]) -> list[dict[str, Any]]:
    """Who did what is in the audit log, which is for admins, and so is who removed it."""
    owners = call.names(each.user_id for each in found)
    return [
        {
            "id": each.id,
            "kind": each.kind,
            "name": each.name,
            "user_id": each.user_id or None,
            "user_name": owners[each.user_id].name if each.user_id in owners else None,
            "removed_at": stamp(each.removed_at),
            "removed_by": each.removed_by if call.sees_contacts else MASKED,
        }
        for each in found
    ]


def _forget(call: Call) -> Any:
    return {"forgotten": call.change("fleet", ForgetName(call.caller, one_line("id", call.path["id"])))}


ROUTES = (
    Route(
        "GET", "/api/removed", Scope.READONLY,
        "Names of users, devices and nodes that were removed, the last ones first.", _list,
        returns=array(REMOVED), also=(404,),
        query=(
            Param("kind", "only users, devices or nodes", choice(*_KINDS)),
            search("the name or, for scope admin, of who removed it"),
            Param(
                "ids",
                f"only those with these ids, at most {_MOST_IDS} with commas between them; all of them at once",
                empty_counts=True,  # no ids are not all of them
            ),
            Param("after", "the cursor of the page before: an id"),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
        ),
    ),
    Route(
        "DELETE", "/api/removed/{id}", Scope.ADMIN,
        "Forgets the name of what was removed, and of a user those of its devices. The audit log keeps what it has.",
        _forget, "removed.forget", "removed", FORGOTTEN, also=(404,),
    ),
)  # fmt: skip
