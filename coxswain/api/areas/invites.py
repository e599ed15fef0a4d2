"""Invitations: join links with their QR codes (accounts-profiles.md 5.3, management-plane.md 3.2)."""

from __future__ import annotations

import base64
from typing import Any

from coxswain.accounts.invites import LONGEST_TTL_S, SHORTEST_TTL_S, qr_png
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import STAMP, TEXT, array, limited, nullable, obj, shape
from coxswain.api.views import stamp
from coxswain.messages import enrolment as m

__all__ = ["INVITE", "ROUTES"]

_KEYS = {
    "id": TEXT,
    "user_id": TEXT,
    "device_id": nullable(TEXT),
    "created_at": nullable(STAMP),
    "expires_at": nullable(STAMP),
    "used_at": nullable(STAMP),
    "used_by_device_id": nullable(TEXT),
    "revoked_at": nullable(STAMP),
}
TICKET = shape("InviteTicket", obj(_KEYS))
INVITE = shape("Invite", obj({"url": TEXT, "qr_png_base64": TEXT, "expires_at": STAMP, "ticket_id": TEXT}))


def ticket(value: m.Ticket) -> dict[str, Any]:
    return {
        "id": value.id,
        "user_id": value.user_id,
        "device_id": value.device_id or None,
        "created_at": stamp(value.created_at),
        "expires_at": stamp(value.expires_at),
        "used_at": stamp(value.used_at),
        "used_by_device_id": value.used_by_device_id or None,
        "revoked_at": stamp(value.revoked_at),
    }


def _invite(call: Call) -> Any:
    body = call.body
    message = m.IssueInvite(
        call.caller,
        call.path["key"],
        body.get("relay", str) or "",
        body.get("ttl_seconds", int) or 0,
        body.get("device_id", str) or "",
    )
    made: m.Invite = call.change("accounts", message)
    answer = {
        "url": made.url,
        "qr_png_base64": base64.b64encode(qr_png(made.url)).decode("ascii"),
        "expires_at": stamp(made.ticket.expires_at, "seconds"),
        "ticket_id": made.ticket.id,
    }
    return Reply(answer, headers=(("Cache-Control", "no-store"),))


def _list(call: Call) -> Any:
    limit = call.limit(default=100, high=1_000)
    found = call.ask("accounts", m.ListInvites(call.user().id, call.word("after") or "", limit + 1))
    page = [ticket(value) for value in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


def _revoke(call: Call) -> None:
    call.change("accounts", m.RevokeInvite(call.caller, call.path["key"]))


_ADMIN, _READ = Scope.ADMIN, Scope.READONLY

ROUTES = (
    Route(
        "POST", "/api/users/{key}/invite", _ADMIN, "Makes a join link for a user, which is good once.", _invite,
        "enroll.invite", "ticket", INVITE, 201, (404, 409),
        body=obj(
            {},
            {
                "ttl_seconds": nullable(limited(SHORTEST_TTL_S, LONGEST_TTL_S)),
                "device_id": nullable(TEXT), "relay": nullable(TEXT),
            },
        ),
    ),
    Route(
        "GET", "/api/users/{key}/invites", _READ, "A user's invites, newest first.", _list, returns=array(TICKET),
        also=(404,),
        query=(
            Param("after", "the cursor of the page before: an id"),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
        ),
    ),
    Route(
        "DELETE", "/api/invites/{key}", _ADMIN, "Revokes an invite: its link is of no use any more.", _revoke,
        "enroll.revoke", "ticket", status=204, also=(404, 409),
    ),
)  # fmt: skip
