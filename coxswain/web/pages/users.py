"""People, their devices, and what each device is given."""

from __future__ import annotations

import datetime as dt
from typing import Any

from coxswain.api.call import Call
from coxswain.errors import NotFound
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment, page, row_keys, shortest_password
from coxswain.web.pages.alerts import alerts_about
from coxswain.web.pages.profiles import profiles_of
from coxswain.web.pages.sessions import recent_sessions

__all__ = ["PAGES"]

_PAGE = 100
_DEVICES = 50
_INVITES = 10


def _users(call: Call) -> dict[str, Any]:
    after = call.word("after") or ""
    found = ask(call, "/api/users", limit=_PAGE, after=after)
    rows = {"users": found.value, "after": found.after, "query": {"after": after}}
    return rows | {"shortest_password": shortest_password(call)}


def _user_rows(call: Call) -> dict[str, Any]:
    keys = row_keys(call)
    if keys is None:
        return _users(call)
    rows = []
    for key in keys:
        try:
            rows.append(ask(call, f"/api/users/{key}").value)
        except NotFound:
            continue  # it was removed; its row goes as well
    return {"users": rows}


def _devices(call: Call) -> dict[str, Any]:
    after = call.word("after") or ""
    found = ask(call, f"/api/users/{call.path['key']}/devices", limit=_DEVICES, after=after)
    return {"devices": found.value, "after": found.after, "query": {"after": after}}


def _user_head(call: Call) -> dict[str, Any]:
    return {"user": ask(call, f"/api/users/{call.path['key']}").value}


def _user(call: Call) -> dict[str, Any]:
    found = _user_head(call)
    around = {"title": found["user"]["name"], "here": "/users"} | alerts_about(call, user=found["user"]["id"])
    return found | around | _devices(call) | _invites(call) | _user_sessions(call)


def _invites(call: Call) -> dict[str, Any]:
    """The last few, the newest first. What was revoked or used is told from what only became too old."""
    found = ask(call, f"/api/users/{call.path['key']}/invites", limit=_INVITES).value
    now = dt.datetime.now(dt.UTC)
    rows = [invite | {"state": _state_of(invite, now)} for invite in found]
    return {"invites": rows, "invite_names": names_of(call, rows, "device_id", "used_by_device_id")}


def _state_of(invite: dict[str, Any], now: dt.datetime) -> str:
    if invite["used_at"]:
        return "used"
    if invite["revoked_at"]:
        return "revoked"
    return "expired" if dt.datetime.fromisoformat(invite["expires_at"]) <= now else "valid"


def _user_sessions(call: Call) -> dict[str, Any]:
    return recent_sessions(call, user=call.path["key"])


def _facts(call: Call) -> dict[str, Any]:
    return {"d": ask(call, f"/api/devices/{call.path['key']}").value}


def _device_head(call: Call) -> dict[str, Any]:
    found = _facts(call)
    return found | {"user": ask(call, f"/api/users/{found['d']['user_id']}").value}


def _device_profiles(call: Call) -> dict[str, Any]:
    return _facts(call) | profiles_of(call, device=call.path["key"])


def _device_sessions(call: Call) -> dict[str, Any]:
    return recent_sessions(call, device=call.path["key"])


def _binding(call: Call) -> dict[str, Any]:
    paths = ask(call, "/api/paths").value
    found = {"paths": paths, "names": {path["id"]: path["name"] for path in paths}}
    try:
        return found | {"binding": ask(call, f"/api/devices/{call.path['key']}/bind").value}
    except NotFound:
        return found | {"binding": None}


def _binding_fragment(call: Call) -> dict[str, Any]:
    return _facts(call) | _binding(call)


def _device(call: Call) -> dict[str, Any]:
    found = _device_head(call)
    device = found["d"]
    profiles = profiles_of(call, device=device["id"])
    sessions = _device_sessions(call) | alerts_about(call, device=device["id"])
    binding = _binding(call)
    names = profiles["names"] | binding["names"] | names_of(call, [device], "id")
    context = {"title": device["name"], "here": "/users"}
    return found | profiles | sessions | binding | context | {"names": names}


PAGES = (
    page("/users", "users.html", _users, title="Users and devices", query=("after",)),
    page("/users/{key}", "user.html", _user, title="User", query=("after",)),
    page("/devices/{key}", "device.html", _device, title="Device"),
    fragment("/ui/rows/users", "_user_rows.html", _user_rows, query=("after",)),
    fragment("/ui/fragments/users/{key}/head", "_user_head.html", _user_head, query=("after",)),
    fragment("/ui/fragments/users/{key}/devices", "_devices.html", _devices, query=("after",)),
    fragment("/ui/fragments/users/{key}/invites", "_invites.html", _invites, query=("after",)),
    fragment("/ui/fragments/users/{key}/sessions", "_session_table.html", _user_sessions, query=("after",)),
    fragment("/ui/fragments/devices/{key}/head", "_device_head.html", _device_head),
    fragment("/ui/fragments/devices/{key}", "_device_facts.html", _facts),
    fragment("/ui/fragments/devices/{key}/profiles", "_profiles.html", _device_profiles),
    fragment("/ui/fragments/devices/{key}/path", "_binding.html", _binding_fragment),
    fragment("/ui/fragments/devices/{key}/sessions", "_session_table.html", _device_sessions),
)
