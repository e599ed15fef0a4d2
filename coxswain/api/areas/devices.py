"""Devices of users: what they are, what they are given, and taking it from them (management-plane.md 3.2, 3.3)."""

from __future__ import annotations

from typing import Any

from coxswain.api.areas.arrival import ARRIVAL, GIVEN, WAIT, arrived, given
from coxswain.api.call import ALL, Call
from coxswain.api.paging import LIMIT, search
from coxswain.api.passwords import NEW_PASSWORD, new_password, sealed_under
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import stamp
from coxswain.errors import InvalidInput, NotFound
from coxswain.ids import ID_PATTERN
from coxswain.messages import accounts, enrolment
from coxswain.model import Device, DeviceStatus
from coxswain.provisioning.document import tunnel_ip_v6

__all__ = ["DEVICE", "ROUTES", "device"]

_KEYS = {
    "id": TEXT,
    "user_id": TEXT,
    "name": TEXT,
    "platform": TEXT,
    "status": choice(*DeviceStatus),
    "version": INT,
    "created_at": nullable(STAMP),
    "provisioned": BOOL,
}
_CREDENTIAL = obj({"profile_id": TEXT, "tunnel_ip": TEXT, "tunnel_ip_v6": TEXT, "wg_public_key": TEXT})
DEVICE = shape("Device", obj(_KEYS))
_IDENTITY = obj(
    {
        "serial": TEXT,
        "not_after": STAMP,
        "enrolled_at": STAMP,
        "own_key": BOOL,
        "last_sync_at": nullable(STAMP),
        "last_sync_revision": nullable(INT),
        "last_sync_relay": nullable(TEXT),
        "stale": BOOL,
    }
)
DEVICE_DETAIL = shape(
    "DeviceDetail",
    obj(
        _KEYS
        | {"profile_revision": INT, "peer_count": INT, "credentials": array(_CREDENTIAL), "identity": nullable(_IDENTITY)}
    ),
)
DEVICE_CHANGE = shape("DeviceChange", obj(_KEYS | ARRIVAL))
PROVISION_RESULT = shape(
    "ProvisionResult",
    obj({"device_id": TEXT, "tunnel_ip": TEXT, "tunnel_ip_v6": TEXT, "peer_count": INT, "profile_revision": INT} | GIVEN),
)
EXPORTED = shape(
    "ExportedProfile", obj({"name": TEXT, "text": TEXT}, {"revision": INT, "also": array(TEXT), "notes": array(TEXT)})
)
ISSUED = shape(
    "IssuedDevice",
    obj(
        {
            "device_id": TEXT, "user_id": TEXT, "relay": TEXT, "text": TEXT, "tunnel_ip": TEXT, "tunnel_ip_v6": TEXT,
            "peer_count": INT, "profile_revision": INT,
        } | ARRIVAL
    ),
)  # fmt: skip

_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))
_AFTER = Param("after", "the cursor of the page before: an id")
_USER = Param("user", "id or e-mail address of the user")


def device(value: Device) -> dict[str, Any]:
    return {
        "id": value.id,
        "user_id": value.user_id,
        "name": value.name,
        "platform": value.platform,
        "status": value.status,
        "version": value.version,
        "created_at": stamp(value.created_at),
        "provisioned": value.provisioned,
    }


def _list(call: Call) -> Any:
    key = call.word("user")
    return _page(call, call.user(key).id if key else "")


def _of_user(call: Call) -> Any:
    try:
        return _page(call, call.user().id)
    except NotFound:
        if not ID_PATTERN.match(call.path["key"]):
            raise
        return []  # a user that is gone has none (accounts-profiles.md 8); an address that is mistyped is an error


def _page(call: Call, user_id: str) -> Reply:
    limit = call.limit(ALL, ALL)
    found = call.ask("fleet", accounts.ListDevices(user_id, call.word("after") or "", limit + 1, call.wanted()))
    page = [device(value) for value in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _add(call: Call) -> Any:
    owner = call.user()
    body = call.body
    platform, unique = body.get("platform", str) or "", bool(body.get("unique", bool))
    message = accounts.AddDevice(call.caller, owner.id, body.need("name", str), platform, unique)
    return device(call.change("fleet", message).value)


def _show(call: Call) -> Any:
    found, credentials, peers = call.ask("fleet", accounts.GetDevice(call.path["key"]))
    return device(found) | {
        "profile_revision": found.profile_revision,
        "peer_count": len(peers),
        "credentials": [
            {
                "profile_id": c.profile_id,
                "tunnel_ip": c.address,
                "tunnel_ip_v6": tunnel_ip_v6(c, peers),
                "wg_public_key": c.wg_public_key,
            }
            for c in credentials
        ],
        "identity": _identity(call.ask("fleet", enrolment.GetIdentity(found.id)), found.profile_revision),
    }


def _identity(record: enrolment.DeviceRecord | None, revision: int) -> dict[str, Any] | None:
    """How it is known to AccountSync, and what it has fetched; null: it never enrolled. ``stale``: something in it is
    another since (accounts-profiles.md 10.1, 6).
    """
    if record is None:
        return None
    return {
        "serial": record.serial,
        "not_after": stamp(record.not_after),
        "enrolled_at": stamp(record.enrolled_at),
        "own_key": bool(record.encryption_key),
        "last_sync_at": stamp(record.last_sync_at),
        "last_sync_revision": record.last_sync_revision,
        "last_sync_relay": record.last_sync_relay or None,
        "stale": record.last_sync_revision is not None and record.last_sync_revision < revision,
    }


def _edit(call: Call) -> Any:
    body = call.body
    message = accounts.EditDevice(
        call.caller, call.path["key"], body.need("version", int), body.get("name", str), body.get("platform", str)
    )
    return device(call.change("fleet", message).value)


def _suspend(call: Call) -> Any:
    return _set_status(call, DeviceStatus.SUSPENDED)


def _resume(call: Call) -> Any:
    return _set_status(call, DeviceStatus.ACTIVE)


def _revoke(call: Call) -> Any:
    return _set_status(call, DeviceStatus.REVOKED)


def _set_status(call: Call, status: DeviceStatus) -> Any:
    message = accounts.SetDeviceStatus(call.caller, call.path["key"], status, call.body.get("version", int))
    change = call.change("fleet", message)
    return device(change.value) | arrived(call, change.revisions)


def _remove(call: Call) -> None:
    change = call.change("fleet", accounts.RemoveDevice(call.caller, call.path["key"], call.number("version")))
    arrived(call, change.revisions)


def _provision(call: Call) -> Any:
    rotate, version = call.body.get("rotate", bool) or False, call.body.get("version", int)
    change = call.change("fleet", accounts.ProvisionDevice(call.caller, call.path["key"], rotate, version))
    now = change.given[0]
    return {
        "device_id": now.device_id,
        "tunnel_ip": now.tunnel_ip,
        "tunnel_ip_v6": now.tunnel_ip_v6,
        "peer_count": now.peer_count,
        "profile_revision": now.profile_revision,
    } | given(call, change)


def _export(call: Call) -> Any:
    body = call.body
    kind = accounts.ExportFormat(_one_of(body.get("format", str) or "conf"))
    password = new_password(call)
    if password is not None and kind is not accounts.ExportFormat.PHAROS:
        raise InvalidInput(f"password: a file of the format {kind} has none", remedy="Take the format pharos.")
    message = accounts.ExportProfile(
        call.caller, call.path["key"], body.get("profile", str) or "", body.get("node", str) or "", kind
    )
    exported = call.change("fleet", message)
    more: dict[str, Any] = {"revision": exported.revision} if exported.revision else {}
    more |= {"also": list(exported.also)} if exported.also else {}
    more |= {"notes": list(exported.notes)} if exported.notes else {}
    text = exported.text if password is None else sealed_under(password, exported.text)
    return Reply({"name": exported.name, "text": text} | more, headers=(("Cache-Control", "no-store"),))


def _issue(call: Call) -> Any:
    body = call.body
    message = enrolment.IssueIdentity(
        call.caller,
        call.path["key"],
        body.need("name", str),
        body.get("platform", str) or "caravel",
        body.get("path_id", str) or "",
        body.get("relay", str) or "",
        body.get("server_name", str) or "",
    )
    made: enrolment.IssuedIdentity = call.change("accounts", message)
    now = made.claimed
    answer = {
        "device_id": now.device_id,
        "user_id": now.user_id,
        "relay": made.relay,
        "text": made.text,
        "tunnel_ip": now.tunnel_ip,
        "tunnel_ip_v6": now.tunnel_ip_v6,
        "peer_count": now.peer_count,
        "profile_revision": now.profile_revision,
    } | arrived(call, now.revisions)
    return Reply(answer, headers=(("Cache-Control", "no-store"),))


def _one_of(text: str) -> str:
    if text not in set(accounts.ExportFormat):
        raise InvalidInput(f"format: {text[:40]!r} is not one of {', '.join(accounts.ExportFormat)}")
    return text


_ADMIN, _READ = Scope.ADMIN, Scope.READONLY
_STATUS_BODY = obj({}, {"version": nullable(INT)})
_UNIQUE = BOOL | {"description": "409 if the user has a device of that name that is not revoked"}

ROUTES = (
    Route(
        "GET", "/api/devices", _READ, "All devices, oldest first.", _list, returns=array(DEVICE), also=(404,),
        query=(_USER, search("the name"), _AFTER, LIMIT),
    ),
    Route(
        "GET", "/api/users/{key}/devices", _READ, "A user's devices, oldest first.", _of_user, returns=array(DEVICE),
        also=(404,), query=(search("the name"), _AFTER, LIMIT),
    ),
    Route(
        "POST", "/api/users/{key}/devices", _ADMIN, "Adds a device of a user.", _add, "device.add", "device", DEVICE, 201,
        (404, 409), obj({"name": TEXT}, {"platform": nullable(TEXT), "unique": _UNIQUE}),
    ),
    Route(
        "POST", "/api/users/{key}/devices/issue", _ADMIN, "Makes a device, and a file with all that it needs to sync.",
        _issue, "device.issue", "user", ISSUED, 201, (404, 409), query=(WAIT,),
        body=obj(
            {"name": TEXT},
            {
                "platform": nullable(TEXT), "path_id": nullable(TEXT), "relay": nullable(TEXT),
                "server_name": nullable(TEXT),
            },
        ),
    ),
    Route("GET", "/api/devices/{key}", _READ, "One device, with what it has.", _show, returns=DEVICE_DETAIL, also=(404,)),
    Route(
        "PATCH", "/api/devices/{key}", _ADMIN, "Changes what is given of a device.", _edit, "device.update",
        "device", DEVICE,
        also=(404, 409), body=obj({"version": INT}, {"name": TEXT, "platform": TEXT}),
    ),
    Route(
        "DELETE", "/api/devices/{key}", _ADMIN, "Removes a device, from all nodes.", _remove, "device.rm", "device",
        status=204, also=(404, 409), query=(_VERSION, WAIT),
    ),
    Route(
        "POST", "/api/devices/{key}/suspend", _ADMIN, "Takes a device from all nodes, and keeps its keys.", _suspend,
        "device.suspend", "device", DEVICE_CHANGE, also=(404, 409), body=_STATUS_BODY, query=(WAIT,),
    ),
    Route(
        "POST", "/api/devices/{key}/resume", _ADMIN, "Brings a device back, with the keys it had.", _resume,
        "device.resume", "device", DEVICE_CHANGE, also=(404, 409), body=_STATUS_BODY, query=(WAIT,),
    ),
    Route(
        "POST", "/api/devices/{key}/revoke", _ADMIN, "Takes a device from all nodes and destroys its keys.", _revoke,
        "device.revoke", "device", DEVICE_CHANGE, also=(404, 409), body=_STATUS_BODY, query=(WAIT,),
    ),
    Route(
        "POST", "/api/devices/{key}/provision", _ADMIN, "Makes a device's peers what its profiles say.", _provision,
        "device.provision", "device", PROVISION_RESULT, also=(404, 409),
        body=obj({}, {"rotate": nullable(BOOL), "version": nullable(INT)}),
        query=(WAIT,),
    ),
    Route(
        "POST", "/api/devices/{key}/export", _ADMIN, "Hands out a device's keys as a file for a client.", _export,
        "profile.export", "device", EXPORTED, also=(404, 409),
        body=obj(
            {},
            {
                "profile": nullable(TEXT), "node": nullable(TEXT), "format": choice(*accounts.ExportFormat),
                "password": nullable(NEW_PASSWORD),
            },
        ),
    ),
)  # fmt: skip
